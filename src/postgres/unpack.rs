//! Unpacks a package into a directory, and nowhere else.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::directory::{self, FileError};

/// Far above what the package unpacks to.
const LARGEST: u64 = 1 << 30;

/// Unpacks what lies below `inside` into `target`, with its permissions.
pub(super) fn unpack(
    package: &Path,
    inside: &str,
    target: &Path,
    progress: impl Fn(f64),
) -> Result<(), UnpackError> {
    let wrong = |source| UnpackError::Archive { path: package.to_owned(), source };
    let file = File::open(package).map_err(|e| FileError::new("open", package, e))?;
    let mut archive = ZipArchive::new(file).map_err(wrong)?;
    let count = archive.len();
    let mut room = LARGEST;
    directory::create(target, 0o755)?;
    for index in 0..count {
        let mut entry = archive.by_index(index).map_err(wrong)?;
        let name = entry.name().map_err(wrong)?.into_owned();
        let Some(relative) = name.strip_prefix(inside).filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let path =
            target.join(safe(relative).ok_or_else(|| UnpackError::Entry { name: name.clone() })?);
        if entry.is_dir() {
            directory::create(&path, 0o755)?;
            continue;
        }
        let mode = entry.unix_mode().unwrap_or(0o644);
        // The pinned package has no links; one that appears is not ours to interpret.
        if entry.is_symlink() || entry.size() > room {
            return Err(UnpackError::Entry { name });
        }
        room -= entry.size();
        write(&mut entry, &path, mode)?;
        #[expect(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
        progress((index + 1) as f64 / count as f64);
    }
    Ok(())
}

fn write(entry: &mut impl io::Read, path: &Path, mode: u32) -> Result<(), FileError> {
    if let Some(parent) = path.parent() {
        directory::create(parent, 0o755)?;
    }
    let fail = |e| FileError::new("write", path, e);
    let mut file = File::create_new(path).map_err(fail)?;
    io::copy(entry, &mut file).map_err(fail)?;
    // Others read and run it, nobody changes it.
    let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fail)
}

/// The entry's path, when it stays below where it is put.
fn safe(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.contains(['\\', '\0'])).then(|| path.to_owned())
}

/// A package that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is no zip archive, or a damaged one.
    #[error("`{}` cannot be unpacked: {source}", path.display())]
    Archive {
        /// The package.
        path: PathBuf,
        /// What is wrong.
        source: ZipError,
    },
    /// An entry that reaches outside, is a link, or is larger than anything we expect.
    #[error("the package has the entry `{}`, which is refused", name.escape_debug())]
    Entry {
        /// The entry.
        name: String,
    },
    /// The file system refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn package(entries: &[(&str, u32)]) -> (tempfile::TempDir, PathBuf) {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("package.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, mode) in entries {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            if mode & 0o170_000 == 0o120_000 {
                zip.add_symlink(*name, "/etc/passwd", options).unwrap();
            } else {
                zip.start_file(*name, options).unwrap();
                zip.write_all(name.as_bytes()).unwrap();
            }
        }
        zip.finish().unwrap();
        (base, path)
    }

    #[test]
    fn keeps_what_can_be_run_and_leaves_the_rest() {
        let (base, path) = package(&[("p/bin/x", 0o755), ("p/share/y", 0o664), ("other", 0o644)]);
        let target = base.path().join("tree");
        unpack(&path, "p/", &target, |_| ()).unwrap();
        let mode = |name| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("bin/x"), mode("share/y")), (0o755, 0o644));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    }

    #[test]
    fn nothing_leaves_the_directory() {
        for name in ["p/../../evil", "p//etc/evil", "p/a/../../../evil", "p/a\\b"] {
            let (base, path) = package(&[(name, 0o644)]);
            let target = base.path().join("tree");
            assert!(
                matches!(unpack(&path, "p/", &target, |_| ()), Err(UnpackError::Entry { .. })),
                "{name}"
            );
        }
        let (base, path) = package(&[("p/link", 0o120_777)]);
        assert!(unpack(&path, "p/", &base.path().join("tree"), |_| ()).is_err());
    }

    #[test]
    fn damage_is_an_error() {
        let (base, path) = package(&[("p/x", 0o644)]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, bytes).unwrap();
        assert!(unpack(&path, "p/", &base.path().join("tree"), |_| ()).is_err());
    }
}
