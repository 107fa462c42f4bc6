//! The forms that special tokens take in a template.

/// Says which special tokens there are, for error messages.
pub(crate) const SPECIAL_FORMS: &str =
    "<extra_id_N>, <loc_N>, </s>, <pad>, <unk>, or another name in brackets";

const FIXED: [&str; 3] = ["</s>", "<pad>", "<unk>"];
const NUMBERED: [&str; 2] = ["<extra_id_", "<loc_"];
const MAX_DIGITS: usize = 5;
const MAX_NAME_BYTES: usize = 64;

/// Tells whether `token` has the form of a special token: `<extra_id_N>`, `<loc_N>`, `</s>`, `<pad>` or
/// `<unk>`.
///
/// Whether a vocabulary has that token is for the tokenizer to say.
///
/// # Examples
///
/// ```
/// assert!(multiway_prompts::is_special_form("<extra_id_0>"));
/// assert!(!multiway_prompts::is_special_form("<extra_id_00>"));
/// assert!(!multiway_prompts::is_special_form("cat"));
/// ```
pub fn is_special_form(token: &str) -> bool {
    special_at_start(token).is_some_and(|found| found.len() == token.len())
}

/// Finds the special token that `text` starts with.
pub(crate) fn special_at_start(text: &str) -> Option<&str> {
    if let Some(fixed) = FIXED.iter().find(|fixed| text.starts_with(**fixed)) {
        return text.get(..fixed.len());
    }
    let prefix = NUMBERED.iter().find(|prefix| text.starts_with(**prefix))?;
    let rest = text.get(prefix.len()..)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let leading_zero = digits > 1 && rest.starts_with('0');
    if digits == 0 || digits > MAX_DIGITS || leading_zero || rest.as_bytes().get(digits) != Some(&b'>') {
        return None;
    }
    text.get(..prefix.len() + digits + 1)
}

/// Tells whether `token` is written as special tokens usually are, in angle or square brackets and without
/// white space: `<sep>`, `<|end|>`, `[CLS]`. Such a name may stand in `special("...")` and in
/// `decode.prefix`; whether it is a special token is for the tokenizer to say.
pub(crate) fn is_bracketed_name(token: &str) -> bool {
    bracketed_at_start(token).is_some_and(|found| found.len() == token.len())
}

/// Finds what `text` starts with and a checkpoint may have as a special token: `</s>`, `<sep>`, `[CLS]`.
///
/// In a template, such a name is special; to have it as text, write `{{ "<sep>" }}`.
///
/// # Examples
///
/// ```
/// use multiway_prompts::special_name_at_start;
///
/// assert_eq!(special_name_at_start("<sep> b"), Some("<sep>"));
/// assert_eq!(special_name_at_start("< b >"), None);
/// ```
pub fn special_name_at_start(text: &str) -> Option<&str> {
    special_at_start(text).or_else(|| bracketed_at_start(text))
}

/// Finds the bracketed name that `text` starts with.
fn bracketed_at_start(text: &str) -> Option<&str> {
    let close = match text.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    let end = text.find(close)?;
    let name = text.get(1..end)?;
    let is_name = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '[' | '"' | '\'' | '\\'));
    is_name.then(|| text.get(..=end)).flatten()
}

/// Names the mask token that opens gap `index`.
pub(crate) fn mask_token(index: usize) -> String {
    format!("<extra_id_{index}>")
}

/// Cuts a string that must be nothing but special tokens into these tokens.
pub(crate) fn split_specials(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let token = special_at_start(rest).or_else(|| bracketed_at_start(rest))?;
        tokens.push(token.to_owned());
        rest = rest.get(token.len()..)?;
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_tokens_are_special() {
        for token in [
            "</s>",
            "<pad>",
            "<unk>",
            "<extra_id_0>",
            "<extra_id_99>",
            "<loc_1023>",
        ] {
            assert!(is_special_form(token), "{token}");
        }
        for text in [
            "",
            "<",
            "</s",
            "<s>",
            "<extra_id_>",
            "<extra_id_01>",
            "<extra_id_1",
            "<extra_id_-1>",
            "<loc_123456>",
            "</s>x",
        ] {
            assert!(!is_special_form(text), "{text}");
        }
    }

    #[test]
    fn a_string_of_special_tokens_is_cut_into_them_and_anything_else_is_refused() {
        assert_eq!(
            split_specials("</s><extra_id_1>").unwrap(),
            ["</s>", "<extra_id_1>"]
        );
        assert_eq!(split_specials("").unwrap(), Vec::<String>::new());
        assert_eq!(split_specials("<extra_id_0> a"), None);
    }
}
