//! How names and modes are shown to people.

use std::borrow::Cow;
use std::fmt::Write;

use crate::types::printable;

/// A name as `ls` shows it at a terminal: quoted if a shell would not read it back as it stands, and without anything
/// that a terminal would interpret.
pub(crate) fn quoted(name: &[u8]) -> Cow<'_, str> {
    let text = std::str::from_utf8(name);
    let is_odd = |c: char| c.is_whitespace() || "'\"\\$`&|;<>()*?[]{}!#~".contains(c);
    match text {
        Ok(text) if !text.is_empty() && !text.contains(is_odd) && !is_obeyed(text) => {
            Cow::Borrowed(text)
        }
        Ok(text) if !text.contains('\'') && !is_obeyed(text) => Cow::Owned(format!("'{text}'")),
        _ => {
            let mut shown = String::from("$'");
            for part in name.utf8_chunks() {
                for c in part.valid().chars() {
                    match c {
                        '\'' | '\\' => shown.extend(['\\', c]),
                        '\n' => shown.push_str("\\n"),
                        '\t' => shown.push_str("\\t"),
                        c if is_obeyed(c.encode_utf8(&mut [0; 4])) => {
                            for byte in c.to_string().bytes() {
                                _ = write!(shown, "\\{byte:03o}"); // to a string
                            }
                        }
                        c => shown.push(c),
                    }
                }
                for byte in part.invalid() {
                    _ = write!(shown, "\\{byte:03o}"); // to a string
                }
            }
            shown.push('\'');
            Cow::Owned(shown)
        }
    }
}

/// Whether a terminal would interpret the text rather than show it.
fn is_obeyed(text: &str) -> bool {
    text.contains(['\n', '\t']) || matches!(printable(text), Cow::Owned(_))
}

/// `drwxr-xr-x`.
pub(crate) fn mode_text(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in
        [(6, libc::S_ISUID, 's'), (3, libc::S_ISGID, 's'), (0, libc::S_ISVTX, 't')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, true) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_so_that_nothing_is_obeyed() {
        for (name, shown) in [
            (&b"plain.txt"[..], "plain.txt"),
            ("ü".as_bytes(), "ü"),
            (b"a b", "'a b'"),
            (b"", "''"),
            (b"it's", "$'it\\'s'"),
            (b"a\nb\tc", "$'a\\nb\\tc'"),
            (b"\x1b[31m", "$'\\033[31m'"),
            (b"\xff", "$'\\377'"),
            ("a\u{202e}b".as_bytes(), "$'a\\342\\200\\256b'"),
        ] {
            assert_eq!(quoted(name), shown);
        }
    }

    #[test]
    fn modes_are_shown_as_ls_does() {
        for (mode, shown) in [
            (libc::S_IFREG | 0o644, "-rw-r--r--"),
            (libc::S_IFDIR | 0o1777, "drwxrwxrwt"),
            (libc::S_IFREG | 0o6755, "-rwsr-sr-x"),
            (libc::S_IFREG | 0o4600, "-rwS------"),
            (libc::S_IFLNK | 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode_text(mode), shown);
        }
    }
}
