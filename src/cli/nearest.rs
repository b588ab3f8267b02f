//! Suggests the word that was probably meant.

/// `; is NAME meant?` if a known word is close to what was written; otherwise an empty text.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let limit = (word.chars().count() / 3).max(1);
    let by_distance = known.into_iter().map(|name| (distance(word, name), name));
    match by_distance.min() {
        Some((distance, name)) if distance <= limit => format!("; is {name} meant?"),
        _ => String::new(),
    }
}

/// The edit distance: insertions, deletions, replacements, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // Only the first letters count; a much longer word is not a typing error.
    let letters = |text: &str| text.chars().take(64).map(plain).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(x != y);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Ignores case, and the difference between dash and underscore.
fn plain(letter: char) -> char {
    if letter == '-' { '_' } else { letter.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_told_and_what_is_far_is_not() {
        let known = ["endpoint", "region", "url", "mountpoints"];
        assert_eq!(nearest("enddpoint", known), "; is endpoint meant?");
        assert_eq!(nearest("Region", known), "; is region meant?");
        assert_eq!(nearest("mount-points", known), "; is mountpoints meant?");
        assert_eq!(nearest("ur", known), "; is url meant?");
        assert_eq!(nearest("colour", known), "");
        assert_eq!((distance("", "abc"), distance("xy", "yx"), distance("a", "a")), (3, 1, 0));
    }
}
