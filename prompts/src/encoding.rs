//! Text files as the editors of all systems write them.

use crate::error::{PromptError, PromptErrorKind};

/// Reads the bytes of a text file that is called `origin`: UTF-8, a byte order mark at the start skipped.
///
/// # Errors
///
/// When the bytes are not UTF-8, with the line and the byte; UTF-16 is called so.
///
/// # Examples
///
/// ```
/// use multiway_prompts::text_of_file;
///
/// assert_eq!(text_of_file("a.json", b"\xef\xbb\xbf{}")?, "{}");
/// let error = text_of_file("a.json", b"\xff\xfe{\0}\0").unwrap_err();
/// assert_eq!(error.to_string(), "a.json: it is in UTF-16, expected UTF-8; save the file as UTF-8");
/// # Ok::<(), multiway_prompts::PromptError>(())
/// ```
pub fn text_of_file<'a>(origin: &str, bytes: &'a [u8]) -> Result<&'a str, PromptError> {
    if is_utf16(bytes) {
        return Err(PromptErrorKind::Utf16.at(origin, None));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(origin, bytes, error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

/// Tells UTF-16 by its byte order mark, or where that lacks by the zeros that its ASCII characters have.
fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, second, rest @ ..] => {
            let zeros = (*first == 0, *second == 0);
            let pairs = rest.chunks_exact(2).take(8);
            zeros.0 != zeros.1
                && pairs.clone().count() > 0
                && pairs
                    .into_iter()
                    .all(|pair| matches!(pair, [a, b] if (*a == 0, *b == 0) == zeros))
        }
        _ => false,
    }
}

fn not_utf8(origin: &str, bytes: &[u8], offset: usize) -> PromptError {
    let line = 1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count();
    let byte = bytes.get(offset).copied().unwrap_or_default();
    PromptErrorKind::NotUtf8 { offset, byte }.at(origin, Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn utf16_is_told_with_its_mark_and_without() {
        for text in ["\u{feff}{\"a\": \"猫\"}", "{\"enum\": [1]}", "{}"] {
            for bytes in [utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes)] {
                let refusal = text_of_file("x", &bytes).unwrap_err();
                assert_eq!(*refusal.kind(), PromptErrorKind::Utf16, "{text}");
            }
        }
    }

    #[test]
    fn utf8_is_read_with_its_mark_and_without() {
        assert_eq!(text_of_file("x", "\u{feff}猫".as_bytes()).unwrap(), "猫");
        assert_eq!(
            text_of_file("x", "\u{feff}\u{feff}".as_bytes()).unwrap(),
            "\u{feff}"
        );
        assert_eq!(text_of_file("x", b"").unwrap(), "");
        assert_eq!(text_of_file("x", b"\0a").unwrap(), "\0a");
        let refusal = text_of_file("x", b"a\n\xfc").unwrap_err();
        assert_eq!((refusal.origin(), refusal.line()), ("x", Some(2)));
        assert!(matches!(
            refusal.kind(),
            PromptErrorKind::NotUtf8 { offset: 2, .. }
        ));
    }
}
