//! Paths with wildcards, matched in the vault.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::{FilesConnection, has_wildcards, matches};

/// The paths that a path stands for: itself, if it exists or has no wildcards; otherwise what it matches, in order.
pub(super) fn expand(
    connection: &mut FilesConnection,
    path: &Path,
) -> io::Result<CliResult<Vec<PathBuf>>> {
    let bytes = path.as_os_str().as_bytes();
    if !has_wildcards(bytes) || connection.stat(path, false)?.is_ok() {
        return Ok(Ok(vec![path.to_owned()]));
    }
    let mut found = vec![PathBuf::from(if bytes.starts_with(b"/") { "/" } else { "" })];
    let names: Vec<_> = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        let mut next = Vec::new();
        for directory in found {
            if !has_wildcards(name) {
                let path = directory.join(std::ffi::OsStr::from_bytes(name));
                if connection.stat(&path, false)?.is_ok() {
                    next.push(path);
                }
                continue;
            }
            // What is not a directory, or cannot be read, has no entries.
            let Ok(entries) = connection.list(&directory)? else { continue };
            let is_last = index + 1 == names.len();
            for entry in entries {
                let can_hold = is_last || entry.is_directory() || entry.target.is_some();
                if can_hold && matches(name, entry.name.as_os_str().as_bytes()) {
                    next.push(directory.join(entry.name));
                }
            }
        }
        found = next;
    }
    if found.is_empty() {
        return Ok(Err(Failure::new(Exit::Other, "nothing in the vault is like this")));
    }
    Ok(Ok(found))
}
