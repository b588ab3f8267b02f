//! `s3vault config show`

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use crate::cli::args::{Arguments, ConfigCommand, Global};
use crate::cli::config::{Config, KnownVault};
use crate::cli::exit::CliResult;
use crate::cli::limits::{LimitWords, described};
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::cli::secrets;
use crate::cli::target::{ENDPOINT_VARIABLES, REGION_VARIABLES, Target};

/// Variables that affect how the store is reached. Their values are shown without user names and passwords.
const NETWORK: [&str; 13] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
];

/// A setting: its name, its value, and the source of the value.
struct ShownSetting(&'static str, String, String);

/// Shows each setting, its value and its source. Secrets are named, never shown.
pub(crate) fn config(
    global: &Global,
    paths: &UserPaths,
    command: &ConfigCommand,
    words: &[std::ffi::OsString],
) -> CliResult {
    let ConfigCommand::Show { bucket } = command;
    let matches = Arguments::command().try_get_matches_from(words).ok();
    let said = |name: &str| matches.as_ref().and_then(|all| source(all, name));
    let config = Config::read(&paths.config)?;
    let bucket_name = bucket.bucket.as_deref();
    let mut settings = vec![
        ShownSetting(
            "config",
            paths.config.display().to_string(),
            from(said("config"), "--config", ""),
        ),
        ShownSetting(
            "state-dir",
            paths.state.display().to_string(),
            from(said("state_dir"), "--state-dir", "S3VAULT_STATE_DIR"),
        ),
        ShownSetting(
            "data directory",
            paths.data.display().to_string(),
            by_variable("XDG_DATA_HOME"),
        ),
    ];
    let mut failed = None;
    match Target::choose(global, paths, &config, bucket_name, None) {
        Ok(target) => {
            let whence = match bucket_name {
                Some(_) => from(said("bucket"), "--bucket", "S3VAULT_BUCKET"),
                None if target.known.is_some() => "config file".to_owned(),
                None => "default: a store on this disk".to_owned(),
            };
            settings.push(ShownSetting("bucket", target.url.to_string(), whence));
            settings.extend(of_target(global, &target));
            settings.extend(of_limits(&target));
            settings.push(passphrase(global, paths, &target));
        }
        Err(failure) => {
            let why = failure.message.clone();
            settings.push(ShownSetting("bucket", "not decided".to_owned(), why));
            // Without a name there is no mistake in one.
            failed = bucket_name.map(|_| failure);
        }
    }
    settings.push(credentials());
    if let Some(prices) = &config.prices {
        settings.push(ShownSetting("prices", prices.describe(), "config file".to_owned()));
    }
    let variables = NETWORK.iter().filter_map(|name| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(ShownSetting(name, without_user(&value), "environment".to_owned()))
    });
    settings.extend(variables);
    for name in ["S3VAULT_RECOVERY_FILE", "S3VAULT_MACHINE_ID", "S3VAULT_LOG"] {
        if let Ok(value) = std::env::var(name) {
            settings.push(ShownSetting(name, value, "environment".to_owned()));
        }
    }
    let mut lines: Vec<String> = settings
        .into_iter()
        .map(|ShownSetting(name, value, whence)| format!("{name:<16}  {value}  ({whence})"))
        .collect();
    lines.extend(config.vaults.iter().map(describe));
    output::show(&lines.join("\n"))?;
    failed.map_or(Ok(()), Err)
}

/// The source of a value of the command line, from the innermost command that knows the option.
fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    let inner = matches.subcommand().and_then(|(_, inner)| source(inner, name));
    let has = matches.ids().any(|id| id == name);
    inner.or_else(|| has.then(|| matches.value_source(name)).flatten())
}

fn from(source: Option<ValueSource>, option: &str, variable: &str) -> String {
    match source {
        Some(ValueSource::CommandLine) => format!("option {option}"),
        Some(ValueSource::EnvVariable) => format!("environment: {variable}"),
        _ => "default".to_owned(),
    }
}

fn by_variable(name: &str) -> String {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => format!("environment: {name}"),
        _ => "default".to_owned(),
    }
}

/// Endpoint and region; their sources are tried in this order.
fn of_target(global: &Global, target: &Target) -> [ShownSetting; 2] {
    let whence =
        |option: bool, name: &str, known: bool, variables: &[&str], value: &Option<String>| {
            if value.is_none() {
                return "default".to_owned();
            }
            if option {
                return format!("option --{name}");
            }
            if known {
                return "config file".to_owned();
            }
            let set = variables.iter().find(|name| std::env::var_os(name).is_some());
            set.map_or_else(|| "default".to_owned(), |name| format!("environment: {name}"))
        };
    let known = |field: fn(&KnownVault) -> bool| target.known.as_ref().is_some_and(field);
    let (endpoint, region) = (&target.endpoint, &target.region);
    let remote = target.directory().is_none();
    let shown = |value: &Option<String>, none: &str| match value {
        Some(value) => without_user(value),
        None if remote => none.to_owned(),
        None => "none: it is a directory".to_owned(),
    };
    [
        ShownSetting(
            "endpoint-url",
            shown(endpoint, "AWS, or what the profile says"),
            whence(
                global.endpoint_url.is_some(),
                "endpoint-url",
                known(|known| known.endpoint.is_some()),
                &ENDPOINT_VARIABLES,
                endpoint,
            ),
        ),
        ShownSetting(
            "region",
            shown(region, "what the profile or the instance says"),
            whence(
                global.region.is_some(),
                "region",
                known(|known| known.region.is_some()),
                &REGION_VARIABLES,
                region,
            ),
        ),
    ]
}

/// The limits of a mount that names none.
fn of_limits(target: &Target) -> Vec<ShownSetting> {
    let words = target.known.as_ref().map(|known| known.limits.clone()).unwrap_or_default();
    let limits = match target.limits(&LimitWords::default()) {
        Ok(limits) => limits,
        Err(failure) => {
            return vec![ShownSetting("limits", "not understood".to_owned(), failure.message)];
        }
    };
    let said = [
        words.bandwidth_up.is_some(),
        words.bandwidth_down.is_some(),
        words.max_requests.is_some(),
        words.storage_class.is_some(),
        !words.tags.is_empty(),
        words.read_ahead.is_some(),
    ];
    let shown = described(&limits).into_iter().zip(said);
    let whence = |said| if said { "config file" } else { "default" };
    shown.map(|((name, value), said)| ShownSetting(name, value, whence(said).to_owned())).collect()
}

/// Where the passphrase would come from. It is not read.
fn passphrase(global: &Global, paths: &UserPaths, target: &Target) -> ShownSetting {
    let key_file = paths.key_file();
    let (value, whence) = if let Some(path) = &global.passphrase_file {
        (format!("in {}", path.display()), "option --passphrase-file")
    } else if global.passphrase_command.is_some() {
        ("what a program prints".to_owned(), "option --passphrase-command")
    } else if global.passphrase_keyring {
        ("in the desktop's keyring".to_owned(), "option --passphrase-keyring")
    } else if std::env::var_os(secrets::VARIABLE).is_some() {
        ("set, not shown".to_owned(), "environment: S3VAULT_PASSPHRASE")
    } else if let Some(path) = secrets::credential() {
        (format!("in {}", path.display()), "environment: CREDENTIALS_DIRECTORY")
    } else if target.embedded && key_file.exists() {
        (format!("in {}", key_file.display()), "default: the key file")
    } else {
        ("asked for".to_owned(), "default: the terminal")
    };
    ShownSetting("passphrase", value, whence.to_owned())
}

fn credentials() -> ShownSetting {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let (value, whence) = if is_set("AWS_ACCESS_KEY_ID") {
        ("set, not shown".to_owned(), "environment: AWS_ACCESS_KEY_ID".to_owned())
    } else if let Some(profile) = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty())
    {
        (format!("profile {profile}"), "environment: AWS_PROFILE".to_owned())
    } else {
        ("profile default, web identity, container or instance".to_owned(), "default".to_owned())
    };
    ShownSetting("credentials", value, whence)
}

/// A URL without user name and password.
fn without_user(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map(|(_, host)| host);
    match host {
        None => text.to_owned(),
        Some(host) => {
            let head = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
            format!("{head}(user not shown)@{host}{}", &rest[end..])
        }
    }
}

fn describe(known: &KnownVault) -> String {
    let name = known.name.as_deref().unwrap_or("(without a name)");
    let mut text = format!("\nvault {name}: {}", known.url);
    let mut add = |what: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {what:<14}  {value}");
        }
    };
    add("id", &known.id);
    add("endpoint", &without_user(known.endpoint.as_deref().unwrap_or_default()));
    add("region", known.region.as_deref().unwrap_or_default());
    add("mounted at", &known.mountpoints.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_proxy_is_shown() {
        for (given, shown) in [
            ("http://u:p@h:3128/x", "http://(user not shown)@h:3128/x"),
            ("u:p@h:3128", "(user not shown)@h:3128"),
            ("http://u:p@w@h", "http://(user not shown)@h"),
            ("http://h:1/a@b", "http://h:1/a@b"),
            ("/etc/ca.pem", "/etc/ca.pem"),
        ] {
            assert_eq!(without_user(given), shown);
        }
    }

    #[test]
    fn where_a_value_is_from_is_what_clap_says() {
        let of = |line: &str, name: &str| {
            let matches = Arguments::command().try_get_matches_from(line.split(' ')).unwrap();
            source(&matches, name)
        };
        let line = "s3vault --state-dir /s config show --bucket s3://b";
        assert_eq!(of(line, "state_dir"), Some(ValueSource::CommandLine));
        assert_eq!(of(line, "bucket"), Some(ValueSource::CommandLine));
        assert_eq!(of("s3vault config show --config /c", "config"), Some(ValueSource::CommandLine));
        assert_eq!(of(line, "config"), None);
    }
}
