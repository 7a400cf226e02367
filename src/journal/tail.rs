//! Verification against a head that was kept elsewhere: shows a journal that lost its tail.

use super::store::{Break, Head, Journal, JournalError, Verification};

/// Verifies the journal, and that it still holds everything up to `head`.
///
/// A chain that was cut, or made anew, is sound in itself; only a head that was exported before shows
/// that.
pub async fn verify_against(
    journal: &dyn Journal,
    head: &Head,
) -> Result<Verification, JournalError> {
    let mut found = journal.verify().await?;
    if found.broken.is_none() {
        found.broken = missing(journal, &found.head, head).await?;
    }
    Ok(found)
}

async fn missing(
    journal: &dyn Journal,
    end: &Head,
    kept: &Head,
) -> Result<Option<Break>, JournalError> {
    let broken = |position, what| Ok(Some(Break { position, event: None, what }));
    if end.journal != kept.journal {
        let what = format!("this is journal {}, the head is of {}", end.journal, kept.journal);
        return broken(0, what);
    }
    if kept.position > end.position {
        let what = format!(
            "the journal ends at event {}, the head is at {}: its tail was cut",
            end.position, kept.position
        );
        return broken(end.position + 1, what);
    }
    let same = match kept.position {
        0 => true,
        position => journal.hash_at(position).await?.as_ref() == Some(&kept.hash),
    };
    if same {
        return Ok(None);
    }
    let what = "its hash is not the one of the head: it, or an event before it, was replaced";
    broken(kept.position, what.into())
}
