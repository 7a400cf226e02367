//! One expression: `when`, `assert`, `until`, and what stands in `${{ … }}`.

use std::fmt;
use std::sync::Arc;

use super::program::{Evaluated, Program};
use super::{Reference, Scope, ScriptError};

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
}

impl Expression {
    pub(super) const fn new(program: Arc<Program>) -> Self {
        Self { program }
    }

    /// The expression as it is written.
    pub fn text(&self) -> &str {
        self.program.text()
    }

    /// The variables and fields that it refers to, each once, in the order of writing.
    pub fn references(&self) -> &[Reference] {
        self.program.references()
    }

    /// Evaluates it.
    pub fn evaluate(&self, scope: &Scope) -> Result<Evaluated, ScriptError> {
        self.program.evaluate(scope)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text()).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sop::Sandbox;

    fn scope() -> Scope {
        let steps = json!({
            "decide": { "act": true, "sessions": [4711, 4712], "why": "blocked" },
            "list": { "tables": [
                { "name": "a", "dead": 10, "bloat": null },
                { "name": "b", "dead": 300, "bloat": 0.5 },
            ] },
            "items": [{ "n": 1 }, { "n": 2 }],
            "later": { "skipped": true },
        });
        Scope::from([
            ("params".into(), json!({ "limit": 100, "ratio": 2.0, "name": "x" })),
            ("steps".into(), steps),
            ("secrets".into(), json!({ "token": "abcdefgh1234" })),
        ])
    }

    fn value(text: &str) -> Value {
        evaluate(text).unwrap_or_else(|error| panic!("{text}: {error:?}")).value
    }

    fn evaluate(text: &str) -> Result<Evaluated, ScriptError> {
        Sandbox::new().expression(text)?.evaluate(&scope())
    }

    fn failure(text: &str) -> ScriptError {
        match evaluate(text) {
            Ok(evaluated) => panic!("`{text}` gave {}", evaluated.value),
            Err(error) => error,
        }
    }

    fn references(text: &str) -> Vec<String> {
        let expression = Sandbox::new().expression(text).unwrap();
        expression.references().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_keep_their_types() {
        assert_eq!(value("params.limit"), json!(100));
        assert_eq!(value("params.ratio"), json!(2.0));
        assert_eq!(value("steps.decide"), scope()["steps"]["decide"]);
        assert_eq!(value("steps.list.tables[1].name"), json!("b"));
        assert_eq!(value("steps[\"list\"].tables.len()"), json!(2));
        assert_eq!(value("steps.list.tables[0].bloat"), Value::Null);
        assert_eq!(
            value("#{ a: [1, 2.5, \"x\", (), true] }"),
            json!({"a": [1, 2.5, "x", null, true]})
        );
        assert_eq!(value("steps.list.tables.filter(|t| t.dead > params.limit).len()"), json!(1));
        assert_eq!(value("`${params.name} of ${params.limit}`"), json!("x of 100"));
        assert_eq!(value("if params.limit > 5 { \"many\" } else { \"few\" }"), json!("many"));
    }

    #[test]
    fn whole_numbers_beyond_64_signed_bits_become_floats() {
        let scope = Scope::from([("params".into(), json!({ "big": u64::MAX }))]);
        let evaluated = Sandbox::new().expression("params.big").unwrap().evaluate(&scope).unwrap();
        assert_eq!(evaluated.value, json!(18_446_744_073_709_551_615.0));
    }

    #[test]
    fn unlike_values_are_not_compared() {
        for text in [
            "params.limit > \"5\"",
            "params.name == 1",
            "params.name != 1",
            "params.name < params.limit",
            "true >= 1",
            "steps.decide == 1",
            "[1] == 1",
            "() > 1",
            "params.limit <= ()",
        ] {
            let message = failure(text).message;
            assert!(message.contains("cannot compare"), "{text}: {message}");
        }
        assert_eq!(
            failure("params.limit > \"5\"").message,
            "`>` cannot compare an int with a text"
        );
    }

    #[test]
    fn like_values_are_compared() {
        for text in [
            "params.limit == 100.0",
            "params.ratio < 3",
            "1 < 1.5 && 2.5 >= 2 && 3 != 4",
            "params.name == \"x\" && \"a\" < \"b\" && 'a' == \"a\"",
            "steps.list.tables[0].bloat == ()",
            "params.limit != ()",
            "() == ()",
            "[1, 2.0] == [1.0, 2]",
            "#{ a: 1 } == #{ a: 1 } && #{ a: 1 } != #{ b: 1 }",
            "4711 in steps.decide.sessions",
        ] {
            assert_eq!(value(text), json!(true), "{text}");
        }
    }

    #[test]
    fn logic_wants_bools() {
        for text in
            ["params.limit && true", "true || params.name && 1", "!params.limit", "if 1 { 2 }"]
        {
            assert!(evaluate(text).is_err() || text.starts_with("true ||"), "{text}");
        }
        assert!(failure("params.limit && true").message.contains("true or false"));
        let number = evaluate("params.limit").unwrap();
        assert!(number.as_bool().unwrap_err().message.contains("a number"));
    }

    #[test]
    fn mistakes_say_what_there_is() {
        let error = failure("stepz.decide.act");
        assert_eq!(error.message, "unknown variable `stepz`");
        assert_eq!(error.help.as_deref(), Some("did you mean `steps`?"));
        let error = failure("true &&\n  steps.decide.acts");
        assert_eq!(error.message, "`steps.decide` has no field `acts`");
        assert_eq!((error.line, error.column), (2, 16));
        assert!(error.help.unwrap().contains("did you mean `act`?"));
        let error = failure("steps.lists.tables");
        assert!(error.help.unwrap().contains("`list`"));
        let error = failure("steps.list.tables.filter(|t| t.daed > 1)");
        assert_eq!(error.message, "there is no field `daed`");
        assert!(error.help.unwrap().contains("did you mean `dead`?"));
        let error = failure("steps.decide.lenght()");
        assert_eq!(error.message, "there is no function `lenght`");
        assert_eq!((error.line, error.column), (1, 14));
        let error = failure("params.limit.len()");
        assert_eq!(error.message, "there is no function `len (int)`");
        assert_eq!(failure("item.name").message, "`item` has no value here");
    }

    #[test]
    fn a_step_that_ran_was_not_skipped() {
        assert_eq!(value("steps.decide.skipped"), json!(false));
        assert_eq!(value("!steps.decide.skipped && steps.decide.act"), json!(true));
        assert_eq!(value("if steps.later.skipped { 1 } else { 2 }"), json!(1));
        assert_eq!(value("steps.items.skipped"), json!(false), "a fan-out");
        assert_eq!(value("steps.items[0].n"), json!(1));
        // Nobody else sees the field.
        assert_eq!(value("steps.list.tables[0]").get("skipped"), None);
        assert_eq!(value("steps.decide").get("skipped"), None);
        assert!(failure("steps.decide.nothing").message.contains("nothing"));
    }

    #[test]
    fn skipped_steps_read_as_nothing() {
        assert_eq!(value("steps.later.skipped"), json!(true));
        assert_eq!(value("steps.later.rows"), Value::Null);
        assert_eq!(value("steps.later.rows ?? 5"), json!(5));
        assert_eq!(value("steps[\"la\" + \"ter\"].rows == ()"), json!(true));
        assert_eq!(value("steps.later"), json!({ "skipped": true }));
        let error = failure("steps.later.rows > 3");
        assert_eq!(error.message, "`>` cannot compare () with an int");
        assert!(error.help.unwrap().contains("skipped step"));
    }

    #[test]
    fn references_follow_what_is_written() {
        assert_eq!(references("steps.a.b > 1"), ["steps.a.b"]);
        assert_eq!(references("steps[\"a\"][0].c.len()"), ["steps.a[0].c"]);
        assert_eq!(references("steps[params.key].x"), ["steps", "params.key"]);
        assert_eq!(references("steps.a?.b ?? params.c"), ["steps.a.b", "params.c"]);
        assert_eq!(references("`${steps.a.b}`"), ["steps.a.b"]);
        assert_eq!(
            references("steps.a.rows.filter(|r| r.n > params.q.w).map(|r| steps.b.c)"),
            ["steps.a.rows", "params.q.w", "steps.b.c"]
        );
        assert_eq!(references("[1].filter(|steps| steps.a.b)"), Vec::<String>::new());
        assert_eq!(references("[1].map(|r| [2].map(|s| s + r + params.a.b))"), ["params.a.b"]);
    }

    #[test]
    fn what_was_seen_is_kept_and_secrets_are_not() {
        let evaluated = evaluate("steps.decide.act && secrets.token != \"\"").unwrap();
        assert_eq!(evaluated.seen.len(), 1);
        assert_eq!(evaluated.seen[0].name, "steps.decide.act");
        assert_eq!(evaluated.seen[0].value, json!(true));
    }

    #[test]
    fn a_text_is_compiled_once_where_it_is_kept() {
        let is_shared = |sandbox: &Sandbox| {
            let again = sandbox.clone();
            let [one, two] = [sandbox, &again].map(|sandbox| sandbox.expression("1 + 1").unwrap());
            Arc::ptr_eq(&one.program, &two.program)
        };
        let sandbox = Sandbox::keeping();
        assert!(is_shared(&sandbox));
        assert!(!is_shared(&Sandbox::new()));
        // A script is another text for each set of names that it sees.
        assert!(sandbox.script("x", "n", &["n"]).is_ok());
        assert_eq!(sandbox.script("x", "n", &[]).unwrap_err().message, "unknown variable `n`");
        assert!(sandbox.script("x", "1 + 1;", &[]).is_ok());
        assert!(sandbox.expression("1 + 1;").is_err());
    }

    #[test]
    fn nothing_dangerous_exists() {
        for text in [
            "sleep(1)",
            "eval(\"1\")",
            "timestamp()",
            "rand()",
            "open_file(\"x\")",
            "blob(9)",
            "import \"x\" as y",
            "let x = 1",
            "params.limit = 5",
        ] {
            assert!(evaluate(text).is_err(), "{text}");
        }
    }
}
