//! Wraps the help text at the width of the terminal, between words. (clap's feature `wrap_help` does this too, but
//! needs another crate and another build of clap.)

use std::io::{self, Write};

use crate::os;

/// The longest lines; longer ones are hard to read.
const MOST: usize = 100;
/// If a description would get fewer columns than this, it goes below its option.
const LEAST: usize = 24;

/// Prints clap's message. Errors of a closed terminal are ignored.
pub(super) fn print(error: &clap::Error) {
    match os::terminal_columns() {
        Some(columns) if !error.use_stderr() => {
            let text = error.render();
            let has_colours = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
            let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
            let text = match has_colours("NO_COLOR") && !is_dumb {
                true => text.ansi().to_string(),
                false => text.to_string(),
            };
            drop(io::stdout().write_all(fitted(&text, columns.min(MOST)).as_bytes()));
        }
        _ => drop(error.print()),
    }
}

/// The text wrapped at this many columns. Examples are not wrapped, so that they can be copied.
fn fitted(text: &str, columns: usize) -> String {
    let (mut all, mut is_example) = (String::new(), false);
    for line in text.lines() {
        let shown = plain(line);
        if !shown.starts_with(' ') && !shown.is_empty() {
            is_example = shown == "Examples:";
        }
        if is_example || shown.chars().count() <= columns {
            all.push_str(line.trim_end());
        } else {
            wrap(&mut all, line, column_of_text(&shown, columns), columns);
        }
        all.push('\n');
    }
    all
}

/// The column at which continuation lines begin: that of the description, if there is one.
fn column_of_text(shown: &str, columns: usize) -> usize {
    let indent = shown.chars().take_while(|c| *c == ' ').count();
    let own: Vec<char> = shown.chars().skip(indent).collect();
    let gap = own.windows(2).position(|two| two == [' ', ' ']);
    let text = gap.map(|gap| indent + gap + own[gap..].iter().take_while(|c| **c == ' ').count());
    match text {
        Some(column) if column + LEAST <= columns => column,
        Some(_) => indent + 8,
        None => indent,
    }
}

fn wrap(all: &mut String, line: &str, column: usize, columns: usize) {
    let mut at = 0;
    let mut pieces = line.split(' ');
    let first = pieces.next().unwrap_or_default();
    all.push_str(first);
    at += plain(first).chars().count();
    let mut blanks = 0;
    for word in pieces {
        blanks += 1;
        let length = plain(word).chars().count();
        if length == 0 {
            // Another space, or only a change of colours.
            all.push_str(word);
            continue;
        }
        if at + blanks + length > columns && at > column {
            all.push('\n');
            all.push_str(&" ".repeat(column));
            at = column;
        } else {
            all.push_str(&" ".repeat(blanks));
            at += blanks;
        }
        all.push_str(word);
        at += length;
        blanks = 0;
    }
}

/// The text without colour codes.
fn plain(text: &str) -> String {
    let mut shown = String::new();
    let mut parts = text.split("\x1b[");
    shown.push_str(parts.next().unwrap_or_default());
    for part in parts {
        shown.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Arguments;

    #[test]
    fn every_help_fits_and_says_the_same() {
        let mut command = Arguments::command();
        command.build();
        let mut left = vec![command];
        let mut seen = 0;
        while let Some(mut command) = left.pop() {
            left.extend(command.get_subcommands().cloned());
            for help in [command.render_help(), command.render_long_help()] {
                seen += 1;
                let (said, coloured) = (help.to_string(), help.ansi().to_string());
                for columns in [40, 60, 80, 100] {
                    let text = fitted(&said, columns);
                    let words =
                        |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                    assert_eq!(words(&text), words(&said));
                    assert_eq!(plain(&fitted(&coloured, columns)), text);
                    let before_examples = text.split("\nExamples:\n").next().unwrap_or_default();
                    for line in before_examples.lines() {
                        let is_one_word = line.split_whitespace().count() < 2;
                        let fits = line.chars().count() <= columns;
                        assert!(fits || is_one_word || columns < 60, "{columns}: {line}");
                    }
                }
            }
        }
        assert!(seen > 60, "{seen}");
    }

    #[test]
    fn what_does_not_fit_goes_on_below_the_description() {
        let text = "Options:\n      --a <B>  one two three four five six seven\n\nExamples:\n  s3vault a long line to be copied\n";
        let expected = "Options:\n      --a <B>  one two three four five\n               six seven\n\nExamples:\n  s3vault a long \
                        line to be copied\n";
        assert_eq!(fitted(text, 40), expected);
        assert!(fitted(text, 30).contains("--a <B>  one two three\n              four"));
    }
}
