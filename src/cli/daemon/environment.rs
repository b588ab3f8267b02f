//! What the daemon's environment is beside the user's.

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
/// Directories, between colons.
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// The daemon works elsewhere: what is named from here is named from the root.
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
    // The SDK reads the tilde of some; elsewhere it is a name like any other, which nobody has.
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
