//! A file's text, and places in it.

use std::sync::Arc;

use serde::Serialize;

/// A point in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Bytes before it.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
}

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Where it begins.
    pub start: Position,
    /// Where it ends; not part of it.
    pub end: Position,
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

impl<T> Spanned<T> {
    /// Puts a value at a place.
    pub const fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    /// Another value at the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), place: self.place }
    }
}

/// A file's text with its lines found. Clones share it.
#[derive(Clone, Debug)]
pub struct SourceText {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: String,
    text: String,
    starts: Vec<usize>,
}

impl SourceText {
    /// Finds the lines of a text. They end as YAML says: `\n`, `\r\n` or a lone `\r`.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let bytes = text.as_bytes();
        let is_break = |at: usize, byte: u8| {
            byte == b'\n' || (byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
        };
        let breaks = bytes.iter().enumerate().filter(|(at, byte)| is_break(*at, **byte));
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        Self { inner: Arc::new(Inner { path: path.into(), text, starts }) }
    }

    /// The path that people know the file by.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// The file's name without folder and ending.
    pub fn stem(&self) -> &str {
        let name = self.path().rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// How many lines there are.
    pub fn line_count(&self) -> usize {
        self.inner.starts.len()
    }

    /// A line (from 1) without its end; empty when there is no such line.
    pub fn line(&self, line: usize) -> &str {
        let Some(start) = line.checked_sub(1).and_then(|at| self.inner.starts.get(at)) else {
            return "";
        };
        let end = self.inner.starts.get(line).copied().unwrap_or(self.text().len());
        self.text().get(*start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// The place of a byte offset; the end of the text when it lies beyond.
    pub fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text().len());
        while !self.text().is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.inner.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.inner.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text().get(start..offset).unwrap_or("");
        Position { offset, line, column: before.chars().count() + 1 }
    }

    /// The point at a line and a column, both from 1.
    pub fn at(&self, line: usize, column: usize) -> Position {
        let start = line.checked_sub(1).and_then(|at| self.inner.starts.get(at)).copied();
        let Some(start) = start else { return self.position(self.text().len()) };
        let text = self.line(line);
        let within = text.char_indices().nth(column.saturating_sub(1)).map(|(at, _)| at);
        self.position(start + within.unwrap_or(text.len()))
    }

    /// The stretch between two byte offsets.
    pub fn place(&self, start: usize, end: usize) -> Place {
        Place { start: self.position(start), end: self.position(end.max(start)) }
    }

    /// What is written at a place.
    pub fn slice(&self, place: Place) -> &str {
        self.text().get(place.start.offset..place.end.offset).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let text = SourceText::new("f", "ab\näöü: x\r\n");
        let at = text.position("ab\näö".len());
        assert_eq!((at.line, at.column), (2, 3));
        assert_eq!(text.at(2, 3), at);
        assert_eq!(text.line(2), "äöü: x");
        assert_eq!(text.line(9), "");
        assert_eq!(text.position(usize::MAX).line, 3);
        assert_eq!(text.position(4).column, 1, "inside a character: its start");
    }
}
