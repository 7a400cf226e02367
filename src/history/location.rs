//! Where the tables are: a local folder, or a store that was built in.

use std::path::{Path, PathBuf};

use url::Url;

use super::error::HistoryError;

/// Where the tables are: each in a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    root: Url,
    local: Option<PathBuf>,
}

/// The stores, the Cargo feature that each needs, and whether it is built in.
const STORES: &[(&str, &str, bool)] = &[
    ("s3", "s3", cfg!(feature = "s3")),
    ("s3a", "s3", cfg!(feature = "s3")),
    ("abfss", "azure", cfg!(feature = "azure")),
    ("abfs", "azure", cfg!(feature = "azure")),
    ("az", "azure", cfg!(feature = "azure")),
    ("gs", "gcs", cfg!(feature = "gcs")),
];

impl Location {
    /// A local folder.
    pub fn folder(folder: &Path) -> Result<Self, HistoryError> {
        let wrong = |why: &str| HistoryError::Location {
            location: folder.display().to_string(),
            why: why.to_owned(),
        };
        let absolute = std::path::absolute(folder).map_err(|error| wrong(&error.to_string()))?;
        let root = Url::from_directory_path(&absolute).map_err(|()| wrong("it is no path"))?;
        Ok(Self { root, local: Some(absolute) })
    }

    /// What a configuration says: a folder, relative to `base`, or the URL of a store. Credentials come
    /// from the variables that the tools of the store know (`AWS_…`, `AZURE_…`, `GOOGLE_…`).
    pub fn parse(text: &str, base: &Path) -> Result<Self, HistoryError> {
        if !text.contains("://") {
            return Self::folder(&base.join(text));
        }
        let wrong = |why: String| HistoryError::Location { location: text.to_owned(), why };
        let mut root = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        if root.scheme() == "file" {
            let path = root.to_file_path().map_err(|()| wrong("it is no path".to_owned()))?;
            return Self::folder(&path);
        }
        let store = STORES.iter().find(|(scheme, ..)| *scheme == root.scheme());
        let Some((_, feature, is_built_in)) = store else {
            let why = "write a folder, or a URL that begins with s3://, abfss:// or gs://";
            return Err(wrong(why.to_owned()));
        };
        if !is_built_in {
            return Err(HistoryError::NotBuiltIn { location: text.to_owned(), feature });
        }
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        Ok(Self { root, local: None })
    }

    /// The place of a table.
    pub(super) fn table(&self, name: &str) -> Result<Url, HistoryError> {
        self.root.join(&format!("{name}/")).map_err(|error| HistoryError::Location {
            location: format!("{}{name}", self.root),
            why: error.to_string(),
        })
    }

    /// The folder of a table, when it is a local one.
    pub(super) fn table_folder(&self, name: &str) -> Option<PathBuf> {
        self.local.as_ref().map(|folder| folder.join(name))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.local {
            Some(folder) => write!(f, "{}", folder.display()),
            None => write!(f, "{}", self.root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_store() {
        let base = Path::new("/srv/ops");
        let local = Location::parse("state/history", base).unwrap();
        assert_eq!(local.to_string(), "/srv/ops/state/history");
        assert_eq!(local.table("audit").unwrap().path(), "/srv/ops/state/history/audit/");
        assert_eq!(Location::parse("file:///srv/ops/state/history/", base).unwrap(), local);
        let told = Location::parse("ftp://x/y", base).unwrap_err().to_string();
        assert!(told.contains("begins with s3://"), "{told}");
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_store_that_is_not_built_in_names_its_feature() {
        let told = Location::parse("s3://bucket/ops", Path::new("/")).unwrap_err().to_string();
        assert!(told.contains("--features s3"), "{told}");
    }
}
