//! The user's files: workflows, SOPs and SQL, read from their folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::session::Session;
use crate::config::Config;
use crate::kernel::Target;
use crate::plan::{Given, Plan, PlanInputs};
use crate::tools::rules::RuleTexts;
use crate::tools::{Catalog, ToolMeta};
use crate::workflow::load::Folders;
use crate::workflow::{self, Diagnostic, Library, Resolution, Resolver, SourceText, Workflow};

/// The script that decides before each write.
pub const POLICY: &str = "sops/change_policy.rhai";

/// The policy that holds where the user has none.
const BUILT_IN_POLICY: &str = include_str!("../../sops/change_policy.rhai");

/// Where the user's files are. What lies in the working directory is shown without it.
pub fn folders(session: &Session<'_>) -> Folders {
    let here = session.shell.environment.current_dir();
    let short = |path: PathBuf| path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path);
    Folders {
        workflows: short(session.config.workflows_dir()),
        scripts: session.config.sops_dir(),
        sql: session.config.sql_dir(),
    }
}

/// Everything that workflows can name. What cannot be read is told.
pub fn load(session: &Session<'_>) -> Library {
    let (library, found) = workflow::load::load(&folders(session));
    print_diagnostics(session, &found);
    library
}

/// The text of the change policy: the user's, else the built-in one.
pub fn policy(config: &Config) -> Result<String, CliError> {
    let file = config.sops_dir().join("change_policy.rhai");
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(BUILT_IN_POLICY.to_owned())
        }
        Err(error) => Err(CliError::unreadable(file, error)),
    }
}

/// The SOPs that a tool judges by: the user's, else the built-in ones.
pub fn rules(session: &Session<'_>, tool: &ToolMeta) -> Result<RuleTexts, CliError> {
    let unreadable = std::cell::RefCell::new(None);
    let own = |path: &str| {
        let file = session.config.sops_dir().join(path.strip_prefix("sops/").unwrap_or(path));
        match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                *unreadable.borrow_mut() = Some(CliError::unreadable(file, error));
                None
            }
        }
    };
    let rules = RuleTexts::of(tool, own);
    unreadable.into_inner().map_or(Ok(rules), Err)
}

/// The files below a folder, by their paths from it. A folder that is not there has none.
pub fn texts(folder: &Path, endings: &[&str]) -> Result<BTreeMap<String, String>, CliError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(CliError::unreadable(next, error)),
        };
        for entry in entries {
            let path = entry.map_err(|error| CliError::unreadable(next.clone(), error))?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if is_hidden {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if endings.contains(&ending) {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| CliError::unreadable(path.clone(), error))?;
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.insert(name, text);
            }
        }
    }
    Ok(found)
}

/// How a workflow is to be planned.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The parameters, as they were typed: `name=value`.
    pub params: Vec<String>,
    /// The target, as far as it was typed.
    pub target: Target,
    /// Whether its steps may wake suspended computes.
    pub wake: bool,
}

/// Makes the plan of a workflow, given by its name or its file.
pub fn plan(session: &Session<'_>, workflow: &str, wanted: &Wanted) -> Result<Plan, CliError> {
    let library = load(session);
    let source = file_of(session, workflow)?;
    plan_from(session, &library, (workflow, source), wanted)
}

/// Makes the plan of a file that lies nowhere.
pub fn plan_text(
    session: &Session<'_>,
    text: SourceText,
    wanted: &Wanted,
) -> Result<Plan, CliError> {
    let library = load(session);
    let name = text.stem().to_owned();
    plan_from(session, &library, (&name, Some(text)), wanted)
}

fn plan_from(
    session: &Session<'_>,
    library: &Library,
    named: (&str, Option<SourceText>),
    wanted: &Wanted,
) -> Result<Plan, CliError> {
    let workflow = resolved(session, library, named)?;
    let given = (params(&wanted.params)?, wanted.target.clone(), wanted.wake);
    planned(session, &workflow, given)
}

/// A workflow, given by its name or its file, with all that it names.
pub fn workflow(session: &Session<'_>, workflow: &str) -> Result<Arc<Workflow>, CliError> {
    let library = load(session);
    let source = file_of(session, workflow)?;
    resolved(session, &library, (workflow, source))
}

/// The same among files that are read already; `source` is a file that need not be among them.
pub fn resolved(
    session: &Session<'_>,
    library: &Library,
    (name, source): (&str, Option<SourceText>),
) -> Result<Arc<Workflow>, CliError> {
    let catalog = Catalog::builtin();
    let resolver = Resolver::new(&catalog, library);
    let resolution = match &source {
        Some(source) => resolver.resolve_file(source),
        None => resolver.resolve(name),
    };
    print_diagnostics(session, &resolution.diagnostics);
    if !resolution.is_sound() {
        return Err(mistakes(&resolution.diagnostics));
    }
    let stem = source.as_ref().map_or(name, |source| source.stem());
    resolution.get(stem).map(Arc::clone).ok_or_else(|| unknown(name, library))
}

/// Makes the plan of a resolved workflow, or says every mistake.
pub fn plan_of(
    session: &Session<'_>,
    workflow: &Workflow,
    (params, target, wake): (BTreeMap<String, Given>, Target, bool),
) -> Result<Result<Plan, Vec<Diagnostic>>, CliError> {
    let settings = session.config.settings_for(&target);
    let inputs = PlanInputs {
        params,
        connection: session.config.selected_connection().to_owned(),
        target,
        wake,
        settings: &settings,
        policy: Some((POLICY.to_owned(), policy(&session.config)?)),
        replaces: None,
        now: session.shell.clock.now(),
    };
    Ok(crate::plan::plan(workflow, &inputs))
}

/// Makes the plan of a resolved workflow, or prints every mistake.
pub fn planned(
    session: &Session<'_>,
    workflow: &Workflow,
    given: (BTreeMap<String, Given>, Target, bool),
) -> Result<Plan, CliError> {
    plan_of(session, workflow, given)?.map_err(|diagnostics| {
        print_diagnostics(session, &diagnostics);
        mistakes(&diagnostics)
    })
}

/// The file that is meant, when it is one and not a name.
fn file_of(session: &Session<'_>, workflow: &str) -> Result<Option<SourceText>, CliError> {
    let path = Path::new(workflow);
    let is_file = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    if !is_file {
        return Ok(None);
    }
    source(session, path).map(Some)
}

fn source(session: &Session<'_>, path: &Path) -> Result<SourceText, CliError> {
    if !session.shell.path(path).is_file() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(CliError::unreadable(path, missing));
    }
    workflow::load::load_file(path).map_err(|found| {
        print_diagnostics(session, &found);
        mistakes(&found)
    })
}

fn unknown(name: &str, library: &Library) -> CliError {
    use crate::workflow::Sources as _;
    let known = library.workflows();
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), *known))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 2);
    let help = match (nearest, known.as_slice()) {
        (Some((_, near)), _) => format!("did you mean `{near}`?"),
        (None, []) => "there are none here; `lakeops init` writes one to start from".to_owned(),
        (None, known) => format!("there are: {}", known.join(", ")),
    };
    CliError::usage_with(format!("no workflow is called `{name}`"), help)
}

/// Reads `name=value` pairs.
pub fn params(typed: &[String]) -> Result<BTreeMap<String, Given>, CliError> {
    let pairs = typed.iter().map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::usage_with(format!("`{pair}` is no parameter"), "write `-p name=value`")
        })?;
        Ok((name.trim().to_owned(), Given::Text(value.to_owned())))
    });
    pairs.collect()
}

/// Reads `project/branch/database`, as much of it as is given.
pub fn target(text: Option<&str>) -> Result<Target, CliError> {
    let Some(text) = text else { return Ok(Target::default()) };
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 {
        return Err(CliError::usage_with(
            format!("`{text}` is no target"),
            "write `project/branch` or `project/branch/database`; `-` leaves a part out",
        ));
    }
    let part = |index: usize| {
        let part = parts.get(index).filter(|part| !part.is_empty() && **part != "-");
        part.map(|part| (*part).to_owned())
    };
    Ok(Target { project: part(0), branch: part(1), database: part(2) })
}

/// Tells mistakes and warnings, on stderr.
pub fn print_diagnostics(session: &Session<'_>, diagnostics: &[Diagnostic]) {
    let out = &session.shell.out;
    for diagnostic in diagnostics {
        let text = if out.message_style().color {
            diagnostic.render_coloured()
        } else {
            diagnostic.to_string()
        };
        out.error(&format!("{text}\n"));
    }
}

/// The error that ends a command after its mistakes were printed.
pub fn mistakes(diagnostics: &[Diagnostic]) -> CliError {
    let number = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    CliError::Mistakes(crate::report::style::count(number, "mistake"))
}

/// The workflows that are offered as tools. Those with mistakes are left out, and that is told.
pub fn offered_as_tools(session: &Session<'_>) -> Vec<Arc<Workflow>> {
    let (library, unread) = workflow::load::load(&folders(session));
    let resolution = Resolver::new(&Catalog::builtin(), &library).resolve_all();
    if !resolution.is_sound() || unread.iter().any(Diagnostic::is_error) {
        let note = "workflows with mistakes are left out; `lakeops validate` tells them";
        session.shell.out.note(note);
    }
    let all = resolution.workflows.into_values();
    all.filter(|workflow| workflow.spec.registration.is_some()).collect()
}

/// Resolves all workflows, or just these files.
pub fn resolve(session: &Session<'_>, files: &[PathBuf]) -> Result<(usize, Resolution), CliError> {
    use crate::workflow::Sources as _;
    let library = load(session);
    let catalog = Catalog::builtin();
    let resolver = Resolver::new(&catalog, &library);
    if files.is_empty() {
        return Ok((library.workflows().len(), resolver.resolve_all()));
    }
    let mut all = Resolution::default();
    for file in files {
        let one = resolver.resolve_file(&source(session, file)?);
        all.workflows.extend(one.workflows);
        all.diagnostics.extend(one.diagnostics);
    }
    Ok((files.len(), all))
}
