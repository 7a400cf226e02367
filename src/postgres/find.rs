//! Finds an installed PostgreSQL: the configured one, else on `PATH`, else where packages put it.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::installation::{Installation, Source, Unfit};
use super::options::ServerOptions;
use super::user::ServerUser;
use crate::kernel::Clock;

/// A place that was looked at and did not serve.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The directory.
    pub bin_dir: PathBuf,
    /// Why not.
    pub reason: Unfit,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.bin_dir.display(), self.reason)
    }
}

/// The outcome of a search.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The first installation that serves.
    pub found: Option<Installation>,
    /// What was passed over on the way.
    pub rejected: Vec<Rejected>,
}

/// Looks at the configured directory only, or else at every other place in order.
pub(super) async fn find(options: &ServerOptions, user: &ServerUser, clock: &dyn Clock) -> Search {
    let mut search = Search::default();
    for (bin_dir, source) in places(options) {
        let inspected = Installation::inspect(&bin_dir, source, user, clock).await;
        let fit = inspected.and_then(|it| {
            let too_old = it.version.major < options.oldest;
            let reason = Unfit::TooOld { found: it.version, oldest: options.oldest };
            if too_old { Err(reason) } else { Ok(it) }
        });
        match fit {
            Ok(installation) => {
                search.found = Some(installation);
                return search;
            }
            // Most directories of `PATH` have no server; that is no news.
            Err(Unfit::Absent) if source == Source::Path => {}
            Err(reason) => search.rejected.push(Rejected { bin_dir, reason }),
        }
    }
    search
}

fn places(options: &ServerOptions) -> Vec<(PathBuf, Source)> {
    if let Some(configured) = &options.bin_dir {
        return vec![(configured.clone(), Source::Configured)];
    }
    let on_path = options.path.iter().map(|dir| (dir.clone(), Source::Path));
    on_path.chain(packaged(options).into_iter().map(|dir| (dir, Source::System))).collect()
}

/// `/usr/lib/postgresql/<major>/bin`, the newest first.
fn packaged(options: &ServerOptions) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(&options.system) else { return Vec::new() };
    let mut majors: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| options.system.join(major.to_string()).join("bin")).collect()
}
