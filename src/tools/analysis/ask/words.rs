//! The words of a question: brought to their stems, and to what the catalogue calls the same. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

/// The most characters of a question that are read.
pub const LONGEST: usize = 1_000;

/// What says nothing about the matter.
const EMPTY: &str = "a about after all am an and any anything are as at be because been before being but by can \
    could did do does doing done each every for from get gets getting give given go goes going had happen \
    happened happening happens has have having he help her here his how i if in into is it its just keep keeps kind \
    let like look looking lot make makes many may me might more most much my need needs no not now of off ok on one \
    or our out over own please really right s same see seem seems shall she should show so some something \
    somebody someone still such t tell than that the their them then there these they thing things think this \
    those through to today too tonight us use very want was way we well were what whats when where which while \
    who whom whose why will with without would yes yesterday you your database databases postgres postgresql db \
    pg server lakebase system currently last often hour hours minute minutes second \
    seconds day days week weeks month months year years morning night";

/// What people say, as they write it, and what the catalogue says, which is stemmed. The longest phrase wins.
///
/// Reviewed: each line is something that people really call it. What is not here is found by its own words.
const CALLED: &[(&str, &str)] = &[
    // Statements.
    ("slowness", "slow"),
    ("slower", "slow"),
    ("sluggish", "slow"),
    ("laggy", "slow"),
    ("crawling", "slow"),
    ("latency", "slow"),
    ("performance", "slow"),
    ("perform badly", "slow"),
    ("take forever", "slow"),
    ("takes forever", "slow"),
    ("takes so long", "slow"),
    ("take so long", "slow"),
    ("taking so long", "slow"),
    ("takes too long", "slow"),
    ("take too long", "slow"),
    ("takes ages", "slow"),
    ("long time", "slow"),
    ("speed up", "slow"),
    ("faster", "slow"),
    ("optimise", "slow"),
    ("optimize", "slow"),
    ("tune", "slow"),
    ("query", "statement"),
    ("queries", "statement"),
    ("sql", "statement"),
    ("selects", "statement"),
    ("report", "statement"),
    ("expensive", "cost most"),
    ("costly", "cost most"),
    ("heaviest", "cost most"),
    ("resource hungry", "cost most"),
    ("most time", "cost most"),
    ("most often", "most calls"),
    ("top queries", "cost most statement"),
    ("top statements", "cost most statement"),
    ("cpu", "cost most statement"),
    ("full table scan", "missing index"),
    ("full table scans", "missing index"),
    ("sequential scan", "missing index"),
    ("sequential scans", "missing index"),
    ("seq scan", "missing index"),
    ("seq scans", "missing index"),
    ("seqscan", "missing index"),
    ("table scan", "missing index"),
    // Indexes.
    ("indices", "index"),
    ("indexing", "index"),
    ("add an index", "missing index"),
    ("new index", "missing index"),
    ("create an index", "missing index"),
    ("index suggestions", "missing index"),
    ("need an index", "missing index"),
    ("needs an index", "missing index"),
    ("lack an index", "missing index"),
    ("lacks an index", "missing index"),
    ("not used", "unused"),
    ("never used", "unused"),
    ("not being used", "unused"),
    ("nobody uses", "unused"),
    ("useless", "unused"),
    ("unneeded", "unused"),
    ("unnecessary", "unused"),
    ("safe to drop", "unused"),
    ("can i drop", "unused"),
    ("could i drop", "unused"),
    ("get rid of", "unused"),
    ("redundant", "duplicate"),
    ("overlapping", "duplicate"),
    ("superfluous", "duplicate"),
    ("same columns", "duplicate"),
    ("twice", "duplicate"),
    ("broken", "invalid"),
    ("corrupt", "invalid"),
    ("failed build", "invalid"),
    ("half built", "invalid"),
    ("foreign keys", "fk"),
    ("foreign key", "fk"),
    ("fks", "fk"),
    // Vacuum and bloat.
    ("need vacuum", "vacuum due"),
    ("needs vacuum", "vacuum due"),
    ("need vacuuming", "vacuum due"),
    ("needs vacuuming", "vacuum due"),
    ("need a vacuum", "vacuum due"),
    ("needs a vacuum", "vacuum due"),
    ("need to vacuum", "vacuum due"),
    ("last vacuum", "vacuum lately"),
    ("last vacuumed", "vacuum lately"),
    ("last autovacuum", "vacuum lately"),
    ("last autovacuumed", "vacuum lately"),
    ("last analyzed", "vacuum lately"),
    ("autovacuum", "autovacuum vacuum"),
    ("auto vacuum", "autovacuum vacuum"),
    ("dead rows", "dead tuple"),
    ("dead row", "dead tuple"),
    ("dead tuples", "dead tuple"),
    ("garbage", "dead tuple"),
    ("wasted", "bloat table"),
    ("wasted by bloat", "bloat table"),
    ("space is wasted by bloat", "bloat table"),
    ("space is wasted", "bloat table"),
    ("wasted space", "bloat table"),
    ("wasting space", "bloat table"),
    ("waste space", "bloat table"),
    ("bloated", "bloat"),
    ("fragmented", "bloat"),
    ("fragmentation", "bloat"),
    ("reclaim space", "bloat"),
    ("reclaim disk", "bloat"),
    ("mostly empty", "bloat"),
    ("shrink", "bloat"),
    ("stale statistics", "analyze vacuum"),
    ("outdated statistics", "analyze vacuum"),
    ("wrap around", "wraparound"),
    ("transaction ids", "wraparound"),
    ("transaction id", "wraparound"),
    ("txid", "wraparound"),
    ("xid", "wraparound"),
    ("xids", "wraparound"),
    ("multixact", "wraparound multixact"),
    ("frozen", "freeze"),
    ("freezing", "freeze"),
    ("oldest transaction", "long transaction"),
    ("old transactions", "long transaction"),
    ("old transaction", "long transaction"),
    ("open transaction", "long transaction"),
    ("open transactions", "long transaction"),
    ("long running transaction", "long transaction"),
    ("long running transactions", "long transaction"),
    ("longest transaction", "long transaction"),
    ("two phase", "prepared transaction"),
    ("2pc", "prepared transaction"),
    // Sessions and locks.
    ("sessions", "connection"),
    ("session", "connection"),
    ("clients", "connection"),
    ("connected", "connection activity"),
    ("how many connections", "connection activity"),
    ("number of connections", "connection activity"),
    ("logged in", "connection activity"),
    ("logged on", "connection activity"),
    ("backends", "connection"),
    ("idle in transaction", "idle transaction"),
    ("doing nothing", "idle"),
    ("sitting around", "idle"),
    ("pool", "connection"),
    ("too many clients", "connection limit activity"),
    ("max connections", "connection limit"),
    ("connection slots", "connection limit activity"),
    ("out of connections", "connection limit activity"),
    ("run out of connections", "connection limit activity"),
    ("running out of connections", "connection limit activity"),
    ("connection refused", "connection limit activity"),
    ("blocked", "block"),
    ("blocking", "block"),
    ("blocks", "block"),
    ("blocker", "block"),
    ("stuck", "block"),
    ("hang", "block"),
    ("hangs", "block"),
    ("hanging", "block"),
    ("hung", "block"),
    ("locked", "lock"),
    ("locking", "lock"),
    ("waits", "wait"),
    ("waiting", "wait"),
    ("contention", "lock wait"),
    ("deadlocks", "deadlock"),
    ("dead lock", "deadlock"),
    ("dead locks", "deadlock"),
    ("running right now", "activity"),
    ("currently running", "activity"),
    ("running now", "activity"),
    ("is running", "activity"),
    // Health.
    ("healthy", "health"),
    ("okay", "health"),
    ("status", "health"),
    ("overview", "health"),
    ("wrong", "cause"),
    ("root cause", "cause"),
    ("reason", "cause"),
    ("diagnose", "cause"),
    ("diagnosis", "cause"),
    ("culprit", "cause"),
    ("outage", "cause"),
    ("incident", "cause"),
    ("spike", "cause"),
    ("spiked", "cause"),
    ("buffer", "cache"),
    ("hit rate", "cache hit ratio"),
    ("hit ratio", "cache hit ratio"),
    ("checkpoints", "checkpoint"),
    ("i o", "io"),
    ("disk reads", "io"),
    ("throughput", "io"),
    ("tps", "rate"),
    ("work mem", "temp file"),
    ("temp files", "temp file"),
    ("temporary files", "temp file"),
    ("spill", "temp file"),
    ("spilling", "temp file"),
    // Replication.
    ("replica", "replication"),
    ("replicas", "replication"),
    ("standby", "replication"),
    ("standbys", "replication"),
    ("follower", "replication"),
    ("behind", "lag"),
    ("delay", "lag"),
    ("delayed", "lag"),
    ("write ahead log", "wal"),
    ("write ahead logs", "wal"),
    // Size and growth.
    ("how big is", "large table"),
    ("how large is", "large table"),
    ("biggest", "large"),
    ("largest", "large"),
    ("huge", "large"),
    ("using all the", "large table"),
    ("uses all the", "large table"),
    ("using the most", "large table"),
    ("uses the most", "large table"),
    ("using up", "large table"),
    ("takes up", "large table"),
    ("taking up", "large table"),
    ("big", "large"),
    ("disk space", "storage"),
    ("disk", "storage"),
    ("space", "storage"),
    ("volume", "storage"),
    ("fill up", "forecast storage"),
    ("filling up", "forecast storage"),
    ("run out of space", "forecast storage"),
    ("run out of storage", "forecast storage"),
    ("run out of disk", "forecast storage"),
    ("out of disk", "forecast storage"),
    ("out of disk space", "forecast storage"),
    ("grow", "growth"),
    ("growing", "growth"),
    ("grows", "growth"),
    ("when will", "forecast"),
    ("predict", "forecast"),
    ("prediction", "forecast"),
    ("foretell", "forecast"),
    ("next month", "forecast"),
    ("next year", "forecast"),
    ("next quarter", "forecast"),
    ("historical", "cold"),
    ("old data", "cold"),
    ("old rows", "cold"),
    ("nobody touches", "cold"),
    ("nobody touch", "cold"),
    ("not touched", "cold"),
    ("rarely accessed", "cold"),
    ("archived", "archive"),
    ("archival", "archive"),
    ("archiving", "archive"),
    ("move out", "archive"),
    ("sequences", "sequence"),
    ("serial", "sequence"),
    ("identity column", "sequence"),
    ("id column", "sequence"),
    ("int4 overflow", "sequence"),
    ("integer overflow", "sequence"),
    ("out of ids", "sequence"),
    ("exhausted", "sequence"),
    ("exhaustion", "sequence"),
    // Branches, schema, cost.
    ("how many branches", "branch count"),
    ("branches", "branch"),
    ("schema changes", "schema diff"),
    ("schema change", "schema diff"),
    ("schema differences", "schema diff"),
    ("differ", "diff"),
    ("differs", "diff"),
    ("different", "diff"),
    ("difference", "diff"),
    ("differences", "diff"),
    ("compare", "diff"),
    ("compared", "diff"),
    ("changed", "change"),
    ("changes", "change"),
    ("deployed", "change"),
    ("deployment", "change"),
    ("ttl", "expire"),
    ("expiry", "expire"),
    ("expired", "expire"),
    ("expires", "expire"),
    ("suspended", "awake"),
    ("asleep", "awake"),
    ("price", "cost"),
    ("bill", "cost"),
    ("billing", "cost"),
    ("spend", "cost"),
    ("spending", "cost"),
    ("money", "cost"),
    ("dollars", "cost"),
    ("dbu", "cost"),
    ("dbus", "cost"),
    ("scale to zero", "suspend timeout"),
    ("autosuspend", "suspend timeout"),
    ("auto suspend", "suspend timeout"),
    ("synced", "sync"),
    ("in sync", "sync"),
    ("out of sync", "sync"),
    ("copy", "sync"),
    ("extensions", "extension"),
    ("plugins", "extension"),
    ("installed", "extension"),
    ("row level security", "rls"),
    ("tenants", "rls tenant"),
    ("migrations", "migration"),
];

static EMPTY_WORDS: LazyLock<BTreeSet<&str>> = LazyLock::new(|| EMPTY.split_whitespace().collect());
static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));
static CALLED_BY_FIRST: LazyLock<BTreeMap<String, Vec<Called>>> = LazyLock::new(|| {
    let mut by_first: BTreeMap<String, Vec<Called>> = BTreeMap::new();
    for (said, meant) in CALLED {
        let said: Vec<String> = split(said).collect();
        let meant = meant.split(' ').map(stem).collect();
        if let Some(first) = said.first().cloned() {
            by_first.entry(first).or_default().push(Called { said, meant });
        }
    }
    for all in by_first.values_mut() {
        all.sort_by_key(|called| std::cmp::Reverse(called.said.len()));
    }
    by_first
});

struct Called {
    said: Vec<String>,
    meant: Vec<String>,
}

/// A word that counts, with how it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// Its stem.
    pub stem: String,
    /// What stood there.
    pub written: String,
}

/// The words of a text that count, in their order.
pub fn words(text: &str) -> Vec<Word> {
    let text: String = text.chars().take(LONGEST).collect();
    let all: Vec<String> = split(&text).collect();
    let mut found = Vec::new();
    let mut rest = all.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let phrases = CALLED_BY_FIRST.get(first).map(Vec::as_slice).unwrap_or_default();
        if let Some(called) = phrases.iter().find(|called| rest.starts_with(&called.said)) {
            let written = called.said.join(" ");
            let meant = called.meant.iter();
            found.extend(meant.map(|stem| Word { stem: stem.clone(), written: written.clone() }));
            rest = rest.get(called.said.len()..).unwrap_or_default();
            continue;
        }
        if !EMPTY_WORDS.contains(first.as_str()) {
            found.push(Word { stem: stem(first), written: first.clone() });
        }
        rest = after;
    }
    found
}

/// Whether a word is one of those that people use for something in the catalogue.
pub fn is_called(word: &str) -> bool {
    CALLED_BY_FIRST.contains_key(word)
}

/// Brings a word to its stem.
fn stem(word: &str) -> String {
    STEMMER.stem(word).into_owned()
}

fn split(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric());
    // What stands behind an apostrophe says nothing: don't, it's.
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.stem).collect()
    }

    #[test]
    fn words_are_brought_to_what_the_catalogue_calls_them() {
        assert_eq!(stems("Why is my query slow?"), ["statement", "slow"]);
        assert_eq!(stems("the report TAKES FOREVER"), ["statement", "slow"]);
        assert_eq!(stems("sessions idle in transaction"), ["connect", "idl", "transact"]);
        assert_eq!(stems("who is blocking orders"), ["block", "order"]);
        assert_eq!(stems("'; -- ?!"), Vec::<String>::new());
    }

    #[test]
    fn no_phrase_is_written_twice() {
        let mut seen = BTreeSet::new();
        for (said, _) in CALLED {
            let words: Vec<String> = split(said).collect();
            assert!(seen.insert(words), "`{said}` stands there twice");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            drop(words(&text));
        }
    }
}
