//! Shell wildcards in names: `*`, `?`, `[a-z]`, `[!a]`, and `\` to quote the next character.

/// Whether a name has wildcards.
pub(crate) fn has_wildcards(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether a pattern matches a whole name. A leading dot must be matched by a literal dot.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.')
        && pattern.first() != Some(&b'.')
        && pattern.first() != Some(&b'\\')
    {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // The position of the last star, and how much of the name it has taken: the only place to backtrack to.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if let Some(b'*') = pattern.get(p) {
            star = Some((p, n));
            p += 1;
            continue;
        }
        let Some(&byte) = name.get(n) else {
            return p == pattern.len();
        };
        match one(&pattern[p..], name, n) {
            Some((length, taken)) => (p, n) = (p + length, n + taken),
            None => match star {
                Some((at, taken)) => {
                    // A character that is not ASCII is taken as a whole.
                    let more = character(&name[taken..]).max(1);
                    star = Some((at, taken + more));
                    (p, n) = (at + 1, taken + more);
                }
                None => {
                    _ = byte;
                    return false;
                }
            },
        }
    }
}

/// Matches one character or class of the pattern; returns its length in the pattern and in the name.
fn one(pattern: &[u8], name: &[u8], n: usize) -> Option<(usize, usize)> {
    let byte = name[n];
    match *pattern.first()? {
        b'?' => Some((1, character(&name[n..]))),
        b'[' => match class(pattern, byte) {
            Some((length, true)) => Some((length, 1)),
            Some((_, false)) => None,
            // The class is not closed, so the bracket is literal.
            None => (byte == b'[').then_some((1, 1)),
        },
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some((2, 1)),
        literal => (literal == byte).then_some((1, 1)),
    }
}

/// The length of a class, and whether it contains a byte; `None` if it is not closed.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let first = at;
    let mut is_in = false;
    loop {
        let mut from = *pattern.get(at)?;
        if from == b']' && at > first {
            return Some((at + 1, is_in != negated));
        }
        if from == b'\\' && pattern.len() > at + 1 {
            at += 1;
            from = pattern[at];
        }
        let mut to = from;
        if pattern.get(at + 1) == Some(&b'-') && pattern.get(at + 2).is_some_and(|end| *end != b']')
        {
            to = pattern[at + 2];
            at += 2;
        }
        is_in |= (from..=to).contains(&byte);
        at += 1;
    }
}

/// The length in bytes of the first character of a text.
fn character(text: &[u8]) -> usize {
    let length = match text.first() {
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        _ => 1,
    };
    if text.get(..length).is_some_and(|part| std::str::from_utf8(part).is_ok()) {
        length
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "ü", true),
            ("??", "ü", false),
            ("*ü", "aü", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is_match, "{pattern} {name}");
        }
        assert!(matches(b"?*", b"\xff\xfe") && has_wildcards(b"a?") && !has_wildcards(b"a"));
        // Fast for any pattern.
        assert!(!matches(&b"*a".repeat(100), &[b'a'; 99]));
        assert!(!matches(&b"a*".repeat(50), &[&[b'a'; 250][..], b"b"].concat()[..49]));
    }
}
