//! Pure: which index statement a text is, and whether it happened, from the indexes before and now.

use serde::{Deserialize, Serialize};

use crate::kernel::QualifiedName;
use crate::postgres::scan::{Token, tokens};

/// A statement whose effect can be seen afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IndexStatement {
    /// `create index … name on table`
    Create { name: String, table: String },
    /// `drop index … name`
    Drop { index: String },
    /// `reindex index … name`
    ReindexIndex { index: String },
    /// `reindex table … name`
    ReindexTable { table: String },
}

/// Whether a statement works on an index concurrently, and so waits for transactions older than itself.
pub(super) fn waits_for_snapshots(text: &str) -> bool {
    IndexStatement::parse(text).is_some()
        && tokens(text).iter().any(|token| token.is("concurrently"))
}

impl IndexStatement {
    /// Recognises a statement; `None` for everything else, also for several names at once.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let tokens = tokens(text);
        let mut words = Words { rest: &tokens };
        if words.take("create") {
            words.take("unique");
            words.take("index").then_some(())?;
            words.take("concurrently");
            words.take_all(&["if", "not", "exists"]);
            if words.rest.first()?.is("on") {
                return None;
            }
            let name = words.name()?;
            words.take("on").then_some(())?;
            words.take("only");
            return Some(Self::Create { name, table: words.relation()? });
        }
        if words.take("drop") {
            words.take("index").then_some(())?;
            words.take("concurrently");
            words.take_all(&["if", "exists"]);
            let index = words.relation()?;
            words.take("restrict");
            return words.is_at_end().then_some(Self::Drop { index });
        }
        words.take("reindex").then_some(())?;
        words.skip_parenthesis();
        let is_index = words.take("index");
        (is_index || words.take("table")).then_some(())?;
        words.take("concurrently");
        let relation = words.relation()?;
        words.is_at_end().then_some(if is_index {
            Self::ReindexIndex { index: relation }
        } else {
            Self::ReindexTable { table: relation }
        })
    }

    /// The relation that leads to the table, as written.
    pub(super) fn relation(&self) -> &str {
        match self {
            Self::Create { table: relation, .. }
            | Self::Drop { index: relation }
            | Self::ReindexIndex { index: relation }
            | Self::ReindexTable { table: relation } => relation,
        }
    }
}

struct Words<'a> {
    rest: &'a [Token<'a>],
}

impl Words<'_> {
    fn take(&mut self, keyword: &str) -> bool {
        let is_next = self.rest.first().is_some_and(|token| token.is(keyword));
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    fn take_all(&mut self, keywords: &[&str]) {
        let found = self.rest.len() >= keywords.len()
            && self.rest.iter().zip(keywords).all(|(token, keyword)| token.is(keyword));
        if found {
            self.rest = self.rest.get(keywords.len()..).unwrap_or_default();
        }
    }

    fn name(&mut self) -> Option<String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        first.name()
    }

    /// `name` or `schema.name`, as written.
    fn relation(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let (first, rest) = self.rest.split_first()?;
            first.name()?;
            text.push_str(first.text);
            self.rest = rest;
            if !self.take(".") {
                return Some(text);
            }
            text.push('.');
        }
    }

    fn skip_parenthesis(&mut self) {
        if self.take("(") {
            while !self.take(")") && !self.rest.is_empty() {
                self.rest = self.rest.get(1..).unwrap_or_default();
            }
        }
    }

    fn is_at_end(&self) -> bool {
        self.rest.iter().all(|token| token.text == ";")
    }
}

/// One index, as it stands in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) relfilenode: Option<i64>,
    pub(super) valid: bool,
    pub(super) building: bool,
    pub(super) named: bool,
    pub(super) definition: String,
}

impl Index {
    fn is_called(&self, other: &Self) -> bool {
        self.schema == other.schema && self.name == other.name
    }

    fn qualified(&self) -> QualifiedName {
        QualifiedName::new(&self.schema, &self.name)
    }

    /// What REINDEX CONCURRENTLY calls its own half-done work.
    fn is_rebuild_remnant(&self) -> bool {
        let stem = self.name.trim_end_matches(|c: char| c.is_ascii_digit());
        !self.valid && (stem.ends_with("_ccnew") || stem.ends_with("_ccold"))
    }
}

/// A table's indexes, those of its TOAST table included: the fingerprint of an index statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Indexes {
    /// The table; `None` when it was not found.
    pub(super) table: Option<i64>,
    /// Its indexes.
    pub(super) indexes: Vec<Index>,
}

impl Indexes {
    fn by_oid(&self, oid: i64) -> Option<&Index> {
        self.indexes.iter().find(|index| index.oid == oid)
    }

    fn called(&self, other: &Index) -> Option<&Index> {
        self.indexes.iter().find(|index| index.is_called(other))
    }

    fn named(&self) -> Option<&Index> {
        self.indexes.iter().find(|index| index.named)
    }

    fn of_name(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name && index.schema != "pg_toast")
    }
}

/// What became of an index statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It happened; these remnants of it are still there.
    Applied(Vec<QualifiedName>),
    /// It did not happen; these remnants must go before it is tried again.
    NotApplied(Vec<QualifiedName>),
    /// Nobody can tell.
    Unknown(String),
}

/// Compares the indexes before the statement with those now.
pub(super) fn judge(statement: &IndexStatement, before: &Indexes, now: &Indexes) -> Finding {
    match statement {
        IndexStatement::Create { name, .. } => judge_create(name, before, now),
        IndexStatement::Drop { index } => judge_drop(index, before, now),
        IndexStatement::ReindexIndex { index } => {
            let Some(target) = before.named() else {
                // It was not there to begin with: trying again says so better than we can.
                return Finding::NotApplied(Vec::new());
            };
            if now.called(target).is_none() {
                return Finding::Unknown(format!("index {index} is no longer there"));
            }
            judge_rebuild(&[target], before, now)
        }
        IndexStatement::ReindexTable { .. } => {
            let targets: Vec<&Index> = before.indexes.iter().filter(|index| index.valid).collect();
            judge_rebuild(&targets, before, now)
        }
    }
}

fn judge_create(name: &str, before: &Indexes, now: &Indexes) -> Finding {
    let Some(index) = now.of_name(name) else { return Finding::NotApplied(Vec::new()) };
    if before.by_oid(index.oid).is_some() {
        // An index of this name stood there before: nothing of ours was made.
        return Finding::NotApplied(Vec::new());
    }
    if index.valid {
        return Finding::Applied(Vec::new());
    }
    if index.building {
        return Finding::Unknown(format!("index {name} is being built by another session"));
    }
    Finding::NotApplied(vec![index.qualified()])
}

fn judge_drop(name: &str, before: &Indexes, now: &Indexes) -> Finding {
    let Some(target) = before.named() else { return Finding::NotApplied(Vec::new()) };
    match (now.by_oid(target.oid), now.called(target)) {
        (Some(_), _) => Finding::NotApplied(Vec::new()),
        (None, Some(_)) => {
            Finding::Unknown(format!("index {name} is another one now: somebody rebuilt it"))
        }
        (None, None) => Finding::Applied(Vec::new()),
    }
}

fn judge_rebuild(targets: &[&Index], before: &Indexes, now: &Indexes) -> Finding {
    let new_remnants = now.indexes.iter().filter(|index| {
        let stood_there = before.by_oid(index.oid).is_some_and(|old| old.is_called(index));
        index.is_rebuild_remnant() && !stood_there
    });
    let remnants: Vec<&Index> = new_remnants.collect();
    if let Some(busy) = remnants.iter().find(|index| index.building) {
        return Finding::Unknown(format!(
            "index {} is being rebuilt by another session",
            busy.name
        ));
    }
    let names = remnants.into_iter().map(Index::qualified).collect();
    let is_rebuilt = |target: &&Index| {
        now.called(target).is_some_and(|index| {
            index.valid && (index.oid, index.relfilenode) != (target.oid, target.relfilenode)
        })
    };
    if !targets.is_empty() && targets.iter().all(is_rebuilt) {
        Finding::Applied(names)
    } else {
        Finding::NotApplied(names)
    }
}

/// Whether a failed drop has left its index there, but unusable.
pub(super) fn is_left_unusable(
    statement: &IndexStatement,
    before: &Indexes,
    now: &Indexes,
) -> bool {
    let target = before.named().filter(|_| matches!(statement, IndexStatement::Drop { .. }));
    target.is_some_and(|target| {
        target.valid && now.by_oid(target.oid).is_some_and(|index| !index.valid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(oid: i64, name: &str, valid: bool) -> Index {
        Index {
            oid,
            schema: "public".into(),
            name: name.into(),
            relfilenode: Some(oid),
            valid,
            building: false,
            named: false,
            definition: String::new(),
        }
    }

    fn indexes(list: &[Index]) -> Indexes {
        Indexes { table: Some(1), indexes: list.to_vec() }
    }

    #[test]
    fn statements() {
        let parse = IndexStatement::parse;
        let create = |name: &str, table: &str| {
            Some(IndexStatement::Create { name: name.into(), table: table.into() })
        };
        assert_eq!(
            parse("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"Odd\" ON ONLY s.\"T\" (a)"),
            create("Odd", "s.\"T\"")
        );
        assert_eq!(parse("create index i on t using gin (a)"), create("i", "t"));
        assert_eq!(parse("create index concurrently on t (a)"), None);
        let drop = Some(IndexStatement::Drop { index: "s.i".into() });
        assert_eq!(parse("drop index concurrently if exists s.i restrict;"), drop);
        assert_eq!(parse("drop index a, b"), None);
        assert_eq!(parse("drop index a cascade"), None);
        let reindex = Some(IndexStatement::ReindexIndex { index: "\"public\".\"i\"".into() });
        assert_eq!(parse("reindex (verbose) index concurrently \"public\".\"i\""), reindex);
        let table = Some(IndexStatement::ReindexTable { table: "t".into() });
        assert_eq!(parse("reindex table t"), table);
        for other in ["reindex schema s", "create table t()", "vacuum t", "", "create unique"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn creations() {
        let make = IndexStatement::Create { name: "i".into(), table: "t".into() };
        let before = indexes(&[index(5, "pk", true)]);
        let now = |valid| indexes(&[index(5, "pk", true), index(9, "i", valid)]);
        let leftover = vec![QualifiedName::new("public", "i")];
        assert_eq!(judge(&make, &before, &before), Finding::NotApplied(vec![]));
        assert_eq!(judge(&make, &before, &now(true)), Finding::Applied(vec![]));
        assert_eq!(judge(&make, &before, &now(false)), Finding::NotApplied(leftover));
        // An invalid index that stood there before is not ours to remove.
        assert_eq!(judge(&make, &now(false), &now(false)), Finding::NotApplied(vec![]));
        let mut busy = now(false);
        busy.indexes[1].building = true;
        assert!(matches!(judge(&make, &before, &busy), Finding::Unknown(_)));
    }

    #[test]
    fn removals() {
        let drop = IndexStatement::Drop { index: "i".into() };
        let mut target = index(9, "i", true);
        target.named = true;
        let before = indexes(&[target.clone()]);
        assert_eq!(judge(&drop, &before, &indexes(&[])), Finding::Applied(vec![]));
        assert_eq!(judge(&drop, &before, &before), Finding::NotApplied(vec![]));
        let half = indexes(&[Index { valid: false, ..target }]);
        assert_eq!(judge(&drop, &before, &half), Finding::NotApplied(vec![]));
        assert!(is_left_unusable(&drop, &before, &half));
        let other = indexes(&[index(10, "i", true)]);
        assert!(matches!(judge(&drop, &before, &other), Finding::Unknown(_)));
    }

    #[test]
    fn rebuilds() {
        let rebuild = IndexStatement::ReindexIndex { index: "i".into() };
        let mut target = index(9, "i", true);
        target.named = true;
        let old_remnant = index(4, "i_ccnew", false);
        let before = indexes(&[old_remnant.clone(), target.clone()]);
        let name = |text| vec![QualifiedName::new("public", text)];
        let half = indexes(&[old_remnant.clone(), target.clone(), index(11, "i_ccnew1", false)]);
        assert_eq!(judge(&rebuild, &before, &half), Finding::NotApplied(name("i_ccnew1")));
        let swapped =
            indexes(&[old_remnant.clone(), index(9, "i_ccold", false), index(11, "i", true)]);
        assert_eq!(judge(&rebuild, &before, &swapped), Finding::Applied(name("i_ccold")));
        let plain = indexes(&[old_remnant, Index { relfilenode: Some(77), ..target }]);
        assert_eq!(judge(&rebuild, &before, &plain), Finding::Applied(vec![]));
        assert!(matches!(judge(&rebuild, &before, &indexes(&[])), Finding::Unknown(_)));
        let table = IndexStatement::ReindexTable { table: "t".into() };
        assert_eq!(judge(&table, &before, &plain), Finding::Applied(vec![]));
        assert_eq!(judge(&table, &before, &before), Finding::NotApplied(vec![]));
    }
}
