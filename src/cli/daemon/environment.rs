//! How the daemon's environment differs from the user's.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// Variables that name a file.
const FILES: [&str; 6] = [
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "SSL_CERT_FILE",
];
/// A colon-separated list of directories.
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// The daemon has another working directory, so relative paths are made absolute.
pub(super) fn with_absolute_paths(command: &mut Command) {
    let Ok(here) = std::env::current_dir() else { return };
    let get = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    for name in FILES {
        if let Some(path) = get(name) {
            command.env(name, absolute(&here, &path));
        }
    }
    if let Some(list) = get(DIRECTORIES) {
        let paths = std::env::split_paths(&list).map(|path| absolute(&here, path.as_os_str()));
        command.env(DIRECTORIES, std::env::join_paths(paths).unwrap_or(list.clone()));
    }
}

fn absolute(here: &Path, path: &OsStr) -> OsString {
    // The SDK expands a tilde in some variables. A path that starts with one is left alone.
    match path.as_encoded_bytes().first() {
        Some(b'~') | None => path.to_owned(),
        _ => here.join(path).into_os_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_named_from_the_root() {
        let of = |path: &str| absolute(Path::new("/work/here"), OsStr::new(path));
        assert_eq!(of("../ca.pem"), "/work/here/../ca.pem");
        assert_eq!(of("/etc/ca.pem"), "/etc/ca.pem");
        assert_eq!(of("~/.aws/config"), "~/.aws/config");
    }
}
