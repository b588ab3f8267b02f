//! What a view or a form is about: a directory, perhaps something in it, perhaps as it was.

use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::{FILES, S3Key, escape};
use crate::gateway::{HttpProblem, Session};

/// A directory, perhaps something in it, perhaps as it was.
#[derive(Clone, Default)]
pub(super) struct PagePlace {
    /// The directory, without a slash at its end.
    pub(super) path: Vec<u8>,
    /// What is meant in it; `None`: the directory.
    pub(super) name: Option<Vec<u8>>,
    /// As of this commit; `None`: now.
    pub(super) at: Option<u64>,
}

impl PagePlace {
    /// From `path`, a parameter for what is in it, and `at`.
    pub(super) fn of(query: &Query, name: &str) -> Result<Self> {
        let path = query.bytes("path").unwrap_or_default();
        let at = query.bytes("at").map(commit).transpose()?;
        Ok(Self {
            path: path.strip_suffix(b"/").unwrap_or(path).to_vec(),
            name: query.bytes(name).filter(|name| !name.is_empty()).map(<[u8]>::to_vec),
            at,
        })
    }

    /// Of a key, now.
    pub(super) fn of_key(key: &S3Key) -> Self {
        let (directories, name) = key.split().unwrap_or_default();
        let name = Some(name.to_vec()).filter(|name| !name.is_empty());
        Self { path: directories.join(&b'/'), name, at: None }
    }

    pub(super) fn directory(&self) -> Result<S3Key> {
        S3Key::parse_directory(&self.path)
    }

    /// What is meant; without a name the directory itself.
    pub(super) fn key(&self) -> Result<S3Key> {
        match &self.name {
            Some(name) => self.directory()?.join(name),
            None => self.directory(),
        }
    }

    /// As [`PagePlace::key`], of something that has a name.
    pub(super) fn named(&self) -> Result<S3Key> {
        let key = self.key()?;
        match key.names().is_empty() {
            true => Err(HttpProblem::bad_request("The root of the vault is not meant by this.")),
            false => Ok(key),
        }
    }

    /// What is at a path from the directory.
    pub(super) fn below(&self, path: &S3Key) -> Result<S3Key> {
        path.names().iter().try_fold(self.directory()?, |key, name| key.join(name))
    }

    /// What is meant, if it is a directory: to look into it.
    pub(super) fn inside(&self) -> Result<Self> {
        Ok(Self { path: self.key()?.bytes(), name: None, at: self.at })
    }

    /// As what is in a directory.
    pub(super) fn beside(&self) -> Self {
        Self { name: None, ..self.clone() }
    }

    /// The same as of another state.
    pub(super) fn as_of(&self, at: Option<u64>) -> Self {
        Self { at, ..self.clone() }
    }

    /// The view of it.
    pub(super) fn link(&self) -> String {
        format!("/?{}", self.parameters("file"))
    }

    /// What stands after the `?` of a form's URL, with the word.
    pub(super) fn form(&self, session: &Session) -> String {
        format!("{}&csrf={}", self.parameters("name"), session.csrf)
    }

    /// Where the content is had.
    pub(super) fn download(&self) -> Result<String> {
        Ok(match self.at {
            None => format!("{FILES}{}", escape(&self.key()?.bytes())),
            Some(_) => format!("/page/past?{}", self.parameters("name")),
        })
    }

    /// What stands after the `?`.
    pub(super) fn parameters(&self, name: &str) -> String {
        let own = self.name.as_ref().map(|own| format!("&{name}={}", escape(own)));
        let at = self.at.map(|at| format!("&at={at}"));
        let (own, at) = (own.unwrap_or_default(), at.unwrap_or_default());
        format!("path={}{own}{at}", escape(&self.path))
    }

    /// What it is called.
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

/// A path for people.
pub(super) fn shown(key: &S3Key) -> String {
    String::from_utf8_lossy(&key.bytes()).into_owned()
}
