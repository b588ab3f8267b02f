//! Which bucket a command means, and how to reach it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Global;
use super::config::{Choice, Config, KnownVault};
use super::daemon::spec::{Credentials, Spec};
use super::exit::{CliResult, Exit, Failure};
use super::limits::LimitWords;
use super::messages;
use super::paths::UserPaths;
use super::registry::RunningDaemon;
use crate::types::StoreLimits;
use crate::vault::{Bucket, Deadlines, S3Options, StoreUrl};

/// How long the store may take to answer a user, including retries: half of what a mount allows.
const ANSWER: Duration = Duration::from_secs(15);
/// The environment variables of the S3 server and the region; the first one that is set counts.
pub(super) const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
pub(super) const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The place of a vault.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its URL.
    pub url: StoreUrl,
    /// The S3 server, if it is not AWS.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The vault that the configuration remembers here.
    pub known: Option<KnownVault>,
    /// Whether this is the store that needs no account, which may have a key file.
    pub embedded: bool,
}

impl Target {
    /// The vault that options, environment and configuration name.
    pub(super) fn choose(
        global: &Global,
        paths: &UserPaths,
        config: &Config,
        bucket: Option<&str>,
        mountpoint: Option<&Path>,
    ) -> CliResult<Self> {
        if let Some(name) = bucket.filter(|text| is_name(text)) {
            let known = config.named(name)?.clone();
            return Ok(Self::at(global, paths, parse(&known.url)?, Some(known)));
        }
        let named = bucket.map(parse).transpose()?;
        let text = named.as_ref().map(ToString::to_string);
        let choice = config.choose(text.as_deref(), global.endpoint_url.as_deref(), mountpoint)?;
        let embedded = StoreUrl::File(paths.embedded_store());
        let (url, known) = match choice {
            Choice::Known(known) => (parse(&known.url)?, Some(known)),
            Choice::Named(url) => (parse(&url)?, None),
            Choice::Embedded => (embedded.clone(), None),
        };
        Ok(Self::at(global, paths, url, known))
    }

    /// A remembered vault.
    pub(super) fn of_known(
        global: &Global,
        paths: &UserPaths,
        known: &KnownVault,
    ) -> CliResult<Self> {
        Ok(Self::at(global, paths, parse(&known.url)?, Some(known.clone())))
    }

    /// The place where `init` makes a new vault.
    pub(super) fn new(global: &Global, paths: &UserPaths, bucket: Option<&str>) -> CliResult<Self> {
        let url = bucket.map_or_else(|| Ok(StoreUrl::File(paths.embedded_store())), parse)?;
        Ok(Self::at(global, paths, url, None))
    }

    /// The place that the front process chose.
    pub(super) fn of_spec(spec: &Spec) -> CliResult<Self> {
        let (endpoint, region) = (spec.endpoint.clone(), spec.region.clone());
        Ok(Self { url: parse(&spec.url)?, endpoint, region, known: None, embedded: false })
    }

    fn at(global: &Global, paths: &UserPaths, url: StoreUrl, known: Option<KnownVault>) -> Self {
        let embedded = url == StoreUrl::File(paths.embedded_store());
        let remote = matches!(url, StoreUrl::S3 { .. });
        // What is remembered was set for this very vault; the environment applies to all.
        let find = |option: &Option<String>, known: Option<String>, variables: &[&str]| {
            let environment = || variables.iter().find_map(|name| std::env::var(name).ok());
            let found = option.clone().or(known).or_else(environment);
            found.filter(|text| remote && !text.is_empty())
        };
        let of = |field: fn(&KnownVault) -> &Option<String>| {
            known.as_ref().and_then(|known| field(known).clone())
        };
        Self {
            endpoint: find(&global.endpoint_url, of(|known| &known.endpoint), &ENDPOINT_VARIABLES),
            region: find(&global.region, of(|known| &known.region), &REGION_VARIABLES),
            url,
            known,
            embedded,
        }
    }

    /// The daemon of this user that has the vault open; of several, one that writes.
    pub(super) fn running(&self, paths: &UserPaths) -> Option<RunningDaemon> {
        let same = |running: &RunningDaemon| match &self.known {
            _ if running.past => false,
            Some(known) if !known.id.is_empty() => running.vault == known.id,
            _ => running.bucket == self.describe(),
        };
        let all = RunningDaemon::all(&paths.running()).into_iter();
        all.filter(same).min_by_key(|running| running.read_only)
    }

    /// For messages.
    pub(super) fn describe(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{} (at {endpoint})", self.url),
            None => self.url.to_string(),
        }
    }

    /// The directory of a store on this machine.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        match &self.url {
            StoreUrl::File(path) => Some(path.clone()),
            StoreUrl::S3 { .. } => None,
        }
    }

    /// The vault that this machine knows here.
    pub(super) fn known_vault(&self) -> Option<&KnownVault> {
        self.known.as_ref().filter(|known| !known.id.is_empty())
    }

    /// Connects to the bucket for a command that a user waits for.
    pub(super) async fn open(&self) -> CliResult<Bucket> {
        self.open_with(None, Deadlines::of(ANSWER)).await
    }

    /// Connects to the bucket. Credentials come from the standard chain unless given.
    pub(super) async fn open_with(
        &self,
        credentials: Option<&Credentials>,
        deadlines: Deadlines,
    ) -> CliResult<Bucket> {
        let options = self.way(credentials)?;
        let opened = Bucket::open(&self.url, &options, deadlines).await;
        opened.map_err(|error| messages::of_store(&error, &self.describe()))
    }

    /// Like [`Target::open_with`], but sends no request to the store.
    pub(super) async fn unasked(
        &self,
        credentials: Option<&Credentials>,
        deadlines: Deadlines,
    ) -> CliResult<Bucket> {
        let options = self.way(credentials)?;
        let opened = Bucket::unasked(&self.url, &options, deadlines).await;
        opened.map_err(|error| messages::of_store(&error, &self.describe()))
    }

    fn way(&self, credentials: Option<&Credentials>) -> CliResult<S3Options> {
        if let Some(path) = self.directory()
            && !path.is_dir()
        {
            if let Some(known) = self.known_vault() {
                return Err(messages::vanished(&self.describe(), &known.id));
            }
            let text = format!(
                "there is no directory {}; check the path of --bucket, or make a vault there: s3vault init",
                path.display()
            );
            return Err(Failure::new(Exit::NoBucket, text));
        }
        Ok(S3Options {
            endpoint_url: self.endpoint.clone(),
            region: self.region.clone(),
            credentials: credentials.map(Credentials::to_store),
        })
    }

    /// The limits of its daemon: from the command line, otherwise from the vault's configuration.
    pub(super) fn limits(&self, said: &LimitWords) -> CliResult<StoreLimits> {
        let mut limits = StoreLimits::default();
        let known = self.known.as_ref().map(|known| known.limits.clone()).unwrap_or_default();
        known.apply(&mut limits).map_err(|error| {
            let text = format!(
                "the limits of {} in the configuration are not understood: {error}; correct them below its [vault.limits]",
                self.describe()
            );
            Failure::new(Exit::Usage, text)
        })?;
        said.apply(&mut limits).map_err(|error| Failure::new(Exit::Usage, error))?;
        Ok(limits)
    }

    /// What the configuration is to remember.
    pub(super) fn remembered(&self, id: String) -> KnownVault {
        KnownVault {
            name: self.known.as_ref().and_then(|known| known.name.clone()),
            id,
            url: self.url.to_string(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ..KnownVault::default()
        }
    }
}

/// A vault, and whether a daemon of this user has it open.
pub(super) enum WhichVault {
    /// A daemon has it open.
    Open(RunningDaemon),
    /// No daemon has it open.
    Closed(Box<Target>),
}

impl WhichVault {
    /// The vault that is named, or the only open one, or the only known one.
    pub(super) fn find(
        global: &Global,
        paths: &UserPaths,
        bucket: Option<&str>,
    ) -> CliResult<Self> {
        let config = Config::read(&paths.config)?;
        if bucket.is_none() && config.vaults.len() > 1 {
            let mut running = RunningDaemon::all(&paths.running());
            running.retain(|running| !running.past);
            if running.len() == 1 {
                return Ok(Self::Open(running.remove(0)));
            }
        }
        let target = Target::choose(global, paths, &config, bucket, None)?;
        Ok(match target.running(paths) {
            Some(running) => Self::Open(running),
            None => Self::Closed(Box::new(target)),
        })
    }
}

/// Whether the text is a vault's name in the configuration.
pub(super) fn is_name(text: &str) -> bool {
    !text.contains([':', '/']) && !text.is_empty()
}

fn parse(url: &str) -> CliResult<StoreUrl> {
    url.parse().map_err(|error| Failure::new(Exit::Usage, format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> UserPaths {
        UserPaths { config: "/c/config.toml".into(), state: "/s".into(), data: "/d".into() }
    }

    #[test]
    fn nothing_known_and_nothing_named_means_the_embedded_store() {
        let global = Global::default();
        let target = Target::choose(&global, &paths(), &Config::default(), None, None).unwrap();
        assert!(target.embedded);
        assert_eq!(target.url.to_string(), "file:///d/store");
        let named =
            Target::choose(&global, &paths(), &Config::default(), Some("file:///x"), None).unwrap();
        assert!(!named.embedded);
        let wrong = Target::choose(&global, &paths(), &Config::default(), Some("ftp://x"), None);
        assert_eq!(wrong.unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn an_option_counts_before_what_is_remembered() {
        let known = KnownVault {
            name: None,
            id: "1".into(),
            url: "s3://bucket/a".into(),
            endpoint: Some("http://old".into()),
            region: Some("r".into()),
            ..KnownVault::default()
        };
        let config = Config { vaults: vec![known], prices: None };
        let target = Target::choose(&Global::default(), &paths(), &config, None, None).unwrap();
        assert_eq!(target.endpoint.as_deref(), Some("http://old"));
        let global = Global { endpoint_url: Some("http://new".into()), ..Global::default() };
        let target = Target::choose(&global, &paths(), &config, None, None).unwrap();
        assert_eq!(
            (target.endpoint.as_deref(), target.region.as_deref()),
            (Some("http://new"), Some("r"))
        );
        // The same bucket in another spelling.
        let target =
            Target::choose(&Global::default(), &paths(), &config, Some("s3://bucket/a/"), None)
                .unwrap();
        assert!(target.known.is_some());
    }
}
