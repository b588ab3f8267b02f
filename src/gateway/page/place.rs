//! What a view or form is about: a directory or an entry in it, now or as of a commit.

use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::{FILES, S3Key, escape};
use crate::gateway::{HttpProblem, Session};

/// A directory or an entry in it, now or as of a commit.
#[derive(Clone, Default)]
pub(super) struct PagePlace {
    /// The directory, without a trailing slash.
    pub(super) path: Vec<u8>,
    /// The entry in it; `None`: the directory itself.
    pub(super) name: Option<Vec<u8>>,
    /// As of this commit; `None`: now.
    pub(super) at: Option<u64>,
}

impl PagePlace {
    /// From the parameters `path` and `at`, and the parameter `name` for the entry.
    pub(super) fn of(query: &Query, name: &str) -> Result<Self> {
        let path = query.bytes("path").unwrap_or_default();
        let at = query.bytes("at").map(commit).transpose()?;
        Ok(Self {
            path: path.strip_suffix(b"/").unwrap_or(path).to_vec(),
            name: query.bytes(name).filter(|name| !name.is_empty()).map(<[u8]>::to_vec),
            at,
        })
    }

    /// The current state of a key.
    pub(super) fn of_key(key: &S3Key) -> Self {
        let (directories, name) = key.split().unwrap_or_default();
        let name = Some(name.to_vec()).filter(|name| !name.is_empty());
        Self { path: directories.join(&b'/'), name, at: None }
    }

    pub(super) fn directory(&self) -> Result<S3Key> {
        S3Key::parse_directory(&self.path)
    }

    /// The key of the entry, or of the directory if there is no name.
    pub(super) fn key(&self) -> Result<S3Key> {
        match &self.name {
            Some(name) => self.directory()?.join(name),
            None => self.directory(),
        }
    }

    /// Like [`PagePlace::key`], but refuses the root.
    pub(super) fn named(&self) -> Result<S3Key> {
        let key = self.key()?;
        match key.names().is_empty() {
            true => Err(HttpProblem::bad_request("The root of the vault is not meant by this.")),
            false => Ok(key),
        }
    }

    /// The key of a path relative to the directory.
    pub(super) fn below(&self, path: &S3Key) -> Result<S3Key> {
        path.names().iter().try_fold(self.directory()?, |key, name| key.join(name))
    }

    /// The entry itself as the directory, to look into it.
    pub(super) fn inside(&self) -> Result<Self> {
        Ok(Self { path: self.key()?.bytes(), name: None, at: self.at })
    }

    /// The directory that the entry is in.
    pub(super) fn beside(&self) -> Self {
        Self { name: None, ..self.clone() }
    }

    /// The same place as of another commit.
    pub(super) fn as_of(&self, at: Option<u64>) -> Self {
        Self { at, ..self.clone() }
    }

    /// The URL of its view.
    pub(super) fn link(&self) -> String {
        format!("/?{}", self.parameters("file"))
    }

    /// The query of a form's URL, with the CSRF word.
    pub(super) fn form(&self, session: &Session) -> String {
        format!("{}&csrf={}", self.parameters("name"), session.csrf)
    }

    /// The URL of its content.
    pub(super) fn download(&self) -> Result<String> {
        Ok(match self.at {
            None => format!("{FILES}{}", escape(&self.key()?.bytes())),
            Some(_) => format!("/page/past?{}", self.parameters("name")),
        })
    }

    /// The query of a URL.
    pub(super) fn parameters(&self, name: &str) -> String {
        let own = self.name.as_ref().map(|own| format!("&{name}={}", escape(own)));
        let at = self.at.map(|at| format!("&at={at}"));
        let (own, at) = (own.unwrap_or_default(), at.unwrap_or_default());
        format!("path={}{own}{at}", escape(&self.path))
    }

    /// Its name for people.
    pub(super) fn title(&self) -> String {
        let last = || self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = self.name.as_deref().unwrap_or_else(last);
        match name.is_empty() {
            true => "Vault".to_owned(),
            false => String::from_utf8_lossy(name).into_owned(),
        }
    }
}

/// `at`: the number of a commit.
pub(super) fn commit(text: &[u8]) -> Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| HttpProblem::bad_request("The parameter at is the number of a commit."))
}

/// A path as people read it.
pub(super) fn shown(key: &S3Key) -> String {
    String::from_utf8_lossy(&key.bytes()).into_owned()
}
