//! What a history table is: its columns, its time, how long its rows are kept. PURE.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number of 64 bits.
    Int,
    /// A number.
    Float,
    /// Yes or no.
    Bool,
    /// A moment, UTC, to the microsecond.
    Time,
    /// Any JSON value, kept as its text.
    Json,
    /// A day, UTC.
    Day,
}

impl Kind {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Time => "time",
            Self::Json => "json",
            Self::Day => "day",
        }
    }
}

/// What stands in a column when the tool's row does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing.
    Null,
    /// An id of the row that is the same whenever the row is made from the journal again.
    RowId,
    /// The run.
    Run,
    /// The step.
    Step,
    /// The project of the target.
    Project,
    /// The branch of the target.
    Branch,
    /// The database of the target.
    Database,
    /// When the row was recorded in the journal.
    RecordedAt,
    /// The day of the table's time.
    Day,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What stands in it when the row does not say.
    pub fill: Fill,
}

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, fill: Fill::Null }
    }

    const fn filled(name: &'static str, kind: Kind, fill: Fill) -> Self {
        Self { name, kind, fill }
    }
}

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As measurements.
    Measurement,
    /// As the audit.
    Audit,
    /// For good: the only copy there is.
    Forever,
}

/// A table of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDef {
    /// Its name.
    pub name: &'static str,
    /// What its rows are, in one line.
    pub about: &'static str,
    /// How long its rows are kept.
    pub kept: Kept,
    /// The column that says when; the partition `day` follows from it.
    pub time: &'static str,
    /// Its own columns; [`ENVELOPE`] comes in addition.
    pub own: &'static [Column],
}

/// The columns that every table has besides its own.
pub const ENVELOPE: &[Column] = &[
    Column::filled("run_id", Kind::Text, Fill::Run),
    Column::filled("step", Kind::Text, Fill::Step),
    Column::filled("project_id", Kind::Text, Fill::Project),
    Column::filled("branch_id", Kind::Text, Fill::Branch),
    Column::filled("database_name", Kind::Text, Fill::Database),
    Column::filled("recorded_at", Kind::Time, Fill::RecordedAt),
    Column::filled(DAY, Kind::Day, Fill::Day),
];

/// The partition of every table.
pub const DAY: &str = "day";

impl TableDef {
    /// All columns: its own, then those that every table has.
    pub fn columns(&self) -> impl Iterator<Item = &'static Column> + use<> {
        self.own.iter().chain(ENVELOPE)
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns().find(|column| column.name == name)
    }
}

/// A text.
pub(super) const fn text(name: &'static str) -> Column {
    Column::new(name, Kind::Text)
}

/// A whole number.
pub(super) const fn int(name: &'static str) -> Column {
    Column::new(name, Kind::Int)
}

/// A number.
pub(super) const fn float(name: &'static str) -> Column {
    Column::new(name, Kind::Float)
}

/// Yes or no.
pub(super) const fn flag(name: &'static str) -> Column {
    Column::new(name, Kind::Bool)
}

/// A moment.
pub(super) const fn time(name: &'static str) -> Column {
    Column::new(name, Kind::Time)
}

/// A JSON value.
pub(super) const fn json(name: &'static str) -> Column {
    Column::new(name, Kind::Json)
}

/// The id of a row.
pub(super) const fn id(name: &'static str) -> Column {
    Column::filled(name, Kind::Text, Fill::RowId)
}

/// The moment that the table's rows are about.
pub(super) const fn at(name: &'static str) -> Column {
    Column::filled(name, Kind::Time, Fill::RecordedAt)
}
