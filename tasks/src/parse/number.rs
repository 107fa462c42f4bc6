//! Numbers: digits of any script, with the separators and the words of a language.

use multiway_prompts::{NumberLanguage, NumberSpec};
use serde::Serialize;

use super::number_words::parse_words;

/// The most bytes of a text that is read as a number.
const MAX_BYTES: usize = 1024;

/// The zeros of the decimal digits of scripts in everyday use; the other nine follow each of them.
///
/// Source: Unicode 16, general category Nd, without historic scripts and mathematical digits.
const ZEROS: [char; 26] = [
    '0', '\u{660}', '\u{6F0}', '\u{7C0}', '\u{966}', '\u{9E6}', '\u{A66}', '\u{AE6}', '\u{B66}', '\u{BE6}',
    '\u{C66}', '\u{CE6}', '\u{D66}', '\u{DE6}', '\u{E50}', '\u{ED0}', '\u{F20}', '\u{1040}', '\u{1090}',
    '\u{17E0}', '\u{1810}', '\u{1946}', '\u{19D0}', '\u{1B50}', '\u{1BB0}', '\u{FF10}',
];

/// Holds a number that was read from text, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NumberAnswer {
    /// The number, if the text is one.
    pub value: Option<f64>,
    /// The unit that stands beside it, as the task file spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Reads a whole text as one number. A text that is more, less or something else has no value, and the
/// problem says why.
///
/// # Examples
///
/// ```
/// use multiway_prompts::{NumberLanguage, NumberSpec};
/// use multiway_tasks::parse::parse_number;
///
/// let spec = NumberSpec { language: NumberLanguage::German, ..NumberSpec::default() };
/// assert_eq!(parse_number("1.234,5", &spec).value, Some(1234.5));
/// assert_eq!(parse_number("einundzwanzig", &spec).value, Some(21.0));
/// assert!(parse_number("1.5", &spec).problem.is_some());
/// ```
pub fn parse_number(text: &str, spec: &NumberSpec) -> NumberAnswer {
    if text.len() > MAX_BYTES {
        let problem = format!("expected a number, found {} bytes of text", text.len());
        return NumberAnswer {
            value: None,
            unit: None,
            problem: Some(problem),
        };
    }
    let trimmed = text.trim();
    let trimmed = trimmed.strip_suffix(['.', '。', '।']).unwrap_or(trimmed);
    let (bare, unit) = without_unit(trimmed, spec.unit.as_deref());
    let (value, problem) = match read(bare, spec) {
        Ok(value) => (Some(value), None),
        Err(problem) => (None, Some(problem)),
    };
    NumberAnswer { value, unit, problem }
}

fn read(text: &str, spec: &NumberSpec) -> Result<f64, String> {
    let language = spec.language;
    let (is_negative, magnitude) = sign(text, language);
    let magnitude = fold_digits(magnitude);
    #[expect(
        clippy::cast_precision_loss,
        reason = "words beyond 2^53 are rounded as digits are"
    )]
    let in_words = || parse_words(&magnitude, language).map(|value| value as f64);
    let value = digits(&magnitude, language)
        .or_else(in_words)
        .filter(|value| value.is_finite())
        .ok_or_else(|| format!("expected a number in {}, found {text:?}", language.name()))?;
    let value = if is_negative { -value } else { value };
    if spec.integer && value.fract().abs() > 0.0 {
        return Err(format!("expected a whole number, found {value}"));
    }
    if let Some(min) = spec.min.filter(|min| value < *min) {
        return Err(format!("expected at least {min}, found {value}"));
    }
    match spec.max.filter(|max| value > *max) {
        Some(max) => Err(format!("expected at most {max}, found {value}")),
        None => Ok(value),
    }
}

/// Takes off the unit before or after a number.
fn without_unit<'t>(text: &'t str, unit: Option<&str>) -> (&'t str, Option<String>) {
    let Some(unit) = unit else { return (text, None) };
    let stripped = text.strip_suffix(unit).or_else(|| text.strip_prefix(unit));
    match stripped {
        Some(rest) => (rest.trim(), Some(unit.to_owned())),
        None => (text, None),
    }
}

fn sign(text: &str, language: NumberLanguage) -> (bool, &str) {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix(['-', '\u{2212}', '\u{FF0D}']) {
        return (true, rest.trim_start());
    }
    if let Some(rest) = text.strip_prefix(['+', '\u{FF0B}']) {
        return (false, rest.trim_start());
    }
    let minus: &[&str] = match language {
        NumberLanguage::German => &["minus "],
        NumberLanguage::French => &["moins "],
        NumberLanguage::Spanish | NumberLanguage::Portuguese => &["menos "],
        NumberLanguage::Italian => &["meno "],
        NumberLanguage::Chinese => &["负", "負"],
        NumberLanguage::Japanese => &["マイナス"],
        NumberLanguage::Russian => &["минус "],
        NumberLanguage::Hindi => &["ऋण "],
        _ => &["minus ", "negative "],
    };
    let rest = minus.iter().find_map(|word| {
        let start = text.get(..word.len())?;
        (start.to_lowercase() == *word)
            .then(|| text.get(word.len()..))
            .flatten()
    });
    rest.map_or((false, text), |rest| (true, rest.trim_start()))
}

/// Writes digits and separators of other scripts as ASCII.
fn fold_digits(text: &str) -> String {
    let digit = |c: char| {
        let value = ZEROS.iter().find_map(|zero| {
            let value = u32::from(c).checked_sub(u32::from(*zero))?;
            (value < 10).then_some(value)
        });
        value.and_then(|value| char::from_digit(value, 10))
    };
    text.chars().map(|c| digit(c).unwrap_or(c)).collect()
}

/// Reads digits with the separators of a language: groups of three, the last of which counts, and a fraction.
fn digits(text: &str, language: NumberLanguage) -> Option<f64> {
    let (point, groups): (&[char], &[char]) = match language {
        NumberLanguage::German | NumberLanguage::Italian | NumberLanguage::Portuguese => (&[','], &['.']),
        NumberLanguage::Spanish => (&[','], &['.', ' ', '\u{A0}', '\u{202F}']),
        NumberLanguage::French | NumberLanguage::Russian => (&[','], &[' ', '\u{A0}', '\u{202F}']),
        _ => (&['.', '\u{66B}', '\u{FF0E}'], &[',', '\u{66C}', '\u{FF0C}']),
    };
    let (whole, fraction) = match text.split_once(point) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_some_and(|fraction| !is_number(fraction)) {
        return None;
    }
    let separator = whole.chars().find(|c| groups.contains(c));
    let parts: Vec<&str> = match separator {
        Some(separator) => whole.split(separator).collect(),
        None => vec![whole],
    };
    if !parts.iter().all(|part| is_number(part)) || !are_grouped(&parts, language) {
        return None;
    }
    format!("{}.{}", parts.concat(), fraction.unwrap_or("0"))
        .parse()
        .ok()
}

/// Tells whether groups are of three digits, or of two before the last in Hindi.
fn are_grouped(parts: &[&str], language: NumberLanguage) -> bool {
    let [first, middle @ .., last] = parts else {
        return true;
    };
    let grouped = |size: usize| first.len() <= size && middle.iter().all(|part| part.len() == size);
    last.len() == 3 && (grouped(3) || (language == NumberLanguage::Hindi && grouped(2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(language: NumberLanguage) -> NumberSpec {
        NumberSpec {
            language,
            ..NumberSpec::default()
        }
    }

    #[test]
    fn digits_are_read_in_any_script_with_the_separators_of_the_language() {
        for (language, text, value) in [
            (NumberLanguage::English, "1,234.5", 1234.5),
            (NumberLanguage::English, " −7. ", -7.0),
            (NumberLanguage::English, "minus twelve", -12.0),
            (NumberLanguage::German, "1.234.567,25", 1_234_567.25),
            (NumberLanguage::French, "12\u{202F}345,5", 12345.5),
            (NumberLanguage::Russian, "1 000", 1000.0),
            (NumberLanguage::Hindi, "१२,३४,५६७", 1_234_567.0),
            (NumberLanguage::Japanese, "３０５", 305.0),
            (NumberLanguage::Chinese, "负三", -3.0),
            (NumberLanguage::English, "٤٢", 42.0),
        ] {
            assert_eq!(parse_number(text, &spec(language)).value, Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_value_and_a_reason() {
        for text in [
            "",
            "about 3",
            "3 or 4",
            "1,23",
            "12,34,567",
            ".5",
            "5.",
            "1e5",
            "NaN",
            "inf",
            "--1",
            "1 000",
        ] {
            let answer = parse_number(text, &NumberSpec::default());
            // A full stop ends a sentence.
            let expected = (text == "5.").then_some(5.0);
            assert_eq!(answer.value, expected, "{text}");
            assert_eq!(answer.problem.is_some(), expected.is_none(), "{text}");
        }
    }

    #[test]
    fn units_and_bounds_are_those_of_the_task_file() {
        let spec = NumberSpec {
            integer: true,
            min: Some(0.0),
            max: Some(10.0),
            unit: Some("kg".to_owned()),
            ..NumberSpec::default()
        };
        let heavy = parse_number("7 kg", &spec);
        assert_eq!((heavy.value, heavy.unit.as_deref()), (Some(7.0), Some("kg")));
        for (text, problem) in [
            ("11", "expected at most 10, found 11"),
            ("-1", "expected at least 0, found -1"),
            ("2.5", "expected a whole number, found 2.5"),
            ("7 lb", "expected a number in English, found \"7 lb\""),
        ] {
            assert_eq!(parse_number(text, &spec).problem.as_deref(), Some(problem));
        }
    }

    proptest! {
        #[test]
        fn any_text_has_either_a_value_or_a_reason(text in ".{0,80}") {
            for language in NumberLanguage::ALL {
                let answer = parse_number(&text, &spec(language));
                prop_assert!(answer.value.is_some() != answer.problem.is_some());
            }
        }

        #[test]
        fn whole_numbers_survive_their_separators(number in 0_u64..10_000_000_000) {
            let plain = number.to_string();
            let mut grouped = String::new();
            for (index, digit) in plain.chars().enumerate() {
                if index > 0 && (plain.len() - index) % 3 == 0 {
                    grouped.push('.');
                }
                grouped.push(digit);
            }
            let read = parse_number(&grouped, &spec(NumberLanguage::German)).value;
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let number = number as f64;
            prop_assert_eq!(read, Some(number));
        }
    }
}
