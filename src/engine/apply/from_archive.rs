//! Statements that are fed with what the archive holds of a batch: exactly once, as any other statement.

use serde_json::Value;

use super::applier::wrong_kind;
use super::archive::{Copied, copies, unreadable};
use super::{Applied, Applier, ApplyContext, Recovered, SqlApplier};
use crate::kernel::{ArchivedRows, Bind, BoxFuture, Failure, Feed, Operation, SqlStatement};

/// Feeds a statement and leaves the rest to the applier of statements.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FromArchiveApplier;

fn asked<'a>(cx: &ApplyContext<'a>) -> Result<&'a ArchivedRows, Failure> {
    match cx.operation {
        Operation::FromArchive(asked) => Ok(asked),
        other => Err(wrong_kind(other)),
    }
}

/// The same statement, fed.
async fn fed(cx: &ApplyContext<'_>) -> Result<Operation, Failure> {
    let asked = asked(cx)?;
    let history = cx.need_history(", so there is no archive")?;
    let mut binds = first_binds(asked, copies(history, &asked.batch).await?)?;
    binds.extend(asked.statement.binds.iter().cloned());
    Ok(Operation::sql(asked.statement.text.clone(), binds))
}

fn first_binds(asked: &ArchivedRows, copies: Vec<Copied>) -> Result<Vec<Bind>, Failure> {
    match &asked.feed {
        Feed::Keys { columns } => {
            let mut arrays = vec![Vec::with_capacity(copies.len()); *columns];
            let mut hashes = Vec::with_capacity(copies.len());
            for copy in copies {
                let key: Vec<String> = serde_json::from_str(&copy.row_key).map_err(unreadable)?;
                if key.len() != *columns {
                    return Err(unreadable(format!("the key {} has other columns", copy.row_key)));
                }
                arrays.iter_mut().zip(key).for_each(|(array, part)| array.push(part));
                hashes.push(copy.row_hash);
            }
            let mut binds: Vec<Bind> = arrays.into_iter().map(Bind::TextArray).collect();
            binds.push(Bind::IntArray(hashes));
            Ok(binds)
        }
        Feed::Rows { rows, except } => {
            let left = copies.into_iter().filter(|copy| !except.contains(&copy.row_key));
            let left: Vec<String> = left.map(|copy| copy.row).collect();
            if u64::try_from(left.len()).ok() != Some(*rows) {
                let text = format!(
                    "{rows} rows left their table with batch {}, and the archive has {} of them",
                    asked.batch,
                    left.len()
                );
                return Err(Failure::permanent("archive::copies_missing", text).with_help(
                    "the history here may not be the one that they were archived into: look at \
                     `[history] location`",
                ));
            }
            Ok(vec![Bind::Text(format!("[{}]", left.join(",")))])
        }
    }
}

impl Applier for FromArchiveApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(async move {
            let operation = fed(cx).await?;
            SqlApplier.apply(&ApplyContext { operation: &operation, ..*cx }).await
        })
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(async move {
            // Whether it happened is told by its key; what it is fed with does not matter.
            let SqlStatement { text, binds } = asked(cx)?.statement.clone();
            let operation = Operation::sql(text, binds);
            SqlApplier.recover(&ApplyContext { operation: &operation, ..*cx }, fingerprint).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(feed: Feed) -> ArchivedRows {
        ArchivedRows { batch: "b".into(), feed, statement: SqlStatement::new("select 1") }
    }

    fn copies() -> Vec<Copied> {
        let copy = |id: i64| Copied {
            row_key: format!("[\"nl\",\"{id}\"]"),
            row_hash: id * 10,
            row: format!("{{\"id\": {id}}}"),
        };
        vec![copy(1), copy(2)]
    }

    #[test]
    fn keys_are_fed_column_by_column() {
        let binds = first_binds(&asked(Feed::Keys { columns: 2 }), copies()).unwrap();
        let texts = |all: [&str; 2]| Bind::TextArray(all.map(str::to_owned).to_vec());
        assert_eq!(binds, [texts(["nl", "nl"]), texts(["1", "2"]), Bind::IntArray(vec![10, 20])]);
        assert!(first_binds(&asked(Feed::Keys { columns: 1 }), copies()).is_err());
    }

    #[test]
    fn rows_are_fed_whole_or_not_at_all() {
        let rows = |rows, except: &[&str]| {
            let except = except.iter().map(|key| (*key).to_owned()).collect();
            first_binds(&asked(Feed::Rows { rows, except }), copies())
        };
        assert_eq!(rows(2, &[]).unwrap(), [Bind::Text("[{\"id\": 1},{\"id\": 2}]".to_owned())]);
        let one = rows(1, &["[\"nl\",\"1\"]"]).unwrap();
        assert_eq!(one, [Bind::Text("[{\"id\": 2}]".to_owned())]);
        assert_eq!(rows(3, &[]).unwrap_err().code, "archive::copies_missing");
    }
}
