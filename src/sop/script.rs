//! A SOP: statements and functions that turn measurements into findings and decisions.

use std::fmt;
use std::sync::Arc;

use super::program::{Evaluated, Program};
use super::{Reference, Scope, ScriptError};

/// A compiled script. Cheap to clone.
#[derive(Clone)]
pub struct Script {
    name: Arc<str>,
    program: Arc<Program>,
}

impl Script {
    pub(super) fn new(name: &str, program: Arc<Program>) -> Self {
        Self { name: name.into(), program }
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The script as it is written.
    pub fn text(&self) -> &str {
        self.program.text()
    }

    /// The variables and fields that it refers to, each once, in the order of writing.
    pub fn references(&self) -> &[Reference] {
        self.program.references()
    }

    /// The names that it may use.
    pub fn variables(&self) -> &[String] {
        self.program.known()
    }

    /// Evaluates it.
    pub fn evaluate(&self, scope: &Scope) -> Result<Evaluated, ScriptError> {
        self.program.evaluate(scope)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::sop::Sandbox;

    fn evaluate(text: &str) -> Result<Evaluated, ScriptError> {
        let scope = Scope::from([
            ("rows".into(), json!([{ "n": 1 }, { "n": 5 }])),
            ("limits".into(), json!({ "n": 3, "name": "x" })),
        ]);
        Sandbox::new().script("test.rhai", text, &["rows", "limits", "absent"])?.evaluate(&scope)
    }

    fn failure(text: &str) -> ScriptError {
        evaluate(text).map(|evaluated| evaluated.value).unwrap_err()
    }

    #[test]
    fn scripts_return_maps() {
        let text = r#"
            fn bad(row, limits) { row.n > limits.n }
            let findings = [];
            for row in rows {
                if bad(row, limits) { findings.push(`row ${row.n}`); }
            }
            let out = #{ act: !findings.is_empty() };
            out.findings = findings;
            out["count"] = findings.len();
            print(out.count);
            out
        "#;
        let evaluated = evaluate(text).unwrap();
        assert_eq!(evaluated.value, json!({ "act": true, "findings": ["row 5"], "count": 1 }));
        assert_eq!(evaluated.printed, ["1"]);
    }

    #[test]
    fn rules_are_traced_with_what_they_saw() {
        let text = r#"
            let most = rows.map(|row| row.n).max();
            let much = rule("most rows", most > limits.n && limits.name == "x", `${most} is most`);
            rule("never", false || rows.any(|row| row.n > 7), "no row");
            #{ act: much }
        "#;
        let evaluated = evaluate(text).unwrap();
        let [first, second] = evaluated.rules.as_slice() else { panic!("{evaluated:?}") };
        assert_eq!((first.rule.as_str(), first.verdict), ("most rows", true));
        assert_eq!(first.why, "5 is most");
        let seen: Vec<(&str, &Value)> =
            first.seen.iter().map(|seen| (seen.name.as_str(), &seen.value)).collect();
        assert_eq!(
            seen,
            [("most", &json!(5)), ("limits.n", &json!(3)), ("limits.name", &json!("x"))]
        );
        assert!(!second.verdict);
        assert_eq!(
            failure("rule(\"x\", 1, \"y\")").message,
            "the condition of rule `x` is an int and not true or false"
        );
    }

    #[test]
    fn variables_are_strict() {
        let error = failure("let a = 1;\nlimit.n + a");
        assert_eq!(error.message, "unknown variable `limit`");
        assert_eq!((error.line, error.column), (2, 1));
        assert_eq!(error.help.as_deref(), Some("did you mean `limits`?"));
        assert!(failure("rows.map(|row| row.n > limt.n)").message.contains("`limt`"));
        let error = failure("fn f() { limits.n } f()");
        assert!(error.help.unwrap().contains("pass the value"));
        assert!(failure("absent").message.contains("`absent` has no value"));
    }

    #[test]
    fn builtins_help() {
        for (text, value) in [
            ("duration(\"30m\")", json!(1800.0)),
            ("bytes(\"10GiB\")", json!(10_737_418_240_i64)),
            ("percent(1, 8)", json!(12.5)),
            ("percent(1, 0)", json!(0.0)),
            ("round(2.345, 1)", json!(2.3)),
            ("[1, 5, 3].max()", json!(5)),
            ("min(2, 1.5)", json!(1.5)),
            ("[].max()", Value::Null),
            ("[1, 2].sum()", json!(3)),
            ("[1, 2.5].sum()", json!(3.5)),
            ("[].sum()", json!(0)),
            ("rows.sorted_by(|row| -row.n).map(|row| row.n)", json!([5, 1])),
            ("rows.any(|row| row.n == 5) && rows.all(|row| row.n > 0)", json!(true)),
            ("[\"a\", \"b\"].join(\", \")", json!("a, b")),
            ("show_bytes(10737418240)", json!("10.0 GiB")),
            ("show_duration(5400)", json!("1h 30m")),
            ("let l = [3, 1, 2]; l.sort_by(|a, b| a - b); l", json!([1, 2, 3])),
        ] {
            assert_eq!(
                evaluate(text).unwrap_or_else(|error| panic!("{text}: {error:?}")).value,
                value,
                "{text}"
            );
        }
        for text in [
            "bytes(\"10\")",
            "duration(\"x\")",
            "[1, \"a\"].max()",
            "[true].sum()",
            "percent(\"a\", 1)",
            "rows.sorted_by(|row| row)",
        ] {
            assert!(evaluate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_listed_builtin_exists() {
        let names: Vec<String> = crate::sop::builtins().iter().map(|b| b.name.to_owned()).collect();
        assert!(names.is_sorted());
        for name in names.iter().filter(|name| *name != "rule") {
            let text = format!("if false {{ {name}(1) }}");
            assert!(evaluate(&text).is_ok(), "{name}");
        }
    }

    #[test]
    fn limits_hold() {
        for text in [
            "loop {}",
            "while true { let x = 1; }",
            "let a = []; loop { a = [a]; }",
            "let a = #{}; loop { a = #{ a: a }; }",
            "let a = [1]; loop { a += a; }",
            "let a = []; loop { a.push(a); }",
            "let s = \"aaaa\"; loop { s += s; }",
            "let f = || 1; loop { f = f.curry(f); }",
            "let f = || 1; loop { f = curry(f, f); }",
            "let f = || 1; loop { let g = f; f = || g; }",
            "fn f(x) { f(x + 1) } f(1)",
            "let f = |x| x.call(x); f.call(f)",
            "\"a\".pad(1000000000, \"x\")",
            "let a = []; a.pad(1000000000, 1)",
            "let n = 0; for i in 0..1000000000 { n += 1; }",
            "[0].map(|x| { loop {} })",
            "9223372036854775807 + 1",
            "1 / 0",
            "let m = #{}; let i = 0; loop { i += 1; m[`${i}`] = m; }",
        ] {
            let start = Instant::now();
            assert!(evaluate(text).is_err(), "{text}");
            assert!(start.elapsed() < Duration::from_mins(2), "{text}: {:?}", start.elapsed());
        }
    }

    #[test]
    fn deep_texts_are_refused() {
        let sum = format!("1{}", " + 1".repeat(10_000));
        let message = failure(&sum).message;
        assert!(message.contains("complex"), "{message}");
        for open in [
            "(",
            "[",
            "#{a:",
            "!",
            "-",
            "{",
            "||",
            "{{",
            "if a{",
            "if true {",
            "do{",
            "|x| ",
            "switch 1{_=>",
            "`${",
        ] {
            assert!(evaluate(&open.repeat(5_000)).is_err(), "{open}");
            // On the stack of this thread, which is a small one.
            assert!(evaluate(&open.repeat(200 / open.len())).is_err(), "{open}");
            assert!(Sandbox::new().expression(&open.repeat(1_000)).is_err(), "{open}");
        }
        assert!(evaluate(&" ".repeat(100_000)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let sandbox = Sandbox::new();
            let _result = sandbox.expression(&text).map(|e| e.evaluate(&Scope::new()));
            let _result = sandbox.script("x", &text, &[]).map(|s| s.evaluate(&Scope::new()));
            let _result = sandbox.template(&Value::String(format!("${{{{{text}}}}}")));
        }

        #[test]
        fn no_token_soup_panics(parts in proptest::collection::vec(prop_oneof![
            Just("rows"), Just("limits"), Just("."), Just("["), Just("]"), Just("("), Just(")"),
            Just("{"), Just("}"), Just("|x|"), Just("n"), Just("1"), Just("\"a\""), Just("=="),
            Just("rule("), Just(","), Just(";"), Just("let"), Just("="), Just("for"), Just("in"),
            Just("`${"), Just("}`"), Just("?."), Just("??"), Just("&&"), Just("-"), Just("fn"),
            Just("#{"), Just(":"), Just("if"), Just("switch"), Just("=>"), Just("loop"),
            Just("this"), Just("call"), Just("curry"), Just("Fn"), Just("::"), Just("global"),
        ], 0..14)) {
            let _result = evaluate(&parts.join(" "));
        }
    }
}
