//! Has the relocations of the program packed, where its C library can read them so.
//!
//! The loader sets hundreds of thousands of pointers of the program at each start. As a list they take megabytes that
//! every process reads and keeps mapped; packed (`DT_RELR`) they take next to nothing (`src/ARCHITECTURE.md` has the
//! figures). glibc reads them from 2.36 on, and a program with packed ones does not start with an older one: so it is
//! done only where this machine's own is new enough.

#![expect(clippy::disallowed_methods, reason = "this is how cargo tells")]

use std::process::Command;

/// The first glibc that reads packed relocations.
const GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=.config/build.rs");
    if is_for_this_machine() && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn is_for_this_machine() -> bool {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    let is_same = std::env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    is_same && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")
}

/// The version of this machine's glibc; `None`: it cannot be told.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split_once('.').map_or(minor, |(minor, _)| minor);
    Some((major.parse().ok()?, minor.parse().ok()?))
}
