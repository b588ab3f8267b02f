//! One word, one meaning: a type's name is defined once, and a file's name says what is in it.

use std::collections::BTreeMap;

use crate::source::{Source, sources};

/// Names that each room or file may define for itself, with the reason.
const EACH_ITS_OWN: [(&str, &str); 4] = [
    ("Error", "what can go wrong in a room: one for each"),
    ("Result", "with that error"),
    ("Inner", "what a handle that can be cloned shares: private to its file"),
    ("State", "what a lock guards: private to its file"),
];

/// The same for tests.
const EACH_TEST_ITS_OWN: [&str; 3] = ["World", "Model", "Op"];

/// The types that a file defines at its top level, or in its tests.
fn types(source: &Source) -> impl Iterator<Item = (&str, bool)> {
    let mut in_tests = source.product.is_empty();
    source.code.lines().filter_map(move |line| {
        in_tests |= line.starts_with("mod tests {");
        let line = line.trim_start();
        let line = line.strip_prefix("pub").map_or(line, |rest| {
            let rest = rest.trim_start();
            let after = rest.starts_with('(').then(|| rest.split_once(')')).flatten();
            after.map_or(rest, |(_, rest)| rest).trim_start()
        });
        let (kind, rest) = line.split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "union"].contains(&kind);
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        (is_type && end > 0).then_some((&rest[..end], in_tests))
    })
}

#[test]
fn a_types_name_is_defined_once() {
    let all = sources("src");
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in &all {
        for (name, in_tests) in types(source) {
            let excused = EACH_ITS_OWN.iter().any(|(word, _)| *word == name)
                || in_tests && EACH_TEST_ITS_OWN.contains(&name);
            if !excused {
                places.entry(name).or_default().push(source.modules.join("/"));
            }
        }
    }
    assert!(places.len() > 400, "only {} types were found", places.len());
    let twice = places.iter().filter(|(_, files)| files.len() > 1);
    crate::fail_on(
        &twice.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect::<Vec<_>>(),
    );
}

#[test]
fn types_are_seen_whoever_may_use_them() {
    let text = "pub struct A<T>(T);\npub(in x) enum B {}\ntrait C {}\n// struct D\nfn f() {}\n\
                #[cfg(test)]\nmod tests {\n    struct World;\n}\n";
    let source = Source::of_code("a/b.rs", text);
    let seen: Vec<_> = types(&source).collect();
    assert_eq!(seen, [("A", false), ("B", false), ("C", false), ("World", true)]);
}
