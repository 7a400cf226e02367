//! Rows as columns: what Delta takes in.

use std::sync::Arc;

use deltalake::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::error::HistoryError;
use super::row::{Cell, Row};
use super::schema::{Kind, TableDef};

/// The type that a column is stored as.
pub(super) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Day => DataType::Date32,
    }
}

/// The schema that this version declares.
pub(super) fn schema(table: &TableDef) -> SchemaRef {
    let field =
        |column: &super::schema::Column| Field::new(column.name, data_type(column.kind), true);
    Arc::new(Schema::new(table.columns().map(field).collect::<Vec<_>>()))
}

/// The rows in the schema of the stored table: columns that a newer version added stay empty.
pub(super) fn batch(
    table: &TableDef,
    stored: &SchemaRef,
    rows: &[Row],
) -> Result<RecordBatch, HistoryError> {
    let columns = stored.fields().iter().map(|field| {
        let place = table.columns().position(|column| column.name == field.name());
        match place {
            Some(place) => array(table, field, place, rows),
            None => Ok(new_null_array(field.data_type(), rows.len())),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new(Arc::clone(stored), columns);
    batch.map_err(|source| HistoryError::Batch { table: table.name.to_owned(), source })
}

fn array(
    table: &TableDef,
    field: &Field,
    place: usize,
    rows: &[Row],
) -> Result<ArrayRef, HistoryError> {
    let cells = || rows.iter().map(|row| row.cells.get(place).unwrap_or(&Cell::Null));
    Ok(match field.data_type() {
        DataType::Utf8 => Arc::new(cells().map(Cell::text).collect::<StringArray>()),
        DataType::Int64 => Arc::new(cells().map(Cell::int).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(cells().map(Cell::float).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(cells().map(Cell::flag).collect::<BooleanArray>()),
        DataType::Date32 => Arc::new(cells().map(Cell::day).collect::<Date32Array>()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = cells().map(Cell::micros).collect::<TimestampMicrosecondArray>();
            Arc::new(micros.with_timezone("UTC"))
        }
        other => {
            let expected = table.column(field.name()).map(|column| column.kind.name());
            return Err(HistoryError::OtherType {
                table: table.name.to_owned(),
                column: field.name().clone(),
                found: other.to_string(),
                expected: expected.unwrap_or_default().to_owned(),
            });
        }
    })
}

impl Cell {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    const fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    const fn float(&self) -> Option<f64> {
        if let Self::Float(number) = self { Some(*number) } else { None }
    }

    const fn flag(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    const fn day(&self) -> Option<i32> {
        if let Self::Day(day) = self { Some(*day) } else { None }
    }

    const fn micros(&self) -> Option<i64> {
        if let Self::Micros(micros) = self { Some(*micros) } else { None }
    }
}
