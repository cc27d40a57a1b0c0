//! The nearest known word to one that is not known.
//!
//! What it is not: a spell checker; a word that is far from all is given none.

/// The word of `known` that `wrong` was probably meant to be.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Case and the mark between two words are the commonest slips, so they are none here.
    let plain = |word: &str| word.to_lowercase().replace('_', "-");
    let wrong = plain(wrong);
    let distance = |word: &&str| strsim::osa_distance(&wrong, &plain(word));
    let best = known.into_iter().min_by_key(distance)?;
    // A third of the letters may be wrong, but not all.
    (distance(&best) <= wrong.chars().count().max(3) / 3).then_some(best)
}

/// ` (did you mean X?)`, or nothing when no known word is near.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or_else(String::new, |word| format!(" (did you mean {word}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["data-dir", "memory", "listen"];
        for (wrong, right) in [
            ("data_dir", Some("data-dir")),
            ("MEMORY", Some("memory")),
            ("memroy", Some("memory")),
            ("lisen", Some("listen")),
            ("password", None),
        ] {
            assert_eq!(nearest(wrong, known), right, "{wrong}");
        }
        assert_eq!(nearest("anything", []), None);
    }
}
