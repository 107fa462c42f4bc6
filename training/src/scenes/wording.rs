//! English words for scenes.

/// Plurals that no rule makes.
const IRREGULAR: [(&str, &str); 16] = [
    ("child", "children"),
    ("foot", "feet"),
    ("goose", "geese"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("loaf", "loaves"),
    ("man", "men"),
    ("mouse", "mice"),
    ("ox", "oxen"),
    ("person", "people"),
    ("sheaf", "sheaves"),
    ("shelf", "shelves"),
    ("tooth", "teeth"),
    ("wolf", "wolves"),
    ("woman", "women"),
    ("hoof", "hooves"),
];

/// Words that are the same in the plural.
const SAME: [&str; 11] = [
    "sheep", "fish", "deer", "bison", "squid", "shrimp", "salmon", "rice", "bread", "money", "aircraft",
];

/// Makes the plural of an English name: the plural of its last word, or of the word before "of".
///
/// ```
/// use multiway_training::scenes::plural;
///
/// assert_eq!(plural("sheaf of rice"), "sheaves of rice");
/// assert_eq!(plural("fire truck"), "fire trucks");
/// assert_eq!(plural("butterfly"), "butterflies");
/// ```
#[must_use]
pub fn plural(name: &str) -> String {
    for joiner in [" of ", " with ", " in ", " on "] {
        if let Some((head, rest)) = name.split_once(joiner) {
            return format!("{}{joiner}{rest}", plural(head));
        }
    }
    let (before, word) = match name.rsplit_once(' ') {
        Some((before, word)) => (format!("{before} "), word),
        None => (String::new(), name),
    };
    format!("{before}{}", plural_word(word))
}

fn plural_word(word: &str) -> String {
    if let Some((_, plural)) = IRREGULAR.iter().find(|(singular, _)| *singular == word) {
        return (*plural).to_owned();
    }
    if SAME.contains(&word) || is_plural(word) {
        return word.to_owned();
    }
    if let Some(stem) = word.strip_suffix('y')
        && !stem.ends_with(['a', 'e', 'i', 'o', 'u'])
        && !stem.is_empty()
    {
        return format!("{stem}ies");
    }
    if word.ends_with(['s', 'x', 'z']) || word.ends_with("ch") || word.ends_with("sh") {
        return format!("{word}es");
    }
    let hissing = [
        "potato", "tomato", "volcano", "mango", "mosquito", "buffalo", "hero",
    ];
    if hissing.contains(&word) {
        return format!("{word}es");
    }
    format!("{word}s")
}

/// Tells whether a word is in the plural already, such as "shoes": it ends in an s that no singular does.
fn is_plural(word: &str) -> bool {
    let singular = ["ss", "us", "is", "as", "os"];
    word.ends_with('s') && word.len() > 3 && !singular.iter().any(|ending| word.ends_with(ending))
}

/// Puts the article before a name; none before a plural.
pub(super) fn article(name: &str) -> String {
    let last = name.rsplit(' ').next().unwrap_or(name);
    if is_plural(last) || SAME[7..10].contains(&last) {
        return name.to_owned();
    }
    let vowel = name.starts_with(['a', 'e', 'i', 'o', 'u']) && !name.starts_with("uni");
    format!("{} {name}", if vowel { "an" } else { "a" })
}

/// Writes a small number as a word.
pub(super) fn number(count: usize) -> String {
    const WORDS: [&str; 11] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    ];
    WORDS
        .get(count)
        .map_or_else(|| count.to_string(), |word| (*word).to_owned())
}

/// Writes a number of things: "one cat", "three cats".
pub(super) fn counted(count: usize, name: &str) -> String {
    let name = if count == 1 { name.to_owned() } else { plural(name) };
    format!("{} {name}", number(count))
}

/// Tells whether a name can stand in a sentence about a scene: one to three plain words.
pub(crate) fn is_plain(name: &str) -> bool {
    let letters = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c == ' ' || c == '-');
    letters && !name.is_empty() && name.len() <= 20 && name.split(' ').count() <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_plurals_and_articles() {
        for (name, many, one) in [
            ("cat", "cats", "a cat"),
            ("ox", "oxen", "an ox"),
            ("glass", "glasses", "a glass"),
            ("peach", "peaches", "a peach"),
            ("monkey", "monkeys", "a monkey"),
            ("glasses", "glasses", "glasses"),
            ("octopus", "octopuses", "an octopus"),
            ("unicorn", "unicorns", "a unicorn"),
            ("police car", "police cars", "a police car"),
        ] {
            assert_eq!((plural(name).as_str(), article(name).as_str()), (many, one));
        }
        assert_eq!(
            (counted(1, "mouse"), counted(3, "mouse")),
            ("one mouse".to_owned(), "three mice".to_owned())
        );
        assert!(is_plain("fire truck") && !is_plain("flag: Fiji") && !is_plain("O button (blood type)"));
    }
}
