//! Values with `${{ … }}` in their strings.
//!
//! A string that is one expression and nothing else takes the expression's value with its type; an
//! expression within a longer string becomes text. `$${{` stands for a literal `${{`.

use serde_json::Value;

use super::program::Evaluated;
use super::{Expression, Reference, Sandbox, Scope, ScriptError, TemplateError};

const OPEN: &str = "${{";
const ESCAPED: &str = "$${{";

/// A compiled value.
#[derive(Clone, Debug)]
pub struct Template {
    root: Node,
    references: Vec<Reference>,
}

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    Whole(Placed),
    Text(Vec<Piece>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Embedded(Placed),
}

/// An expression, the string that it stands in, and where in it.
#[derive(Clone, Debug)]
struct Placed {
    path: String,
    offset: usize,
    expression: Expression,
}

impl Template {
    pub(super) fn compile(sandbox: &Sandbox, value: &Value) -> Result<Self, Vec<TemplateError>> {
        let mut compiler = Compiler { sandbox, errors: Vec::new() };
        let root = compiler.node("", value);
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        let mut references: Vec<Reference> = Vec::new();
        root.each(&mut |placed| {
            for reference in placed.expression.references() {
                if !references.contains(reference) {
                    references.push(reference.clone());
                }
            }
        });
        Ok(Self { root, references })
    }

    /// The variables and fields that its expressions refer to, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Its value, when it has no expression at all.
    pub fn literal(&self) -> Option<&Value> {
        match &self.root {
            Node::Literal(value) => Some(value),
            Node::Whole(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// Its expression, when it is one as a whole.
    pub fn expression(&self) -> Option<&Expression> {
        match &self.root {
            Node::Whole(placed) => Some(&placed.expression),
            Node::Literal(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// Evaluates its expressions.
    pub fn evaluate(&self, scope: &Scope) -> Result<Evaluated, TemplateError> {
        let mut sum =
            Evaluated { value: Value::Null, seen: vec![], printed: vec![], rules: vec![] };
        sum.value = self.root.evaluate(scope, &mut sum)?;
        Ok(sum)
    }
}

impl Node {
    fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Placed)) {
        match self {
            Self::Literal(_) => {}
            Self::Whole(placed) => visit(placed),
            Self::Text(pieces) => pieces.iter().for_each(|piece| match piece {
                Piece::Literal(_) => {}
                Piece::Embedded(placed) => visit(placed),
            }),
            Self::List(items) => items.iter().for_each(|item| item.each(visit)),
            Self::Map(fields) => fields.iter().for_each(|(_, field)| field.each(visit)),
        }
    }

    fn evaluate(&self, scope: &Scope, sum: &mut Evaluated) -> Result<Value, TemplateError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Whole(placed) => placed.evaluate(scope, sum),
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Embedded(placed) => text.push_str(&placed.text(scope, sum)?),
                    }
                }
                Ok(text.into())
            }
            Self::List(items) => items.iter().map(|item| item.evaluate(scope, sum)).collect(),
            Self::Map(fields) => {
                let fields: Result<serde_json::Map<String, Value>, TemplateError> = fields
                    .iter()
                    .map(|(key, field)| Ok((key.clone(), field.evaluate(scope, sum)?)))
                    .collect();
                fields.map(Value::Object)
            }
        }
    }

    fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

impl Placed {
    fn error(&self, error: ScriptError) -> TemplateError {
        TemplateError { path: self.path.clone(), offset: self.offset, error }
    }

    fn evaluate(&self, scope: &Scope, sum: &mut Evaluated) -> Result<Value, TemplateError> {
        let evaluated = self.expression.evaluate(scope).map_err(|error| self.error(error))?;
        for seen in evaluated.seen {
            if !sum.seen.contains(&seen) {
                sum.seen.push(seen);
            }
        }
        sum.printed.extend(evaluated.printed);
        sum.rules.extend(evaluated.rules);
        Ok(evaluated.value)
    }

    fn text(&self, scope: &Scope, sum: &mut Evaluated) -> Result<String, TemplateError> {
        match self.evaluate(scope, sum)? {
            Value::String(text) => Ok(text),
            Value::Null => Err(self.error(
                ScriptError::new(format!("`{}` is (), which makes no text", self.expression))
                    .help("give another value with `??`, for example `x ?? \"none\"`"),
            )),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Ok(other.to_string())
            }
        }
    }
}

struct Compiler<'a> {
    sandbox: &'a Sandbox,
    errors: Vec<TemplateError>,
}

impl Compiler<'_> {
    fn node(&mut self, path: &str, value: &Value) -> Node {
        match value {
            Value::String(text) if text.contains(OPEN) => self.string(path, text),
            Value::Array(items) => {
                let nodes: Vec<Node> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.node(&format!("{path}/{index}"), item))
                    .collect();
                joined(nodes, Node::List, Value::Array)
            }
            Value::Object(fields) => {
                let (keys, nodes): (Vec<String>, Vec<Node>) = fields
                    .iter()
                    .map(|(key, field)| {
                        let escaped = key.replace('~', "~0").replace('/', "~1");
                        let path = format!("{path}/{escaped}");
                        self.key(&path, key);
                        (key.clone(), self.node(&path, field))
                    })
                    .unzip();
                let names = keys.clone();
                joined(
                    nodes,
                    |nodes| Node::Map(keys.into_iter().zip(nodes).collect()),
                    |values| Value::Object(names.into_iter().zip(values).collect()),
                )
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Node::Literal(value.clone())
            }
        }
    }

    fn key(&mut self, path: &str, key: &str) {
        if let Some(offset) = key.find(OPEN) {
            let error = ScriptError::new("the name of a field cannot hold an expression")
                .help("build the whole map in one: `${{ #{ … } }}`");
            self.errors.push(TemplateError { path: path.to_owned(), offset, error });
        }
    }

    fn string(&mut self, path: &str, text: &str) -> Node {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(after) = rest.strip_prefix(ESCAPED) {
                literal.push_str(OPEN);
                at = text.len() - after.len();
            } else if let Some(body) = rest.strip_prefix(OPEN) {
                let start = text.len() - body.len();
                let Some(length) = end(body) else {
                    let error = ScriptError::new("`${{` without its `}}`")
                        .help("write `$${{` where `${{` itself is meant");
                    self.errors.push(TemplateError { path: path.into(), offset: start, error });
                    break;
                };
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                let inner = body.get(..length).unwrap_or_default();
                pieces.extend(self.expression(path, start, inner).map(Piece::Embedded));
                at = start + length + 2;
            } else {
                let next = rest.char_indices().nth(1).map_or(rest.len(), |(next, _)| next);
                literal.push_str(rest.get(..next).unwrap_or_default());
                at += next;
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        match pieces.as_slice() {
            [] => Node::Literal(Value::String(String::new())),
            [Piece::Literal(text)] => Node::Literal(text.as_str().into()),
            [Piece::Embedded(placed)] => Node::Whole(placed.clone()),
            _ => Node::Text(pieces),
        }
    }

    fn expression(&mut self, path: &str, start: usize, inner: &str) -> Option<Placed> {
        let offset = start + inner.len() - inner.trim_start().len();
        let path = path.to_owned();
        match self.sandbox.expression(inner.trim()) {
            Ok(expression) => Some(Placed { path, offset, expression }),
            Err(error) => {
                self.errors.push(TemplateError { path, offset, error });
                None
            }
        }
    }
}

/// A node of parts, or one literal when all parts are.
fn joined(
    nodes: Vec<Node>,
    node: impl FnOnce(Vec<Node>) -> Node,
    value: impl FnOnce(Vec<Value>) -> Value,
) -> Node {
    if !nodes.iter().all(Node::is_literal) {
        return node(nodes);
    }
    let values = nodes.into_iter().map(|node| match node {
        Node::Literal(value) => value,
        Node::Whole(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => Value::Null,
    });
    Node::Literal(value(values.collect()))
}

/// Where the expression ends: at the first `}}` outside its own braces and strings.
fn end(body: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote: Option<char> = None;
    let mut chars = body.char_indices();
    while let Some((at, char)) = chars.next() {
        match (quote, char) {
            (Some('"' | '\''), '\\') => {
                chars.next();
            }
            (Some(open), _) if open == char => quote = None,
            (None, '"' | '\'' | '`') => quote = Some(char),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') if body.get(at..)?.starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        Scope::from([
            ("params".into(), json!({ "n": 3, "name": "x", "none": null, "list": [1, 2] })),
            ("steps".into(), json!({ "a": { "ok": true } })),
        ])
    }

    fn evaluate(value: &Value) -> Result<Value, TemplateError> {
        let template = Sandbox::new().template(value).unwrap();
        template.evaluate(&scope()).map(|evaluated| evaluated.value)
    }

    #[test]
    fn whole_values_keep_their_type_and_embedded_ones_become_text() {
        let value = json!({
            "whole": "${{ params.list }}",
            "text": "${{params.name}}-${{ params.n + 1 }}: ${{ params.list }}",
            "deep": [{ "ok": "${{ steps.a.ok }}" }, 7, null],
            "plain": "no $ {{ expression }}",
            "escaped": "$${{ params.n }} is ${{ params.n }}",
        });
        assert_eq!(
            evaluate(&value).unwrap(),
            json!({
                "whole": [1, 2],
                "text": "x-4: [1,2]",
                "deep": [{ "ok": true }, 7, null],
                "plain": "no $ {{ expression }}",
                "escaped": "${{ params.n }} is 3",
            })
        );
    }

    #[test]
    fn expressions_may_hold_braces_and_quotes() {
        for (text, value) in [
            ("${{ #{ a: #{ b: 1 }} }}", json!({ "a": { "b": 1 } })),
            ("${{ \"}}\" }}", json!("}}")),
            ("${{ `${params.n}}}` }}", json!("3}}")),
            ("${{ params.list.map(|x| { x * 2 }) }}", json!([2, 4])),
            ("ä${{ params.n }}ü", json!("ä3ü")),
        ] {
            assert_eq!(evaluate(&json!(text)).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn literals_and_references_are_known() {
        let sandbox = Sandbox::new();
        let template = sandbox.template(&json!({ "a": ["$${{ x }}"] })).unwrap();
        assert_eq!(template.literal(), Some(&json!({ "a": ["${{ x }}"] })));
        assert!(template.references().is_empty());
        let template = sandbox
            .template(&json!(["${{ params.n }}", "b ${{ steps.a.ok }} ${{params.n}}"]))
            .unwrap();
        assert_eq!(template.literal(), None);
        let names: Vec<String> = template.references().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["params.n", "steps.a.ok"]);
        let seen = template.evaluate(&scope()).unwrap().seen;
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn all_mistakes_come_out_with_their_place() {
        let value = json!({ "a/b": ["x ${{ 1 + }} ${{ nope }}"], "c": "${{ params.n" });
        let errors = Sandbox::new().template(&value).unwrap_err();
        let places: Vec<(&str, usize)> =
            errors.iter().map(|error| (error.path.as_str(), error.offset)).collect();
        assert_eq!(places, [("/a~1b/0", 6), ("/a~1b/0", 17), ("/c", 3)]);
        assert_eq!(errors[1].error.message, "unknown variable `nope`");
        let errors = Sandbox::new().template(&json!({ "${{ params.n }}": 1 })).unwrap_err();
        assert_eq!(errors[0].path, "/${{ params.n }}");
        let error = evaluate(&json!(["a ${{ params.none }}"])).unwrap_err();
        assert_eq!((error.path.as_str(), error.offset), ("/0", 6));
        assert!(error.error.message.contains("makes no text"));
    }
}
