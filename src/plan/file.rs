//! Plans on disk: written whole or not at all, and refused when they were changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::document::{Plan, PlanError};

/// The largest plan that is read.
const MOST_BYTES: u64 = 64 << 20;

/// A plan file that cannot be written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The file cannot be read.
    #[error("plan `{path}` cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is far larger than any plan.
    #[error("`{path}` has {bytes} bytes, which no plan has", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file cannot be written.
    #[error("plan `{path}` cannot be written", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no plan that can be trusted.
    #[error("plan `{path}` is refused", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PlanError,
    },
}

impl PlanFileError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "plan::unreadable",
            Self::TooLarge { .. } => "plan::too_large",
            Self::Write { .. } => "plan::unwritable",
            Self::Refused { source: PlanError::NewerFormat { .. }, .. } => "plan::newer_format",
            Self::Refused { source: PlanError::Tampered { .. }, .. } => "plan::tampered",
            Self::Refused { source: PlanError::Unreadable(_), .. } => "plan::malformed",
        }
    }

    /// What to do about it.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::TooLarge { .. } => {
                "give the path of a file that `lakeops plan -o` wrote"
            }
            Self::Write { .. } => "check that the folder exists and may be written to",
            Self::Refused { source: PlanError::NewerFormat { .. }, .. } => {
                "run it with the version that made it, or make it again"
            }
            Self::Refused { .. } => "make it again with `lakeops plan`",
        }
    }
}

/// Writes a plan: after a crash the file is the old one or the new one, never a part.
pub fn save(plan: &Plan, path: &Path) -> Result<(), PlanFileError> {
    let bytes = plan
        .to_bytes()
        .map_err(|source| PlanFileError::Refused { path: path.to_owned(), source })?;
    write(&bytes, path).map_err(|source| PlanFileError::Write { path: path.to_owned(), source })
}

fn write(bytes: &[u8], path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Reads a plan and refuses it unless its content is what its id says.
pub fn load(path: &Path) -> Result<Plan, PlanFileError> {
    let read = |source| PlanFileError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MOST_BYTES {
        return Err(PlanFileError::TooLarge { path: path.to_owned(), bytes });
    }
    let bytes = std::fs::read(path).map_err(read)?;
    Plan::parse(&bytes).map_err(|source| PlanFileError::Refused { path: path.to_owned(), source })
}
