//! The `s3_key`: a path in the vault as the API spells it, such as `encrypted/file.txt`.

use std::fmt;

use axum::http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::HttpProblem;
use super::errors::Result;
use crate::vfs::{NAME_MAX, PATH_MAX};

/// The prefix of a file's URL path.
pub(super) const FILES: &str = "/files/";

/// The longest key, in bytes: the longest path in the mount.
pub(super) const KEY_MAX: usize = PATH_MAX;

/// The characters that are escaped in a URL path. A slash is not: it separates names.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path below the root. Its names are bytes, as in the mount. No name is empty, `.` or `..`, contains a slash or NUL,
/// or is too long.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct S3Key(Vec<Vec<u8>>);

impl S3Key {
    /// Parses `a/b/c`.
    pub(super) fn parse(path: &[u8]) -> Result<Self> {
        if path.is_empty() {
            return Err(HttpProblem::bad_request(
                "The path is empty. Name a file, as in encrypted/file.txt.",
            ));
        }
        let key = Self::parse_directory(path)?;
        if path.ends_with(b"/") {
            return Err(HttpProblem::bad_request("The path ends in a slash, so it names no file."));
        }
        Ok(key)
    }

    /// Parses `a/b/c` or `a/b/c/`; an empty path is the root.
    pub(super) fn parse_directory(path: &[u8]) -> Result<Self> {
        if path.len() > KEY_MAX {
            let message = format!("The path is longer than {KEY_MAX} bytes.");
            return Err(HttpProblem::bad_request(message));
        }
        if path.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let names = path.split(|byte| *byte == b'/').map(checked_name);
        Ok(Self(names.collect::<Result<_>>()?))
    }

    /// Parses what follows `/files/` in a URL. Names are decoded one by one, so that `%2F` does not split a name.
    pub(super) fn from_url(path: &str) -> Result<Self> {
        let decoded: Vec<Vec<u8>> =
            path.split('/').map(|name| percent_decode_str(name).collect()).collect();
        if decoded.iter().any(|name| name.contains(&b'/')) {
            return Err(HttpProblem::bad_request("A name in the path holds a slash (%2F)."));
        }
        Self::parse(&decoded.join(&b'/'))
    }

    /// The file that a request below `/files/` is for.
    pub(super) fn of_request(uri: &Uri) -> Result<Self> {
        Self::from_url(uri.path().strip_prefix(FILES).unwrap_or_default())
    }

    /// The names, outermost first.
    pub(super) fn names(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The directories and the last name; `None` for the root.
    pub(super) fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0.split_last().map(|(name, directories)| (directories, name.as_slice()))
    }

    /// The last name; empty for the root.
    pub(super) fn name(&self) -> &[u8] {
        self.0.last().map_or(&[], Vec::as_slice)
    }

    /// The key of a name in this directory.
    pub(super) fn join(&self, name: &[u8]) -> Result<Self> {
        let mut names = self.0.clone();
        names.push(checked_name(name)?);
        let key = Self(names);
        match key.bytes().len() > KEY_MAX {
            true => {
                Err(HttpProblem::bad_request(format!("The path is longer than {KEY_MAX} bytes.")))
            }
            false => Ok(key),
        }
    }

    /// `a/b/c`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }

    /// The URL path of the file, `/files/a/b/c`, escaped.
    pub(super) fn url(&self) -> String {
        format!("{FILES}{}", escape(&self.bytes()))
    }
}

/// File names stay out of logs.
impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Key({} names)", self.0.len())
    }
}

/// Percent-encodes for a URL, except slashes.
pub(super) fn escape(bytes: &[u8]) -> String {
    percent_encode(bytes, ESCAPED).to_string()
}

fn checked_name(name: &[u8]) -> Result<Vec<u8>> {
    let problem = match name {
        b"" => "an empty name (a leading or doubled slash)",
        b"." | b".." => "the name . or ..",
        name if name.contains(&b'/') => "a name with a slash in it",
        name if name.contains(&0) => "a name with a NUL in it",
        name if name.len() > NAME_MAX => "a name longer than 255 bytes",
        name => return Ok(name.to_vec()),
    };
    Err(HttpProblem::bad_request(format!(
        "The path has {problem}. Paths are relative to the vault's root, as in encrypted/file.txt."
    )))
}

/// `file-1.txt` for `file.txt` and the suffix `1`: a name to try if `file.txt` is taken.
pub(super) fn numbered(name: &[u8], suffix: &str) -> Vec<u8> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    // A stem that is too long is cut, at a character boundary.
    let room = NAME_MAX.saturating_sub(extension.len() + suffix.len() + 1);
    let mut end = stem.len().min(room);
    while end > 0 && end < stem.len() && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let mut made = stem[..end].to_vec();
    made.push(b'-');
    made.extend_from_slice(suffix.as_bytes());
    made.extend_from_slice(&extension[..extension.len().min(NAME_MAX - made.len())]);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_below_the_root() {
        let key = S3Key::parse(b"a/b c/\xffd").unwrap();
        assert_eq!(key.split().unwrap().1, b"\xffd");
        assert_eq!(key.url(), "/files/a/b%20c/%FFd");
        assert_eq!(S3Key::from_url("a/b%20c/%FFd").unwrap(), key);
        assert_eq!(key.bytes(), b"a/b c/\xffd");
        assert!(S3Key::parse_directory(b"").unwrap().names().is_empty());
        assert_eq!(S3Key::parse_directory(b"a/b/").unwrap(), S3Key::parse(b"a/b").unwrap());
    }

    #[test]
    fn what_leads_out_of_the_vault_or_names_nothing_is_refused() {
        let long = [b'x'; 256];
        let deep = b"x/".repeat(2048);
        let bad: [&[u8]; 12] = [
            b"",
            b"/",
            b"/etc/passwd",
            b"..",
            b"a/../b",
            b"a/./b",
            b"a//b",
            b"a/",
            b"a\0b",
            b".",
            &long,
            &deep,
        ];
        for path in bad {
            let refused = S3Key::parse(path).expect_err("refused");
            assert_eq!(refused.status().as_u16(), 400);
        }
        for path in ["a%2Fb", "..", "%2e%2e/x", "a/%00", "", "/x"] {
            assert!(S3Key::from_url(path).is_err(), "{path}");
        }
        assert!(S3Key::parse(b"...").is_ok() && S3Key::parse(&[b'x'; 255]).is_ok());
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let named = |name: &str| String::from_utf8(numbered(name.as_bytes(), "1")).unwrap();
        assert_eq!(named("file.txt"), "file-1.txt");
        assert_eq!(named(".profile"), ".profile-1");
        assert_eq!(named("noext"), "noext-1");
        assert_eq!(named("a.b.c"), "a.b-1.c");
        for long in ["x".repeat(255), "ä".repeat(127) + ".t", ".".to_owned() + &"y".repeat(254)] {
            let made = named(&long);
            assert!(made.len() <= 255 && made.contains("-1"), "{made}");
        }
        assert!(numbered(format!("a.{}", "y".repeat(253)).as_bytes(), "12").len() <= 255);
    }
}
