//! Reading workflows, scripts and SQL files from folders: the only I/O of this module.

use std::fs::DirEntry;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::source::SourceText;
use super::sources::Library;
use super::yaml::MOST_BYTES;

/// Where files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Workflows: `<name>.yaml`.
    pub workflows: PathBuf,
    /// Scripts: `<name>.rhai`; files name them `sops/<name>.rhai`.
    pub scripts: PathBuf,
    /// SQL files beside the program's own: `<family>/<name>.sql`.
    pub sql: PathBuf,
}

impl Folders {
    /// `workflows/`, `sops/` and `sql/` below a folder.
    pub fn below(root: &Path) -> Self {
        Self {
            workflows: root.join("workflows"),
            scripts: root.join("sops"),
            sql: root.join("sql"),
        }
    }
}

/// Reads all files. Those that cannot be read are told; a folder that is not there is empty.
pub fn load(folders: &Folders) -> (Library, Vec<Diagnostic>) {
    let mut library = Library::new();
    let mut found = Vec::new();
    for path in files(&folders.workflows, &mut found) {
        match ending(&path) {
            "yaml" => {
                if let Some(text) = read_within(&folders.workflows, &path, &mut found) {
                    library.add_workflow(SourceText::new(path.display().to_string(), text));
                }
            }
            "yml" => found.push(misnamed(&path)),
            _ => {}
        }
    }
    for path in files(&folders.scripts, &mut found) {
        if ending(&path) == "rhai"
            && let Some(text) = read_within(&folders.scripts, &path, &mut found)
        {
            library = library.with_script(format!("sops/{}", name(&path)), text);
        }
    }
    for family in folders_in(&folders.sql) {
        for path in files(&family, &mut found) {
            if let Some(stem) = name(&path).strip_suffix(".sql")
                && let Some(text) = read_within(&folders.sql, &path, &mut found)
            {
                library = library.with_sql(format!("{}/{stem}", name(&family)), text);
            }
        }
    }
    (library, found)
}

/// Reads one workflow file.
pub fn load_file(path: &Path) -> Result<SourceText, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let text = read(path, &mut found);
    text.map(|text| SourceText::new(path.display().to_string(), text)).ok_or(found)
}

/// Reads a file of a folder, unless it is a link to somewhere else: what a plan pins, and people review, is what
/// lies in the folder.
fn read_within(folder: &Path, path: &Path, found: &mut Vec<Diagnostic>) -> Option<String> {
    let mut parts = path.ancestors().take_while(|part| *part != folder);
    let real = |path: &Path| path.canonicalize().ok();
    let leads_out = || {
        let ends = real(path).zip(real(folder));
        ends.is_some_and(|(path, folder)| !path.starts_with(folder))
    };
    if !(parts.any(Path::is_symlink) && leads_out()) {
        return read(path, found);
    }
    let file = path.display().to_string();
    let text = format!("`{file}` is a link that leads out of `{}`", folder.display());
    let help = "put the file itself there; the folder may be a link as a whole";
    found.push(Diagnostic::error("workflow::leads_out", &file, text).with_help(help));
    None
}

fn read(path: &Path, found: &mut Vec<Diagnostic>) -> Option<String> {
    // One byte more than allowed is enough to be refused for it later.
    let limit = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = file {
        found.push(unreadable(path, &error.to_string()));
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let source = SourceText::new(path.display().to_string(), text);
            let message = "the file is not UTF-8";
            let place = source.place(valid, valid + 1);
            let mistake = Diagnostic::error("workflow::encoding", source.path(), message);
            found.push(mistake.at(&source, place).with_help("save it as UTF-8"));
            None
        }
    }
}

fn files(folder: &Path, found: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            found.push(unreadable(folder, &error.to_string()));
            return Vec::new();
        }
    };
    let is_file = |entry: &DirEntry| match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => kind.is_file(),
        _ => entry.path().is_file(),
    };
    let files = entries.filter_map(Result::ok).filter(is_file);
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

fn unreadable(path: &Path, why: &str) -> Diagnostic {
    let file = path.display().to_string();
    Diagnostic::error("workflow::unreadable", &file, format!("`{file}` cannot be read: {why}"))
        .with_help("check its permissions")
}

fn misnamed(path: &Path) -> Diagnostic {
    let file = path.display().to_string();
    let help = format!("rename it to `{}`", path.with_extension("yaml").display());
    let found = Diagnostic::error("workflow::misnamed", &file, "this file is not looked at");
    Diagnostic { severity: Severity::Warning, ..found.with_help(help) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::Sources as _;

    #[test]
    fn folders_are_read_in_order_and_what_cannot_be_read_is_told() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["workflows/.schema", "sops", "sql/mine"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let write =
            |path: &str, bytes: &[u8]| std::fs::write(root.path().join(path), bytes).unwrap();
        write("workflows/b.yaml", b"version: 1");
        write("workflows/a.yaml", b"\xef\xbb\xbfversion: 1");
        write("workflows/c.yml", b"");
        write("workflows/d.yaml", b"a: \xff");
        write("workflows/.schema/workflow.json", b"{}");
        write("sops/x.rhai", b"1");
        write("sops/README.md", b"1");
        write("sql/mine/count.sql", b"select 1");
        let (library, found) = load(&Folders::below(root.path()));
        assert_eq!(library.workflows(), ["a", "b"]);
        assert_eq!(library.workflow("a").map(SourceText::text), Some("version: 1"));
        assert_eq!(library.scripts(), ["sops/x.rhai"]);
        assert_eq!(library.sql("mine/count"), Some("select 1"));
        let codes: Vec<&str> = found.iter().map(|found| found.code).collect();
        assert_eq!(codes, ["workflow::misnamed", "workflow::encoding"]);
        assert_eq!(found[1].span.map(|place| place.start.column), Some(4));
        assert!(load(&Folders::below(&root.path().join("none"))).1.is_empty());
        assert!(load_file(&root.path().join("none.yaml")).is_err());
    }

    #[test]
    fn no_link_leads_out_of_a_folder() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["workflows", "shared/sops", "sql", "beyond"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let at = |path: &str| root.path().join(path);
        std::fs::write(at("beyond/secret"), "version: 1").unwrap();
        std::fs::write(at("beyond/count.sql"), "select 1").unwrap();
        std::fs::write(at("shared/sops/own.rhai"), "1").unwrap();
        let link = |to: &str, path: &str| std::os::unix::fs::symlink(at(to), at(path)).unwrap();
        link("beyond/secret", "workflows/a.yaml");
        link("shared/sops", "sops");
        link("beyond/secret", "shared/sops/taken.rhai");
        link("shared/sops/own.rhai", "shared/sops/twin.rhai");
        link("beyond", "sql/mine");
        link("beyond/none", "workflows/dangling.yaml");
        let (library, found) = load(&Folders::below(root.path()));
        assert!(library.workflows().is_empty());
        assert_eq!(library.scripts(), ["sops/own.rhai", "sops/twin.rhai"]);
        assert_eq!(library.sql("mine/count"), None);
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3, "{told:?}");
        for file in ["workflows/a.yaml", "sops/taken.rhai", "sql/mine/count.sql"] {
            let wanted = format!("{}` is a link that leads out of", at(file).display());
            assert!(told.iter().any(|told| told.contains(&wanted)), "{file}: {told:?}");
        }
    }
}
