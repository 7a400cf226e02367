//! Files on this machine: written whole, or not at all.
//!
//! What a file holds is compared first: with what it is to hold (then nothing is done), and with what it
//! held when the change was proposed (else somebody else changed it, and it is left alone).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Digest, Failure, Operation, Receipt};

/// Writes files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileApplier;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("failed to {what} {}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is {kind}, not a plain file", .path.display())]
    NotPlain { path: PathBuf, kind: &'static str },
    #[error("{} is no absolute path", .path.display())]
    Relative { path: PathBuf },
    #[error("{} was changed by somebody else since the change was proposed", .path.display())]
    Changed { path: PathBuf },
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let text = format!("{error}{}", cause.unwrap_or_default());
        match error {
            FileError::Io { .. } => Self::permanent("file::io", text),
            FileError::NotPlain { .. } | FileError::Relative { .. } => {
                Self::permanent("file::not_plain", text)
            }
            FileError::Changed { .. } => Self::permanent("file::changed", text)
                .with_help("look at what is there now, then run the workflow again"),
        }
    }
}

struct Wanted<'a> {
    path: &'a Path,
    content: Option<&'a str>,
    before: Option<&'a Digest>,
}

fn wanted<'a>(cx: &ApplyContext<'a>) -> Result<Wanted<'a>, Failure> {
    let Operation::File { path, content, before } = cx.operation else {
        return Err(wrong_kind(cx.operation));
    };
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(FileError::Relative { path: path.to_owned() }.into());
    }
    Ok(Wanted { path, content: content.as_deref(), before: before.as_ref() })
}

/// What a look at the file found.
#[derive(PartialEq, Eq)]
enum Found {
    /// It holds what it is to hold.
    AsWanted,
    /// It holds what it held when the change was proposed.
    AsBefore,
    /// It holds something else.
    Otherwise,
}

async fn look(wanted: &Wanted<'_>) -> Result<Found, FileError> {
    let now = content_of(wanted.path).await?;
    Ok(if now.as_deref() == wanted.content.map(str::as_bytes) {
        Found::AsWanted
    } else if now.map(|bytes| Digest::of_bytes(&bytes)).as_ref() == wanted.before {
        Found::AsBefore
    } else {
        Found::Otherwise
    })
}

async fn content_of(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let io = |what, source| FileError::Io { what, path: path.to_owned(), source };
    let kind = match fs::symlink_metadata(path).await {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("look at", error)),
    };
    // Replacing a link would leave what it points to as it was, and cut the link.
    if kind.is_symlink() {
        return Err(FileError::NotPlain { path: path.to_owned(), kind: "a link" });
    }
    if !kind.is_file() {
        return Err(FileError::NotPlain { path: path.to_owned(), kind: "a directory or device" });
    }
    fs::read(path).await.map(Some).map_err(|error| io("read", error))
}

impl FileApplier {
    async fn carry_out(self, cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
        let wanted = wanted(cx)?;
        let receipt = |adopted: bool| {
            let result = json!({ "path": wanted.path, "adopted": adopted });
            Receipt { result, ..Receipt::default() }
        };
        match look(&wanted).await? {
            Found::AsWanted => return Ok(receipt(true)),
            Found::Otherwise => {
                return Err(FileError::Changed { path: wanted.path.to_owned() }.into());
            }
            Found::AsBefore => {}
        }
        cx.reach("before effect");
        match wanted.content {
            Some(content) => replace(cx, wanted.path, content).await?,
            None => remove(wanted.path).await?,
        }
        cx.reach("after effect");
        Ok(receipt(false))
    }

    async fn find(self, cx: &ApplyContext<'_>) -> Result<Recovered, Failure> {
        let wanted = wanted(cx)?;
        let left = half_written(cx, wanted.path);
        // Half a file that a dead process left is nobody's.
        drop(fs::remove_file(left).await);
        Ok(match look(&wanted).await? {
            Found::AsWanted => {
                Recovered::Applied(Receipt { recovered: true, ..Receipt::default() })
            }
            Found::AsBefore => Recovered::NotApplied,
            Found::Otherwise => {
                let path = wanted.path.display();
                Recovered::Unknown(format!("{path} holds neither what it held nor what it was to"))
            }
        })
    }
}

/// Beside the file, so that taking its place is one step of the file system.
fn half_written(cx: &ApplyContext<'_>, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", cx.key.application_name().replace(':', "-")))
}

async fn replace(cx: &ApplyContext<'_>, path: &Path, content: &str) -> Result<(), FileError> {
    let io = |what, source| FileError::Io { what, path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).await.map_err(|error| io("make the folder of", error))?;
    let half = half_written(cx, path);
    let mut file = fs::File::create(&half).await.map_err(|error| io("write beside", error))?;
    let written = async {
        file.write_all(content.as_bytes()).await?;
        if let Ok(metadata) = fs::metadata(path).await {
            fs::set_permissions(&half, metadata.permissions()).await?;
        }
        file.sync_all().await?;
        fs::rename(&half, path).await
    };
    if let Err(error) = written.await {
        drop(fs::remove_file(&half).await);
        return Err(io("write", error));
    }
    sync_folder(folder).await
}

async fn remove(path: &Path) -> Result<(), FileError> {
    let io = |source| FileError::Io { what: "remove", path: path.to_owned(), source };
    fs::remove_file(path).await.map_err(io)?;
    sync_folder(path.parent().unwrap_or(path)).await
}

/// The name is durable only once its folder is.
async fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let io = |source| FileError::Io { what: "sync", path: folder.to_owned(), source };
    let opened = fs::File::open(folder).await.map_err(io)?;
    opened.sync_all().await.map_err(io)
}

impl Applier for FileApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, self.carry_out(cx)))
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(self.find(cx))
    }
}
