//! The sources, as the tests of the house read them: files, code without comments and strings, paths.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub struct Source {
    pub path: PathBuf,
    /// The text of the file.
    pub text: String,
    /// The text with comments removed and strings blanked; line numbers are the same.
    pub code: String,
    /// The code without its tests.
    pub product: String,
    /// `["store", "s3", "client"]`.
    pub modules: Vec<String>,
}

impl Source {
    /// Reads a file below `src` or `tests`.
    pub fn of_code(inside: &str, text: &str) -> Self {
        let modules = inside.trim_end_matches(".rs").split('/').map(str::to_owned);
        let modules: Vec<_> = modules.filter(|part| part != "mod" && part != "lib").collect();
        let code = blank(text);
        let is_test = modules.iter().any(|part| part == "tests" || part == "testing");
        let product = if is_test { String::new() } else { without_tests(&code) };
        Self { path: inside.into(), text: text.to_owned(), code, product, modules }
    }

    pub fn room(&self) -> &str {
        match self.modules.first().map_or("lib", String::as_str) {
            "main" => "cli",
            room => room,
        }
    }
}

pub fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let path = entry.expect("the sources can be read").into_path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("the sources can be read");
        let inside = path.strip_prefix(&root).expect("it is below the root").to_string_lossy();
        found.push(Source { path: path.clone(), ..Source::of_code(&inside, &text) });
    }
    found
}

/// Blanks comments, strings and characters, keeping the lines.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            at + end_of_comment(rest)
        } else if let Some(length) = string_length(rest, at > 0 && is_word(bytes[at - 1])) {
            at + length
        } else {
            let one = rest.chars().next().map_or(1, char::len_utf8);
            code.push_str(&rest[..one]);
            at += one;
            continue;
        };
        code.extend(text[at..end].chars().filter(|c| *c == '\n'));
        code.push(' ');
        at = end;
    }
    code
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn end_of_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 || at >= text.len() {
            return at.min(text.len());
        }
    }
}

/// The length of a string or character literal that begins here.
fn string_length(text: &str, after_word: bool) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c"].into_iter().find(|prefix| {
        !after_word
            && text.starts_with(prefix)
            && matches!(text.as_bytes().get(prefix.len()), Some(b'"' | b'#' | b'\''))
    });
    let start = prefix.map_or(0, str::len);
    let body = &text[start..];
    if prefix.is_some_and(|prefix| prefix.ends_with('r')) {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = body[hashes..].strip_prefix('"')?;
        return Some(start + hashes + 1 + inside.find(&end)? + end.len());
    }
    let quote = body.chars().next()?;
    if quote == '\'' {
        // A lifetime is not a character literal.
        let mut characters = body[1..].char_indices();
        let (_, first) = characters.next()?;
        if first != '\\' {
            let (after, second) = characters.next()?;
            return (second == '\'').then_some(start + 1 + after + 1);
        }
    } else if quote != '"' {
        return None;
    }
    let mut escaped = false;
    for (at, character) in body.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Removes what is under `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    let mut product = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        product.push_str(&rest[..at]);
        let item = &rest[at..];
        let stop = item.find([';', '{']).unwrap_or(item.len());
        let end = if item[stop..].starts_with('{') { stop + block(&item[stop..]) } else { stop };
        rest = &item[end.min(item.len())..];
    }
    product.push_str(rest);
    product
}

/// The length of the block that begins here.
pub fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Every path from the crate's root in some code, as far as it is written out: `store::Bucket`. A group yields one path
/// per member.
pub fn paths(source: &Source, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if at == 0 || !is_word(code.as_bytes()[at - 1]) && code.as_bytes()[at - 1] != b'$' {
            members(&code[at + "crate::".len()..], "", &mut found);
        }
    }
    // This many `super` lead out of the room.
    let out = "super::".repeat(source.modules.len());
    if !out.is_empty() {
        for (at, _) in code.match_indices(&out) {
            members(&code[at + out.len()..], "", &mut found);
        }
    }
    found
}

/// The members of a group at the beginning of the code; `{a, b::{c, d}}` has two. `None` if there is no group.
pub fn group(code: &str) -> Option<Vec<&str>> {
    let inside = code.starts_with('{').then(|| &code[1..block(code) - 1])?;
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in inside.char_indices().chain([(inside.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|member| !member.trim().is_empty());
    Some(found)
}

fn members(code: &str, before: &str, found: &mut Vec<String>) {
    let code = code.trim_start();
    if let Some(group) = group(code) {
        group.into_iter().for_each(|member| members(member, before, found));
        return;
    }
    let word: String = code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let path = if before.is_empty() { word.clone() } else { format!("{before}::{word}") };
    match code[word.len()..].strip_prefix("::") {
        Some(rest) if !word.is_empty() && path.split("::").count() < 3 => {
            members(rest, &path, found);
        }
        _ => found.push(path),
    }
}
