//! The file layer: TOML text with the place of every key. PURE.

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::layer::{Layer, Origin, Place};

/// A mistake in the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// What is wrong.
    pub(super) message: String,
    /// Where.
    pub(super) origin: Origin,
}

/// Reads a file's text.
pub(super) fn parse(file: &Path, text: &str) -> (Layer, Vec<Mistake>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { file, text, layer: Layer::default(), mistakes: Vec::new() };
    for error in errors {
        let origin = reader.origin(error.span().unwrap_or(0..0));
        reader.mistakes.push(Mistake { message: error.message().to_owned(), origin });
    }
    if reader.mistakes.is_empty() {
        reader.layer.value = reader.table(table.get_ref(), &mut Vec::new());
    }
    (reader.layer, reader.mistakes)
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    layer: Layer,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            path.push(name.clone());
            let place = Place { key: self.origin(key.span()), value: self.origin(value.span()) };
            self.layer.places.insert(path.clone(), place);
            let converted = match value.get_ref() {
                DeValue::Table(inner) => Value::Object(self.table(inner, path)),
                plain => self.plain(plain, &value.span(), path),
            };
            fields.insert(name, converted);
            path.pop();
        }
        fields
    }

    fn plain(&mut self, value: &DeValue<'_>, span: &Range<usize>, path: &mut Vec<String>) -> Value {
        let number = match value {
            DeValue::String(text) => return Value::String(text.to_string()),
            DeValue::Boolean(flag) => return Value::Bool(*flag),
            DeValue::Integer(digits) => {
                i64::from_str_radix(digits.as_str(), digits.radix()).ok().map(Number::from)
            }
            DeValue::Float(digits) => digits.as_str().parse().ok().and_then(Number::from_f64),
            DeValue::Array(items) => return self.array(items, path),
            DeValue::Table(table) => return Value::Object(self.table(table, path)),
            DeValue::Datetime(_) => return self.refuse("a date has no place here", span),
        };
        match number {
            Some(number) => Value::Number(number),
            None => self.refuse("this number is out of range", span),
        }
    }

    fn array(&mut self, items: &toml::de::DeArray<'_>, path: &mut Vec<String>) -> Value {
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            path.push(index.to_string());
            let place = Place::both(self.origin(item.span()));
            self.layer.places.insert(path.clone(), place);
            values.push(self.plain(item.get_ref(), &item.span(), path));
            path.pop();
        }
        Value::Array(values)
    }

    fn refuse(&mut self, message: &str, span: &Range<usize>) -> Value {
        let origin = self.origin(span.clone());
        self.mistakes.push(Mistake { message: message.to_owned(), origin });
        Value::Null
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Origin::File {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(origin: &Origin) -> (usize, usize) {
        match origin {
            Origin::File { line, column, .. } => (*line, *column),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_are_those_of_keys_and_values() {
        let text = "a = 1\n[b.c]\n  \"é\" = [ 2, { d = \"x\" } ]\n";
        let (layer, mistakes) = parse(Path::new("f.toml"), text);
        assert_eq!(mistakes, []);
        assert_eq!(
            Value::Object(layer.value.clone()).to_string(),
            r#"{"a":1,"b":{"c":{"é":[2,{"d":"x"}]}}}"#
        );
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(at(&layer.place(&path(&["b", "c", "é"])).key), (3, 3));
        assert_eq!(at(&layer.place(&path(&["b", "c", "é"])).value), (3, 9));
        assert_eq!(at(&layer.place(&path(&["b", "c", "é", "1", "d"])).value), (3, 20));
    }

    #[test]
    fn every_mistake_of_the_text_is_found() {
        let (_, mistakes) = parse(Path::new("f.toml"), "a = \nb = 2020-01-01\n[c\n");
        assert!(mistakes.len() >= 2, "{mistakes:?}");
        let (_, mistakes) = parse(Path::new("f.toml"), "b = 2020-01-01\n");
        assert_eq!(at(&mistakes[0].origin), (1, 5));
    }
}
