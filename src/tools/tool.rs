//! The two traits of a tool, and their erased forms that the engine works with.

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context::ReadContext;
use crate::kernel::{
    BoxFuture, Change, ChangeSet, Failure, Receipt, Risk, Settlement, SqlFile, Target,
};

/// The family that a tool belongs to: a label for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Projects, branches, migrations, governance.
    Provisioning,
    /// Statements, indexes, vacuum, capacity.
    Performance,
    /// Sessions, metrics, alerts, sync, archive.
    Health,
    /// What any workflow needs.
    Core,
}

impl Family {
    /// The name as it is written in folders and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Performance => "performance",
            Self::Health => "health",
            Self::Core => "core",
        }
    }
}

/// What is known about a tool without running it.
#[derive(Clone, Copy, Debug)]
pub struct ToolMeta {
    /// Its name, `verb_object`; also the stem of its file.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// Its risk. A change of it can be riskier.
    pub risk: Risk,
    /// Raised whenever parameters or meaning change; plans record it.
    pub revision: u16,
    /// One line for lists.
    pub summary: &'static str,
    /// The SQL files that it uses.
    pub sql: &'static [&'static SqlFile],
    /// The arguments (top-level names) that may hold `${{ secrets.NAME }}`.
    pub secrets: &'static [&'static str],
}

/// A row that belongs in the history.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct HistoryRow {
    /// The history table.
    pub table: String,
    /// The row: column name to value.
    pub row: Value,
}

impl HistoryRow {
    /// The row with the target that it is of, unless it names one itself.
    #[must_use]
    pub fn of(mut self, target: &Target) -> Self {
        if let Value::Object(row) = &mut self.row {
            let parts = [
                ("project_id", &target.project),
                ("branch_id", &target.branch),
                ("database_name", &target.database),
            ];
            for (column, part) in parts {
                if let Some(part) = part {
                    row.entry(column).or_insert_with(|| part.clone().into());
                }
            }
        }
        self
    }
}

/// A change together with how it ended.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// The change.
    pub change: &'a Change,
    /// How it ended; `None` when the step ended before it was begun.
    pub settlement: Option<&'a Settlement>,
}

impl Settled<'_> {
    /// The receipt, when the change was carried out.
    pub const fn receipt(&self) -> Option<&Receipt> {
        match self.settlement {
            Some(Settlement::Applied { receipt }) => Some(receipt),
            Some(Settlement::Moot | Settlement::Abandoned) | None => None,
        }
    }

    /// How it ended, in one word.
    pub const fn ending(&self) -> Ending {
        match self.settlement {
            Some(Settlement::Applied { .. }) => Ending::Applied,
            Some(Settlement::Moot) => Ending::Moot,
            Some(Settlement::Abandoned) => Ending::Abandoned,
            None => Ending::NotBegun,
        }
    }
}

/// How a change ended, as outputs say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was carried out.
    Applied,
    /// Its guard no longer held; nothing was done.
    Moot,
    /// A person said that it did not happen and is not to be done.
    Abandoned,
    /// The step ended before it was begun.
    NotBegun,
}

/// A tool that looks. Its context cannot change anything.
pub trait ReadTool: Send + Sync + 'static {
    /// What is known about it.
    const META: ToolMeta;
    /// Its arguments: `deny_unknown_fields`, a doc comment on every field.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// What it found.
    type Output: Serialize + JsonSchema + Send + 'static;
    /// How many of its earlier outputs on the same target it goes on from.
    const EARLIER: u32 = 0;
    /// Fields of its output that are for its next look alone: they are taken out of the step's output, and
    /// are in the earlier outputs again. What only older outputs than the two newest carried is forgotten.
    const CARRIED: &'static [&'static str] = &[];

    /// Looks.
    fn read(
        &self,
        cx: &ReadContext<'_>,
        params: Self::Params,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// The rows of its output that belong in the history.
    fn history(&self, _output: &Self::Output) -> Vec<HistoryRow> {
        Vec::new()
    }
}

/// A tool that changes. It only proposes; the engine carries out.
pub trait WriteTool: Send + Sync + 'static {
    /// What is known about it.
    const META: ToolMeta;
    /// Its arguments: `deny_unknown_fields`, a doc comment on every field.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// What it did.
    type Output: Serialize + JsonSchema + Send + 'static;
    /// How many of its earlier outputs on the same target it goes on from.
    const EARLIER: u32 = 0;

    /// Looks, and says what it would do. Preview, approval and the appliers work from exactly this.
    fn propose(
        &self,
        cx: &ReadContext<'_>,
        params: Self::Params,
    ) -> impl Future<Output = Result<ChangeSet, Failure>> + Send;

    /// Pure: what the step's output says once the changes were settled. Only changes of the tool's own
    /// are passed.
    fn report(&self, settled: &[Settled<'_>]) -> Self::Output;

    /// The rows of its output that belong in the history.
    fn history(&self, _output: &Self::Output) -> Vec<HistoryRow> {
        Vec::new()
    }
}

/// What a read tool returned, as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutput {
    /// The typed output as JSON.
    pub value: Value,
    /// Its history rows.
    pub history: Vec<HistoryRow>,
    /// The fields that are for its next look alone.
    pub carry: Option<Value>,
}

impl ToolOutput {
    /// The output as the next look finds it among the earlier ones.
    pub fn earlier(&self) -> Value {
        with_carried(self.value.clone(), self.carry.clone())
    }
}

/// An output with the fields that were taken out of it.
pub fn with_carried(mut output: Value, carry: Option<Value>) -> Value {
    if let (Value::Object(fields), Some(Value::Object(carried))) = (&mut output, carry) {
        fields.extend(carried);
    }
    output
}

fn take_carried(output: &mut Value, names: &[&str]) -> Option<Value> {
    let fields = output.as_object_mut()?;
    let taken = names.iter().filter_map(|name| fields.remove_entry(*name));
    let taken: serde_json::Map<String, Value> = taken.collect();
    (!taken.is_empty()).then_some(Value::Object(taken))
}

/// What both kinds of tools answer without running.
pub trait ErasedTool: Send + Sync {
    /// What is known about it.
    fn meta(&self) -> &'static ToolMeta;
    /// JSON Schema of its arguments.
    fn params_schema(&self) -> schemars::Schema;
    /// JSON Schema of its output.
    fn output_schema(&self) -> schemars::Schema;
    /// Whether these arguments, all expressions resolved, would be taken.
    fn check_params(&self, raw: &Value) -> Result<(), Failure>;
    /// How many of its earlier outputs on the same target it goes on from.
    fn earlier(&self) -> u32;
}

/// A read tool with JSON in and out.
pub trait ErasedRead: ErasedTool {
    /// Looks.
    fn read<'a>(
        &'a self,
        cx: &'a ReadContext<'a>,
        raw: Value,
    ) -> BoxFuture<'a, Result<ToolOutput, Failure>>;
}

/// A write tool with JSON in and out.
pub trait ErasedWrite: ErasedTool {
    /// Looks, and says what it would do.
    fn propose<'a>(
        &'a self,
        cx: &'a ReadContext<'a>,
        raw: Value,
    ) -> BoxFuture<'a, Result<ChangeSet, Failure>>;
    /// What the step's output says once the changes were settled.
    fn report(&self, settled: &[Settled<'_>]) -> Result<ToolOutput, Failure>;
}

/// A tool of either kind.
#[derive(Clone, Copy)]
pub enum AnyTool {
    /// It looks.
    Read(&'static dyn ErasedRead),
    /// It changes.
    Write(&'static dyn ErasedWrite),
}

impl AnyTool {
    /// What both kinds answer without running.
    pub fn erased(&self) -> &'static dyn ErasedTool {
        match self {
            Self::Read(tool) => *tool,
            Self::Write(tool) => *tool,
        }
    }

    /// What is known about it.
    pub fn meta(&self) -> &'static ToolMeta {
        self.erased().meta()
    }

    /// Whether it changes anything.
    pub const fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

/// Gives a read tool its erased form.
pub struct Read<T>(pub T);
/// Gives a write tool its erased form.
pub struct Write<T>(pub T);

fn arguments<P: DeserializeOwned>(tool: &str, raw: Value) -> Result<P, Failure> {
    serde_json::from_value(raw).map_err(|error| {
        Failure::permanent("tool::invalid_arguments", format!("arguments of `{tool}`: {error}"))
            .with_help(format!("`lakeops tools show {tool}` lists its arguments"))
    })
}

fn to_json<O: Serialize>(tool: &str, output: &O) -> Result<Value, Failure> {
    serde_json::to_value(output).map_err(|error| {
        Failure::permanent("tool::unserialisable_output", format!("output of `{tool}`: {error}"))
    })
}

impl<T: ReadTool> ErasedTool for Read<T> {
    fn meta(&self) -> &'static ToolMeta {
        &T::META
    }

    fn params_schema(&self) -> schemars::Schema {
        schemars::schema_for!(T::Params)
    }

    fn output_schema(&self) -> schemars::Schema {
        schemars::schema_for!(T::Output)
    }

    fn check_params(&self, raw: &Value) -> Result<(), Failure> {
        arguments::<T::Params>(T::META.name, raw.clone()).map(drop)
    }
    fn earlier(&self) -> u32 {
        T::EARLIER
    }
}

impl<T: ReadTool> ErasedRead for Read<T> {
    fn read<'a>(
        &'a self,
        cx: &'a ReadContext<'a>,
        raw: Value,
    ) -> BoxFuture<'a, Result<ToolOutput, Failure>> {
        Box::pin(async move {
            let output = self.0.read(cx, arguments(T::META.name, raw)?).await?;
            let history = self.0.history(&output);
            let mut value = to_json(T::META.name, &output)?;
            let carry = take_carried(&mut value, T::CARRIED);
            Ok(ToolOutput { value, history, carry })
        })
    }
}

impl<T: WriteTool> ErasedTool for Write<T> {
    fn meta(&self) -> &'static ToolMeta {
        &T::META
    }

    fn params_schema(&self) -> schemars::Schema {
        schemars::schema_for!(T::Params)
    }

    fn output_schema(&self) -> schemars::Schema {
        schemars::schema_for!(T::Output)
    }

    fn check_params(&self, raw: &Value) -> Result<(), Failure> {
        arguments::<T::Params>(T::META.name, raw.clone()).map(drop)
    }
    fn earlier(&self) -> u32 {
        T::EARLIER
    }
}

impl<T: WriteTool> ErasedWrite for Write<T> {
    fn propose<'a>(
        &'a self,
        cx: &'a ReadContext<'a>,
        raw: Value,
    ) -> BoxFuture<'a, Result<ChangeSet, Failure>> {
        Box::pin(async move { self.0.propose(cx, arguments(T::META.name, raw)?).await })
    }

    fn report(&self, settled: &[Settled<'_>]) -> Result<ToolOutput, Failure> {
        let output = self.0.report(settled);
        let history = self.0.history(&output);
        Ok(ToolOutput { value: to_json(T::META.name, &output)?, history, carry: None })
    }
}
