//! The test of the house: rooms and arrows are those of `src/ARCHITECTURE.md`, each outside crate is used in one room,
//! files and functions are short enough to read, and every rule of `src/PROTOCOL.md` has its test.
#![allow(unreachable_pub, reason = "a module of tests is public to the others")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

mod circles;
mod names;
mod pages;
mod source;

use pages::{FOR_EVERYONE, arrows, page, rules};
use source::{Source, block, is_word, paths, sources};

/// Modules that other rooms may reach into. All others are private, and what is meant for others is re-exported at the
/// room's door.
const OPEN_MODULES: [(&str, &str); 5] = [
    ("gateway", "api"),
    ("store", "conformance"),
    ("crypto", "layout"),
    ("content", "extents"),
    ("fuse", "mountpoint"),
];

/// Crates that any room may use, since they are vocabulary rather than a room's work.
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

/// Crates whose library has another name than the package.
const LIBRARY_NAMES: [(&str, &str); 1] = [("md-5", "md5")];

/// Functions that create names which a power cut may lose, and where they may be used: where the names are synced, are
/// expendable, or are the user's own. Everybody may use `os::make_private` and `os::replace`.
const LOST_BY_A_POWER_CUT: [(&str, &[&str]); 3] = [
    ("DirBuilder", &["os/dirs.rs", "store/directory/object_file.rs", "cache/disk_tier.rs"]),
    ("create_dir", &["fuse/mountpoint.rs", "cli/past_dir.rs", "cli/commands/files/get.rs"]),
    ("fs::write", &["vault/aside.rs"]),
];

/// The most lines of a file; the aim is 400.
const FILE_LINES: usize = 600;
/// The most lines of a file of tests.
const TEST_LINES: usize = 700;
/// The most lines of a function; the aim is 70.
const FUNCTION_LINES: usize = 100;

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
        // What the crate re-exports of its rooms is not an arrow.
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
            // The last word of a path is an item, even if a module has the same name.
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

#[test]
fn tests_stand_where_contributing_says() {
    let mut problems = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        let last = source.modules.last().map_or("", String::as_str);
        let name = source.path.display();
        if source.code.contains("#[path") {
            problems.push(format!("{name}: a module whose file is elsewhere"));
        }
        if last != "tests" && (last.ends_with("_tests") || last.starts_with("test_")) {
            problems.push(format!("{name}: tests stand in a folder `tests`, or in `tests.rs`"));
        }
    }
    fail_on(&problems);
}

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

/// The packages under `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Whether a path in the code begins with this crate's name.
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

/// Each function with a body, and its number of lines.
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
            // The attributes before it: the text after the end of the previous item.
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
fn this_test_sees_what_it_should() {
    let text = "use crate::{store::{Bucket, Error}, types::Hash}; // crate::no\n\
         fn f<'a>(x: &'a str) -> char { \"crate::no\"; r#\"crate::no\"#; 'c'; '\\''; crate::log::x() }\n\
         #[cfg(test)]\nmod tests { use crate::vfs; }\nfn g() {\n}\n";
    let source = Source::of_code("a/b.rs", text);
    let code = &source.code;
    let seen = paths(&source, &source.product);
    assert_eq!(seen, ["store::Bucket", "store::Error", "types::Hash", "log::x"]);
    assert_eq!(paths(&source, "super::super::cli::x()"), ["cli::x"]);
    assert!(paths(&source, "super::cli::x()").is_empty());
    assert_eq!(functions(code), [("f".to_owned(), 1), ("g".to_owned(), 2)]);
    assert!(names("use md5::Md5;", "md5") && !names("mod md5; super::md5::x()", "md5"));
    assert_eq!(
        dependencies("[dependencies]\n# x\na-b = \"1\"\nc = { }\n[x]\nd = 1\n"),
        ["a-b", "c"]
    );
}
