//! Circular dependencies between files of a room. Files in a circle can only be read, tested and moved together.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, group, is_word, sources};

/// Files that belong together, with the reason. Doors (a room's `mod.rs`) do not count, since they re-export what is
/// inside.
const ONE_THOUGHT: [(&[&str], &str); 0] = [];

type Module = Vec<String>;

/// Every path written out in some code, with `use a::{b, c}` as two paths.
fn written(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for head in ["use ", "crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(head) {
            let before = code.as_bytes()[..at].last();
            let inside = before.is_some_and(|byte| is_word(*byte) || b":$".contains(byte));
            if !inside {
                let path = if head == "use " { &code[at + head.len()..] } else { &code[at..] };
                expand(&[], path, &mut found);
            }
        }
    }
    found
}

fn expand(before: &[String], code: &str, found: &mut Vec<Module>) {
    let code = code.trim_start();
    if let Some(group) = group(code) {
        group.into_iter().for_each(|member| expand(before, member, found));
        return;
    }
    let word: String = code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return;
    }
    let path = [before, std::slice::from_ref(&word)].concat();
    match code[word.len()..].trim_start().strip_prefix("::") {
        Some(rest) => expand(&path, rest, found),
        None => found.push(path),
    }
}

/// A path as seen from a module, made relative to the crate's root.
fn absolute(module: &[String], path: &[String]) -> Module {
    // A path that begins with a plain word is below the module: that is how a door names its own files.
    let from_root = path.first().is_some_and(|word| word == "crate");
    let mut base = if from_root { Module::new() } else { module.to_vec() };
    let mut rest = path;
    while let Some(word @ ("super" | "self" | "crate")) = rest.first().map(String::as_str) {
        if word == "super" {
            base.pop();
        }
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    base
}

/// Which file needs which others, within rooms.
fn needs(all: &[Source]) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeSet<&Module> =
        all.iter().filter(|s| !s.product.is_empty()).map(|s| &s.modules).collect();
    // The file that a path leads into, and the next word of the path.
    let lead = |path: &Module| {
        let end = (0..=path.len()).rev().find(|end| files.contains(&path[..*end].to_vec()))?;
        Some((path[..end].to_vec(), path.get(end).cloned()))
    };
    // What a module re-exports from the files below it.
    let mut doors = BTreeMap::new();
    for source in all {
        for (at, _) in source.product.match_indices("use ") {
            let line = source.product[..at].rsplit('\n').next().unwrap_or_default();
            if !line.trim_start().starts_with("pub") {
                continue;
            }
            let mut shown = Vec::new();
            expand(&[], &source.product[at + 4..], &mut shown);
            for path in shown {
                let name = path.last().cloned().unwrap_or_default();
                let Some((file, _)) = lead(&absolute(&source.modules, &path)) else { continue };
                if file.len() > source.modules.len() {
                    doors.insert((source.modules.clone(), name), file);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    for source in all.iter().filter(|source| !source.product.is_empty()) {
        let needed: &mut BTreeSet<Module> = found.entry(source.modules.clone()).or_default();
        for path in written(&source.product) {
            let Some((mut file, name)) = lead(&absolute(&source.modules, &path)) else { continue };
            if let Some(behind) = name.and_then(|name| doors.get(&(file.clone(), name))) {
                file.clone_from(behind);
            }
            if file.len() > 1 && file != source.modules && file[0] == source.modules[0] {
                needed.insert(file);
            }
        }
    }
    found
}

/// Groups of files in which each leads to each other.
fn circles(needs: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = next.pop() {
            for needed in needs.get(&file).into_iter().flatten() {
                if seen.insert(needed.clone()) {
                    next.push(needed.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = needs.keys().map(|file| (file, reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, all) in &reached {
        if all.contains(*file) {
            let back = |other: &&Module| reached.get(*other).is_some_and(|r| r.contains(*file));
            found.insert(all.iter().filter(back).cloned().collect());
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_files_of_a_room_need_each_other_in_a_circle() {
    let needs = needs(&sources("src"));
    let drawn: usize = needs.values().map(BTreeSet::len).sum();
    assert!(drawn > 200, "only {drawn} arrows between files were found");
    let mut problems = Vec::new();
    let mut excused = BTreeSet::new();
    for circle in circles(&needs) {
        let names: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
        match ONE_THOUGHT.iter().find(|(files, _)| names == *files) {
            Some((files, _)) => drop(excused.insert(*files)),
            None => {
                problems.push(format!("a circle: {}", names.join(", ")));
                for file in &circle {
                    for needed in needs[file].intersection(&circle) {
                        problems.push(format!("    {} -> {}", file.join("/"), needed.join("/")));
                    }
                }
            }
        }
    }
    for (files, _) in ONE_THOUGHT.iter().filter(|(files, _)| !excused.contains(files)) {
        problems.push(format!("no circle any more: {files:?}"));
    }
    crate::fail_on(&problems);
}

#[test]
fn a_circle_is_seen_through_groups_and_doors() {
    let source = |name: &str, code: &str| Source::of_code(&format!("r/{name}.rs"), code);
    let all = [
        source("mod", "mod a; mod b; mod c; mod d;\npub use b::{B, Other};"),
        source("a", "use super::{B, c::C}; // crate::r::d::D"),
        source("b", "fn f() { super::d::g() }"),
        source("c", "use crate::x::Y;"),
        source("d", "use super::a::{self, A};"),
    ];
    let needs = needs(&all);
    let path = |name: &str| vec!["r".to_owned(), name.to_owned()];
    assert_eq!(needs[&path("a")], BTreeSet::from([path("b"), path("c")]));
    assert_eq!(circles(&needs), [BTreeSet::from([path("a"), path("b"), path("d")])]);
}
