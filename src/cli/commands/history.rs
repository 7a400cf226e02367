//! `lakeops history`

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::commands::run::Start;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::Shows;
use crate::cli::library;
use crate::cli::output::Format;
use crate::cli::places::Selected;
use crate::cli::session::Session;
use crate::config::Settings;
use crate::history::schema::Kept;
use crate::history::{
    self, Answer, FileForm, HistoryWriter, HotTables, TableFacts, Travel, UnifiedRows, tables,
};
use crate::kernel::{Bind, BoxFuture, Clock, Failure, Query, Span, Target, Timestamp};
use crate::lakebase::ReadApi;
use crate::postgres::PgReader;
use crate::report::chart::{Point, chart};
use crate::report::table::table;
use crate::tools::context::{Places as _, ReadHistory};
use crate::tools::{AnyTool, Catalog, ReadContext};

/// Ask what was measured and done, and look after its files
///
/// Every run leaves rows behind: measurements, findings, what was changed, who approved it. They are
/// Delta tables, below `state/history` unless `[history] location` says otherwise; other programs read
/// them as they are. Rows come in when their run is over, exactly once; those of a run that asked no database
/// come in with the next ones, or when the history is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops history tables
  lakeops history query \"select metric_name, max(metric_value) from lakebase_metrics group by 1\"
  lakeops history chart connection_utilization --since 24h
  lakeops history query \"select * from audit\" --at 2026-11-22T10:00:00Z --to audit.parquet
  lakeops history query \"select * from vacuum_history v join pg.public.teams t using (table_name)\"
  lakeops history query \"select count(*) from unified.public.orders where updated_at < '2026-01-01'\"")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the tables: rows, files, versions
    Tables {
        /// One table, with its columns
        name: Option<String>,
    },
    /// Run one query over all tables
    ///
    /// The SQL is that of `DataFusion`, close to PostgreSQL's. `pg.SCHEMA.TABLE` is a table of the
    /// selected connection, `unified.SCHEMA.TABLE` the same with the rows that were archived from it.
    /// Nothing but a query is accepted.
    Query(QueryArgs),
    /// Draw a metric over time
    ///
    /// Every column is the mean of what was measured in its time; where nothing was, nothing is drawn.
    Chart(ChartArgs),
    /// Append the rows that wait in the journal
    ///
    /// The end of a run that asked a database does this, and so does whoever asks the history.
    Flush,
    /// Merge small files and delete those that no version needs
    ///
    /// The workflow `history_maintenance` does this and `expire` every night. It is a run like any other:
    /// journaled, audited, and gone on with after a crash.
    Optimize {
        /// The tables; by default all
        tables: Vec<String>,
        /// Only show what would be done
        #[arg(long)]
        preview: bool,
    },
    /// Remove rows past their retention: `[history] keep_measurements` and `keep_audit`
    Expire {
        /// The tables; by default all
        tables: Vec<String>,
        /// Keep rows this long instead, such as `30d`
        #[arg(long, value_name = "TIME")]
        keep: Option<String>,
        /// Only show what would be done
        #[arg(long)]
        preview: bool,
    },
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    /// The query
    sql: String,
    /// Read an older state: VERSION or TIME for all tables, TABLE=VERSION or TABLE=TIME for one
    #[arg(long, value_name = "STATE")]
    at: Vec<String>,
    /// Write the rows into a file; its ending says how: .parquet, .csv, .json, .jsonl
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// The most rows that a table of PostgreSQL may have, archived ones included
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pg_rows: u64,
    /// Where tables of PostgreSQL are: project/branch or project/branch/database
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ChartArgs {
    /// A metric of `lakebase_metrics`, such as `connection_utilization`
    #[arg(required_unless_present = "sql")]
    metric: Option<String>,
    /// Only of this branch
    #[arg(long)]
    branch: Option<String>,
    /// Only the last so long, such as `24h` or `7d`
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = Span::parse)]
    since: Span,
    /// Another series: a query whose columns are a time and a number
    #[arg(long, conflicts_with_all = ["metric", "branch", "since"])]
    sql: Option<String>,
}

/// Asks or looks after.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Tables { name } => list(session, name.as_deref()).await,
        Verb::Query(args) => query(session, args).await,
        Verb::Chart(args) => draw(session, args).await,
        Verb::Flush => flush(session).await,
        Verb::Optimize { tables, preview } => {
            maintain(session, json!({ "tables": tables, "expire": false }), preview).await
        }
        Verb::Expire { tables, keep, preview } => {
            let arguments = json!({ "tables": tables, "keep": keep, "compact": false });
            maintain(session, arguments, preview).await
        }
    }
}

const MAINTAIN: &str = "maintain_history";

/// Runs the tool that looks after the tables.
async fn maintain(
    session: &Session<'_>,
    arguments: Value,
    preview: bool,
) -> Result<Exit, CliError> {
    if session.existing_journal()?.is_none() {
        session.shell.out.note("there is no journal, so there is no history");
        return Ok(Exit::Done);
    }
    let tool = super::tools::find_built_in(&Catalog::builtin(), MAINTAIN)?;
    tool.erased().check_params(&arguments)?;
    if preview {
        let no_database = Failure::permanent("history::no_database", "the history needs none");
        let (target, pg) = (Target::default(), PgReader::unavailable(no_database));
        let place = super::tools::Look { target: &target, pg, selected: None };
        return super::tools::look_from(session, tool, arguments, place).await;
    }
    let plan = super::tools::plan_of(session, MAINTAIN, &arguments, (Target::default(), false))?;
    let start = Start { key: None, yes: false, waits: true, connects: false, shows: Shows::Run };
    super::run::start(session, &plan, start).await
}

async fn list(session: &Session<'_>, name: Option<&str>) -> Result<Exit, CliError> {
    if let Some(name) = name {
        return columns(session, name);
    }
    let location = session.whole_history().await?;
    let facts = history::facts(&location).await?;
    let json: Vec<Value> = facts.iter().map(as_json).collect();
    session.shell.out.data(&json, |style| {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        let rows = facts.iter().map(|facts| {
            let size = facts.bytes.map(|bytes| bytesize::ByteSize(bytes).to_string());
            vec![
                facts.table.name.to_owned(),
                number(facts.rows),
                number(facts.files),
                size.unwrap_or_else(|| "-".to_owned()),
                number(facts.version),
                facts.table.about.to_owned(),
            ]
        });
        let heads = ["table", "rows", "files", "size", "version", "what a row is"];
        table(style, &heads, rows.collect(), "no tables")
    })?;
    session.shell.out.note(&format!("at {location}"));
    Ok(Exit::Done)
}

fn as_json(facts: &TableFacts) -> Value {
    json!({
        "table": facts.table.name,
        "about": facts.table.about,
        "kept_as": match facts.table.kept {
            Kept::Audit => "audit",
            Kept::Measurement => "measurement",
            Kept::Forever => "forever",
        },
        "rows": facts.rows,
        "files": facts.files,
        "bytes": facts.bytes,
        "version": facts.version,
    })
}

fn columns(session: &Session<'_>, name: &str) -> Result<Exit, CliError> {
    let Some(found) = tables::find(name) else {
        return Err(CliError::usage_with(
            format!("the history has no table `{name}`"),
            "`lakeops history tables` lists them",
        ));
    };
    let columns: Vec<(&str, &str)> =
        found.columns().map(|column| (column.name, column.kind.name())).collect();
    let json: Vec<Value> =
        columns.iter().map(|(name, kind)| json!({ "column": name, "type": kind })).collect();
    session.shell.out.data(&json, |style| {
        let rows = columns.iter().map(|(name, kind)| vec![(*name).to_owned(), (*kind).to_owned()]);
        table(style, &["column", "type"], rows.collect(), "no columns")
    })?;
    Ok(Exit::Done)
}

async fn query(session: &Session<'_>, args: QueryArgs) -> Result<Exit, CliError> {
    let travels = args.at.iter().map(|text| travel(text)).collect::<Result<Vec<_>, _>>()?;
    let form = args.to.as_deref().map(form).transpose()?;
    let location = session.whole_history().await?;
    let query = Query::new(&args.sql);
    let target = library::target(args.target.as_deref())?;
    let answer = if history::names_postgres(&args.sql)? {
        let selected = Selected::open(session, &target, false, "lakeops:history").await?;
        let reader = selected.reader_at(&target);
        let workspace = selected.workspace();
        let unified = BothSides {
            reader: &reader,
            settings: session.config.settings_for(&target),
            target: &target,
            clock: session.shell.clock.as_ref(),
            workspace: workspace.as_deref().map(|workspace| -> &dyn ReadApi { workspace }),
            history: session.existing_history()?,
        };
        let hot = HotTables { reader: &reader, unified: &unified, most_rows: args.pg_rows };
        let answer = history::answer(&location, &query, &travels, Some(hot)).await;
        reader.close().await;
        answer?
    } else {
        history::answer(&location, &query, &travels, None).await?
    };
    match (args.to, form) {
        (Some(path), Some(form)) => {
            let path = session.shell.path(path);
            answer.write(&path, form)?;
            session.shell.out.note(&format!("{} rows in {}", answer.len(), path.display()));
        }
        _ => print(session, &answer)?,
    }
    Ok(Exit::Done)
}

/// Reads hot and archived rows by the tool that does, on the session of the query.
struct BothSides<'a> {
    reader: &'a PgReader,
    settings: Settings,
    target: &'a Target,
    clock: &'a dyn Clock,
    workspace: Option<&'a dyn ReadApi>,
    history: Option<Arc<HistoryWriter>>,
}

impl UnifiedRows for BothSides<'_> {
    fn rows<'a>(
        &'a self,
        table: &'a str,
        most_rows: u64,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async move {
            let Some(AnyTool::Read(tool)) = Catalog::builtin().find(UNIFIED) else {
                let text = format!("there is no tool `{UNIFIED}`");
                return Err(Failure::permanent("history::no_tool", text));
            };
            let cx = ReadContext {
                workspace: self.workspace,
                history: self.history.as_deref().map(|history| history as &dyn ReadHistory),
                ..ReadContext::new(self.reader, self.clock, &self.settings, self.target)
            };
            let asked = json!({ "table": table, "most_rows": most_rows });
            let mut found = tool.read(&cx, asked).await?.value;
            match found["rows"].take() {
                Value::Array(rows) => Ok(rows),
                _ => Ok(Vec::new()),
            }
        })
    }
}

const UNIFIED: &str = "read_unified_rows";

async fn draw(session: &Session<'_>, args: ChartArgs) -> Result<Exit, CliError> {
    let query = match (args.sql, args.metric) {
        (Some(sql), _) => Query::new(sql),
        (None, metric) => {
            let now = session.shell.clock.now();
            let since = i64::try_from(args.since.0.as_millis()).unwrap_or(i64::MAX);
            let since = Timestamp::from_millis(now.as_millis().saturating_sub(since));
            let mut binds = vec![Bind::Text(metric.unwrap_or_default()), Bind::Timestamp(since)];
            let of_branch = args.branch.map_or("", |branch| {
                binds.push(Bind::Text(branch));
                "and branch_id = $3"
            });
            let text = format!(
                "select snapshot_timestamp, metric_value from lakebase_metrics \
                 where metric_name = $1 and snapshot_timestamp >= $2 {of_branch} order by 1"
            );
            Query::with_binds(text, binds)
        }
    };
    let location = session.whole_history().await?;
    let answer = history::answer(&location, &query, &[], None).await?;
    let points = points(&answer)?;
    session.shell.out.data(&points, |style| chart(style, &points))?;
    Ok(Exit::Done)
}

/// The points of an answer of two columns. A time or number that is missing is no point.
fn points(answer: &Answer) -> Result<Vec<Point>, CliError> {
    let columns: Vec<String> = answer.columns().into_iter().map(str::to_owned).collect();
    let wrong = || {
        CliError::usage_with("the answer is no series", "select two columns: a time, then a number")
    };
    let [time, value] = columns.as_slice() else { return Err(wrong()) };
    let mut points = Vec::new();
    for row in answer.rows()? {
        if row[time].is_null() || row[value].is_null() {
            continue;
        }
        // A day is a time, too.
        let text = row[time].as_str().ok_or_else(wrong)?;
        let at = Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
        let at = at.ok_or_else(wrong)?;
        points.push(Point { at, value: row[value].as_f64().ok_or_else(wrong)? });
    }
    Ok(points)
}

fn print(session: &Session<'_>, answer: &Answer) -> Result<(), CliError> {
    if session.shell.out.format() == Format::Csv {
        return session.shell.out.text(&answer.csv()?);
    }
    let rows = answer.rows()?;
    session.shell.out.data(&rows, |style| {
        let columns = answer.columns();
        let cells = rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect());
        table(style, &columns, cells.collect(), "no rows")
    })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn travel(text: &str) -> Result<Travel, CliError> {
    Travel::parse(text).ok_or_else(|| {
        CliError::usage_with(
            format!("`{text}` is no state of the history"),
            "write a version such as `7`, a time such as `2026-11-22T10:00:00Z`, or `TABLE=` one of \
             the two",
        )
    })
}

fn form(path: &std::path::Path) -> Result<FileForm, CliError> {
    FileForm::of(path).ok_or_else(|| {
        CliError::usage_with(
            format!("the ending of {} says no form", path.display()),
            "use .parquet, .csv, .json or .jsonl",
        )
    })
}

async fn flush(session: &Session<'_>) -> Result<Exit, CliError> {
    if session.existing_journal()?.is_none() {
        session.shell.out.note("there is no journal, so nothing waits");
        return Ok(Exit::Done);
    }
    let appended = session.history()?.append_owed().await?;
    session.shell.out.data(&appended, |style| {
        let rows = appended.rows.iter();
        let rows = rows.map(|(name, rows)| vec![(*name).to_owned(), rows.to_string()]);
        table(style, &["table", "rows appended"], rows.collect(), "nothing waited")
    })?;
    Ok(Exit::Done)
}
