//! The shipped workflows resolve against the built-in tools and can be planned as they are.

use std::collections::BTreeMap;
use std::path::Path;

use lakeops::config::Settings;
use lakeops::kernel::{Target, Timestamp};
use lakeops::plan::{PlanInputs, plan};
use lakeops::tools::Catalog;
use lakeops::workflow::load::{Folders, load};
use lakeops::workflow::{Diagnostic, Resolver};

#[test]
fn shipped_workflows_resolve_and_plan() {
    let (library, unread) = load(&Folders::below(Path::new(env!("CARGO_MANIFEST_DIR"))));
    assert!(unread.is_empty(), "{unread:?}");
    let catalog = Catalog::builtin();
    let resolution = Resolver::new(&catalog, &library).resolve_all();
    let told: Vec<String> = resolution.diagnostics.iter().map(Diagnostic::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    let settings = Settings::default();
    for (name, workflow) in &resolution.workflows {
        let inputs = PlanInputs {
            params: BTreeMap::new(),
            connection: "local".to_owned(),
            target: Target::default(),
            wake: false,
            settings: &settings,
            policy: None,
            replaces: None,
            now: Timestamp::from_millis(0),
        };
        if workflow.spec.params.iter().any(|param| param.required && param.default.is_none()) {
            continue;
        }
        let plan = plan(workflow, &inputs).unwrap_or_else(|found| panic!("{name}: {found:?}"));
        assert_eq!(plan.body.workflow, *name);
        let lock = plan.body.lock.unwrap_or_default();
        assert!(!lock.contains(['{', '$']), "{lock}");
    }
}
