//! The engine that evaluates, and what it must not do.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
    BasicMathPackage, BasicStringPackage, MoreStringPackage, Package,
};
use rhai::{Engine, OptimizationLevel};
use serde_json::Value;

use super::convert::Skipped;
use super::error::{ScriptError, TemplateError};
use super::expression::Expression;
use super::program::{Kind, Program};
use super::script::Script;
use super::template::Template;
use super::{builtin, compare, trace};

/// The variables that expressions can name.
pub const ROOTS: &[&str] =
    &["params", "target", "steps", "item", "index", "run", "event", "secrets", "result"];

/// The engine of this process. It holds nothing of what it compiles or evaluates, and making one takes longer than
/// reading a workflow does.
static ENGINES: LazyLock<Arc<Engines>> = LazyLock::new(|| {
    let engine = engine();
    let functions = functions(&engine);
    Arc::new(Engines { engine, explaining: OnceLock::new(), functions })
});

/// Compiles texts. Cheap to make and to clone: all of a process share one engine.
///
/// ```
/// use lakeops::sop::{Sandbox, Scope};
/// use serde_json::json;
///
/// let sandbox = Sandbox::new();
/// let condition = sandbox.expression("steps.count.rows > params.limit")?;
/// let scope = Scope::from([
///     ("params".to_owned(), json!({ "limit": 3 })),
///     ("steps".to_owned(), json!({ "count": { "rows": 4 } })),
/// ]);
/// assert!(condition.evaluate(&scope)?.as_bool()?);
/// # Ok::<(), lakeops::sop::ScriptError>(())
/// ```
#[derive(Clone)]
pub struct Sandbox {
    engines: Arc<Engines>,
    kept: Option<Arc<Kept>>,
}

/// What was compiled, by its text.
type Kept = Mutex<HashMap<String, Vec<Arc<Program>>>>;

/// The engine for all work, and one that explains failures.
pub(super) struct Engines {
    pub(super) engine: Engine,
    explaining: OnceLock<Engine>,
    /// The names of all functions that a text can call.
    pub(super) functions: BTreeSet<String>,
}

impl Engines {
    /// An engine that goes on when a field is missing, and notes it.
    pub(super) fn explaining(&self) -> &Engine {
        self.explaining.get_or_init(|| {
            let mut engine = engine();
            trace::note_missing(&mut engine);
            engine
        })
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox")
    }
}

impl Sandbox {
    /// Makes a sandbox that keeps nothing of what it compiles.
    pub fn new() -> Self {
        Self { engines: Arc::clone(&ENGINES), kept: None }
    }

    /// Makes a sandbox that compiles each text once. It keeps them all for as long as it or a clone of it
    /// lives: for work that has an end, such as reading files, where the same texts come again and again.
    pub fn keeping() -> Self {
        Self { kept: Some(Arc::default()), ..Self::new() }
    }

    /// Compiles one expression, which may name the variables in [`ROOTS`].
    pub fn expression(&self, text: &str) -> Result<Expression, ScriptError> {
        self.compile(Kind::Expression, text, ROOTS).map(Expression::new)
    }

    /// Compiles the `${{ … }}` in all strings of a value, and reports every mistake.
    pub fn template(&self, value: &Value) -> Result<Template, Vec<TemplateError>> {
        Template::compile(self, value)
    }

    /// Compiles a script that may name the given variables, and no others.
    pub fn script(
        &self,
        name: &str,
        text: &str,
        variables: &[&str],
    ) -> Result<Script, ScriptError> {
        let program = self.compile(Kind::Script, text, variables)?;
        Ok(Script::new(name, program))
    }

    fn compile(&self, kind: Kind, text: &str, known: &[&str]) -> Result<Arc<Program>, ScriptError> {
        let compile = || Program::compile(&self.engines, kind, text, known).map(Arc::new);
        let Some(kept) = &self.kept else { return compile() };
        let kept = || kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |of_text: &Vec<Arc<Program>>| {
            of_text.iter().find(|program| program.is_of(kind, known)).map(Arc::clone)
        };
        if let Some(program) = kept().get(text).and_then(same) {
            return Ok(program);
        }
        let program = compile()?;
        kept().entry(text.to_owned()).or_default().push(Arc::clone(&program));
        Ok(program)
    }
}

/// A bare engine with what decisions need. What is not added does not exist: waiting, time, chance,
/// modules. (Disabling the symbol `sleep` would not do: a function may have a reserved name.)
fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    let packages = [
        ArithmeticPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        BasicFnPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
    ];
    for package in packages {
        engine.register_global_module(package);
    }
    for symbol in ["eval", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    limits(&mut engine);
    // Rhai's own comparisons answer false for unlike values; ours answer with an error.
    engine.set_fast_operators(false);
    compare::register(&mut engine);
    builtin::register(&mut engine);
    trace::register(&mut engine);
    engine.register_type_with_name::<Skipped>("skipped step");
    // The output of a fan-out is a list; a step that ran was not skipped.
    engine.register_get("skipped", |_: &mut rhai::Array| false);
    engine.register_indexer_get(|skipped: &mut Skipped, name: &str| skipped.field(name));
    engine
}

/// Functions that Rhai's evaluator handles itself. `curry` is not among them: closures that hold
/// closures may double in size, and no limit of the engine sees it.
const KEYWORDS: [&str; 7] = ["print", "debug", "type_of", "Fn", "call", "is_def_var", "is_def_fn"];

fn functions(engine: &Engine) -> BTreeSet<String> {
    let registered =
        engine.collect_fn_metadata(None, |info| Some(info.metadata.name.to_string()), true);
    registered.into_iter().chain(KEYWORDS.map(str::to_owned)).collect()
}

fn limits(engine: &mut Engine) {
    engine
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        // Sub-expressions stay as written, and no operator is decided before ours are asked.
        .set_optimization_level(OptimizationLevel::None)
        .set_max_call_levels(32)
        .set_max_expr_depths(64, 32)
        .set_max_string_size(1 << 20)
        .set_max_array_size(50_000)
        .set_max_map_size(200_000)
        .set_max_variables(128)
        .set_max_functions(64)
        .set_max_modules(0);
}
