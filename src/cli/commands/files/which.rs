//! Finds which vault the paths of a command refer to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::cli::config::Config;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::nearest::nearest;
use crate::cli::paths::UserPaths;

/// A vault, and paths in it.
#[derive(Debug)]
pub(super) struct Meant {
    /// From `--bucket`, or the name in front of the paths.
    pub bucket: Option<String>,
    pub paths: Vec<PathBuf>,
    /// The name in front of the paths.
    named: Option<String>,
    /// The names that the configuration knows, if a path could begin with one.
    known: Vec<String>,
}

impl Meant {
    /// `NAME:PATH` refers to a vault of the configuration, whatever `S3VAULT_BUCKET` says. A path that looks like that by
    /// chance can be written `./NAME:PATH`, or used with `--bucket`.
    pub(super) fn of(
        paths: &UserPaths,
        bucket: Option<&str>,
        said: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> CliResult<Self> {
        let usual = std::env::var("S3VAULT_BUCKET").ok();
        let config = Config::read(&paths.config)?;
        if bucket.is_some() && bucket == usual.as_deref() {
            let meant = Self::in_config(&config, None, said)?;
            let bucket = meant.bucket.or(usual);
            return Ok(Self { bucket, ..meant });
        }
        Self::in_config(&config, bucket, said)
    }

    /// A path as these commands take it, so that one of them may be given what another one printed: with the vault's name in
    /// front if that was given, or with `./` where it would be taken for one.
    pub(super) fn shown<'p>(&self, path: &'p Path) -> Cow<'p, [u8]> {
        let bytes = path.as_os_str().as_bytes();
        match (&self.named, before_colon(path.as_os_str())) {
            (Some(name), _) => [name.as_bytes(), b":", bytes].concat().into(),
            (None, Some((name, _))) if self.known.iter().any(|known| known == name) => {
                [b"./", bytes].concat().into()
            }
            _ => bytes.into(),
        }
    }

    fn in_config(
        config: &Config,
        bucket: Option<&str>,
        said: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> CliResult<Self> {
        let (mut named, mut paths): (Option<String>, _) = (None, Vec::new());
        let known: Vec<String> = match bucket {
            None => config.vaults.iter().filter_map(|vault| vault.name.clone()).collect(),
            Some(_) => Vec::new(),
        };
        for (index, path) in said.into_iter().enumerate() {
            let path = path.as_ref();
            let parts = before_colon(path).filter(|(name, _)| known.iter().any(|it| it == name));
            if let (None, Some((name, _))) = (&parts, before_colon(path)) {
                is_no_slip(name, path, &known)?;
            }
            let name = parts.as_ref().map(|(name, _)| (*name).to_owned());
            if index > 0 && name != named {
                let text = "the paths are of different vaults; from one vault to another, `s3vault get` and `s3vault put` \
                            go by way of this machine";
                return Err(Failure::new(Exit::Usage, text));
            }
            paths.push(parts.map_or_else(|| path.into(), |(_, rest)| rest));
            named = name;
        }
        let bucket = named.clone().or_else(|| bucket.map(str::to_owned));
        Ok(Self { bucket, paths, named, known })
    }
}

/// Refuses a name that is almost one that is known: it would be taken for the beginning of a file's name in another vault.
fn is_no_slip(name: &str, path: &OsStr, known: &[String]) -> CliResult {
    let meant = nearest(name, known.iter().map(String::as_str));
    // Between short names everything is near.
    if meant.is_empty() || name.chars().count() < 3 {
        return Ok(());
    }
    let path = path.to_string_lossy();
    let text = format!(
        "no vault is called {name}{meant} Nothing was done. A path that begins so is ./{path}"
    );
    Err(Failure::new(Exit::Usage, text))
}

/// The text before the first colon, if it can be a name, and the rest.
fn before_colon(path: &OsStr) -> Option<(&str, PathBuf)> {
    let at = path.as_bytes().iter().position(|byte| *byte == b':')?;
    let (name, rest) = path.as_bytes().split_at(at);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('/'))?;
    Some((name, OsString::from_vec(rest[1..].to_vec()).into()))
}

/// The last component of a path; `None` if it is `.` or `..`, or there is none.
pub(super) fn last_name(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/')? + 1;
    let begin = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = &bytes[begin..end];
    (name != b"." && name != b"..").then(|| OsStr::from_bytes(name))
}

/// Refuses paths of which two would get the same name in one directory: the second would replace the first.
pub(super) fn differ_by_name<P: AsRef<Path>>(paths: &[P]) -> CliResult {
    let mut seen = HashMap::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let Some(name) = last_name(path) else { continue };
        if let Some(other) = seen.insert(name, path) {
            let text = format!(
                "{} and {} would both be called {}, and one would replace the other; nothing was done",
                other.display(),
                path.display(),
                Path::new(name).display()
            );
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::KnownVault;

    #[test]
    fn two_of_one_name_do_not_go_into_one_directory() {
        assert!(differ_by_name(&["a/x", "b/y", "x/z/", "..", "../.."]).is_ok());
        for same in [["a/x", "b/x"], ["x", "a/x//"], ["x", "x"]] {
            assert!(differ_by_name(&same).is_err(), "{same:?}");
        }
    }

    #[test]
    fn a_name_before_the_colon_is_that_of_a_vault() {
        let known = |id: &str, name: Option<&str>| KnownVault {
            id: id.into(),
            name: name.map(str::to_owned),
            url: format!("s3://{id}"),
            ..KnownVault::default()
        };
        let vaults = vec![known("1", Some("home")), known("2", Some("work")), known("3", None)];
        let config = Config { vaults, prices: None };
        let meant = |bucket, said: &[&str]| Meant::in_config(&config, bucket, said);
        let found = meant(None, &["home:a/b", "home:/c:d"]).unwrap();
        assert_eq!(found.bucket.as_deref(), Some("home"));
        assert_eq!(found.paths, [Path::new("a/b"), Path::new("/c:d")]);
        for said in ["other:a", "./home:a", "a/home:b", ":a"] {
            let found = meant(None, &[said]).unwrap();
            assert!(found.bucket.is_none() && found.paths == [Path::new(said)], "{said}");
        }
        let found = meant(Some("s3://x"), &["home:a"]).unwrap();
        assert!(found.bucket.as_deref() == Some("s3://x") && found.paths == [Path::new("home:a")]);
        assert_eq!(meant(None, &["home:a", "work:a"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(meant(None, &["home:a", "b"]).unwrap_err().exit, Exit::Usage);
        let slip = meant(None, &["hmoe:a"]).unwrap_err();
        assert!(slip.exit == Exit::Usage && slip.message.contains("is home meant?"), "{slip}");
    }

    #[test]
    fn a_path_is_printed_as_it_is_read_again() {
        let home =
            KnownVault { name: Some("home".into()), url: "s3://1".into(), ..KnownVault::default() };
        let config = Config { vaults: vec![home], prices: None };
        let meant = |bucket, said: &[&str]| Meant::in_config(&config, bucket, said).unwrap();
        for (bucket, said, path, shown) in [
            (None, "home:a", "a/b", "home:a/b"),
            (None, "home:", "", "home:"),
            (None, "home:a", "home:a", "home:home:a"),
            (None, "a", "a/b", "a/b"),
            (None, "./home:a", "home:a", "./home:a"),
            (Some("s3://x"), "home:a", "home:a", "home:a"),
        ] {
            let found = meant(bucket, &[said]);
            assert_eq!(*found.shown(Path::new(path)), *shown.as_bytes());
            let again = meant(bucket, &[shown]);
            assert_eq!(again.bucket, found.bucket);
        }
    }

    #[test]
    fn the_last_name_of_a_path() {
        for (path, name) in [
            ("a", Some("a")),
            ("a/b/", Some("b")),
            ("/a//", Some("a")),
            ("/", None),
            ("", None),
            (".", None),
            ("a/..", None),
        ] {
            assert_eq!(last_name(Path::new(path)), name.map(OsStr::new), "{path}");
        }
    }
}
