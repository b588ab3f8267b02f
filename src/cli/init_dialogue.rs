//! The questions that `s3vault init` asks at a terminal if no bucket is named: where the vault is to be, and its name.

use std::io::{self, BufRead, Write};

use super::exit::{CliResult, Exit, Failure};
use crate::vault::RecoveryKey;

/// How often a question with an invalid answer is repeated.
const TRIES: u32 = 5;

/// A user at a terminal, or a test double.
pub(super) trait Talk {
    /// Asks for a line, which is echoed.
    fn ask(&mut self, prompt: &str) -> io::Result<String>;
}

/// The terminal.
pub(super) struct Console;

impl Talk for Console {
    fn ask(&mut self, prompt: &str) -> io::Result<String> {
        let mut out = io::stdout().lock();
        write!(out, "{prompt}")?;
        out.flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim().to_owned())
    }
}

/// A kind of store: what the user needs, what is asked, and what the answer becomes.
struct StoreKind {
    label: &'static str,
    needs: &'static str,
    /// The question; its answer replaces `{}`.
    question: &'static str,
    endpoint: &'static str,
    region: &'static str,
}

const fn kind(
    label: &'static str,
    needs: &'static str,
    question: &'static str,
    endpoint: &'static str,
    region: &'static str,
) -> StoreKind {
    StoreKind { label, needs, question, endpoint, region }
}

const KEYS: &str = "a key and its secret";

/// The choices after the first one, which is a directory.
const STORES: [StoreKind; 10] = [
    kind(
        "AWS S3",
        "a bucket; keys, a profile or a role",
        "Region (eu-central-1, us-east-1 ...)",
        "",
        "{}",
    ),
    kind(
        "MinIO",
        "its URL, a key and its secret",
        "URL of the server (http://host:9000)",
        "{}",
        "us-east-1",
    ),
    kind(
        "Cloudflare R2",
        "the account's id, an API token for S3",
        "Account id",
        "https://{}.r2.cloudflarestorage.com",
        "auto",
    ),
    kind(
        "Backblaze B2",
        "an application key",
        "Region (eu-central-003, us-west-004 ...)",
        "https://s3.{}.backblazeb2.com",
        "{}",
    ),
    kind(
        "Wasabi",
        KEYS,
        "Region (eu-central-1, us-east-2 ...)",
        "https://s3.{}.wasabisys.com",
        "{}",
    ),
    kind("Hetzner", KEYS, "Location (fsn1, nbg1, hel1)", "https://{}.your-objectstorage.com", "{}"),
    kind("OVHcloud", KEYS, "Region (gra, sbg, de ...)", "https://s3.{}.io.cloud.ovh.net", "{}"),
    kind(
        "Ceph RGW",
        "its URL, a key and its secret",
        "URL of the server (https://host)",
        "{}",
        "us-east-1",
    ),
    kind(
        "SeaweedFS",
        "its URL, a key and its secret",
        "URL of the server (http://host:8333)",
        "{}",
        "us-east-1",
    ),
    kind(
        "another S3 server",
        "its URL, a key and its secret",
        "URL of the server",
        "{}",
        "us-east-1",
    ),
];

/// The place that the user chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WantedPlace {
    pub url: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
}

/// Asks where the vault is to be. `directory`: the default.
pub(super) fn ask_place(talk: &mut dyn Talk, directory: &str) -> CliResult<WantedPlace> {
    say!("Where is the vault to be? Whatever lies there is encrypted on this machine.");
    say!("   1  a directory        of this machine: any file system");
    for (number, kind) in STORES.iter().enumerate() {
        say!("  {:>2}  {:<17}  needs {}", number + 2, kind.label, kind.needs);
    }
    let number = asked(talk, "Number [1]: ", |answer| match answer {
        "" => Ok(1),
        text => text
            .parse()
            .ok()
            .filter(|n| (1..=STORES.len() + 1).contains(n))
            .ok_or("one of the numbers above"),
    })?;
    if number == 1 {
        let prompt = format!("Directory [{directory}]: ");
        let path = asked(talk, &prompt, |answer| match answer {
            "" => Ok(directory.to_owned()),
            path if path.starts_with('/') => Ok(path.to_owned()),
            _ => Err("a path that begins with /"),
        })?;
        return Ok(WantedPlace { url: format!("file://{path}"), ..WantedPlace::default() });
    }
    let kind = &STORES[number - 2];
    let is_url = kind.endpoint == "{}";
    let answer = asked(talk, &format!("{}: ", kind.question), |answer| {
        let is_http = answer.starts_with("http://") || answer.starts_with("https://");
        let is_word =
            !answer.is_empty() && answer.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        match is_url {
            true if is_http => Ok(answer.trim_end_matches('/').to_owned()),
            true => Err("a URL that begins with http:// or https://"),
            false if is_word => Ok(answer.to_owned()),
            false => Err("letters, digits and dashes"),
        }
    })?;
    let filled = |text: &str| text.replace("{}", &answer);
    let bucket = asked(talk, "Bucket: ", |answer| match answer.trim_start_matches("s3://") {
        "" => Err("the bucket's name"),
        name => Ok(name.to_owned()),
    })?;
    let prefix =
        asked(talk, "Prefix within it [none]: ", |answer| Ok(answer.trim_matches('/').to_owned()))?;
    let slash = if prefix.is_empty() { "" } else { "/" };
    Ok(WantedPlace {
        url: format!("s3://{bucket}{slash}{prefix}"),
        endpoint: Some(filled(kind.endpoint)).filter(|endpoint| !endpoint.is_empty()),
        region: Some(if is_url { kind.region.to_owned() } else { filled(kind.region) }),
    })
}

/// Asks for the vault's name.
pub(super) fn ask_name(
    talk: &mut dyn Talk,
    usual: &str,
    is_good: impl Fn(&str) -> bool,
) -> CliResult<String> {
    asked(talk, &format!("What is it to be called here? [{usual}]: "), |answer| match answer {
        "" => Ok(usual.to_owned()),
        name if is_good(name) => Ok(name.to_owned()),
        _ => Err("letters, digits and . _ -; one that no other vault has"),
    })
}

/// Asks yes or no; an empty answer is no.
pub(super) fn ask_whether(talk: &mut dyn Talk, question: &str) -> CliResult<bool> {
    asked(talk, &format!("{question} [y/N]: "), |answer| {
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "" | "n" | "no" => Ok(false),
            _ => Err("y or n"),
        }
    })
}

/// Waits until the user has done something.
pub(super) fn wait_for_enter(talk: &mut dyn Talk, what: &str) -> CliResult {
    let answer = talk
        .ask(&format!("{what} Enter tries again, q gives up: "))
        .map_err(|error| gone(&error))?;
    match answer.as_str() {
        "q" | "quit" => Err(Failure::new(Exit::Usage, "given up; nothing was made")),
        _ => Ok(()),
    }
}

/// Has the recovery key typed back, which shows that it was written down correctly.
pub(super) fn typed_back(talk: &mut dyn Talk, key: &RecoveryKey) -> io::Result<()> {
    let letters = |text: &str| -> zeroize::Zeroizing<String> {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        zeroize::Zeroizing::new(letters.map(|c| c.to_ascii_uppercase()).collect())
    };
    let shown = zeroize::Zeroizing::new(key.to_string());
    for _ in 0..TRIES {
        let typed = talk.ask("Type it back, from what you wrote down (or nothing): ")?;
        let typed = zeroize::Zeroizing::new(typed);
        if typed.is_empty() {
            complain!(
                "Then nobody knows whether it was written down right. `s3vault key recovery` makes another one."
            );
            return Ok(());
        }
        if *letters(&typed) == *letters(&shown) {
            say!("That is it.");
            return Ok(());
        }
        complain!("That is another one. Look at each group.");
    }
    Err(io::Error::other("the recovery key was not typed back; nothing was made; try again"))
}

fn asked<T>(
    talk: &mut dyn Talk,
    prompt: &str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> CliResult<T> {
    for _ in 0..TRIES {
        let answer = talk.ask(prompt).map_err(|error| gone(&error))?;
        match read(&answer) {
            Ok(value) => return Ok(value),
            Err(wanted) => complain!("What is wanted: {wanted}."),
        }
    }
    Err(Failure::new(
        Exit::Usage,
        "no answer that makes sense; nothing was made; see s3vault init --help",
    ))
}

fn gone(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("nobody answers ({error}); nothing was made; see s3vault init --help"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct AnswersGiven(Vec<&'static str>);

    impl Talk for AnswersGiven {
        fn ask(&mut self, _: &str) -> io::Result<String> {
            if self.0.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(self.0.remove(0).to_owned())
        }
    }

    fn place(answers: &[&'static str]) -> CliResult<WantedPlace> {
        ask_place(&mut AnswersGiven(answers.to_vec()), "/data/store")
    }

    #[test]
    fn each_store_becomes_a_place() {
        let of = |url: &str, endpoint: Option<&str>, region: Option<&str>| WantedPlace {
            url: url.into(),
            endpoint: endpoint.map(Into::into),
            region: region.map(Into::into),
        };
        assert_eq!(place(&["", ""]).unwrap(), of("file:///data/store", None, None));
        assert_eq!(place(&["1", "rel", "/disk/v"]).unwrap(), of("file:///disk/v", None, None));
        let aws = place(&["2", "eu-central-1", "s3://bucket", "/p/"]).unwrap();
        assert_eq!(aws, of("s3://bucket/p", None, Some("eu-central-1")));
        let r2 = place(&["4", "abc123", "bucket", ""]).unwrap();
        assert_eq!(
            r2,
            of("s3://bucket", Some("https://abc123.r2.cloudflarestorage.com"), Some("auto"))
        );
        let hetzner = place(&["x", "99", "7", "fsn1", "", "bucket", ""]).unwrap();
        assert_eq!(
            hetzner,
            of("s3://bucket", Some("https://fsn1.your-objectstorage.com"), Some("fsn1"))
        );
        let weed = place(&["10", "ftp://x", "http://h:8333/", "bucket", ""]).unwrap();
        assert_eq!(weed, of("s3://bucket", Some("http://h:8333"), Some("us-east-1")));
        assert_eq!(place(&["2"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(place(&["x"; 9]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_recovery_key_is_compared_by_its_letters() {
        let key = RecoveryKey::generate();
        let text: &'static str =
            Box::leak(key.to_string().to_lowercase().replace('-', " ").into_boxed_str());
        typed_back(&mut AnswersGiven(vec!["wrong", text]), &key).unwrap();
        typed_back(&mut AnswersGiven(vec![""]), &key).unwrap();
        assert!(typed_back(&mut AnswersGiven(vec!["wrong"; 9]), &key).is_err());
    }

    #[test]
    fn names_and_questions() {
        let good = |name: &str| name != "taken";
        assert_eq!(ask_name(&mut AnswersGiven(vec!["taken", ""]), "usual", good).unwrap(), "usual");
        assert!(ask_whether(&mut AnswersGiven(vec!["what", "Y"]), "Is it?").unwrap());
        assert!(!ask_whether(&mut AnswersGiven(vec![""]), "Is it?").unwrap());
        assert!(wait_for_enter(&mut AnswersGiven(vec!["q"]), "Wait.").is_err());
    }
}
