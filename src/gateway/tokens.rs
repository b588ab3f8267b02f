//! Bearer tokens: who may use the service. They are in a file of this user on this machine, one per line. The file is
//! read again whenever it has changed, so that a removed token is refused at once.
//!
//! A token is 256 random bits, so its SHA-256 reveals nothing about it and needs neither a salt nor a slow hash. Those
//! protect secrets that people choose, which can be guessed.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::Access;
use super::s3_key::escape;
use super::scope::Scope;
use crate::crypto;
use crate::types::{Hash, Timestamp};

/// The prefix of every token, so that scanners for leaked secrets recognise it.
const PREFIX: &str = "s3vault_";
/// The longest name of a token.
pub(super) const NAME_MAX: usize = 64;
/// The most tokens: each request compares with all of them.
pub(super) const TOKENS_MAX: usize = 1000;
/// The most bytes of the file. What is longer is refused, since a part of it would say something else.
const FILE_MAX: u64 = 1 << 20;
/// The first lines of the file.
const HEADER: &str = "# Who may use `s3vault serve`: SHA-256 of the token, access, made at, name, until=, only=.\n\
                      # Written by `s3vault serve token`; a line that is taken out is refused at once.\n";

/// The prefix of the field that says when a token expires.
const UNTIL: &str = "until=";
/// The prefix of the field that limits a token to a path.
const ONLY: &str = "only=";

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the user calls it.
    pub name: String,
    /// What it allows.
    pub access: Access,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Its time limit and scope.
    pub(super) limits: KeptLimits,
    /// SHA-256 of it.
    pub(super) hash: Hash,
}

/// The time limit and scope of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptLimits {
    /// In seconds since 1970.
    expires: Option<i64>,
    scope: Option<Scope>,
}

/// The limits of a new token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenLimits<'a> {
    /// How long it lasts from now on.
    pub lasts: Option<Duration>,
    /// The only directory (with everything below it) or file that it is good for.
    pub only: Option<&'a [u8]>,
}

impl Token {
    /// When it expires, in seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        self.limits.expires
    }

    /// The only path that it is good for.
    pub fn only(&self) -> Option<Vec<u8>> {
        self.limits.scope.as_ref().map(Scope::bytes)
    }

    pub(super) fn scope(&self) -> Option<&Scope> {
        self.limits.scope.as_ref()
    }

    /// Whether it has not expired.
    pub fn is_good(&self) -> bool {
        self.limits.expires.is_none_or(|end| Timestamp::now().seconds < end)
    }
}

/// All tokens of a vault on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// Why tokens cannot be read or added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A line that is not a token.
    #[error("line {0} is not understood")]
    Line(usize),
    /// The name is taken.
    #[error("a token with this name is there already; remove it first, or choose another name")]
    Taken,
    /// The name has a character that is not allowed.
    #[error("a token's name is 1 to {NAME_MAX} letters, digits, and any of . _ -")]
    Name,
    /// `--only` does not name a path.
    #[error("--only names a directory or a file of the vault, as in photos/2026, and not the root")]
    Scope,
    /// There are as many as allowed already.
    #[error("there are {TOKENS_MAX} tokens; remove some first")]
    Many,
    /// With it, the file would be too long.
    #[error("the tokens with their --only would take more than 1 MiB; remove some first")]
    Long,
}

/// A token in the clear: it is shown once, and wiped when dropped.
pub struct TokenSecret(Zeroizing<String>);

impl TokenSecret {
    /// The secret, to show to the user.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl Tokens {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let tokens = lines.map(|(number, line)| token(line).ok_or(TokenError::Line(number + 1)));
        tokens.collect::<Result<_, _>>().map(Self)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let line = |token: &Token| {
            let Token { name, access, created, hash, limits } = token;
            let until = limits.expires.map(|end| format!(" {UNTIL}{end}")).unwrap_or_default();
            let only =
                limits.scope.as_ref().map(|scope| format!(" {ONLY}{}", escape(&scope.bytes())));
            format!("{hash} {access} {created} {name}{until}{}\n", only.unwrap_or_default())
        };
        std::iter::once(HEADER.to_owned()).chain(self.0.iter().map(line)).collect()
    }

    /// Makes a token.
    pub fn add(
        &mut self,
        name: &str,
        access: Access,
        limits: TokenLimits<'_>,
    ) -> Result<TokenSecret, TokenError> {
        if !is_name(name) {
            return Err(TokenError::Name);
        }
        if self.0.iter().any(|token| token.name == name) {
            return Err(TokenError::Taken);
        }
        if self.0.len() >= TOKENS_MAX {
            return Err(TokenError::Many);
        }
        let scope = match limits.only {
            Some(path) => Some(Scope::parse(path).ok_or(TokenError::Scope)?),
            None => None,
        };
        let created = Timestamp::now().seconds;
        let end = |lasts: Duration| {
            created.saturating_add(i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX))
        };
        let limits = KeptLimits { expires: limits.lasts.map(end), scope };
        let random = Zeroizing::new(crypto::random::<32>());
        let mut secret = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
        secret.push_str(PREFIX);
        for byte in random.iter() {
            for half in [byte >> 4, byte & 15] {
                secret.push(char::from_digit(half.into(), 16).unwrap_or_default());
            }
        }
        let hash = crypto::sha256(secret.as_bytes());
        self.0.push(Token { name: name.to_owned(), access, created, limits, hash });
        if self.text().len() as u64 > FILE_MAX {
            self.0.pop();
            return Err(TokenError::Long);
        }
        Ok(TokenSecret(secret))
    }

    /// Removes a token; returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|token| token.name != name);
        self.0.len() < before
    }

    /// All tokens, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// The token with this secret. The time taken depends neither on how much of a hash is right nor on which token it
    /// is.
    pub(super) fn by_secret(&self, secret: &str) -> Option<&Token> {
        self.by_hash(&crypto::sha256(secret.as_bytes()))
    }

    /// The token with this hash, if it has not expired.
    pub(super) fn by_hash(&self, hash: &Hash) -> Option<&Token> {
        self.0
            .iter()
            .fold(
                None,
                |found, token| {
                    if crypto::same(&token.hash, hash) { Some(token) } else { found }
                },
            )
            .filter(|token| token.is_good())
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fits)
}

fn token(line: &str) -> Option<Token> {
    let mut words = line.split(' ');
    let hash = words.next()?.parse().ok()?;
    let access = match words.next()? {
        "read" => Access::Read,
        "write" => Access::Write,
        _ => return None,
    };
    let created = words.next()?.parse().ok()?;
    let name = words.next().filter(|name| is_name(name))?.to_owned();
    let mut limits = KeptLimits::default();
    for word in words {
        if let Some(end) = word.strip_prefix(UNTIL) {
            limits.expires = Some(end.parse().ok()?);
        } else {
            let path: Vec<u8> = percent_decode_str(word.strip_prefix(ONLY)?).collect();
            limits.scope = Some(Scope::parse(&path)?);
        }
    }
    Some(Token { name, access, created, limits, hash })
}

/// Tells one state of a file from another: replacing it by a rename changes the inode and ctime.
type FileStamp = (u64, i64, i64, u64);

/// The token file, as the running service reads it.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(FileStamp, Arc<Tokens>)>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    /// The current tokens. Costs one stat(2) if the file has not changed. A missing file holds none.
    ///
    /// # Errors
    /// It cannot be read or is not understood: then nobody is let in.
    pub(super) fn now(&self) -> io::Result<Arc<Tokens>> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                *self.last.lock() = None;
                return Ok(Arc::default());
            }
            Err(error) => return Err(error),
        };
        let stamp = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.size());
        let mut last = self.last.lock();
        if let Some((known, tokens)) = &*last
            && *known == stamp
        {
            return Ok(tokens.clone());
        }
        let mut text = String::new();
        std::fs::File::open(&self.path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let tokens = Arc::new(Tokens::parse(&text).map_err(io::Error::other)?);
        *last = Some((stamp, tokens.clone()));
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: TokenLimits<'static> = TokenLimits { lasts: None, only: None };

    #[test]
    fn a_token_ends_when_its_time_is_up_and_keeps_its_place() {
        let mut tokens = Tokens::default();
        let only = Some(&b"photos/a b"[..]);
        let limits = TokenLimits { lasts: Some(Duration::from_secs(100)), only };
        let limited = tokens.add("phone", Access::Read, limits).unwrap();
        let over = TokenLimits { lasts: Some(Duration::ZERO), only: None };
        let over = tokens.add("old", Access::Read, over).unwrap();
        let back = Tokens::parse(&tokens.text()).unwrap();
        assert_eq!(back, tokens);
        let found = back.by_secret(limited.expose()).unwrap();
        assert_eq!(found.only().unwrap(), b"photos/a b");
        assert_eq!(found.expires(), Some(found.created + 100));
        assert!(back.by_secret(over.expose()).is_none());
        for only in [&b""[..], b"/", b"a/../b"] {
            let limits = TokenLimits { only: Some(only), ..ALWAYS };
            assert_eq!(tokens.add("none", Access::Read, limits).unwrap_err(), TokenError::Scope);
        }
    }

    #[test]
    fn a_file_too_long_to_be_read_whole_is_not_read_in_part() {
        let mut tokens = Tokens::default();
        let path = "d/".repeat(1500) + "last";
        let only = TokenLimits { lasts: None, only: Some(path.as_bytes()) };
        let refused = (0..TOKENS_MAX)
            .find_map(|n| tokens.add(&format!("token-{n}"), Access::Read, only).err());
        assert_eq!(refused.unwrap(), TokenError::Long);
        let kept = tokens.text();
        assert!(kept.len() as u64 <= FILE_MAX);
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(dir.path().join("tokens"));
        std::fs::write(dir.path().join("tokens"), &kept).unwrap();
        assert_eq!(*file.now().unwrap(), tokens);
        // A line that a person added.
        let line = kept.lines().last().unwrap().replace("token-", "other-");
        std::fs::write(dir.path().join("tokens"), format!("{kept}{line}\n")).unwrap();
        assert_eq!(file.now().unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_token_is_found_by_its_secret_alone_and_reads_back() {
        let mut tokens = Tokens::default();
        let read = tokens.add("backup-1", Access::Read, ALWAYS).unwrap();
        let write = tokens.add("laptop", Access::Write, ALWAYS).unwrap();
        assert!(read.expose().starts_with(PREFIX) && read.expose().len() == PREFIX.len() + 64);
        assert_ne!(read.expose(), write.expose());
        assert_eq!(format!("{read:?}"), "TokenSecret(..)");
        let text = tokens.text();
        assert!(!text.contains(read.expose()) && !text.contains(&read.expose()[PREFIX.len()..]));
        let back = Tokens::parse(&text).unwrap();
        assert_eq!(back, tokens);
        assert_eq!(back.by_secret(read.expose()).unwrap().name, "backup-1");
        assert_eq!(back.by_secret(write.expose()).unwrap().access, Access::Write);
        for wrong in ["", "s3vault_", &read.expose()[1..], &format!("{}0", read.expose())] {
            assert!(back.by_secret(wrong).is_none(), "{wrong}");
        }
        assert!(tokens.remove("backup-1") && !tokens.remove("backup-1"));
        assert!(tokens.by_secret(read.expose()).is_none());
    }

    #[test]
    fn names_and_lines_that_do_not_fit_are_refused() {
        let mut tokens = Tokens::default();
        tokens.add("one", Access::Read, ALWAYS).unwrap();
        assert_eq!(tokens.add("one", Access::Write, ALWAYS).unwrap_err(), TokenError::Taken);
        for name in ["", "a b", "a\n", "ä", &"x".repeat(NAME_MAX + 1)] {
            assert_eq!(
                tokens.add(name, Access::Read, ALWAYS).unwrap_err(),
                TokenError::Name,
                "{name:?}"
            );
        }
        let line = tokens.text().lines().last().unwrap().to_owned();
        for wrong in [&line[1..], &line.replace("read", "admin"), &format!("{line} more")] {
            assert_eq!(Tokens::parse(&format!("# x\n{wrong}\n")), Err(TokenError::Line(2)));
        }
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let file = TokenFile::new(path.clone());
        assert_eq!(*file.now().unwrap(), Tokens::default());
        let mut tokens = Tokens::default();
        let write = |tokens: &Tokens| {
            std::fs::write(dir.path().join("new"), tokens.text()).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        for name in ["a", "b", "c"] {
            let secret = tokens.add(name, Access::Read, ALWAYS).unwrap();
            write(&tokens);
            assert_eq!(file.now().unwrap().by_secret(secret.expose()).unwrap().name, name);
            tokens.remove(name);
            write(&tokens);
            assert!(file.now().unwrap().by_secret(secret.expose()).is_none());
        }
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(file.now().is_err());
    }
}
