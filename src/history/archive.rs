//! Rows that left their table: appended batch by batch, each exactly once, and never expired.

use super::delta;
use super::error::HistoryError;
use super::row::{self, Source};
use super::tables::{self, ARCHIVED};
use super::writer::HistoryWriter;
use crate::kernel::Target;
use crate::tools::tool::HistoryRow;

impl HistoryWriter {
    /// Appends a batch, unless it is there. Returns how many rows were appended.
    pub(super) async fn archive_batch(
        &self,
        batch: &str,
        rows: &[HistoryRow],
    ) -> Result<usize, HistoryError> {
        let Some(table) = tables::find(ARCHIVED) else { return Ok(0) };
        let _one_at_a_time = self.one_at_a_time().await?;
        let mut stored = delta::ready(self.location(), table).await?;
        let application = format!("lakeops/archive/{batch}");
        if delta::transaction(&stored, ARCHIVED, &application).await? > 0 {
            return Ok(0);
        }
        let (target, at) = (Target::default(), self.now());
        let mut typed = Vec::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            let id = format!("{batch}/{place}");
            let source = Source { id, run: None, step: None, target: &target, at };
            let (_, row) = row::typed(row, &source).map_err(|error| {
                HistoryError::refused(error.to_string(), "this is a fault of the program")
            })?;
            typed.push(row);
        }
        if !typed.is_empty() {
            self.reach("history/archived_rows/before append");
            delta::append(&mut stored, table, &typed, (&application, 1)).await?;
            self.reach("history/archived_rows/after append");
        }
        Ok(typed.len())
    }
}
