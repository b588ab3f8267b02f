//! Judges whether a new passphrase is among the first that an attacker would try, and why. This is only a warning: a
//! passphrase that passes may be weak all the same.
//!
//! The crate `zxcvbn` (3.1.1) knows far more words, but is not used. It copies parts of the passphrase (reversed, with
//! substitutions undone, as regular expression matches) into strings that nobody can wipe, and the Argon2 measurement
//! that follows makes the system look for memory to swap out. A warning is not worth a leaked secret.

/// Shorter passphrases can be tried exhaustively.
const SHORT: usize = 10;
/// Digits alone can be tried exhaustively up to this length.
const DIGITS: usize = 16;
/// Sequences on a keyboard, of the alphabet and of digits; checked in both directions.
const ROWS: [&str; 5] = [
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
];
/// The most common parts of stolen passphrases, in lower case and without what surrounds them.
const COMMON: [&str; 46] = [
    "password",
    "passwort",
    "passw",
    "pass",
    "letmein",
    "welcome",
    "welcomehome",
    "monkey",
    "dragon",
    "master",
    "football",
    "baseball",
    "basketball",
    "superman",
    "batman",
    "iloveyou",
    "princess",
    "sunshine",
    "shadow",
    "michael",
    "jennifer",
    "jordan",
    "trustno",
    "starwars",
    "whatever",
    "freedom",
    "computer",
    "internet",
    "secret",
    "admin",
    "administrator",
    "root",
    "login",
    "access",
    "hello",
    "helloworld",
    "changeme",
    "default",
    "test",
    "testing",
    "backup",
    "vault",
    "svault",
    "correcthorsebatterystaple",
    "passphrase",
    "encryption",
];

/// Why a passphrase is weak, if that can be seen.
pub(super) fn weakness(passphrase: &[u8]) -> Option<String> {
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(passphrase).to_lowercase());
    let length = text.chars().count();
    let letters =
        zeroize::Zeroizing::new(text.chars().filter(|c| c.is_alphabetic()).collect::<String>());
    let plain =
        zeroize::Zeroizing::new(text.chars().filter(|c| c.is_alphanumeric()).collect::<String>());
    let backwards = zeroize::Zeroizing::new(plain.chars().rev().collect::<String>());
    let in_a_row = |row: &str| row.contains(plain.as_str()) || row.contains(backwards.as_str());
    let mut different: Vec<char> = text.chars().collect();
    different.sort_unstable();
    different.dedup();
    if COMMON.contains(&letters.as_str()) {
        return Some("it is a word that is tried first, with or without digits".to_owned());
    }
    if !plain.is_empty() && ROWS.iter().any(|row| in_a_row(row)) {
        return Some("it is a row of keys, or counts".to_owned());
    }
    if different.len() < 5 {
        return Some(format!("it has only {} different characters", different.len()));
    }
    if length < SHORT {
        return Some(format!("it has only {length} characters"));
    }
    if text.chars().all(|c| c.is_ascii_digit()) && length < DIGITS {
        return Some("it is digits alone".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_told_with_its_reason() {
        for (weak, why) in [
            ("Password2026!", "tried first"),
            ("CorrectHorseBatteryStaple", "tried first"),
            ("qwertyuiopasdf", "a row of keys"),
            ("9876543210", "a row of keys"),
            ("aaaaaaaaaaaaaaaa", "only 1 different"),
            ("ababababababab", "only 2 different"),
            ("k7Q!x", "only 5 characters"),
            ("190419731206", "digits alone"),
            ("", "only 0"),
        ] {
            let told = weakness(weak.as_bytes()).unwrap_or_default();
            assert!(told.contains(why), "{weak}: {told}");
        }
        for fine in ["correct horse", "r7#kq0-Zp!w2", "seven wet owls sing"] {
            assert_eq!(weakness(fine.as_bytes()), None, "{fine}");
        }
        drop(weakness(b"\xff\xfe\x00\x01\x80")); // not text: any answer will do
    }
}
