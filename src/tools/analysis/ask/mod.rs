//! From a question in words to what can answer it, and from what was measured to an answer.
//!
//! Retrieval is lexical: words are brought to their stems, a reviewed list says what people call things, and
//! BM25 ranks the catalogue. Nothing here asks a model, and no word of a question ever enters a statement.

pub mod claim;
pub mod interpretation;
pub mod pointed;
pub mod question;
pub mod rank;
pub mod reply;
pub mod select;
pub mod sources;
pub mod words;
