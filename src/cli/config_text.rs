//! The text of the configuration file: a change rewrites what it changes, and leaves the rest as its owner wrote it, comments and
//! order included.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TomlError};

/// The text `before`, changed so that it says what `after` says.
///
/// # Errors
/// One of the two is no TOML.
pub(super) fn rewritten(before: &str, after: &str) -> Result<String, TomlError> {
    let (mut text, wanted): (DocumentMut, DocumentMut) = (before.parse()?, after.parse()?);
    rewrite(text.as_table_mut(), wanted.as_table());
    Ok(text.to_string())
}

fn rewrite(table: &mut Table, wanted: &Table) {
    table.retain(|key, _| wanted.contains_key(key));
    for (key, item) in wanted {
        match (table.get_mut(key), item) {
            (Some(Item::Table(inner)), Item::Table(wanted)) => rewrite(inner, wanted),
            (Some(Item::ArrayOfTables(all)), Item::ArrayOfTables(wanted)) => {
                rewrite_all(all, wanted);
            }
            (Some(Item::Value(value)), Item::Value(wanted)) => {
                let is_same = value.clone().decorated("", "").to_string()
                    == wanted.clone().decorated("", "").to_string();
                if !is_same {
                    // What surrounds it may be a comment.
                    let around = value.decor().clone();
                    *value = wanted.clone();
                    *value.decor_mut() = around;
                }
            }
            _ => drop(table.insert(key, placed_last(item.clone()))),
        }
    }
}

/// Each table is one vault, known by its id, or by its place as long as it has none.
fn rewrite_all(all: &mut ArrayOfTables, wanted: &ArrayOfTables) {
    let mut left: Vec<Table> = std::mem::take(all).into_iter().collect();
    for wanted in wanted {
        let is_it = |table: &Table| {
            let same = |key| value_of(table, key) == value_of(wanted, key);
            if table.contains_key("id") { same("id") } else { same("url") && same("endpoint") }
        };
        match left.iter().position(is_it) {
            Some(at) => {
                let mut table = left.remove(at);
                rewrite(&mut table, wanted);
                all.push(table);
            }
            None => match placed_last(Item::Table(wanted.clone())) {
                Item::Table(table) => all.push(table),
                _ => unreachable!("it is a table"),
            },
        }
    }
}

fn value_of<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(Item::as_str)
}

/// A table remembers where it stood in the text that it was read from, which means nothing in another: without that it stands behind
/// those before it.
fn placed_last(mut item: Item) -> Item {
    if let Item::Table(table) = &mut item {
        forget_place(table);
    }
    if let Item::ArrayOfTables(all) = &mut item {
        all.iter_mut().for_each(forget_place);
    }
    item
}

fn forget_place(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        if let Item::Table(inner) = item {
            forget_place(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"# My vaults.

[[vault]]
# the one at home
name = "home" # short
id = "1"
url = "s3://a"
mountpoints = ["/m"]

[vault.limits]
# the neighbours sleep
bandwidth-up = "1MiB/s"

# By hand, not opened yet.
[[vault]]
url = "s3://b"

[prices]
# of November
put = 0.005
"#;

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        let same = r#"[[vault]]
name = "home"
id = "1"
url = "s3://a"
mountpoints = ["/m"]
[vault.limits]
bandwidth-up = "1MiB/s"
[[vault]]
url = "s3://b"
[prices]
put = 0.005
"#;
        assert_eq!(rewritten(BEFORE, same).unwrap(), BEFORE);
        // The second is opened, a third is made, and the first is mounted elsewhere.
        let changed = same
            .replace("mountpoints = [\"/m\"]", "mountpoints = [\"/m\", \"/n\"]")
            .replace("url = \"s3://b\"", "id = \"2\"\nurl = \"s3://b\"")
            .replace("[prices]", "[[vault]]\nid = \"3\"\nurl = \"s3://c\"\n[prices]");
        let text = rewritten(BEFORE, &changed).unwrap();
        for line in BEFORE.lines().filter(|line| !line.starts_with("mountpoints")) {
            assert!(text.lines().any(|kept| kept == line), "no {line:?} in\n{text}");
        }
        let read = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        assert_eq!(read(&text), read(&changed), "{text}");
    }

    #[test]
    fn what_is_taken_away_goes_with_its_comments_alone() {
        let without = "[[vault]]\nurl = \"s3://b\"\n[prices]\nput = 0.005\n";
        let text = rewritten(BEFORE, without).unwrap();
        assert!(!text.contains("at home") && !text.contains("neighbours"), "{text}");
        assert!(text.contains("# By hand") && text.contains("# of November"), "{text}");
    }
}
