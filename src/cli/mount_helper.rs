//! The helper of mount(8) and umount(8): this program under the name `mount.s3vault` or `umount.s3vault` (a link in
//! /sbin). Its arguments are translated into those of `s3vault mount` and `s3vault umount`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::args::Arguments;
use super::exit::{Exit, Failure};
use super::mount_look::LookWord;
use super::nearest::nearest;

/// The name under which this program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalledAs {
    /// `s3vault`, or any other name.
    Program,
    /// The helper of mount(8).
    MountHelper,
    /// The helper of umount(8).
    UmountHelper,
}

/// Exit codes that mount(8) and umount(8) expect of their helpers.
const MOUNT_USAGE: u8 = 1;
const MOUNT_FAILED: u8 = 32;

/// The machine's configuration, in which the helper finds vaults by name.
pub(super) const MACHINE_CONFIG: &str = "/etc/s3vault/config.toml";

/// Options of fstab that concern mount(8), systemd or the kernel's own file systems, and are ignored here.
const FOR_OTHERS: [&str; 33] = [
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "defaults",
    "user",
    "users",
    "nouser",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "async",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "loud",
    "silent",
    "nosymfollow",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "default_permissions",
    "bind",
    "dirsync",
    "fail",
    "seclabel",
];
/// The same, for options with a value.
const FOR_OTHERS_VALUED: [&str; 7] =
    ["x-", "X-", "comment=", "uhelper=", "helper=", "user=", "subtype="];
/// Options of `s3vault mount` that are not allowed in fstab.
const NOT_IN_TABLES: [&str; 8] = [
    "bucket",
    "foreground",
    "help",
    "version",
    "verbose",
    "read-only",
    "allow-other",
    "unremembered",
];

impl CalledAs {
    /// Decides by the name in `argv[0]`.
    pub(super) fn by(name: Option<&OsStr>) -> Self {
        let name = name.and_then(|name| Path::new(name).file_name()).unwrap_or_default();
        match name.as_bytes() {
            b"mount.s3vault" | b"mount.fuse.s3vault" => Self::MountHelper,
            b"umount.s3vault" | b"umount.fuse.s3vault" => Self::UmountHelper,
            _ => Self::Program,
        }
    }

    /// The exit code that the caller expects.
    pub(super) fn code(self, exit: Exit) -> u8 {
        match (self, exit) {
            (Self::Program, exit) => exit as u8,
            (_, Exit::Done) => 0,
            (_, Exit::Usage) => MOUNT_USAGE,
            _ => MOUNT_FAILED,
        }
    }

    /// The arguments for `s3vault`; `None` if there is nothing to do (`-f`).
    pub(super) fn translate(
        self,
        words: impl Iterator<Item = OsString>,
    ) -> Result<Option<Vec<OsString>>, Failure> {
        match self {
            Self::Program => Ok(Some(words.collect())),
            Self::MountHelper => mount(words.skip(1), Path::new(MACHINE_CONFIG).exists()),
            Self::UmountHelper => umount(words.skip(1)).map(Some),
        }
    }
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// `mount.s3vault SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`
fn mount(
    words: impl Iterator<Item = OsString>,
    is_configured: bool,
) -> Result<Option<Vec<OsString>>, Failure> {
    const HOW: &str = "mount.s3vault SOURCE DIRECTORY [-o OPTIONS]; SOURCE is the name of a vault in the \
                       configuration, s3://BUCKET/PREFIX or file:///DIRECTORY";
    let words: Vec<_> = words.collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        say!("Usage: {HOW}");
        return Ok(None);
    }
    let called = Called::read(words.into_iter())?;
    let [source, directory] = &called.places[..] else { return Err(usage(HOW)) };
    let mut translated = Translated::default();
    for option in split(&called.options) {
        translated.take(&option, called.has(b's'))?;
    }
    let mut said: Vec<OsString> = vec!["s3vault".into(), "mount".into(), "--unremembered".into()];
    said.extend(["--bucket".into(), source.clone()]);
    // `mount -a`, umount(8) and systemd compare this with the table.
    if !translated.has_name && source.as_bytes().iter().all(|byte| !b", \t\n".contains(byte)) {
        said.push(joined(b"-ofsname=", source.as_bytes()));
    }
    if is_configured && !translated.has_config {
        said.extend(["--config".into(), MACHINE_CONFIG.into()]);
    }
    if called.has(b'v') {
        said.push("-v".into());
    }
    said.extend(translated.words);
    said.extend(["--".into(), directory.clone()]);
    if let Err(error) = Arguments::try_parse_from(&said) {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        return Err(usage(format!("{}; nothing is mounted", line.trim_start_matches("error: "))));
    }
    Ok((!called.has(b'f')).then_some(said))
}

/// `umount.s3vault DIRECTORY [-flnrv] [-N NAMESPACE] [-t TYPE]`
fn umount(words: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, Failure> {
    let called = Called::read(words)?;
    let [directory] = &called.places[..] else {
        return Err(usage("umount.s3vault DIRECTORY [-f] [-l]"));
    };
    let mut said: Vec<OsString> = vec!["s3vault".into(), "umount".into(), "--any".into()];
    if called.has(b'l') {
        said.push("--lazy".into());
    } else if called.has(b'f') {
        said.push("--force".into());
    }
    said.extend(["--".into(), directory.clone()]);
    Ok(said)
}

/// The parsed arguments of mount(8) or umount(8).
#[derive(Default)]
struct Called {
    places: Vec<OsString>,
    letters: Vec<u8>,
    options: Vec<u8>,
}

impl Called {
    fn read(mut words: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut called = Self::default();
        while let Some(word) = words.next() {
            let letters = match word.as_bytes() {
                [b'-', letters @ ..] if !letters.is_empty() => letters.to_vec(),
                _ => {
                    called.places.push(word);
                    continue;
                }
            };
            for (at, letter) in letters.iter().enumerate() {
                match letter {
                    b's' | b'f' | b'n' | b'v' | b'l' | b'r' | b'w' => called.letters.push(*letter),
                    b'o' | b'N' | b't' => {
                        let rest = &letters[at + 1..];
                        let value = match rest {
                            [] => words.next().map(OsStringExt::into_vec).unwrap_or_default(),
                            rest => rest.to_vec(),
                        };
                        if *letter == b'o' {
                            if !called.options.is_empty() {
                                called.options.push(b',');
                            }
                            called.options.extend(value);
                        }
                        break;
                    }
                    _ => {
                        return Err(usage(format!(
                            "{} is no option that mount(8) passes on",
                            word.display()
                        )));
                    }
                }
            }
        }
        if called.has(b'r') {
            called.options.extend(b",ro");
        }
        Ok(called)
    }

    fn has(&self, letter: u8) -> bool {
        self.letters.contains(&letter)
    }
}

/// Splits options at commas, except inside double quotes.
fn split(options: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut quoted) = (vec![Vec::new()], false);
    for byte in options {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => all.push(Vec::new()),
            byte => {
                all.iter_mut().last().into_iter().for_each(|word: &mut Vec<u8>| word.push(*byte));
            }
        }
    }
    all.retain(|word| !word.is_empty());
    all
}

fn joined(one: &[u8], two: &[u8]) -> OsString {
    OsString::from_vec([one, two].concat())
}

/// The translated options.
#[derive(Default)]
struct Translated {
    words: Vec<OsString>,
    has_name: bool,
    has_config: bool,
}

impl Translated {
    fn take(&mut self, option: &[u8], is_sloppy: bool) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(option).into_owned();
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                (String::from_utf8_lossy(&option[..at]).into_owned(), Some(&option[at + 1..]))
            }
            None => (text.clone(), None),
        };
        if name == "remount" {
            return Err(usage(
                "a vault is not remounted: unmount it, then mount it with the other options; nothing was changed",
            ));
        }
        let wrong = text.parse::<LookWord>().err();
        if wrong.is_none() {
            let is_read_only = |word: &OsString| word == "--read-only";
            if name == "ro" || name == "rw" {
                self.words.retain(|word| !is_read_only(word));
                self.words.extend((name == "ro").then(|| "--read-only".into()));
            } else {
                self.has_name |= name == "fsname";
                self.words.push(joined(b"-o", option));
            }
            return Ok(());
        }
        let wrong = wrong.unwrap_or_default();
        if FOR_OTHERS.contains(&&*name)
            || FOR_OTHERS_VALUED.iter().any(|head| text.starts_with(head))
        {
            return Ok(());
        }
        let long = name.replace('_', "-");
        if let Some(takes_value) = long_option(&long) {
            self.has_config |= long == "config";
            self.words.push(match (takes_value, value) {
                (true, Some(value)) => joined(format!("--{long}=").as_bytes(), value),
                (false, None) => format!("--{long}").into(),
                (true, None) => {
                    return Err(usage(format!("the option {name} takes a value: {name}=...")));
                }
                (false, Some(_)) => return Err(usage(format!("the option {name} takes no value"))),
            });
            return Ok(());
        }
        if is_sloppy {
            return Ok(());
        }
        if wrong.starts_with("there is no") {
            let known = long_options();
            let known = known.iter().map(|(name, _)| &**name);
            let words = ["fsname", "allow_other", "umask", "noexec", "nosuid", "nodev", "noatime"];
            let hint = nearest(&name, known.chain(words).chain(FOR_OTHERS));
            return Err(usage(format!("there is no option {name}{hint}; nothing is mounted")));
        }
        Err(usage(format!("{wrong}; nothing is mounted")))
    }
}

/// The options of `s3vault mount` that fstab may contain, and whether they take a value.
fn long_options() -> Vec<(String, bool)> {
    let mut all = Arguments::command();
    all.build();
    let Some(mount) = all.find_subcommand("mount") else { return Vec::new() };
    let options = mount.get_arguments().filter_map(|option| {
        let takes_value = option.get_num_args().is_some_and(|range| range.takes_values());
        Some((option.get_long()?.to_owned(), takes_value))
    });
    options.filter(|(name, _)| !NOT_IN_TABLES.contains(&&**name)).collect()
}

fn long_option(name: &str) -> Option<bool> {
    long_options().into_iter().find(|(known, _)| known == name).map(|(_, takes_value)| takes_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(line: &str) -> Result<Option<String>, String> {
        let words = line.split_whitespace().map(OsString::from);
        let said = mount(words, false).map_err(|failure| failure.message)?;
        let text =
            |words: Vec<OsString>| words.join(OsStr::new(" ")).to_string_lossy().into_owned();
        Ok(said.map(text))
    }

    #[test]
    fn the_words_of_mount_8_become_ours() {
        let said = mounts("backup /m -v -n -o rw,noexec,_netdev,x-systemd.automount,nofail")
            .unwrap()
            .unwrap();
        assert_eq!(
            said,
            "s3vault mount --unremembered --bucket backup -ofsname=backup -v -onoexec -- /m"
        );
        let said = mounts(
            "s3://b/p /m -o passphrase-file=/k,cache_size=1GiB,allow_other -o ro,fsname=x,uid=7",
        );
        let said = said.unwrap().unwrap();
        for word in [
            "--passphrase-file=/k",
            "--cache-size=1GiB",
            "-oallow_other",
            "--read-only",
            "-ouid=7",
            "-ofsname=x",
        ] {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert_eq!(said.matches("fsname").count(), 1);
        assert_eq!(mounts("b /m -f -o ro"), Ok(None));
        let said = mounts(r#"b /m -o passphrase-file="/a,b",ro"#).unwrap().unwrap();
        assert!(said.contains("--passphrase-file=/a,b "), "{said}");
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_nearest_and_sloppiness_lets_it_pass() {
        let wrong = mounts("b /m -o cachex-size=1GiB").unwrap_err();
        assert!(wrong.contains("cache-size meant"), "{wrong}");
        assert!(mounts("b /m -o allowx_other").unwrap_err().contains("allow_other"));
        assert!(mounts("b /m -o _netdef").unwrap_err().contains("_netdev"));
        assert!(mounts("b /m -s -o cachex-size=1GiB").unwrap().is_some());
        for line in [
            "b",
            "b /m c",
            "",
            "b /m -o remount,ro",
            "b /m -o cache-size",
            "b /m -o take-over=1",
            "b /m -x",
            "b /m -o uid=root",
            "b /m -o cache-size=1",
            "b /m -o foreground",
            "b /m -o ro,take-over",
        ] {
            assert!(mounts(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_name_says_who_calls_and_mount_8_gets_its_codes() {
        let by = |name: &str| CalledAs::by(Some(OsStr::new(name)));
        assert_eq!(by("/sbin/mount.s3vault"), CalledAs::MountHelper);
        assert_eq!(by("umount.fuse.s3vault"), CalledAs::UmountHelper);
        assert_eq!((by("s3vault"), CalledAs::by(None)), (CalledAs::Program, CalledAs::Program));
        assert_eq!(by("mount.s3vault").code(Exit::Damaged), 32);
        assert_eq!(
            (by("mount.s3vault").code(Exit::Usage), by("s3vault").code(Exit::Damaged)),
            (1, 16)
        );
        let said =
            umount(["/m".into(), "-l".into(), "-t".into(), "fuse.s3vault".into()].into_iter());
        assert_eq!(said.unwrap().join(OsStr::new(" ")), "s3vault umount --any --lazy -- /m");
    }
}
