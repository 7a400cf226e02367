//! What a query returned, in the forms that people and programs read.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::{csv, json};
use deltalake::parquet::arrow::ArrowWriter;
use serde_json::Value;

use super::error::HistoryError;

/// The rows that a query returned.
#[derive(Clone, Debug)]
pub struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// A form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// An array of objects.
    Json,
    /// One object per line.
    JsonLines,
    /// Comma-separated values with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl FileForm {
    /// The form that the ending of a file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Self::Json,
            "jsonl" | "ndjson" => Self::JsonLines,
            "csv" => Self::Csv,
            "parquet" => Self::Parquet,
            _ => return None,
        })
    }
}

impl Answer {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        // What was collected can be finer about nulls than what was planned.
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        Self { schema, batches }
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows as objects.
    pub fn rows(&self) -> Result<Vec<Value>, HistoryError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.json::<json::writer::JsonArray, _>(Vec::new()).map_err(wrong)?;
        serde_json::from_slice(&text)
            .map_err(|error| wrong(ArrowError::from_external_error(error.into())))
    }

    /// The rows as comma-separated values.
    pub fn csv(&self) -> Result<String, HistoryError> {
        let text = self.write_csv(Vec::new()).map_err(wrong)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes the rows into a file.
    pub fn write(&self, path: &Path, form: FileForm) -> Result<(), HistoryError> {
        let unwritable = |why: String| HistoryError::Unwritable { path: path.to_owned(), why };
        let file = File::create(path).map_err(|error| unwritable(error.to_string()))?;
        let written = match form {
            FileForm::Json => self.json::<json::writer::JsonArray, _>(file),
            FileForm::JsonLines => self.json::<json::writer::LineDelimited, _>(file),
            FileForm::Csv => self.write_csv(file),
            FileForm::Parquet => self.parquet(file),
        };
        let file = written.map_err(|error| unwritable(error.to_string()))?;
        file.sync_all().map_err(|error| unwritable(error.to_string()))
    }

    fn json<F: json::writer::JsonFormat, W: Write>(&self, sink: W) -> Result<W, ArrowError> {
        let mut writer = json::WriterBuilder::new().with_explicit_nulls(true).build::<W, F>(sink);
        writer.write_batches(&self.batches.iter().collect::<Vec<_>>())?;
        writer.finish()?;
        Ok(writer.into_inner())
    }

    fn write_csv<W: Write>(&self, sink: W) -> Result<W, ArrowError> {
        let mut writer = csv::WriterBuilder::new().with_header(true).build(sink);
        // Without rows, the header is of use all the same.
        writer.write(&RecordBatch::new_empty(SchemaRef::clone(&self.schema)))?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        Ok(writer.into_inner())
    }

    fn parquet<W: Write + Send>(&self, sink: W) -> Result<W, ArrowError> {
        let mut writer = ArrowWriter::try_new(sink, SchemaRef::clone(&self.schema), None)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        Ok(writer.into_inner()?)
    }
}

fn wrong(source: ArrowError) -> HistoryError {
    HistoryError::Batch { table: "the result".to_owned(), source }
}
