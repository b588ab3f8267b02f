//! The mount options of `-o`: kernel flags, and how files appear.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::nearest::nearest;
use crate::fuse::{MountFlags, ShownAs};

/// Options without a value.
const PLAIN: [&str; 12] = [
    "ro",
    "rw",
    "allow_other",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "sync",
];
/// Options with a value.
const VALUED: [&str; 4] = ["fsname", "uid", "gid", "umask"];

/// One option of `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LookWord {
    name: &'static str,
    text: String,
    number: u32,
}

impl FromStr for LookWord {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let find = |list: &[&'static str]| list.iter().find(|known| **known == name).copied();
        let (known, text) = match (find(&PLAIN), find(&VALUED), value) {
            (Some(known), _, None) => (known, ""),
            (_, Some(known), Some(value)) if !value.is_empty() => (known, value),
            (Some(_), ..) => return Err(format!("-o {name} takes no value")),
            (_, Some(_), _) => return Err(format!("-o {name} takes a value: {name}=...")),
            (None, None, _) => {
                let hint = nearest(name, PLAIN.iter().chain(&VALUED).copied());
                return Err(format!("there is no -o {name}{hint}"));
            }
        };
        let number = match known {
            "uid" | "gid" => {
                text.parse().map_err(|_| format!("{name} is a number, as `id` shows it"))?
            }
            "umask" => u32::from_str_radix(text, 8)
                .ok()
                .filter(|umask| *umask <= 0o777)
                .ok_or("umask is an octal number up to 777")?,
            _ => 0,
        };
        Ok(Self { name: known, text: text.to_owned(), number })
    }
}

/// All options together; the last occurrence of each counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MountLook {
    pub allow_other: bool,
    #[serde(default)]
    pub read_only: bool,
    /// The first field of `/proc/mounts`, if it is not to be the bucket.
    #[serde(default)]
    pub fsname: Option<String>,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    #[serde(default)]
    pub umask: Option<u32>,
    /// Flags of mount(2).
    #[serde(default)]
    pub flags: Vec<String>,
}

impl MountLook {
    pub(super) fn of(words: &[LookWord], allow_other: bool) -> Self {
        let mut look = Self { allow_other, ..Self::default() };
        for word in words {
            match word.name {
                "ro" => look.read_only = true,
                "rw" => look.read_only = false,
                "allow_other" => look.allow_other = true,
                "fsname" => look.fsname = Some(word.text.clone()),
                "uid" => look.uid = Some(word.number),
                "gid" => look.gid = Some(word.number),
                "umask" => look.umask = Some(word.number),
                flag => {
                    let opposite = |other: &String| {
                        other.strip_prefix("no") == Some(flag)
                            || flag.strip_prefix("no") == Some(other)
                    };
                    look.flags.retain(|other| other != flag && !opposite(other));
                    look.flags.push(flag.to_owned());
                }
            }
        }
        look
    }

    pub(super) fn shown(&self) -> ShownAs {
        ShownAs { uid: self.uid, gid: self.gid, umask: self.umask }
    }

    pub(super) fn flags(&self) -> MountFlags {
        let has = |flag: &str| self.flags.iter().any(|word| word == flag);
        MountFlags {
            no_dev: has("nodev"),
            no_suid: has("nosuid"),
            no_exec: has("noexec"),
            no_atime: has("noatime"),
            sync: has("sync"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(words: &str) -> Result<MountLook, String> {
        let words: Result<Vec<LookWord>, _> = words.split(',').map(str::parse).collect();
        words.map(|words| MountLook::of(&words, false))
    }

    #[test]
    fn the_last_word_counts_and_unknown_ones_are_refused_with_the_nearest() {
        let seen = look("ro,rw,allow_other,fsname=a b,uid=7,umask=027,noexec,exec,nodev").unwrap();
        assert!(seen.allow_other && !seen.read_only);
        assert_eq!(
            (seen.fsname.as_deref(), seen.uid, seen.umask),
            (Some("a b"), Some(7), Some(0o27))
        );
        assert_eq!(seen.flags, ["exec", "nodev"]);
        assert!(seen.flags().no_dev && !seen.flags().no_exec);
        assert!(look("allowx_other").unwrap_err().contains("allow_other"));
        for wrong in ["fsname", "fsname=", "ro=1", "uid=root", "umask=888", "umask=7777", "", "x"] {
            assert!(look(wrong).is_err(), "{wrong}");
        }
    }
}
