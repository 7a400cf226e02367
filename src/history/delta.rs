//! One Delta table: opened, made, grown and appended to.

use deltalake::arrow::datatypes::{DataType as ArrowType, SchemaRef};
use deltalake::kernel::transaction::CommitProperties;
use deltalake::kernel::{DataType, PrimitiveType, StructField, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use deltalake::writer::{DeltaWriter as _, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableBuilder};

use super::batch;
use super::error::HistoryError;
use super::location::Location;
use super::row::Row;
use super::schema::{Column, DAY, Kind, TableDef};
use crate::kernel::Timestamp;

/// How long deleted files and old versions stay for time travel.
pub(super) const TRAVEL_DAYS: u32 = 7;

/// How often a growing schema is tried against writers that are faster.
const TRIES: u32 = 5;

fn primitive(kind: Kind) -> PrimitiveType {
    match kind {
        Kind::Text | Kind::Json => PrimitiveType::String,
        Kind::Int => PrimitiveType::Long,
        Kind::Float => PrimitiveType::Double,
        Kind::Bool => PrimitiveType::Boolean,
        Kind::Time => PrimitiveType::Timestamp,
        Kind::Day => PrimitiveType::Date,
    }
}

fn field(column: &Column) -> StructField {
    StructField::new(column.name, DataType::Primitive(primitive(column.kind)), true)
}

/// Which state of a table is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The newest.
    Now,
    /// This version.
    Version(u64),
    /// As it was then.
    At(Timestamp),
}

/// The table as it is stored; `None`: there is none yet.
pub(super) async fn open(
    location: &Location,
    name: &str,
    moment: Moment,
) -> Result<Option<DeltaTable>, HistoryError> {
    let folder = location.table_folder(name);
    if folder.is_some_and(|folder| !folder.join("_delta_log").is_dir()) {
        return Ok(None);
    }
    let failed = || HistoryError::delta(name, "opening it");
    let builder = DeltaTableBuilder::from_url(location.table(name)?).map_err(failed())?;
    let mut stored = builder.build().map_err(failed())?;
    if !stored.verify_deltatable_existence().await.map_err(failed())? {
        return Ok(None);
    }
    let loaded = match moment {
        Moment::Now => stored.load().await,
        Moment::Version(version) => stored.load_version(version).await,
        Moment::At(at) => stored.load_with_datetime(at.to_datetime()).await,
    };
    loaded.map_err(failed())?;
    Ok(Some(stored))
}

/// The table with at least the columns that this version declares.
pub(super) async fn ready(
    location: &Location,
    table: &TableDef,
) -> Result<DeltaTable, HistoryError> {
    let mut last = None;
    for _ in 0..TRIES {
        let stored = match open(location, table.name, Moment::Now).await? {
            Some(stored) => Ok(stored),
            None => create(location, table).await,
        };
        // Another process may have been faster with either: then it is looked at again.
        let grown = match stored {
            Ok(stored) => grow(stored, table).await,
            Err(error) => Err(error),
        };
        match grown {
            Err(error @ HistoryError::Delta { .. }) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or(HistoryError::Busy { seconds: 0 }))
}

async fn create(location: &Location, table: &TableDef) -> Result<DeltaTable, HistoryError> {
    let failed = HistoryError::delta(table.name, "making it");
    if let Some(folder) = location.table_folder(table.name) {
        std::fs::create_dir_all(&folder)
            .map_err(|source| HistoryError::File { path: folder, source })?;
    }
    let kept = format!("interval {TRAVEL_DAYS} days");
    let properties = [
        ("delta.logRetentionDuration", kept.clone()),
        ("delta.deletedFileRetentionDuration", kept),
        ("delta.checkpointInterval", "100".to_owned()),
    ];
    let configuration = properties.map(|(key, value)| (key.to_owned(), Some(value)));
    CreateBuilder::new()
        .with_location(location.table(table.name)?.as_str())
        .with_table_name(table.name)
        .with_comment(table.about)
        .with_columns(table.columns().map(field))
        .with_partition_columns([DAY])
        .with_raise_if_key_not_exists(false)
        .with_configuration(configuration)
        .with_save_mode(SaveMode::Ignore)
        .await
        .map_err(failed)
}

/// Adds the columns that are missing. Those that this version does not know stay.
async fn grow(stored: DeltaTable, table: &TableDef) -> Result<DeltaTable, HistoryError> {
    let missing: Vec<StructField> = {
        let snapshot = stored.snapshot().map_err(HistoryError::delta(table.name, "reading it"))?;
        let schema = snapshot.schema();
        let mut missing = Vec::new();
        for column in table.columns() {
            match schema.field(column.name) {
                None => missing.push(field(column)),
                Some(found) if found.data_type == DataType::Primitive(primitive(column.kind)) => {}
                Some(found) => {
                    return Err(HistoryError::OtherType {
                        table: table.name.to_owned(),
                        column: column.name.to_owned(),
                        found: found.data_type.to_string(),
                        expected: column.kind.name().to_owned(),
                    });
                }
            }
        }
        missing
    };
    if missing.is_empty() {
        return Ok(stored);
    }
    let columns = missing.len();
    let grown = stored
        .add_columns()
        .with_fields(missing)
        .await
        .map_err(HistoryError::delta(table.name, "adding columns"))?;
    tracing::info!(table = table.name, columns, "columns added to the history");
    Ok(grown)
}

/// The newest transaction of an application.
pub(super) async fn transaction(
    stored: &DeltaTable,
    name: &str,
    application: &str,
) -> Result<u64, HistoryError> {
    let failed = || HistoryError::delta(name, "reading its transactions");
    let snapshot = stored.snapshot().map_err(failed())?;
    let log = stored.log_store();
    let version = snapshot.snapshot().transaction_version(log.as_ref(), application).await;
    let version = version.map_err(failed())?.unwrap_or(0);
    Ok(u64::try_from(version).unwrap_or(0))
}

/// Appends rows in one commit with a transaction of the application.
pub(super) async fn append(
    stored: &mut DeltaTable,
    table: &TableDef,
    rows: &[Row],
    (application, version): (&str, u64),
) -> Result<(), HistoryError> {
    let failed = || HistoryError::delta(table.name, "appending to it");
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    let transaction = Transaction::new(application, version);
    let properties = CommitProperties::default().with_application_transaction(transaction);
    let writer = RecordBatchWriter::for_table(stored).map_err(failed())?;
    let schema = without_metadata(&writer.arrow_schema());
    let batch = batch::batch(table, &schema, rows)?;
    let mut writer = writer.with_commit_properties(properties);
    writer.write(batch).await.map_err(failed())?;
    writer.flush_and_commit(stored).await.map_err(failed())?;
    Ok(())
}

/// The types of the columns, without what Delta notes beside them.
fn without_metadata(schema: &SchemaRef) -> SchemaRef {
    use deltalake::arrow::datatypes::{Field, Schema};
    let plain = |field: &std::sync::Arc<Field>| {
        let kind: ArrowType = field.data_type().clone();
        Field::new(field.name(), kind, field.is_nullable())
    };
    std::sync::Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}
