//! Reading and planning: a large workflow, and many of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Bench, BenchError, Figure};
use crate::config::Settings;
use crate::kernel::Target;
use crate::plan::{self, PlanInputs};
use crate::tools::Catalog;
use crate::workflow::{Library, Resolver, SourceText};

/// Steps of one file: as many as it may have.
pub(super) const MOST_OF_A_FILE: u32 = 500;

/// What it gives stays small, however many steps add to it.
pub(super) const SCRIPT: &str = "#{ n: (n + 1) % 1000 }";

impl Bench {
    /// A workflow of so many steps, in as many files as that needs, each with two edges: read and checked,
    /// then planned.
    pub(super) fn large_workflow(&self, steps: u32) -> Result<[Figure; 2], BenchError> {
        let mut whole = "version: 1\nname: large\ndescription: Made up.\nsteps:\n".to_owned();
        let (mut first, mut parts) = (0, Vec::new());
        while first < steps {
            let name = format!("part_{}", parts.len());
            // The step that embeds a part is one more.
            let own = (steps - first - 1).clamp(1, MOST_OF_A_FILE);
            first += own + 1;
            // Writing to a text cannot fail.
            let _ = writeln!(whole, "  - {{ id: {name}, workflow: {name} }}");
            parts.push((name.clone(), workflow(&name, own)));
        }
        let library = library(parts.into_iter().chain([("large".to_owned(), whole)]));
        let catalog = Catalog::builtin();
        let start = self.clock.now();
        let resolution = Resolver::new(&catalog, &library).resolve("large");
        let read = self.figure(
            format!("a workflow of {steps} steps, read and checked"),
            u64::from(steps),
            start,
        );
        let found = |what: &dyn std::fmt::Debug| BenchError::Lost(format!("{what:?}"));
        let workflow = resolution.get("large").ok_or_else(|| found(&resolution.diagnostics))?;
        let settings = Settings::default();
        let inputs = PlanInputs {
            params: BTreeMap::new(),
            connection: "none".to_owned(),
            target: Target::default(),
            settings: &settings,
            policy: None,
            replaces: None,
            wake: false,
            now: self.clock.now(),
        };
        let start = self.clock.now();
        let plan = plan::plan(workflow, &inputs).map_err(|mistakes| found(&mistakes))?;
        let bytes = plan.to_bytes()?.len();
        let mut planned =
            self.figure(format!("the plan of these {steps} steps"), u64::from(steps), start);
        planned.note = format!("{} with its hash", bytesize::ByteSize(bytes as u64));
        Ok([read, planned])
    }

    /// So many files of ten steps, read and checked together.
    pub(super) fn many_files(&self, files: u32) -> Result<Figure, BenchError> {
        let library =
            library((0..files).map(|n| (format!("w{n}"), workflow(&format!("w{n}"), 10))));
        let catalog = Catalog::builtin();
        let start = self.clock.now();
        let resolution = Resolver::new(&catalog, &library).resolve_all();
        let what = format!("{files} workflows of ten steps, read and checked");
        let figure = self.figure(what, u64::from(files), start);
        if resolution.workflows.len() != library_size(files) {
            return Err(BenchError::Lost(format!("{:?}", resolution.diagnostics)));
        }
        Ok(figure)
    }
}

fn library_size(files: u32) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX)
}

fn library(workflows: impl IntoIterator<Item = (String, String)>) -> Library {
    let mut library = Library::new();
    for (name, text) in workflows {
        library.add_workflow(SourceText::new(format!("{name}.yaml"), text));
    }
    library.with_script("add.rhai", SCRIPT)
}

/// Each step takes what the two before it found.
pub(super) fn workflow(name: &str, steps: u32) -> String {
    let mut text = format!("version: 1\nname: {name}\ndescription: Made up.\nsteps:\n");
    for n in 0..steps {
        let with = match n {
            0 => "0".to_owned(),
            1 => "\"${{ steps.s0.n }}\"".to_owned(),
            _ => format!("\"${{{{ steps.s{}.n + steps.s{}.n }}}}\"", n - 1, n - 2),
        };
        let step = format!("  - id: s{n}\n    script: add.rhai\n    with: {{ n: {with} }}\n");
        // Writing to a text cannot fail.
        let _ = text.write_str(&step);
    }
    text
}
