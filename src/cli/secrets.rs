//! Where a passphrase comes from, and the key file that can replace it.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::passphrase_command;
use crate::os;

/// The environment variable with the passphrase.
pub(super) const VARIABLE: &str = "S3VAULT_PASSPHRASE";
/// The name of the systemd credential that holds the passphrase.
const CREDENTIAL: &str = "passphrase";
/// The most bytes read from a passphrase file: nobody types more, and a wrong file may be huge.
const FILE_MAX: u64 = 64 << 10;
/// How often a user may try at the terminal.
pub(super) const TRIES: u32 = 3;

/// The bytes of a passphrase or recovery key, without one final newline.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// A passphrase and its source.
pub(super) struct GivenPassphrase {
    /// The passphrase.
    pub bytes: Bytes,
    /// Its source.
    pub source: PassphraseSource,
}

/// The source of a passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PassphraseSource {
    /// `--passphrase-file`.
    File(PathBuf),
    /// A program: `--passphrase-command`, `--passphrase-keyring`.
    Program,
    /// `S3VAULT_PASSPHRASE`.
    Environment,
    /// The embedded store's key file.
    KeyFile(PathBuf),
    /// Typed.
    Terminal,
}

/// The sources of a secret, in the order in which they are tried.
pub(super) struct PassphraseSources<'a> {
    /// `--passphrase-file`.
    pub file: Option<&'a Path>,
    /// The words of the command that prints it.
    pub command: Option<Vec<String>>,
    /// The embedded store's key file; only for that store.
    pub key_file: Option<&'a Path>,
    /// Where to ask the user.
    pub terminal: &'a dyn Ask,
}

/// A terminal, or a test double.
pub(super) trait Ask {
    /// Whether a user can be asked.
    fn is_there(&self) -> bool;
    /// Asks for a line, which is not echoed.
    fn ask(&self, prompt: &str) -> io::Result<Bytes>;
}

/// The controlling terminal of this process, if standard input is a terminal. (With another standard input there may
/// still be a controlling terminal, but nobody is expected to sit at it.)
pub(super) struct Terminal;

impl Ask for Terminal {
    fn is_there(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn ask(&self, prompt: &str) -> io::Result<Bytes> {
        rpassword::prompt_password(prompt).map(|line| strip(Zeroizing::new(line.into_bytes())))
    }
}

impl PassphraseSources<'_> {
    /// Gets the passphrase or recovery key of an existing vault.
    pub(super) fn existing(&self, vault: &str) -> CliResult<GivenPassphrase> {
        if let Some(given) = self.silent()? {
            return Ok(given);
        }
        if let Some(path) = self.key_file
            && path.exists()
        {
            return Ok(GivenPassphrase {
                bytes: read(path)?,
                source: PassphraseSource::KeyFile(path.to_path_buf()),
            });
        }
        if !self.terminal.is_there() {
            return Err(nobody_to_ask());
        }
        self.typed(&format!("Passphrase (or recovery key) of {vault}: "))
    }

    /// Gets the passphrase of a new vault. If a key file is allowed, none is given and nobody can be asked (or the
    /// answer is empty), the key file is made.
    pub(super) fn for_new(&self, vault: &str) -> CliResult<GivenPassphrase> {
        if let Some(given) = self.silent()? {
            return Ok(given);
        }
        if !self.terminal.is_there() {
            return self.key_file.map_or_else(|| Err(nobody_to_ask()), make_key_file);
        }
        self.typed_twice(vault)
    }

    /// Asks for a new passphrase, twice.
    pub(super) fn typed_twice(&self, vault: &str) -> CliResult<GivenPassphrase> {
        let hint =
            if self.key_file.is_some() { " (empty: keep a key in a file instead)" } else { "" };
        let first = self.ask(&format!("New passphrase for {vault}{hint}: "))?;
        match self.key_file {
            Some(path) if first.is_empty() => return make_key_file(path),
            None if first.is_empty() => {
                return Err(Failure::new(
                    Exit::Usage,
                    "an empty passphrase protects nothing; nothing was changed; give one",
                ));
            }
            _ => {}
        }
        if *self.ask("The same passphrase again: ")? != *first {
            return Err(Failure::new(
                Exit::Usage,
                "the two passphrases differ; nothing was changed; try again",
            ));
        }
        Ok(GivenPassphrase { bytes: first, source: PassphraseSource::Terminal })
    }

    /// From options or the environment, without asking.
    fn silent(&self) -> CliResult<Option<GivenPassphrase>> {
        let given = if let Some(path) = self.file {
            GivenPassphrase {
                bytes: read(path)?,
                source: PassphraseSource::File(path.to_path_buf()),
            }
        } else if let Some(words) = &self.command {
            let bytes = passphrase_command::output_of(words)?;
            GivenPassphrase { bytes, source: PassphraseSource::Program }
        } else if let Some(value) = std::env::var_os(VARIABLE) {
            from_variable(value)
        } else if let Some(path) = credential() {
            GivenPassphrase { bytes: read(&path)?, source: PassphraseSource::File(path) }
        } else {
            return Ok(None);
        };
        if given.bytes.is_empty() {
            let whence = match &given.source {
                PassphraseSource::File(path) => path.display().to_string(),
                _ => VARIABLE.to_owned(),
            };
            return Err(Failure::new(
                Exit::Usage,
                format!("the passphrase in {whence} is empty; give one"),
            ));
        }
        Ok(Some(given))
    }

    fn typed(&self, prompt: &str) -> CliResult<GivenPassphrase> {
        Ok(GivenPassphrase { bytes: self.ask(prompt)?, source: PassphraseSource::Terminal })
    }

    fn ask(&self, prompt: &str) -> CliResult<Bytes> {
        self.terminal.ask(prompt).map_err(|error| {
            Failure::new(
                Exit::NoPassphrase,
                format!(
                    "no passphrase could be read from the terminal ({error}); give --passphrase-file, \
                     or set {VARIABLE}"
                ),
            )
        })
    }
}

/// The file that systemd passes to a service: `LoadCredential=passphrase:FILE`.
pub(super) fn credential() -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty())?;
    Some(Path::new(&directory).join(CREDENTIAL)).filter(|path| path.exists())
}

fn nobody_to_ask() -> Failure {
    Failure::new(
        Exit::NoPassphrase,
        format!(
            "a passphrase is needed, and there is no terminal to ask at; give --passphrase-file FILE, \
             or set {VARIABLE}"
        ),
    )
}

fn from_variable(value: OsString) -> GivenPassphrase {
    GivenPassphrase {
        bytes: strip(Zeroizing::new(value.into_vec())),
        source: PassphraseSource::Environment,
    }
}

/// Removes one final newline.
fn strip(mut bytes: Bytes) -> Bytes {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

/// The most other forms of a passphrase that are tried: each takes a second.
const FORMS_MAX: usize = 6;

/// The forms that a passphrase may have had when it was set, if another system typed or saved it. The likeliest come
/// first, each with a description of the difference.
pub(super) fn other_forms(given: &[u8]) -> Vec<(Bytes, String)> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let (had_mark, rest) = match given.strip_prefix(MARK) {
        Some(rest) => (true, rest),
        None => (false, given),
    };
    let (had_return, core) = match rest.strip_suffix(b"\r") {
        Some(core) => (true, core),
        None => (false, rest),
    };
    let mut cores: Vec<(Bytes, &str)> = vec![(Zeroizing::new(core.to_vec()), "")];
    if let Ok(text) = std::str::from_utf8(core) {
        let composed = ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned();
        let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(text).into_owned();
        let forms = [
            (composed, "with its accents as one character with their letters (Unicode NFC)"),
            (
                decomposed,
                "with its accents as characters of their own (Unicode NFD, as macOS does)",
            ),
        ];
        let others = forms.into_iter().map(|(form, how)| (Zeroizing::new(form.into_bytes()), how));
        cores.extend(others.filter(|(form, _)| form[..] != *core));
    }
    let mut found = Vec::new();
    for (core, how) in &cores {
        for (mark, ends) in [(false, false), (false, true), (true, false), (true, true)] {
            let with = |has: bool| if has { "with" } else { "without" };
            let mut differs: Vec<String> = Vec::new();
            if !how.is_empty() {
                differs.push((*how).to_owned());
            }
            if mark != had_mark {
                differs.push(format!("{} a byte order mark before it", with(mark)));
            }
            if ends != had_return {
                differs.push(format!("{} a carriage return (Windows) at its end", with(ends)));
            }
            let mut form = Zeroizing::new(Vec::with_capacity(core.len() + MARK.len() + 1));
            form.extend_from_slice(if mark { MARK } else { b"" });
            form.extend_from_slice(core);
            form.extend_from_slice(if ends { b"\r" } else { b"" });
            found.push((differs.len(), form, differs.join(" and ")));
        }
    }
    found.retain(|(differences, form, _)| *differences > 0 && !form.is_empty());
    found.sort_by_key(|(differences, ..)| *differences);
    found.into_iter().take(FORMS_MAX).map(|(_, form, how)| (form, how)).collect()
}

pub(super) fn read(path: &Path) -> CliResult<Bytes> {
    let mut bytes = Zeroizing::new(Vec::new());
    let fail = |error: io::Error| {
        let what = format!("the passphrase file {} cannot be read", path.display());
        match error.raw_os_error() {
            // The disk's fault, not that of the given name.
            Some(libc::EIO) => Failure::io(what, &error),
            _ => Failure::new(
                Exit::Usage,
                format!(
                    "{what}: {error}; nothing was changed; name the right one with --passphrase-file"
                ),
            ),
        }
    };
    let file = std::fs::File::open(path).map_err(fail)?;
    let about = file.metadata().map_err(fail)?;
    if about.is_file() && about.mode() & 0o044 != 0 {
        let shown = path.display();
        complain!(
            "Note: others on this machine may read {shown}, which opens the vault: chmod 600 {shown}"
        );
    }
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} is over 64 KiB: that is no passphrase file; name another", path.display()),
        ));
    }
    Ok(strip(bytes))
}

/// A key file of 256 random bits as hex, which replaces a passphrase. An existing one is used.
fn make_key_file(path: &Path) -> CliResult<GivenPassphrase> {
    let source = PassphraseSource::KeyFile(path.to_path_buf());
    if path.exists() {
        return Ok(GivenPassphrase { bytes: read(path)?, source });
    }
    Ok(GivenPassphrase { bytes: write_key_file(path)?, source })
}

/// Makes a key file that must not exist yet, since an existing file may be anything.
pub(super) fn make_new_key_file(path: &Path) -> CliResult<Bytes> {
    if path.symlink_metadata().is_ok() {
        let text = format!(
            "{} exists already; nothing was changed; name a new file, or use what is in it: --new-passphrase-file",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    write_key_file(path)
}

fn write_key_file(path: &Path) -> CliResult<Bytes> {
    let random = Zeroizing::new(os::random::<32>());
    let mut bytes = Zeroizing::new(Vec::with_capacity(65));
    for byte in random.iter() {
        for digit in [byte >> 4, byte & 15] {
            bytes.push(b"0123456789abcdef"[usize::from(digit)]);
        }
    }
    bytes.push(b'\n');
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // An existing directory keeps its permissions.
    let ready = if dir.is_dir() { Ok(()) } else { os::make_private(dir) };
    ready.and_then(|()| os::replace(path, &bytes)).map_err(|error| {
        Failure::io(format_args!("the key file {} cannot be written", path.display()), &error)
    })?;
    Ok(strip(bytes))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Answers in order; without answers there is no terminal.
    struct Typist(RefCell<Vec<&'static str>>);

    impl Typist {
        fn new(answers: &[&'static str]) -> Self {
            Self(RefCell::new(answers.iter().rev().copied().collect()))
        }
    }

    impl Ask for Typist {
        fn is_there(&self) -> bool {
            !self.0.borrow().is_empty()
        }
        fn ask(&self, _: &str) -> io::Result<Bytes> {
            let answer = self.0.borrow_mut().pop().ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(strip(Zeroizing::new(answer.as_bytes().to_vec())))
        }
    }

    fn exit_of(given: CliResult<GivenPassphrase>) -> Exit {
        given.map(|given| panic!("{:?}", given.source)).unwrap_err().exit
    }

    #[test]
    fn a_file_loses_one_final_newline_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        for (content, means) in [("a b\n", "a b"), ("a\n\n", "a\n"), ("a\r\n", "a\r"), ("a", "a")] {
            std::fs::write(&path, content).unwrap();
            let sources = PassphraseSources {
                file: Some(&path),
                command: None,
                key_file: None,
                terminal: &Typist::new(&[]),
            };
            assert_eq!(*sources.existing("v").unwrap().bytes, means.as_bytes());
        }
        std::fs::write(&path, "\n").unwrap();
        let sources = PassphraseSources {
            file: Some(&path),
            command: None,
            key_file: None,
            terminal: &Typist::new(&[]),
        };
        assert_eq!(exit_of(sources.existing("v")), Exit::Usage);
    }

    #[test]
    fn the_forms_that_other_systems_make_of_a_passphrase_are_near_and_bounded() {
        let has = |given: &str, other: &str| {
            let forms = other_forms(given.as_bytes());
            assert!(
                forms.len() <= FORMS_MAX && forms.iter().all(|(f, _)| f[..] != *given.as_bytes())
            );
            forms.into_iter().find(|(form, _)| form[..] == *other.as_bytes()).map(|(_, how)| how)
        };
        let composed = "caf\u{e9}";
        let decomposed = "cafe\u{301}";
        for (one, two) in [
            ("word", "word\r"),
            ("word", "\u{feff}word"),
            ("word", "\u{feff}word\r"),
            (composed, decomposed),
            (composed, &format!("{composed}\r")),
            (composed, &format!("{decomposed}\r")),
        ] {
            assert!(has(one, two).is_some() && has(two, one).is_some(), "{one:?} and {two:?}");
        }
        assert_eq!(other_forms(b"word").len(), 3);
        assert!(
            has("word\r", "word").is_some_and(|how| how.starts_with("without a carriage return"))
        );
        // Not text, but its line ending may differ all the same.
        assert!(other_forms(b"\xff\r").iter().any(|(form, _)| form[..] == *b"\xff"));
        assert!(!other_forms(b"\r").iter().any(|(form, _)| form.is_empty()));
    }

    #[test]
    fn without_a_terminal_nothing_asks() {
        let sources = PassphraseSources {
            file: None,
            command: None,
            key_file: None,
            terminal: &Typist::new(&[]),
        };
        assert_eq!(exit_of(sources.existing("v")), Exit::NoPassphrase);
        assert_eq!(exit_of(sources.for_new("v")), Exit::NoPassphrase);
    }

    #[test]
    fn a_new_passphrase_is_typed_twice() {
        let new = |answers: &[&'static str]| {
            PassphraseSources {
                file: None,
                command: None,
                key_file: None,
                terminal: &Typist::new(answers),
            }
            .for_new("v")
        };
        assert_eq!(*new(&["one", "one"]).unwrap().bytes, b"one");
        assert_eq!(exit_of(new(&["one", "two"])), Exit::Usage);
        assert_eq!(exit_of(new(&["", "two"])), Exit::Usage);
    }

    #[test]
    fn the_key_file_is_made_once_private_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("conf/embedded.key");
        let nobody = Typist::new(&[]);
        let sources = PassphraseSources {
            file: None,
            command: None,
            key_file: Some(&path),
            terminal: &nobody,
        };
        let made = sources.for_new("v").unwrap();
        assert_eq!(made.source, PassphraseSource::KeyFile(path.clone()));
        assert_eq!(made.bytes.len(), 64);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(sources.existing("v").unwrap().bytes, made.bytes);
        assert_eq!(sources.for_new("v").unwrap().bytes, made.bytes);
        // A user who presses return at the terminal gets a key file, too; one who types has a passphrase.
        let terminal = Typist::new(&[""]);
        let sources = PassphraseSources {
            file: None,
            command: None,
            key_file: Some(&path),
            terminal: &terminal,
        };
        assert_eq!(sources.for_new("v").unwrap().source, PassphraseSource::KeyFile(path.clone()));
        let terminal = Typist::new(&["x", "x"]);
        let sources = PassphraseSources {
            file: None,
            command: None,
            key_file: Some(&path),
            terminal: &terminal,
        };
        assert_eq!(sources.for_new("v").unwrap().source, PassphraseSource::Terminal);
    }
}
