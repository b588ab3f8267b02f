//! The configuration file: the vaults that this user knows, and which one a command means.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::vault_name;
use super::config_text::rewritten;
use super::exit::{CliResult, Exit, Failure};
use super::limits::LimitWords;
use super::nearest::nearest;
use super::prices::Prices;
use crate::os;

/// The first lines of the file.
const HEADER: &str = "# The vaults that s3vault knows. Written by `s3vault init` and `s3vault mount`;\n\
                      # may be edited. It holds no secrets.\n\n";
/// What earlier versions, which did not keep comments, said in it.
const NOT_KEPT: &str = " (comments are not kept)";

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// In the order in which they became known.
    #[serde(default, rename = "vault", skip_serializing_if = "Vec::is_empty")]
    pub vaults: Vec<KnownVault>,
    /// The store's prices, for `status --watch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
}

/// A vault, and how to reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownVault {
    /// Its local name, as in `s3vault mount NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The vault's id: 32 hex digits. Empty in an entry that was written by hand, until the vault is first opened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// `s3://bucket[/prefix]` or `file:///dir`.
    pub url: String,
    /// The S3 server, if it is not AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its former mountpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mountpoints: Vec<String>,
    /// The limits of its daemons on the use of the store.
    #[serde(default, skip_serializing_if = "LimitWords::is_empty")]
    pub limits: LimitWords,
}

/// The vault that a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one for each command")]
pub(super) enum Choice {
    /// A remembered vault.
    Known(KnownVault),
    /// A named bucket that is not remembered.
    Named(String),
    /// Nothing is remembered and nothing was named: the store that needs no account.
    Embedded,
}

impl Config {
    /// Reads the file. A missing file counts as empty.
    pub(super) fn read(path: &Path) -> CliResult<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "the configuration {} is not understood: it is no text; correct it, or move it away and name \
                         the bucket with --bucket",
                        path.display()
                    ),
                ));
            }
            Err(error) => {
                return Err(Failure::io(
                    format_args!("the configuration {} cannot be read", path.display()),
                    &error,
                ));
            }
        };
        let config: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Failure::new(
                Exit::Usage,
                format!(
                    "the configuration {} is not understood, line {line}: {}; correct it, or move \
                     it away and name the bucket with --bucket",
                    path.display(),
                    with_nearest(error.message())
                ),
            )
        })?;
        config.check().map_err(|why| {
            let place = path.display();
            let text = format!(
                "the configuration {place} is not understood: {why}; correct it, or move it away"
            );
            Failure::new(Exit::Usage, text)
        })?;
        Ok(config)
    }

    /// What the types cannot say of the entries.
    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for known in &self.vaults {
            let Some(name) = &known.name else { continue };
            vault_name(name).map_err(|why| format!("no vault can be called {name:?}: {why}"))?;
            if !names.insert(name) {
                return Err(format!("two vaults are called {name}"));
            }
        }
        Ok(())
    }

    /// Whether a vault at this place may get a name: no other one has it.
    pub(super) fn may_be_called(&self, name: &str, url: &str) -> CliResult {
        match self.vaults.iter().find(|known| known.name.as_deref() == Some(name)) {
            Some(other) if other.url != url => {
                let text = format!(
                    "{name} is the name of the vault at {} already; nothing was made; choose another name, or change that \
                     one in the configuration",
                    other.describe()
                );
                Err(Failure::new(Exit::Usage, text))
            }
            _ => Ok(()),
        }
    }

    /// Reads the file, changes it and writes it back: one process at a time, and atomically.
    pub(super) fn update(path: &Path, change: impl FnOnce(&mut Self)) -> CliResult {
        let wrote = |error| {
            Failure::io(
                format_args!("the configuration {} cannot be written", path.display()),
                &error,
            )
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        if !dir.exists() {
            os::make_private(dir).map_err(wrote)?;
        }
        let _lock = os::lock(dir).map_err(wrote)?;
        let mut config = Self::read(path)?;
        let before = config.clone();
        change(&mut config);
        if config == before {
            return Ok(());
        }
        // Cannot fail for strings and lists of strings; if it did, the file would stay as it is.
        let text = toml::to_string(&config).map_err(|error| wrote(io::Error::other(error)))?;
        os::replace(path, config.as_text(path, &text).as_bytes()).map_err(wrote)
    }

    /// The file's new text: the old one, as far as that can be changed to say this, or else `text` alone.
    fn as_text(&self, path: &Path, text: &str) -> String {
        let old = std::fs::read_to_string(path).unwrap_or_default().replace(NOT_KEPT, "");
        let new = if old.trim().is_empty() { None } else { rewritten(&old, text).ok() };
        // Whatever its owner did to the file, it says what is to be remembered.
        let new = new.filter(|new| toml::from_str::<Self>(new).is_ok_and(|read| read == *self));
        new.unwrap_or_else(|| format!("{HEADER}{text}"))
    }

    /// Remembers where this vault is (and that it was mounted there).
    pub(super) fn remember(&mut self, vault: KnownVault, mountpoint: Option<&str>) {
        if vault.name.is_some() {
            let others = self.vaults.iter_mut().filter(|known| known.id != vault.id);
            others.filter(|known| known.name == vault.name).for_each(|known| known.name = None);
        }
        // An entry that was written by hand, and is opened for the first time.
        let blank = |known: &&mut KnownVault| {
            known.id.is_empty() && (&known.url, &known.endpoint) == (&vault.url, &vault.endpoint)
        };
        if !self.vaults.iter().any(|known| known.id == vault.id)
            && let Some(known) = self.vaults.iter_mut().find(blank)
        {
            known.id.clone_from(&vault.id);
        }
        let known = if let Some(known) = self.vaults.iter_mut().find(|known| known.id == vault.id) {
            known.name = vault.name.or_else(|| known.name.take());
            (known.url, known.endpoint, known.region) = (vault.url, vault.endpoint, vault.region);
            known
        } else {
            // Another vault that was remembered at this place is gone, since this one was made there.
            self.vaults.retain(|old| (&old.url, &old.endpoint) != (&vault.url, &vault.endpoint));
            self.vaults.push(KnownVault { mountpoints: Vec::new(), ..vault });
            // Just pushed.
            let last = self.vaults.len() - 1;
            &mut self.vaults[last]
        };
        let id = known.id.clone();
        if let Some(mountpoint) = mountpoint {
            for known in &mut self.vaults {
                known.mountpoints.retain(|other| other != mountpoint);
                if known.id == id {
                    known.mountpoints.push(mountpoint.to_owned());
                }
            }
        }
    }

    /// The vault with a name, which is not a URL.
    pub(super) fn named(&self, name: &str) -> CliResult<&KnownVault> {
        let found = self.vaults.iter().find(|known| known.name.as_deref() == Some(name));
        found.ok_or_else(|| {
            let names = self.vaults.iter().filter_map(|known| known.name.as_deref());
            let text = format!(
                "no vault is called {name}{}; name its bucket: s3://bucket[/prefix] or file:///dir; or write `name = \
                 \"{name}\"` into the configuration, below its [[vault]]",
                nearest(name, names)
            );
            Failure::new(Exit::Usage, text)
        })
    }

    /// The manual's rule ("Which vault"): `--bucket`; otherwise the vault remembered for this mountpoint; otherwise the
    /// only one; otherwise an error that lists them.
    pub(super) fn choose(
        &self,
        bucket: Option<&str>,
        endpoint: Option<&str>,
        mountpoint: Option<&Path>,
    ) -> CliResult<Choice> {
        if let Some(url) = bucket {
            let same = |known: &&KnownVault| {
                known.url == url && (endpoint.is_none() || endpoint == known.endpoint.as_deref())
            };
            let mut found = self.vaults.iter().filter(same);
            return Ok(match (found.next(), found.next()) {
                (Some(known), None) => Choice::Known(known.clone()),
                _ => Choice::Named(url.to_owned()),
            });
        }
        let at = |known: &&KnownVault| {
            mountpoint
                .is_some_and(|path| known.mountpoints.iter().any(|other| Path::new(other) == path))
        };
        if let Some(known) = self.vaults.iter().find(at) {
            return Ok(Choice::Known(known.clone()));
        }
        match self.vaults.as_slice() {
            [] => Ok(Choice::Embedded),
            [only] => Ok(Choice::Known(only.clone())),
            several => {
                let list: Vec<_> = several.iter().map(KnownVault::shown).collect();
                Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "several vaults are known, and none was mounted there before; name one with \
                         --bucket: {}",
                        list.join(", ")
                    ),
                ))
            }
        }
    }
}

/// The message of the TOML parser, with the word that was probably meant.
fn with_nearest(message: &str) -> String {
    let message = message.trim_end();
    let word = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let known = [
        "vault",
        "name",
        "id",
        "url",
        "endpoint",
        "region",
        "mountpoints",
        "limits",
        "bandwidth-up",
        "bandwidth-down",
        "max-requests",
        "storage-class",
        "tags",
        "read-ahead",
        "prices",
        "currency",
        "put-1000",
        "get-1000",
        "egress-gb",
        "storage-gb-month",
    ];
    let hint = word.map(|word| nearest(word, known)).unwrap_or_default();
    format!("{message}{hint}")
}

impl KnownVault {
    /// For messages: the URL, and the server if it is not AWS.
    pub(super) fn describe(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{} (at {endpoint})", self.url),
            None => self.url.clone(),
        }
    }

    /// For messages: its name, if it has one, and where it is.
    pub(super) fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.describe()),
            None => self.describe(),
        }
    }

    /// The mountpoint for a `mount` that names none.
    pub(super) fn only_mountpoint(&self) -> Option<PathBuf> {
        match self.mountpoints.as_slice() {
            [only] => Some(PathBuf::from(only)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn known(id: &str, url: &str, mountpoints: &[&str]) -> KnownVault {
        KnownVault {
            id: id.into(),
            url: url.into(),
            mountpoints: mountpoints.iter().map(ToString::to_string).collect(),
            ..KnownVault::default()
        }
    }

    #[test]
    fn which_vault() {
        let (a, b) = (known("1", "s3://a", &["/m/a"]), known("2", "s3://b", &[]));
        let none = Config::default();
        assert_eq!(none.choose(None, None, None).unwrap(), Choice::Embedded);
        assert_eq!(
            none.choose(Some("s3://x"), None, None).unwrap(),
            Choice::Named("s3://x".into())
        );
        let one = Config { vaults: vec![b.clone()], prices: None };
        assert_eq!(
            one.choose(None, None, Some(Path::new("/new"))).unwrap(),
            Choice::Known(b.clone())
        );
        let two = Config { vaults: vec![a.clone(), b.clone()], prices: None };
        let chosen = two.choose(None, None, Some(Path::new("/m/a"))).unwrap();
        assert_eq!(chosen, Choice::Known(a.clone()));
        let chosen = two.choose(Some("s3://b"), None, Some(Path::new("/m/a"))).unwrap();
        assert_eq!(chosen, Choice::Known(b));
        let chosen = two.choose(Some("s3://b"), Some("http://other"), None).unwrap();
        assert_eq!(chosen, Choice::Named("s3://b".into()));
        let error = two.choose(None, None, Some(Path::new("/new"))).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains("s3://a") && error.message.contains("s3://b"));
    }

    #[test]
    fn what_is_remembered_reads_back_private_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config.toml");
        assert_eq!(Config::read(&path).unwrap(), Config::default());
        let remember = |vault: KnownVault, at: Option<&str>| {
            Config::update(&path, |config| config.remember(vault, at)).unwrap();
        };
        remember(known("1", "s3://a", &[]), Some("/m"));
        remember(known("1", "s3://a", &[]), Some("/m"));
        remember(known("2", "s3://b", &[]), None);
        let config = Config::read(&path).unwrap();
        assert_eq!(config.vaults, [known("1", "s3://a", &["/m"]), known("2", "s3://b", &[])]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Another vault is mounted there now, and a third was made where the first one was.
        remember(known("2", "s3://b", &[]), Some("/m"));
        remember(known("3", "s3://a", &[]), None);
        let config = Config::read(&path).unwrap();
        assert_eq!(config.vaults, [known("2", "s3://b", &["/m"]), known("3", "s3://a", &[])]);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn comments_of_the_owner_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        Config::update(&path, |config| config.remember(known("1", "s3://a", &[]), None)).unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.starts_with(HEADER));
        std::fs::write(&path, before.replace("url", "# at work\nurl")).unwrap();
        let mount = |config: &mut Config| config.remember(known("1", "s3://a", &[]), Some("/m"));
        Config::update(&path, mount).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(HEADER) && text.contains("# at work\nurl = "), "{text}");
        assert_eq!(Config::read(&path).unwrap().vaults, [known("1", "s3://a", &["/m"])]);
    }

    #[test]
    fn names_are_one_vaults_each_and_hand_written_vaults_get_their_id() {
        let mut config = Config::default();
        let by_hand = KnownVault { name: Some("b".into()), ..known("", "s3://b", &[]) };
        config.vaults = vec![known("1", "s3://a", &[]), by_hand];
        assert_eq!(config.named("b").unwrap().url, "s3://b");
        config.remember(known("2", "s3://b", &[]), Some("/m"));
        assert_eq!(config.vaults.len(), 2);
        assert_eq!(
            (config.vaults[1].id.as_str(), config.named("b").unwrap().id.as_str()),
            ("2", "2")
        );
        config.remember(KnownVault { name: Some("b".into()), ..known("1", "s3://a", &[]) }, None);
        assert_eq!(config.named("b").unwrap().id, "1");
        assert_eq!(config.vaults[1].name, None);
        assert!(config.named("bb").unwrap_err().message.contains("is b meant"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "[[vault]]\nurl = \"s3://b\"\nendpiont = \"x\"\n").unwrap();
        let error = Config::read(&path).unwrap_err();
        assert!(error.message.contains("line 3"), "{error}");
        assert!(error.message.contains("is endpoint meant"), "{error}");
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "\n[[vault]]\nid = \"1\"\nurl = 3\n").unwrap();
        let error = Config::update(&path, |config| config.vaults.clear()).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains("line "), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("url = 3"));
    }
}
