//! What the linker is told beside the code.
//!
//! The loader sets hundreds of thousands of pointers of the program at each start. As a list they take megabytes that
//! every process reads and keeps mapped; packed (`DT_RELR`) they take next to nothing. glibc reads them from 2.36 on,
//! and a program with packed ones does not start with an older one: so it is done only where this machine's own is
//! new enough.
//!
//! The functions that a process of the program calls are few, and lie scattered over all of its code. The kernel maps
//! a file in stretches, so that a process would have several times as much of it as it needs: so they are laid side by
//! side. `src/ARCHITECTURE.md` has the figures of both.

#![expect(clippy::disallowed_methods, reason = "this is how cargo tells")]

use std::path::Path;
use std::process::Command;

/// The first glibc that reads packed relocations.
const GLIBC: (u32, u32) = (2, 36);

/// The names of the functions that belong together. Those that a program does not have are passed over.
const TOGETHER: &str = ".config/functions.txt";

fn main() {
    println!("cargo::rerun-if-changed=.config/build.rs");
    println!("cargo::rerun-if-changed={TOGETHER}");
    if !is_for_this_machine() {
        return;
    }
    if glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let together = std::env::var("CARGO_MANIFEST_DIR").map(|root| Path::new(&root).join(TOGETHER));
    if let Ok(together) = together
        && is("PROFILE", "release")
        && is_linked_by_lld()
    {
        println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", together.display());
        println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}

fn is(name: &str, wanted: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == wanted)
}

fn is_for_this_machine() -> bool {
    let is_same = std::env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    is_same && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")
}

/// Whether the linker is the one that comes with the compiler, as it is by default on this kind of machine; others do
/// not know the order.
fn is_linked_by_lld() -> bool {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let is_chosen = std::env::var_os("RUSTC_LINKER").is_some() || flags.contains("link");
    is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is_chosen
}

/// The version of this machine's glibc; `None`: it cannot be told.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split_once('.').map_or(minor, |(minor, _)| minor);
    Some((major.parse().ok()?, minor.parse().ok()?))
}
