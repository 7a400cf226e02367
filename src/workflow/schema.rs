//! JSON Schema of workflow files, for editors: one document, with the arguments of every tool.
//!
//! It says what can be said without looking at other files. [`super::Resolver`] says the rest.

use serde_json::{Map, Value, json};

use super::types;
use crate::tools::{AnyTool, Catalog};

/// A name in snake case.
const NAME: &str = "^[a-z][a-z0-9_]*$";
/// A duration with its unit.
const DURATION: &str = r"^\s*(\d+\s*[A-Za-z]+\s*)+$";
/// A text with an expression in it.
const EXPRESSION: &str = r"\$\{\{";

/// The schema for these tools and these workflows that are offered as tools.
pub fn schema(catalog: &Catalog, registered: &[&str]) -> Value {
    let tools: Vec<AnyTool> = catalog.iter().collect();
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.meta().name).collect();
    names.extend(registered);
    names.sort_unstable();
    let reads = tools.iter().filter(|tool| !tool.is_write());
    let reads: Vec<&str> = reads.map(|tool| tool.meta().name).collect();
    let writes = tools.iter().filter(|tool| tool.is_write());
    let writes: Vec<&str> = writes.map(|tool| tool.meta().name).collect();
    let mut root = closed(head(), &["version", "name", "steps"]);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("lakeops workflow");
    root["$defs"] = json!({
        "name": { "type": "string", "pattern": NAME },
        "duration": { "type": "string", "pattern": DURATION, "examples": ["90s", "15m", "2d"] },
        "expression": {
            "description": "A Rhai expression, without `${{ }}`.",
            "type": ["string", "boolean", "number"],
        },
        "template": { "type": "string" },
        "target": either_expression(closed(
            json!({ "project": leaf("The project."), "branch": leaf("Its branch."), "database": leaf("The database on it.") }),
            &[],
        )),
        "risk": { "enum": ["low", "medium", "high"] },
        "retry": retry(),
        "param": param(),
        "schedule": schedule(),
        "trigger": trigger(),
        "for_each": for_each(),
        "gate": gate(),
        "wait": wait(&reads),
        "verify": verify(&reads),
        "compensate": with_arguments(closed(json!({ "tool": { "enum": writes }, "with": {} }), &["tool"])),
        "arguments": { "allOf": tools.iter().map(arguments).collect::<Value>() },
        "step": step(&names, &["id"]),
        "handler": step(&names, &[]),
    });
    root
}

/// A map with these keys, the author's own (`x_…`), and no others.
fn closed(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({
        "type": "object",
        "patternProperties": { "^x_": {} },
        "additionalProperties": false,
        "required": required,
    });
    schema["properties"] = properties;
    schema
}

fn reference(name: &str, about: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}"), "description": about })
}

/// A duration or a number, or an expression over the parameters.
fn setting(schema: Value, about: &str) -> Value {
    let mut setting = either_expression(schema);
    setting["description"] = json!(about);
    setting
}

fn span(about: &str) -> Value {
    setting(json!({ "$ref": "#/$defs/duration" }), about)
}

fn list_of(name: &str, about: &str) -> Value {
    json!({ "type": "array", "items": { "$ref": format!("#/$defs/{name}") }, "description": about })
}

fn leaf(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn either_expression(schema: Value) -> Value {
    let expression = json!({ "type": "string", "pattern": EXPRESSION });
    let mut either = json!({});
    either["anyOf"] = Value::Array(vec![schema, expression]);
    either
}

fn head() -> Value {
    let handlers = |about| json!({ "type": "array", "items": { "$ref": "#/$defs/handler" }, "description": about });
    json!({
        "version": { "const": 1, "description": "The version of the language." },
        "name": reference("name", "Its name, which is the file's."),
        "description": leaf("What it is for."),
        "params": {
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "$ref": "#/$defs/param" },
            "description": "What it is given.",
        },
        "target": reference("target", "Where it works: project, branch and database."),
        "schedule": list_of("schedule", "When it runs by the clock."),
        "triggers": list_of("trigger", "What events start it."),
        "lock": leaf("What it must have for itself while it works."),
        "limits": closed(json!({
            "timeout": span("How long a run may work, the time spent waiting not counted."),
            "max_changes": setting(json!({ "type": "integer", "minimum": 0 }), "How many changes a run may carry out."),
        }), &[]),
        "defaults": closed(json!({
            "timeout": span("How long one attempt may take."),
            "retry": reference("retry", "What is tried again, and when."),
        }), &[]),
        "steps": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/step" }, "description": "What it does." },
        "on_failure": handlers("What is done, in order, when the run failed."),
        "always": handlers("What is done, in order, at the end of every run."),
        "outputs": {
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "$ref": "#/$defs/expression" },
            "description": "What it returns: expressions over its steps.",
        },
        "tool": closed(json!({
            "family": { "enum": ["provisioning", "performance", "health", "core"] },
            "risk": reference("risk", "Its risk; never lower than that of its steps."),
        }), &["family"]),
    })
}

fn retry() -> Value {
    let backoff = closed(
        json!({
            "initial": span("The first delay."),
            "factor": setting(json!({ "type": "number", "minimum": 1, "maximum": 100 }), "What each further delay is multiplied by."),
            "max": span("The longest delay."),
            "jitter": setting(json!({ "type": "number", "minimum": 0, "maximum": 1 }), "The part of a delay that is random."),
        }),
        &[],
    );
    closed(
        json!({
            "max_attempts": setting(json!({ "type": "integer", "minimum": 1 }), "All tries, the first one included."),
            "backoff": backoff,
            "on": { "type": "array", "items": { "enum": ["transient", "lock_timeout"] } },
        }),
        &[],
    )
}

fn param() -> Value {
    let kinds = [
        "string", "integer", "int", "number", "boolean", "duration", "size", "list", "object",
        "choice",
    ];
    closed(
        json!({
            "type": { "enum": kinds },
            "default": { "description": "What it is when nothing is given." },
            "required": { "type": "boolean" },
            "min": {},
            "max": {},
            "choices": { "type": "array", "minItems": 1 },
            "description": leaf("What it is for."),
        }),
        &["type"],
    )
}

fn schedule() -> Value {
    closed(
        json!({
            "id": reference("name", "Its id; by default workflow, cron and zone."),
            "cron": leaf("Minute, hour, day of month, month, day of week."),
            "time_zone": leaf("An IANA time zone; by default UTC."),
            "overlap": { "enum": ["skip", "queue_one", "allow"] },
            "catch_up": { "enum": ["none", "latest", "all"] },
            "catch_up_window": reference("duration", "How old a missed slot may be."),
            "jitter": reference("duration", "By how much a start may be delayed."),
        }),
        &["cron"],
    )
}

fn trigger() -> Value {
    closed(
        json!({
            "event": reference("name", "The event."),
            "when": reference("expression", "Which of them: an expression over `event`."),
            "overlap": { "enum": ["skip", "queue_one", "allow"] },
            "cooldown": span("How long further events are ignored."),
        }),
        &["event"],
    )
}

fn for_each() -> Value {
    closed(
        json!({
            "in": either_expression(json!({ "type": "array" })),
            "key": { "type": "string", "pattern": EXPRESSION, "description": "Unique for each item." },
            "max_parallel": setting(json!({ "type": "integer", "minimum": 1 }), "How many items are worked on at once."),
            "fail_fast": { "type": "boolean" },
        }),
        &["in", "key"],
    )
}

fn gate() -> Value {
    closed(
        json!({
            "prompt": leaf("The question."),
            "show": list_of("expression", "What is shown with it."),
            "covers": list_of("name", "The steps whose changes it approves."),
            "expires": span("When it is rejected by itself."),
            "on_reject": { "enum": ["stop", "skip_dependents"] },
            "rehearsed_within": span("Demands evidence of a rehearsal."),
        }),
        &["prompt"],
    )
}

fn wait(reads: &[&str]) -> Value {
    json!({ "oneOf": [
        closed(json!({ "for": span("How long.") }), &["for"]),
        with_arguments(closed(json!({
            "tool": { "enum": reads },
            "with": {},
            "until": reference("expression", "What ends it: an expression over `result`."),
            "every": span("How often it looks."),
            "within": span("For how long at most."),
        }), &["tool", "until", "within"])),
        closed(json!({
            "event": reference("name", "The event."),
            "when": reference("expression", "Which of them: an expression over `event`."),
            "within": span("For how long at most."),
        }), &["event", "within"]),
    ] })
}

fn verify(reads: &[&str]) -> Value {
    with_arguments(closed(
        json!({
            "tool": { "enum": reads },
            "with": {},
            "assert": {
                "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/expression" },
                "description": "What must hold: expressions over `result`.",
            },
            "every": span("How often it looks."),
            "within": span("For how long at most; without it, it looks once."),
            "on_fail": { "enum": ["stop", "compensate"] },
        }),
        &["tool", "assert"],
    ))
}

fn step(names: &[&str], required: &[&str]) -> Value {
    let mut step = closed(
        json!({
            "id": reference("name", "Its name: `steps.<id>` is its output."),
            "tool": { "enum": names, "description": "Runs a tool." },
            "script": leaf("Evaluates a script: `sops/<name>.rhai`."),
            "sql": leaf("Runs a query read-only: a file of `sql/`."),
            "workflow": reference("name", "Runs another workflow in the same run."),
            "approval": {
                "anyOf": [{ "enum": ["auto", "required", "never"] }, { "$ref": "#/$defs/gate" }],
                "description": "A step that asks a person; or, beside a tool, when it asks.",
            },
            "wait": reference("wait", "Waits, durably."),
            "verify": reference("verify", "Looks until its assertions hold."),
            "with": { "description": "Its arguments." },
            "target": reference("target", "Its own target."),
            "needs": list_of("name", "The steps that it waits for."),
            "when": reference("expression", "Its condition."),
            "run_if": { "enum": ["success", "always"] },
            "for_each": reference("for_each", "Runs it once for each item of a list."),
            "risk": reference("risk", "Raises its risk."),
            "wake": { "type": "boolean", "description": "Whether it may wake a suspended compute." },
            "lock": leaf("What it must have for itself."),
            "timeout": span("How long one attempt may take."),
            "retry": reference("retry", "What is tried again, and when."),
            "allow_failure": { "type": "boolean", "description": "Whether dependents go on when it fails." },
            "compensate": reference("compensate", "What undoes it, instead of the inverses of its changes."),
        }),
        required,
    );
    let one_of = ["tool", "script", "sql", "workflow", "wait", "verify"];
    let mut kinds: Vec<Value> = one_of.iter().map(|kind| json!({ "required": [kind] })).collect();
    let gate =
        json!({ "required": ["approval"], "properties": { "approval": { "type": "object" } } });
    kinds.push(gate);
    step["oneOf"] = kinds.into();
    with_arguments(step)
}

/// A map whose `with` holds the arguments of its `tool`.
fn with_arguments(mut schema: Value) -> Value {
    schema["allOf"] = json!([{ "$ref": "#/$defs/arguments" }]);
    schema
}

/// The arguments that `with` holds when the step names this tool.
fn arguments(tool: &AnyTool) -> Value {
    let name = tool.meta().name;
    let mut params = types::inlined(&tool.erased().params_schema());
    let required =
        params.get("required").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    if let Some(fields) = params.as_object_mut() {
        for key in ["$schema", "title"] {
            fields.remove(key);
        }
    }
    let mut then = json!({ "properties": { "with": relaxed(&params) } });
    then["properties"]["tool"] = json!({ "description": tool.meta().summary });
    if required {
        then["required"] = json!(["with"]);
    }
    json!({
        "if": { "properties": { "tool": { "const": name } }, "required": ["tool"] },
        "then": then,
    })
}

/// A type each of whose values may also be an expression.
fn relaxed(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut inner = Map::new();
    let mut about = Map::new();
    for (key, value) in fields {
        match key.as_str() {
            "description" | "default" | "examples" => {
                about.insert(key.clone(), value.clone());
            }
            // These names mean something else to editors; the pattern says it.
            "format" => {}
            "properties" | "patternProperties" => {
                let all = value.as_object().into_iter().flatten();
                let all = all.map(|(name, field)| (name.clone(), relaxed(field)));
                inner.insert(key.clone(), Value::Object(all.collect()));
            }
            "items" | "additionalProperties" => {
                inner.insert(key.clone(), relaxed(value));
            }
            "anyOf" | "oneOf" | "allOf" => {
                let all = value.as_array().into_iter().flatten().map(relaxed);
                // An expression fits every alternative, so "exactly one" would refuse it.
                let key = if key == "oneOf" { "anyOf" } else { key };
                inner.insert(key.to_owned(), all.collect());
            }
            _ => {
                inner.insert(key.clone(), value.clone());
            }
        }
    }
    if inner.is_empty() {
        return Value::Object(about);
    }
    let Value::Object(mut schema) = either_expression(Value::Object(inner)) else {
        return Value::Object(about);
    };
    schema.extend(about);
    Value::Object(schema)
}
