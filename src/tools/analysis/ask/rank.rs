//! Ranks what can answer a question: Okapi BM25 over the catalogue. PURE.
//!
//! Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the
//! usual constants; `B` is small since texts of a catalogue are short and their length says little.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{Word, is_called, words};
use crate::tools::analysis::number::as_f64;

const K1: f64 = 1.2;
const B: f64 = 0.3;
/// What is written in a name counts as much as so many words of a text.
const NAME_WEIGHT: u32 = 3;
/// The same of what people call it.
const CALLED_WEIGHT: u32 = 3;
/// An answer must reach this score. By the test's questions: what is not about databases stays below.
const LEAST_SCORE: f64 = 4.0;
/// And it must cover this share of the question, by the weight of its words.
const LEAST_COVER: f64 = 0.3;
/// Shorter words are not corrected: too many others are near.
const LEAST_CORRECTED: usize = 6;

/// Something that can answer, or be pointed at.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it says of itself.
    pub text: String,
    /// What people call it.
    pub called: &'a str,
    /// How much its score counts: what answers by itself is preferred to what is only pointed at.
    pub prior: f64,
}

/// How well something matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The place of its document.
    pub document: usize,
    /// BM25.
    pub score: f64,
    /// The share of the question that its name and what people call it cover, by the weight of words.
    pub cover: f64,
    /// What was found in it, as it was written.
    pub because: Vec<String>,
}

impl Match {
    /// Whether it is good enough for an answer.
    pub fn answers(&self) -> bool {
        self.score >= LEAST_SCORE && self.cover >= LEAST_COVER
    }
}

/// A word that was read as another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Correction {
    /// The word as it was written.
    pub written: String,
    /// What it was read as.
    pub read_as: String,
}

/// The documents, ready to be asked.
pub struct Index {
    documents: Vec<Indexed>,
    /// In how many documents a stem occurs.
    spread: BTreeMap<String, u32>,
    /// Each stem, as it is written somewhere.
    written: BTreeMap<String, String>,
    mean_length: f64,
}

struct Indexed {
    counts: BTreeMap<String, u32>,
    /// The stems of its name and of what people call it.
    strong: BTreeSet<String>,
    length: u32,
    prior: f64,
}

impl Index {
    /// Reads the documents.
    pub fn new(documents: &[Document<'_>]) -> Self {
        let mut written = BTreeMap::new();
        let indexed: Vec<Indexed> = documents.iter().map(|it| read(it, &mut written)).collect();
        let mut spread: BTreeMap<String, u32> = BTreeMap::new();
        for stem in indexed.iter().flat_map(|it| it.counts.keys()) {
            *spread.entry(stem.clone()).or_default() += 1;
        }
        let total: u32 = indexed.iter().map(|it| it.length).sum();
        let mean_length = f64::from(total) / as_f64(indexed.len()).max(1.0);
        Self { documents: indexed, spread, written, mean_length }
    }

    /// What matches a question, the best first, and the words that were read as others.
    pub fn ask(&self, question: &str) -> (Vec<Match>, Vec<Correction>) {
        let (asked, corrections) = self.known(words(question));
        let mut seen = BTreeSet::new();
        let asked: Vec<Word> =
            asked.into_iter().filter(|word| seen.insert(word.stem.clone())).collect();
        let whole: f64 = asked.iter().map(|word| self.weight(&word.stem)).sum();
        let one = |(place, document): (usize, &Indexed)| {
            let found: Vec<&Word> =
                asked.iter().filter(|word| document.counts.contains_key(&word.stem)).collect();
            let score: f64 = found.iter().map(|word| self.score(document, &word.stem)).sum();
            let is_strong = |word: &&&Word| document.strong.contains(&word.stem);
            let strong = found.iter().filter(is_strong);
            let covered: f64 = strong.map(|word| self.weight(&word.stem)).sum();
            let because: BTreeSet<String> = found.iter().map(|it| it.written.clone()).collect();
            Match {
                document: place,
                score: score * document.prior,
                cover: if whole > 0.0 { covered / whole } else { 0.0 },
                because: because.into_iter().collect(),
            }
        };
        let all = self.documents.iter().enumerate().map(one);
        let mut matches: Vec<Match> = all.filter(|it| it.score > 0.0).collect();
        matches.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)));
        (matches, corrections)
    }

    /// Words that no document has, and that are one slip away from one that some have, are read as that.
    fn known(&self, asked: Vec<Word>) -> (Vec<Word>, Vec<Correction>) {
        let mut corrections = Vec::new();
        let mut known = Vec::with_capacity(asked.len());
        for word in asked {
            let is_long = word.written.chars().count() >= LEAST_CORRECTED;
            let is_known = self.spread.contains_key(&word.stem) || is_called(&word.written);
            let meant = (is_long && !is_known).then(|| self.nearest(&word.written)).flatten();
            match meant {
                Some((stem, read_as)) => {
                    let written = word.written;
                    corrections.push(Correction { written: written.clone(), read_as });
                    known.push(Word { stem, written });
                }
                None => known.push(word),
            }
        }
        (known, corrections)
    }

    fn nearest(&self, written: &str) -> Option<(String, String)> {
        let near = |known: &&String| strsim::damerau_levenshtein(known, written) == 1;
        let found = self.written.iter().find(|(_, known)| near(known));
        found.map(|(stem, known)| (stem.clone(), known.clone()))
    }

    fn score(&self, document: &Indexed, stem: &str) -> f64 {
        let times = f64::from(document.counts.get(stem).copied().unwrap_or_default());
        let length = f64::from(document.length) / self.mean_length.max(1.0);
        self.weight(stem) * times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length))
    }

    /// The inverse document frequency of a stem. One that no document has weighs half as much as the
    /// rarest: it is perhaps the name of a table.
    fn weight(&self, stem: &str) -> f64 {
        let all = as_f64(self.documents.len());
        let inverse = |spread: f64| (1.0 + (all - spread + 0.5) / (spread + 0.5)).ln();
        match self.spread.get(stem) {
            Some(spread) => inverse(f64::from(*spread)),
            None => inverse(1.0) / 2.0,
        }
    }
}

fn read(document: &Document<'_>, written: &mut BTreeMap<String, String>) -> Indexed {
    let parts =
        [(document.name, NAME_WEIGHT), (&document.text, 1), (document.called, CALLED_WEIGHT)];
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut strong = BTreeSet::new();
    for (text, weight) in parts {
        for word in words(text) {
            if weight > 1 {
                strong.insert(word.stem.clone());
            }
            let times = counts.entry(word.stem.clone()).or_default();
            // Saying the same word again in the same part adds little, and the weight of a part stays.
            *times = (*times + weight).min(NAME_WEIGHT + CALLED_WEIGHT + 1);
            if !word.written.contains(' ') {
                written.entry(word.stem).or_insert(word.written);
            }
        }
    }
    let length = counts.values().sum();
    Indexed { counts, strong, length, prior: document.prior }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let document = |name, called| Document { name, text: String::new(), called, prior: 1.0 };
        Index::new(&[
            document("find_slow_statements", "slow latency"),
            document("find_large_tables", "biggest table size"),
            document("list_vacuum", "dead rows vacuum"),
        ])
    }

    #[test]
    fn the_best_match_comes_first_and_says_why() {
        let (matches, corrections) = index().ask("why does my report take forever?");
        assert_eq!(matches[0].document, 0);
        assert_eq!(matches[0].because, ["report", "take forever"]);
        assert!(corrections.is_empty() && matches[0].cover > 0.99);
    }

    #[test]
    fn a_slip_is_read_as_the_word_that_is_known() {
        let (matches, corrections) = index().ask("does it need a vaccum?");
        assert_eq!(matches[0].document, 2);
        let expected = Correction { written: "vaccum".into(), read_as: "vacuum".into() };
        assert_eq!(corrections, [expected]);
    }

    #[test]
    fn what_nobody_knows_is_answered_by_nothing() {
        assert!(index().ask("what is the weather in Paris?").0.is_empty());
        assert!(index().ask("").0.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_question_makes_it_panic_and_covers_are_shares(text in "\\PC{0,120}") {
            for found in index().ask(&text).0 {
                proptest::prop_assert!((0.0..=1.000_001).contains(&found.cover) && found.score > 0.0);
            }
        }
    }
}
