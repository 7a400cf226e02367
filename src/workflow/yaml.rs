//! From YAML text to a [`Tree`].
//!
//! The tree is built from parser events with a stack of its own, so that no input makes it recurse,
//! hang or panic. Broken stretches are reported and left out; the rest of the file is still read.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as RawSpan, Tag};

use super::diagnostic::{Reporter, shorten};
use super::recovery;
use super::source::{Place, Position, SourceText};
use super::tree::{Content, Entry, Node, Scalar, Style, Tree};

/// The largest file that is read.
pub const MOST_BYTES: usize = 1 << 20;
/// The deepest nesting that is read.
pub const DEEPEST: usize = 64;
/// How many aliases a file may use, and how many nodes one of them may stand for.
const MOST_ALIASES: usize = 32;
const LARGEST_ALIAS: usize = 256;

/// Reads a file. What cannot be read is reported.
pub fn parse(reporter: &mut Reporter) -> Tree {
    let source = reporter.source().clone();
    if source.text().len() > MOST_BYTES {
        let start = source.place(0, 0);
        let message = format!("the file has {} bytes; at most 1 MiB is read", source.text().len());
        reporter.error("workflow::too_large", start, message);
        return Tree { root: None, damaged: true };
    }
    let mut text = source.text().to_owned();
    let mut damaged = recovery::blank_control_characters(&mut text, reporter);
    for _ in 0..recovery::MOST_ERRORS {
        match Builder::new(&source, &text).run(&text) {
            Ok(built) => {
                reporter.extend(built.reporter.finish());
                return Tree { root: built.root, damaged: damaged || built.damaged };
            }
            Err(broken) => {
                damaged = true;
                recovery::report(&broken, &text, reporter);
                if broken.is_final || !recovery::blank_item(&mut text, &source, broken.opened) {
                    break;
                }
            }
        }
    }
    Tree { root: None, damaged }
}

/// A place where the file stops being YAML.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) message: String,
    pub(super) at: Position,
    /// Where the innermost open bracket is, or else the same place.
    pub(super) opened: Position,
    /// Whether trying again without the broken stretch is pointless.
    pub(super) is_final: bool,
}

struct Built {
    root: Option<Node>,
    reporter: Reporter,
    damaged: bool,
}

enum Frame {
    List {
        items: Vec<Node>,
        place: Place,
        anchor: usize,
    },
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, usize>,
        key: Key,
        place: Place,
        anchor: usize,
    },
}

enum Key {
    Awaited,
    Taken(String, Place),
    /// It was no text; its value is dropped.
    Refused,
}

struct Builder {
    reporter: Reporter,
    /// Byte offsets of characters; empty when all are ASCII.
    offsets: Vec<usize>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Option<Node>>,
    aliases: usize,
    root: Option<Node>,
    damaged: bool,
}

impl Builder {
    fn new(source: &SourceText, text: &str) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).chain(std::iter::once(text.len())).collect()
        };
        Self {
            reporter: Reporter::new(source.clone()),
            offsets,
            frames: Vec::new(),
            anchors: HashMap::new(),
            aliases: 0,
            root: None,
            damaged: false,
        }
    }

    fn run(mut self, text: &str) -> Result<Built, Broken> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| {
                let at = self.position(*error.marker());
                self.broken(error.info(), at, false)
            })?;
            let place = self.place(span);
            self.take(event, place)?;
        }
        Ok(Built { root: self.root, reporter: self.reporter, damaged: self.damaged })
    }

    fn position(&self, mark: saphyr_parser::Marker) -> Position {
        let offset = match self.offsets.get(mark.index()) {
            Some(offset) => *offset,
            None if self.offsets.is_empty() => mark.index(),
            None => self.reporter.source().text().len(),
        };
        let offset = offset.min(self.reporter.source().text().len());
        Position { offset, line: mark.line(), column: mark.col() + 1 }
    }

    fn place(&self, span: RawSpan) -> Place {
        let start = self.position(span.start);
        Place { start, end: self.position(span.end).max(start) }
    }

    /// The scanner counts blanks after a quote as part of the scalar.
    fn without_trailing_blanks(&self, mut place: Place) -> Place {
        let written = self.reporter.source().slice(place);
        let blanks = written.len() - written.trim_end_matches([' ', '\t']).len();
        if place.start.line == place.end.line && blanks < written.len() {
            place.end.offset -= blanks;
            place.end.column -= blanks;
        }
        place
    }

    fn broken(&self, message: &str, at: Position, is_final: bool) -> Broken {
        let text = self.reporter.source().text();
        let is_flow = |place: &&Place| {
            text.get(place.start.offset..).is_some_and(|rest| rest.starts_with(['[', '{']))
        };
        let mut places = self.frames.iter().map(|frame| match frame {
            Frame::List { place, .. } | Frame::Map { place, .. } => place,
        });
        // What follows the first open bracket was all read as part of it.
        let opened = places.find(is_flow).map_or(at, |place| place.start);
        Broken { message: message.to_owned(), at, opened, is_final }
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Broken> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                if self.root.is_some() {
                    return Err(self.broken("a second document begins here", place.start, true));
                }
            }
            Event::Alias(anchor) => {
                let node = self.alias(anchor, place);
                self.accept(node, 0);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = self.style(style, tag.as_deref(), place);
                let place = self.without_trailing_blanks(place);
                let content = Content::Scalar(Scalar { text: text.into_owned(), style });
                self.accept(Node { content, place }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                self.open(Frame::List { items: Vec::new(), place, anchor }, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                let (entries, lines) = (Vec::new(), HashMap::new());
                let key = Key::Awaited;
                self.open(Frame::Map { entries, lines, key, place, anchor }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame, anchor: usize) -> Result<(), Broken> {
        if self.frames.len() >= DEEPEST {
            let (Frame::List { place, .. } | Frame::Map { place, .. }) = &frame;
            let message = format!("more than {DEEPEST} levels are nested here");
            return Err(self.broken(&message, place.start, true));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.frames.push(frame);
        Ok(())
    }

    fn close(&mut self, end: Place) {
        let (content, start, anchor) = match self.frames.pop() {
            Some(Frame::List { items, place, anchor }) => (Content::List(items), place, anchor),
            Some(Frame::Map { entries, place, anchor, .. }) => {
                (Content::Map(entries), place, anchor)
            }
            None => return,
        };
        let mut place = start;
        if end.end.line == start.start.line {
            place.end = end.end.max(start.end);
        } else if let Content::Map(entries) = &content
            && let Some(first) = entries.first().filter(|first| first.place.start == start.start)
        {
            place.end = first.place.end;
        }
        self.accept(Node { content, place }, anchor);
    }

    fn accept(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            let kept = (node.size() <= LARGEST_ALIAS).then(|| node.clone());
            self.anchors.insert(anchor, kept);
        }
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, lines, key, .. }) => {
                match std::mem::replace(key, Key::Awaited) {
                    Key::Awaited => *key = take_key(node, lines, &mut self.reporter),
                    Key::Taken(key, place) => {
                        let value = at_least(node, place);
                        entries.push(Entry { key, place, value });
                    }
                    Key::Refused => self.damaged = true,
                }
            }
        }
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Node {
        self.aliases += 1;
        let known = self.anchors.get(&anchor).and_then(Option::as_ref);
        let fits = |node: &&Node| {
            self.aliases <= MOST_ALIASES && self.frames.len() + node.height() <= DEEPEST
        };
        if let Some(node) = known.filter(fits) {
            return node.clone();
        }
        self.damaged = true;
        self.reporter.hinted(
            "workflow::alias",
            place,
            "this alias is refused: it stands for too much, or for itself",
            format!("a file may use {MOST_ALIASES} aliases of {LARGEST_ALIAS} values each"),
        );
        Node {
            content: Content::Scalar(Scalar { text: String::new(), style: Style::Plain }),
            place,
        }
    }

    fn style(&mut self, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Style {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        match style {
            ScalarStyle::Plain if is_text => Style::Quoted,
            ScalarStyle::Plain => {
                self.refuse_tag(tag, place);
                Style::Plain
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, place: Place) {
        if let Some(tag) = tag {
            let message = format!("the tag `{}` is not supported", shorten(&tag.to_string()));
            self.reporter.hinted("workflow::tag", place, message, "leave the tag out");
        }
    }
}

/// A value that is not written at all is where its key is.
fn at_least(node: Node, key: Place) -> Node {
    let empty = node.scalar().is_some_and(|s| s.style == Style::Plain && s.text.is_empty());
    if empty { Node { place: key, ..node } } else { node }
}

fn take_key(node: Node, lines: &mut HashMap<String, usize>, reporter: &mut Reporter) -> Key {
    let Node { content: Content::Scalar(Scalar { text, .. }), place } = node else {
        reporter.hinted(
            "workflow::syntax",
            node.place,
            "a key must be text",
            "an expression is written in quotes: `\"${{ … }}\"`",
        );
        return Key::Refused;
    };
    if let Some(line) = lines.get(&text) {
        let message = format!("`{}` is given twice: in line {line} and here", shorten(&text));
        reporter.hinted("workflow::duplicate_key", place, message, "keep one of them");
        return Key::Refused;
    }
    lines.insert(text.clone(), place.start.line);
    Key::Taken(text, place)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(text: &str) -> (Tree, Vec<String>) {
        let mut reporter = Reporter::new(SourceText::new("w.yaml", text));
        let tree = parse(&mut reporter);
        let found = reporter.finish();
        let show = |d: &super::super::Diagnostic| {
            let at = d.span.unwrap().start;
            format!("{}:{} {}", at.line, at.column, d.message)
        };
        (tree, found.iter().map(show).collect())
    }

    fn json(text: &str) -> Value {
        let (tree, found) = read(text);
        assert!(found.is_empty(), "{found:?}");
        tree.root.unwrap().to_json()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text =
            "[1, -2, +3, 0x10, 1.5, 1e3, .5, true, no, on, 010, 1:30, ~, '1', 5m, a-b, .inf]";
        let expected = serde_json::json!([
            1, -2, 3, 16, 1.5, 1000.0, 0.5, true, "no", "on", 10, "1:30", null, "1", "5m", "a-b",
            ".inf"
        ]);
        assert_eq!(json(text), expected);
    }

    #[test]
    fn places_are_those_of_the_file() {
        let (tree, _) = read("ä: 1\nlist:\n  - ö: { x: 'y' }\n");
        let root = tree.root.unwrap();
        let node = root.pointer("/list/0/ö/x").unwrap();
        assert_eq!((node.place.start.line, node.place.start.column), (3, 13));
        assert_eq!((node.place.end.line, node.place.end.column), (3, 16));
        assert_eq!(root.pointer("/list/1"), None);
    }

    #[test]
    fn a_duplicate_key_names_both_lines() {
        let (tree, found) = read("a: 1\nb: 2\na: 3\n");
        assert_eq!(found, ["3:1 `a` is given twice: in line 1 and here"]);
        assert_eq!(tree.root.unwrap().to_json(), serde_json::json!({"a": 1, "b": 2}));
    }

    #[test]
    fn broken_stretches_are_left_out_and_the_rest_is_read() {
        let text =
            "a: 1\nsteps:\n  - id: x\n    needs: [p, q\n  - id: y\n  - id: z: w\n  - id: v\n";
        let (tree, found) = read(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("4:"), "{found:?}");
        assert!(found[1].starts_with("6:"), "{found:?}");
        assert!(tree.damaged);
        let steps = serde_json::json!({"a": 1, "steps": [{"id": "y"}, {"id": "v"}]});
        assert_eq!(tree.root.unwrap().to_json(), steps);
    }

    #[test]
    fn aliases_are_bounded() {
        assert_eq!(json("a: &x [1]\nb: *x"), serde_json::json!({"a": [1], "b": [1]}));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
        for i in 1..40 {
            let aliases = format!("*a{}, ", i - 1).repeat(8);
            bomb = format!("{bomb}a{i}: &a{i} [{aliases}]\n");
        }
        let (_, found) = read(&bomb);
        assert!(found.iter().any(|text| text.contains("alias")), "{found:?}");
        let (_, found) = read("a: &x [*x]");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn limits_are_kept() {
        let (tree, found) = read(&"[".repeat(100));
        assert!(tree.root.is_none() && found[0].contains("64 levels"), "{found:?}");
        let (_, found) = read(&"- ".repeat(100));
        assert!(found[0].contains("64 levels"), "{found:?}");
        let (_, found) = read(&"x".repeat(MOST_BYTES + 1));
        assert!(found[0].contains("1 MiB"), "{found:?}");
        let (_, found) = read("a: 1\n---\nb: 2\n");
        assert!(found[0].contains("second document"), "{found:?}");
        let (tree, found) = read("a: \u{0}1\nb: 2\n");
        assert_eq!(tree.root.unwrap().to_json(), serde_json::json!({"a": 1, "b": 2}));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn an_unquoted_expression_is_explained() {
        for text in ["with: { a: ${{ params.x }} }", "with:\n  a: {{ params.x }}\n"] {
            let mut reporter = Reporter::new(SourceText::new("w.yaml", text));
            parse(&mut reporter);
            let found = reporter.finish();
            assert!(found.iter().any(|d| d.to_string().contains("quotes")), "{found:#?}");
        }
    }
}
