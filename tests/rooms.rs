//! The test of the house: the rooms and their arrows are those of `src/ARCHITECTURE.md`, each outside crate lives in
//! one room, files and functions can be read, and every rule of `src/PROTOCOL.md` has its test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms for everyone: no arrows are drawn to them.
const FOR_EVERYONE: [&str; 2] = ["os", "types"];

/// Modules that other rooms may reach into; all others are private, and what is meant for others
/// is re-exported at the room's door.
const OPEN_MODULES: [(&str, &str); 5] = [
    ("gateway", "api"),
    ("store", "conformance"),
    ("crypto", "layout"),
    ("content", "extents"),
    ("fuse", "mountpoint"),
];

/// Crates that are words rather than a room's work.
const SHARED: [&str; 15] = [
    "async_trait",
    "bytes",
    "data_encoding",
    "futures_util",
    "httpdate",
    "jiff",
    "libc",
    "minicbor",
    "parking_lot",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tracing",
    "zeroize",
];

/// Crates whose library is named otherwise than the package.
const LIBRARY_NAMES: [(&str, &str); 1] = [("md-5", "md5")];

/// What makes names that a power cut may take, and where it may be used: where they are synced, may go, or are the
/// user's own. `os::make_private` and `os::replace` are for everyone.
const LOST_BY_A_POWER_CUT: [(&str, &[&str]); 3] = [
    ("DirBuilder", &["os/dirs.rs", "store/directory.rs", "cache/disk.rs"]),
    ("create_dir", &["fuse/mountpoint.rs"]),
    ("fs::write", &["vault/aside.rs"]),
];

/// Lines of a file at most; 400 is the aim.
const FILE_LINES: usize = 600;
/// Lines of a file of tests at most.
const TEST_LINES: usize = 700;
/// Lines of a function at most; 70 is the aim.
const FUNCTION_LINES: usize = 100;

/// A source file.
struct Source {
    path: PathBuf,
    /// As it is.
    text: String,
    /// Without comments, and with what is between quotes blanked; the lines are the same.
    code: String,
    /// The same without its tests.
    product: String,
    /// `["store", "s3", "client"]`.
    modules: Vec<String>,
}

impl Source {
    fn room(&self) -> &str {
        match self.modules.first().map_or("lib", String::as_str) {
            "main" => "cli",
            room => room,
        }
    }
}

fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let path = entry.expect("the sources can be read").into_path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("the sources can be read");
        let inside = path.strip_prefix(&root).expect("it is below the root").with_extension("");
        let modules = inside.iter().map(|part| part.to_string_lossy().into_owned());
        let modules: Vec<_> = modules.filter(|part| part != "mod" && part != "lib").collect();
        let code = blank(&text);
        let is_test = modules.iter().any(|part| part == "tests" || part.ends_with("_tests"));
        let product = if is_test { String::new() } else { without_tests(&code) };
        found.push(Source { path, text, code, product, modules });
    }
    found
}

/// Blanks comments, strings and characters, keeping the lines.
fn blank(text: &str) -> String {
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

fn is_word(byte: u8) -> bool {
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
        // A lifetime is no character.
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

/// Cuts out what stands under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
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
fn block(code: &str) -> usize {
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

/// Every path from the crate's root in some code, as far as it is written: `store::Bucket`. Of a
/// group, one for each member.
fn paths(source: &Source, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if at == 0 || !is_word(code.as_bytes()[at - 1]) && code.as_bytes()[at - 1] != b'$' {
            members(&code[at + "crate::".len()..], "", &mut found);
        }
    }
    // So many times `super` leads out of the room.
    let out = "super::".repeat(source.modules.len());
    if !out.is_empty() {
        for (at, _) in code.match_indices(&out) {
            members(&code[at + out.len()..], "", &mut found);
        }
    }
    found
}

fn members(code: &str, before: &str, found: &mut Vec<String>) {
    let code = code.trim_start();
    if code.starts_with('{') {
        let group = &code[1..block(code) - 1];
        let (mut depth, mut start) = (0, 0);
        for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !group[start..at].trim().is_empty() {
                        members(&group[start..at], before, found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
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

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("the page can be read")
}

/// The rooms in the order of ARCHITECTURE's table, each with those that it may use; `main.rs` counts as `cli`.
fn arrows(page: &str) -> Vec<(String, Vec<String>)> {
    let table = page.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, room, _, _, below, _] = cells[..] else { panic!("not a row of rooms: {line}") };
        let room = room.split('`').rev().find_map(|word| word.strip_suffix('/'));
        (room.expect("a room's name ends with /").to_owned(), below)
    });
    let rows: Vec<_> = rows.collect();
    let names: Vec<_> = rows.iter().map(|(room, _)| room.clone()).collect();
    let below = |at: usize, cell: &str| match cell {
        "all below" => {
            let all = names[at + 1..].iter().cloned();
            all.filter(|room| !FOR_EVERYONE.contains(&room.as_str())).collect()
        }
        cell => cell
            .split(',')
            .map(|word| word.split_whitespace().next().unwrap_or_default().to_owned())
            .filter(|word| !word.is_empty())
            .collect(),
    };
    rows.iter().enumerate().map(|(at, (room, cell))| (room.clone(), below(at, cell))).collect()
}

/// The rules of PROTOCOL, lower case, without those that it says are not built yet.
fn rules(page: &str) -> BTreeSet<String> {
    let is_rule = |word: &str| {
        word.len() == 2
            && word.as_bytes()[0].is_ascii_uppercase()
            && word.as_bytes()[1].is_ascii_digit()
    };
    let from = page.find("Not built yet").expect("it says what is not built");
    let unbuilt = page[from..].split("\n\n").next().unwrap_or_default();
    let unbuilt: BTreeSet<_> =
        unbuilt.split(|c: char| !c.is_alphanumeric()).filter(|word| is_rule(word)).collect();
    page.lines()
        .filter_map(|line| line.strip_prefix("- **")?.get(..2))
        .filter(|word| is_rule(word) && !unbuilt.contains(word))
        .map(str::to_lowercase)
        .collect()
}

fn fail_on(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn arrows_are_those_of_the_table_and_each_is_drawn() {
    let table: BTreeMap<_, _> = arrows(&page("src/ARCHITECTURE.md")).into_iter().collect();
    let mut undrawn: BTreeSet<_> = table
        .iter()
        .flat_map(|(room, below)| below.iter().map(|target| (room.clone(), target.clone())))
        .collect();
    let mut problems = Vec::new();
    for source in sources("src") {
        let room = source.room();
        // What the crate shows of its rooms is no arrow.
        if room == "lib" {
            continue;
        }
        if !table.contains_key(room) {
            problems.push(format!("{}: {room} is no room", source.path.display()));
            continue;
        }
        for path in paths(&source, &source.product) {
            let target = path.split("::").next().unwrap_or_default();
            if !table.contains_key(target) || target == room || FOR_EVERYONE.contains(&target) {
                continue;
            }
            undrawn.remove(&(room.to_owned(), target.to_owned()));
            if !table[room].iter().any(|below| below == target) {
                problems.push(format!("{}: {room} uses {path}", source.path.display()));
            }
        }
    }
    let unused = undrawn.iter().map(|(room, target)| format!("nothing in {room} uses {target}"));
    problems.extend(unused);
    fail_on(&problems);
}

#[test]
fn the_arrows_have_no_cycle() {
    // Each room needs only rooms that come after it in the table.
    let table = arrows(&page("src/ARCHITECTURE.md"));
    assert!(table.len() >= 15, "the table of rooms was not found whole: {table:?}");
    let place = |room: &str| table.iter().position(|(other, _)| other == room).expect("a room");
    for (room, below) in &table {
        for target in below {
            assert!(place(target) > place(room), "{room} -> {target}");
        }
    }
}

#[test]
fn rooms_are_entered_by_their_doors() {
    let mut problems = Vec::new();
    let all = sources("src");
    let modules: BTreeSet<_> = all
        .iter()
        .filter(|source| source.modules.len() > 1)
        .map(|source| (source.modules[0].clone(), source.modules[1].clone()))
        .collect();
    for source in &all {
        for path in paths(source, &source.product) {
            let mut words = path.split("::").map(str::to_owned);
            let (Some(room), Some(module)) = (words.next(), words.next()) else { continue };
            let open = OPEN_MODULES.contains(&(room.as_str(), module.as_str()));
            // Its last word is a name, even if a module is called the same.
            let inside = words.next().is_some() && modules.contains(&(room.clone(), module));
            if room != source.room() && inside && !open {
                problems.push(format!("{}: {path}", source.path.display()));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn each_outside_crate_is_named_in_one_room_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml can be read");
    let mut problems = Vec::new();
    let all = sources("src");
    for package in dependencies(&manifest) {
        let library = LIBRARY_NAMES.iter().find(|(name, _)| *name == package);
        let library = library.map_or(package.replace('-', "_"), |(_, name)| (*name).to_owned());
        let rooms: BTreeSet<_> =
            all.iter().filter(|s| names(&s.code, &library)).map(Source::room).collect();
        if rooms.is_empty() {
            problems.push(format!("{package}: no room names it"));
        }
        if rooms.len() > 1 && !SHARED.contains(&library.as_str()) {
            problems.push(format!("{package}: {rooms:?}"));
        }
    }
    fail_on(&problems);
}

/// The packages under `[dependencies]`.
#[test]
fn names_are_made_durable_in_one_place() {
    let mut problems = Vec::new();
    for source in sources("src") {
        for (word, places) in LOST_BY_A_POWER_CUT {
            let may =
                places.iter().any(|place| source.path.ends_with(Path::new("src").join(place)));
            if source.product.contains(word) && !may {
                problems.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    fail_on(&problems);
}

fn dependencies(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Whether a path begins with this crate's name.
fn names(code: &str, library: &str) -> bool {
    code.match_indices(library).any(|(at, _)| {
        let before = code[..at].trim_end();
        let after = &code[at + library.len()..];
        let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !before.ends_with("::")
            && !before.ends_with("mod");
        begins && (after.starts_with("::") || before.ends_with("use") && after.starts_with(';'))
    })
}

#[test]
fn files_and_functions_can_be_read() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let lines = source.text.lines().count();
        let most = if source.product.is_empty() { TEST_LINES } else { FILE_LINES };
        if lines > most {
            problems.push(format!("{}: {lines} lines", source.path.display()));
        }
        for (name, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES {
                problems.push(format!("{}: {name} has {lines} lines", source.path.display()));
            }
        }
    }
    fail_on(&problems);
}

/// Each function with a body, and how many lines it has.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(stop) = rest.find(['{', ';']) else { continue };
        if !name.is_empty() && rest[stop..].starts_with('{') {
            let end = stop + block(&rest[stop..]);
            found.push((name, rest[..end].lines().count()));
        }
    }
    found
}

#[test]
fn every_rule_of_the_protocol_has_its_test() {
    let mut tested = BTreeSet::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        for (at, _) in source.code.match_indices("fn ") {
            let rest = &source.code[at + 3..];
            let Some((rule, _)) = rest.split_once('_') else { continue };
            // The attributes before it: what follows the end of the item before.
            let before = &source.code[..at];
            let from = before.rfind(['}', '{', ';']).map_or(0, |end| end + 1);
            let attributes = &before[from..];
            if attributes.contains("test") && !attributes.contains("#[ignore") {
                tested.insert(rule.to_owned());
            }
        }
    }
    let rules = rules(&page("src/PROTOCOL.md"));
    assert!(rules.len() >= 29, "the rules were not found: {rules:?}");
    let missing: Vec<_> = rules.difference(&tested).collect();
    assert!(missing.is_empty(), "no test's name begins with these: {missing:?}");
}

#[test]
fn the_pages_are_read_as_they_are_meant() {
    let table = "| room | c | w | below |\n| --- |\n| `main.rs`, `a/` | x | | b (hashes), c |\n\
         | `b/` | | | all below |\n| `c/` | | | |\n| `os/` | | | |\n\n| `d/` | | | |\n";
    let told = |room: &str, below: &[&str]| {
        (room.to_owned(), below.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    let expected = [told("a", &["b", "c"]), told("b", &["c"]), told("c", &[]), told("os", &[])];
    assert_eq!(arrows(table), expected);
    let text = "Not built yet: W4 (x), K5.\n\n- **J1** a\n- **W4** b\n- **K5** c\n- **K6** d\n- **Not** e\n";
    assert_eq!(rules(text).into_iter().collect::<Vec<_>>(), ["j1", "k6"]);
}

#[test]
fn this_test_sees_what_it_should() {
    let code = blank(
        "use crate::{store::{Bucket, Error}, types::Hash}; // crate::no\n\
         fn f<'a>(x: &'a str) -> char { \"crate::no\"; r#\"crate::no\"#; 'c'; '\\''; crate::log::x() }\n\
         #[cfg(test)]\nmod tests { use crate::vfs; }\nfn g() {\n}\n",
    );
    let source = Source {
        path: PathBuf::new(),
        text: String::new(),
        code: code.clone(),
        product: without_tests(&code),
        modules: vec!["a".to_owned(), "b".to_owned()],
    };
    let seen = paths(&source, &source.product);
    assert_eq!(seen, ["store::Bucket", "store::Error", "types::Hash", "log::x"]);
    assert_eq!(paths(&source, "super::super::cli::x()"), ["cli::x"]);
    assert!(paths(&source, "super::cli::x()").is_empty());
    assert_eq!(functions(&code), [("f".to_owned(), 1), ("g".to_owned(), 2)]);
    assert!(names("use md5::Md5;", "md5") && !names("mod md5; super::md5::x()", "md5"));
    assert_eq!(
        dependencies("[dependencies]\n# x\na-b = \"1\"\nc = { }\n[x]\nd = 1\n"),
        ["a-b", "c"]
    );
}

/// The pages for people.
const PAGES: [&str; 9] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "src/ARCHITECTURE.md",
    "src/FORMAT.md",
    "src/MANUAL.md",
    "src/PROTOCOL.md",
    "src/SEMANTICS.md",
];

/// A heading's anchor, as hosting sites make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root.join(page)).expect("the page is there");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.starts_with("http")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = root.join(page).with_file_name(file);
            let target = if file.is_empty() { root.join(page) } else { target };
            let text = fs::read_to_string(&target).unwrap_or_default();
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut places = headings.map(|line| anchor(line.trim_start_matches('#')));
            if !target.exists() || !place.is_empty() && !places.any(|found| found == place) {
                broken.push(format!("{page}: {link} leads nowhere"));
            }
        }
    }
    fail_on(&broken);
}

#[test]
fn contributing_names_every_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).expect("the page is there");
    let mut missing = Vec::new();
    for entry in walkdir::WalkDir::new(root.join("scripts")).sort_by_file_name() {
        let entry = entry.expect("scripts can be read");
        let path = entry.path().strip_prefix(root).expect("below the root").display().to_string();
        let name = entry.file_name().to_string_lossy();
        let is_ours = entry.file_type().is_file() && !path.contains("__pycache__");
        let is_named = text.contains(&format!("`{path}`"))
            || text.contains(&format!("`{path} "))
            || path.contains("/suites/") && text.contains(&format!("`{name}`"));
        if is_ours && !is_named {
            missing.push(format!("CONTRIBUTING.md does not name {path}"));
        }
    }
    fail_on(&missing);
}

#[test]
fn the_picture_of_tasks_has_every_thread() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(root.join("src/ARCHITECTURE.md")).expect("the page is there");
    let mut problems = Vec::new();
    for source in sources("src") {
        let named = source.text.split(".name(\"").skip(1);
        for (name, _) in named.filter_map(|rest| rest.split_once("\".into())")) {
            if !name.contains('"') && !picture.contains(&format!("\"{name}\"")) {
                problems.push(format!("{}: no thread {name:?} there", source.path.display()));
            }
        }
    }
    fail_on(&problems);
}
