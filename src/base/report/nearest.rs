//! The key that was probably meant.

/// The nearest of `known` to `word`, if it is near enough to be worth saying: at most a third of its letters
/// wrong, and two for short words.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Beyond any key's length; keeps the square of it small whatever a file holds.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|key| (distance(&word, key), *key))
        .filter(|(distance, key)| *distance <= 2.max(key.len() / 3) && *distance < key.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

/// Edits between two words, where a swap of neighbours is one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (line, letter) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(line + 1);
        let mut left = None;
        for (column, other) in b.iter().enumerate() {
            let at = |list: &[usize], index: usize| list.get(index).copied().unwrap_or(usize::MAX / 2);
            let changed = at(&row, column) + usize::from(letter != *other);
            let mut best = changed.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            if last == Some(*other) && left == Some(letter) {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
            left = Some(*other);
        }
        last = Some(letter);
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_edits_and_swaps() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lsiten", "listen"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key_and_nonsense_finds_none() {
        let keys = ["listen", "plain_listen", "tls", "drain"];
        assert_eq!(nearest("lisen", &keys), Some("listen"));
        assert_eq!(nearest("plain-listen", &keys), Some("plain_listen"));
        assert_eq!(nearest("Listen", &keys), Some("listen"));
        assert_eq!(nearest("wombat", &keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), &keys), None);
    }
}
