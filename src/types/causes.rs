//! An error and its causes.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::iter::successors;

/// An error and then its causes, outermost first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // The `source` of an `io::Error` skips the error that it holds.
        Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The first error of this type among an error and its causes.
pub fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// A text from an untrusted source, made safe to print: terminal control characters, and those that change the direction of
/// text, are escaped. Line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    // Not copied without need: it may be a secret that is shown once.
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { printed.extend(c.escape_default()) } else { printed.push(c) }
    }
    Cow::Owned(printed)
}

/// An error with its causes in one line. A cause whose text is already there is left out, because many errors quote theirs.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for text in causes(error).map(ToString::to_string) {
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    printable(&line.replace('\n', " ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Planted {
        #[error("no map")]
        Map(#[source] Box<Planted>),
        #[error("no page ({0})")]
        Page(#[source] io::Error),
        #[error("no disk")]
        Disk,
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let words = io::Error::other("\u{1b}]0;x\u{7}\u{1b}[2J\u{202e}\nall is well");
        assert_eq!(with_causes(&words), "\\u{1b}]0;x\\u{7}\\u{1b}[2J\\u{202e} all is well");
        assert_eq!(printable("a\n\tb ü\u{9b}"), "a\n\tb ü\\u{9b}");
    }

    #[test]
    fn every_cause_is_found_and_said_once() {
        let held = io::Error::other(Planted::Disk);
        let error = Planted::Map(Box::new(Planted::Page(held)));
        assert_eq!(causes(&error).count(), 4);
        assert_eq!(with_causes(&error), "no map: no page (no disk)");
        assert!(cause::<io::Error>(&error).is_some());
        assert!(cause::<std::fmt::Error>(&error).is_none());
    }
}
