//! `lakeops init`

use std::path::PathBuf;

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Shell;
use crate::config::FILE;

/// Write a configuration, a workflow and an SOP to start from
///
/// Writes `.config/lakeops.toml`, `workflows/hello.yaml`, `sops/hello.rhai` with its cases, and the
/// policies `sops/change_policy.rhai` and `sops/branch_policy.rhai`. What is there already is left as it
/// is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops init
  lakeops init operations
  lakeops run hello")]
pub(crate) struct Args {
    /// The folder to write to
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// What is written.
const FILES: [(&str, &str); 8] = [
    (FILE, include_str!("../../../.config/lakeops.toml")),
    ("workflows/hello.yaml", include_str!("starter/hello.yaml")),
    ("sops/hello.rhai", include_str!("starter/hello.rhai")),
    ("sops/hello.cases.yaml", include_str!("starter/hello.cases.yaml")),
    ("sops/branch_policy.rhai", include_str!("../../../sops/branch_policy.rhai")),
    ("sops/branch_policy.cases.yaml", include_str!("../../../sops/branch_policy.cases.yaml")),
    ("sops/change_policy.rhai", include_str!("../../../sops/change_policy.rhai")),
    ("sops/change_policy.cases.yaml", include_str!("../../../sops/change_policy.cases.yaml")),
];

/// Writes what is not there.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let root = shell.path(&args.folder);
    let (mut written, mut kept) = (Vec::new(), Vec::new());
    for (name, text) in FILES {
        let path = root.join(name);
        let shown = args.folder.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| CliError::unwritable(folder.to_owned(), error))?;
        }
        // `create_new` never overwrites, also when two of us run at once.
        match std::fs::File::create_new(&path) {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, text.as_bytes())
                    .map_err(|error| CliError::unwritable(shown.clone(), error))?;
                written.push(shown);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => kept.push(shown),
            Err(error) => return Err(CliError::unwritable(shown, error)),
        }
    }
    shell.out.data(&json!({ "written": written, "kept": kept }), |_| {
        let line = |word: &str, path: &PathBuf| format!("{word} {}\n", path.display());
        let lines = written.iter().map(|path| line("wrote", path));
        lines.chain(kept.iter().map(|path| line("kept ", path))).collect()
    })?;
    shell
        .out
        .note("next: `lakeops run hello` looks at a local PostgreSQL; `lakeops doctor` checks");
    Ok(Exit::Done)
}
