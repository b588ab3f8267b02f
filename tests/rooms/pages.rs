//! The pages for people: what the tests of the house take from them, and what the pages must fulfil.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::fail_on;
use crate::source::sources;

/// Rooms that everybody may use: no arrows are drawn to them.
pub const FOR_EVERYONE: [&str; 2] = ["os", "types"];

pub fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("the page can be read")
}

/// The rooms in the order of ARCHITECTURE's table, each with the rooms that it may use; `main.rs` counts as `cli`.
pub fn arrows(page: &str) -> Vec<(String, Vec<String>)> {
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

/// The rules of PROTOCOL in lower case, except those marked as not built yet.
pub fn rules(page: &str) -> BTreeSet<String> {
    let is_rule = |word: &str| {
        word.len() == 2
            && word.as_bytes()[0].is_ascii_uppercase()
            && word.as_bytes()[1].is_ascii_digit()
    };
    let from = page.find("Not built yet").unwrap_or(page.len());
    let unbuilt = page[from..].split("\n\n").next().unwrap_or_default();
    let unbuilt: BTreeSet<_> =
        unbuilt.split(|c: char| !c.is_alphanumeric()).filter(|word| is_rule(word)).collect();
    page.lines()
        .filter_map(|line| line.strip_prefix("- **")?.get(..2))
        .filter(|word| is_rule(word) && !unbuilt.contains(word))
        .map(str::to_lowercase)
        .collect()
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

/// The pages for people.
const PAGES: [&str; 13] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "src/ARCHITECTURE.md",
    "src/COMPARISON.md",
    "src/FORMAT.md",
    "src/MANUAL.md",
    "src/MEASUREMENTS.md",
    "src/PROTOCOL.md",
    "src/RECIPES.md",
    "src/SEMANTICS.md",
    "src/TROUBLESHOOTING.md",
];

/// A heading's anchor, as hosting sites derive it.
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
            || ["/suites/", "/evidence/"].iter().any(|folder| path.contains(folder))
                && text.contains(&format!("`{name}`"));
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
