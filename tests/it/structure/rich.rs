//! A schema with a little of everything, and a migration of it.

use std::fmt::Write as _;

/// Tables with keys, indexes and foreign keys to one another.
pub(super) fn many_tables(count: usize) -> String {
    let mut text = String::from("create schema many;\n");
    for n in 0..count {
        writeln!(
            text,
            "create table many.t{n} (id bigint generated always as identity primary key, \
             name text not null default 'n{n}', amount numeric(10, 2) check (amount >= 0), \
             parent bigint{}, made timestamptz default now());\n\
             create index t{n}_name on many.t{n} (lower(name), made desc);",
            if n == 0 { String::new() } else { format!(" references many.t{}", n - 1) }
        )
        .unwrap();
    }
    text
}

fn data(name: &str) -> String {
    let path = format!("{}/tests/data/structure/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A little of everything.
pub(super) fn schema() -> String {
    data("rich.sql")
}

/// Changes of most kinds.
pub(super) fn migration() -> String {
    data("migration.sql")
}

/// What that migration makes different, one line each.
pub(super) fn differences() -> Vec<String> {
    data("differences.txt").lines().map(str::to_owned).collect()
}

/// Statements of which some are carried out; `{n}` is a number.
pub(super) fn mutations() -> Vec<String> {
    data("mutations.txt").lines().map(str::to_owned).collect()
}
