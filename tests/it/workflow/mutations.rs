//! Damaged files are refused with file, line and column, or still mean something; nothing panics or
//! hangs.

use std::path::Path;
use std::time::Duration;

use lakeops::tools::Catalog;
use lakeops::workflow::load::{Folders, load};
use lakeops::workflow::yaml::MOST_BYTES;
use lakeops::workflow::{Library, Resolver, SourceText, Sources as _};

use super::{library, resolve, texts, tools};
use crate::harness::worked;

/// A generator that gives the same numbers in every run.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

/// One damage: bytes or lines are changed, dropped, doubled, moved or indented.
pub(crate) fn damage(text: &str, draws: &mut Draws) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = draws.below(lines.len());
    match draws.below(9) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines[at].insert_str(0, ["  ", " ", "\t", "- "][draws.below(4)]),
        3 => lines[at] = lines[at].trim_start().to_owned(),
        4 => {
            let other = draws.below(lines.len());
            lines.swap(at, other);
        }
        5 => lines.truncate(at),
        6 => {
            let signs =
                ["\"", "{", "}", "[", ":", "#", "&a", "*a", "!!x ", "|", "${{", "}}", "\0", "ü"];
            let line = &mut lines[at];
            let mut spot = draws.below(line.len() + 1);
            while !line.is_char_boundary(spot) {
                spot -= 1;
            }
            line.insert_str(spot, signs[draws.below(signs.len())]);
        }
        _ => {
            let mut bytes = text.as_bytes().to_vec();
            let spot = draws.below(bytes.len());
            bytes[spot] ^= 1 << draws.below(7);
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    lines.join("\n") + "\n"
}

/// Resolves damaged versions of a file and counts those that are still sound.
fn try_damages(
    name: &str,
    text: &str,
    count: usize,
    resolve: &dyn Fn(&SourceText) -> bool,
) -> usize {
    let mut draws = Draws(name.len() as u64 + 7);
    let mut sound = 0;
    for _ in 0..count {
        let mut damaged = damage(text, &mut draws);
        for _ in 0..draws.below(3) {
            if damaged.lines().count() > 1 {
                damaged = damage(&damaged, &mut draws);
            }
        }
        sound += usize::from(resolve(&SourceText::new(format!("workflows/{name}"), damaged)));
    }
    sound
}

fn check(resolver: &Resolver<'_>, source: &SourceText) -> bool {
    let resolution = resolver.resolve_file(source);
    for found in &resolution.diagnostics {
        let place = found.span.unwrap_or_else(|| panic!("no place: {found}"));
        assert!(!found.file.is_empty() && place.start.line >= 1 && place.start.column >= 1);
        let rendered = found.to_string();
        assert!(rendered.contains(&format!("{}:{}:", found.file, place.start.line)), "{rendered}");
    }
    let is_resolved = resolution.get(source.stem()).is_some();
    assert!(is_resolved || !resolution.is_sound(), "refused without a word:\n{}", source.text());
    is_resolved
}

#[test]
fn damaged_files_are_refused_with_a_place_or_still_mean_something() {
    let (own, catalog) = (library(&["good"]), tools::catalog());
    let resolver = Resolver::new(&catalog, &own);
    let mut sound = 0;
    for (name, text) in texts("good", "yaml") {
        sound += try_damages(&name, &text, 100, &|source| check(&resolver, source));
    }
    let (shipped, _) = load(&Folders::below(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let catalog = Catalog::builtin();
    let resolver = Resolver::new(&catalog, &shipped);
    let each = 250 / shipped.workflows().len() + 1;
    for name in shipped.workflows() {
        let text = shipped.workflow(name).unwrap().text();
        sound +=
            try_damages(&format!("{name}.yaml"), text, each, &|source| check(&resolver, source));
    }
    assert!(sound > 20, "comments and descriptions may change: {sound}");
}

/// One text for each number, joined.
fn repeated(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect::<Vec<_>>().concat()
}

#[test]
fn hostile_files_are_refused_quickly() {
    let head = "version: 1\nname: hostile\nsteps:\n";
    let step = |at: usize| format!("  - {{ id: s{at}, tool: monitor_connections }}\n");
    let many = repeated(9_000, step);
    let link =
        |at| format!("  - {{ id: s{at}, tool: monitor_connections, needs: [s{}] }}\n", at + 1);
    let chain = repeated(499, link);
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (old, new) in ('a'..'y').zip('b'..'z') {
        bomb = format!("{bomb}{new}: &{new} [{}]\n", format!("*{old}, ").repeat(9));
    }
    let anchors = repeated(60, |at| format!("&x{at} ["));
    let files = [
        "[".repeat(MOST_BYTES),
        "{".repeat(100_000),
        "- ".repeat(300_000),
        "a: ".repeat(50_000),
        "? ".repeat(100_000),
        "\"".repeat(MOST_BYTES),
        "'".repeat(MOST_BYTES - 1),
        format!("{head}{many}"),
        format!("{head}{chain}"),
        bomb,
        format!("{anchors}{}", "1, ".repeat(200_000)),
        format!("a: {}", "x".repeat(MOST_BYTES - 3)),
        format!("x_a: [{}]", "1,".repeat(300_000)),
        repeated(100_000, |at| format!("k{at}: 1\n")),
        "a: 1\n".repeat(100_000),
        format!("{head}  - {{ id: a, tool: t, when: \"{}\" }}\n", "(".repeat(100_000)),
        format!("{head}  - {{ id: a, tool: t, when: \"{}1\" }}\n", "1+".repeat(100_000)),
        format!(
            "{head}  - {{ id: a, tool: t, with: {{ x: \"{}\" }} }}\n",
            "${{ 1 }}".repeat(20_000)
        ),
        "\r".repeat(1_000),
        "a:\r  b: 1\r  c: [\r".to_owned(),
        "\u{feff}a: 1".to_owned(),
        "\u{85}\u{2028}a: \u{2029}".to_owned(),
        "%YAML 9.9\n---\na: 1\n".to_owned(),
        "--- !!map\n? [a]\n: b\n".to_owned(),
        "a: !<tag:x> 1\n<<: {b: 1}\n".to_owned(),
        "\0\0\0".to_owned(),
    ];
    for text in files {
        let start = worked();
        let resolution = resolve("hostile", &text);
        let took = worked().saturating_sub(start);
        let begin: String = text.chars().take(60).collect();
        assert!(!resolution.is_sound(), "{begin}");
        assert!(took < Duration::from_secs(10), "{took:?} for {begin}");
        let drawn: usize = resolution.diagnostics.iter().map(|found| found.to_string().len()).sum();
        assert!(drawn < 200_000, "{drawn} bytes of mistakes for {begin}");
    }
}

#[test]
fn embedding_does_not_explode() {
    let mut library = Library::new();
    for level in 0..24 {
        let child = format!("level{}", level + 1);
        let step = |id: &str| match level {
            23 => format!("  - {{ id: {id}, tool: monitor_connections }}\n"),
            _ => format!("  - {{ id: {id}, workflow: {child} }}\n"),
        };
        let text = format!("version: 1\nname: level{level}\nsteps:\n{}{}", step("a"), step("b"));
        library = library.with_workflow(&format!("workflows/level{level}.yaml"), text);
    }
    let resolution = Resolver::new(&tools::catalog(), &library).resolve("level0");
    assert!(resolution.get("level0").is_none());
    let told: Vec<&str> = resolution.diagnostics.iter().map(|found| found.code).collect();
    assert!(told.contains(&"workflow::too_large"), "{told:?}");
}
