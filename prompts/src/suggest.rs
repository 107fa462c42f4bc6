//! "Did you mean": the nearest known name.

use std::fmt::Write as _;

/// Finds the known name that `name` was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Writes `: did you mean 'x'?`, or nothing.
pub(crate) fn did_you_mean(suggestion: Option<&String>) -> String {
    suggestion
        .map(|name| format!(": did you mean '{name}'?"))
        .unwrap_or_default()
}

/// Joins names for a message: `a, b, c`, at most twenty of them, or `none`.
pub(crate) fn listing<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut list = names
        .iter()
        .take(SHOWN)
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = write!(list, " and {more} more");
    }
    list
}

/// Quotes what was found, shortened so that hostile input cannot flood a log.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!(
            "{:?} and {} bytes more",
            text.get(..end).unwrap_or_default(),
            text.len() - end
        ),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_its_name_and_a_stranger_does_not() {
        let known = ["image", "language"];
        assert_eq!(nearest("langauge", known).as_deref(), Some("language"));
        assert_eq!(nearest("Image", known).as_deref(), Some("image"));
        assert_eq!(nearest("question", known), None);
    }

    #[test]
    fn long_lists_and_long_texts_are_cut_short() {
        let names: Vec<String> = (0..23).map(|i| format!("n{i}")).collect();
        assert!(listing(&names).ends_with("n19 and 3 more"));
        assert_eq!(listing::<String>(&[]), "none");
        assert_eq!(
            quoted(&"é".repeat(61)),
            format!("{:?} and 2 bytes more", "é".repeat(60))
        );
    }
}
