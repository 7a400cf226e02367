//! The settings that a branch's server is started with.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::FleetError;

/// Settings that decide how the fleet reaches, archives and recovers a server.
const OURS: &[&str] = &[
    "allow_alter_system",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "dynamic_library_path",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "logging_collector",
    "max_connections",
    "port",
    "primary_conninfo",
    "recovery_end_command",
    "restore_command",
    "session_preload_libraries",
    "shared_preload_libraries",
    "superuser_reserved_connections",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_init_zero",
    "wal_level",
    "wal_recycle",
];

/// Connections that are kept for the fleet itself.
pub(super) const RESERVED: u32 = 7;
/// What a branch that has no endpoint yet is started with: what one of a single compute unit takes, so
/// that its server need not be started again for it.
pub(super) const DEFAULT_CONNECTIONS: u32 = 209;

/// Checks what an endpoint may set.
pub fn check(pg_settings: &BTreeMap<String, String>) -> Result<(), FleetError> {
    for name in pg_settings.keys() {
        let refuse = |why| FleetError::Setting { name: name.clone(), why };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(refuse("it is no name of a setting"));
        }
        let lower = name.to_ascii_lowercase();
        if OURS.contains(&lower.as_str())
            || lower.starts_with("ssl")
            || lower.starts_with("recovery_")
        {
            return Err(refuse("it is decided by the service"));
        }
    }
    Ok(())
}

/// The settings of a branch's server.
pub(super) fn of_branch(
    archive: &Path,
    max_connections: u32,
    pg_settings: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    // A WAL file is never written again once it is archived, as none is recycled: a link is a copy.
    let archive_command = format!("ln -f %p {}/%f", quoted(archive));
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
    set("shared_buffers", "32MB".to_owned());
    for (name, value) in pg_settings {
        set(name, value.clone());
    }
    set("listen_addresses", String::new());
    set("max_connections", max_connections.max(RESERVED + 1).to_string());
    set("superuser_reserved_connections", RESERVED.to_string());
    set("archive_mode", "on".to_owned());
    set("archive_command", archive_command);
    set("wal_level", "replica".to_owned());
    set("wal_recycle", "off".to_owned());
    set("wal_init_zero", "off".to_owned());
    set("wal_keep_size", "32MB".to_owned());
    all
}

/// A command that fetches a WAL file of a branch: from its archive, or where its server writes it.
pub(super) fn restore_command(archive: &Path, data: &Path) -> String {
    let (archive, data) = (quoted(archive), quoted(data));
    format!("cp {archive}/%f \"%p\" 2>/dev/null || cp {data}/pg_wal/%f \"%p\" 2>/dev/null")
}

/// A path for the shell, in a text where PostgreSQL replaces `%`.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy().replace('\'', "'\\''").replace('%', "%%");
    format!("'{path}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_decides_is_refused() {
        for name in ["listen_addresses", "Port", "ssl_cert_file", "recovery_target_time", "a b", ""]
        {
            let settings = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
            assert!(check(&settings).is_err(), "{name}");
        }
        let settings = BTreeMap::from([("work_mem".to_owned(), "8MB".to_owned())]);
        assert!(check(&settings).is_ok());
    }

    #[test]
    fn paths_reach_the_shell_whole() {
        assert_eq!(quoted(Path::new("/a 'b'/50%")), "'/a '\\''b'\\''/50%%'");
    }
}
