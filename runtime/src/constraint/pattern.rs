//! `pattern` of a JSON schema: a regular expression about a text, made into one about the text in quotes.

use llguidance::regex_to_lark;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::regex::{parse, without_anchors};

/// A character of a text in JSON, as it may be written: escaped where it must be.
pub(super) const CHARACTER: &str = r#"(?:[^"\\\x00-\x1f\x7f]|\\["\\nrt])"#;

/// Makes an expression for the texts in quotes in which a pattern is found.
///
/// Classes of characters lose what a text in JSON cannot hold as it is; a literal `"`, `\` or line end is
/// escaped.
pub(super) fn quoted(pattern: &str) -> Result<String, String> {
    // `\d` and `\w` are of ASCII, as in ECMA-262, which JSON schemas refer to.
    let (body, anchors) = without_anchors(&parse(&regex_to_lark(pattern, "dw"))?);
    let body = escaped(&body)?;
    let any = |anchored: bool| {
        if anchored {
            String::new()
        } else {
            format!("{CHARACTER}*")
        }
    };
    Ok(format!(
        r#""{}(?:{body}){}""#,
        any(anchors.start),
        any(anchors.end)
    ))
}

fn escaped(hir: &Hir) -> Result<Hir, String> {
    let all = |parts: &[Hir]| parts.iter().map(escaped).collect::<Result<Vec<Hir>, String>>();
    Ok(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).map_err(|_| "it is not UTF-8".to_owned())?;
            let quoted = serde_json::Value::from(text).to_string();
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            Hir::literal(inner.unwrap_or_default().as_bytes())
        }
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.difference(&unwritable());
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(_)) => return Err("it is about bytes, not characters".to_owned()),
        HirKind::Look(_) => {
            return Err(
                "expected `^` at the start and `$` at the end only, and no word boundaries".to_owned(),
            );
        }
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            min: repetition.min,
            max: repetition.max,
            greedy: true,
            sub: Box::new(escaped(&repetition.sub)?),
        }),
        HirKind::Capture(capture) => escaped(&capture.sub)?,
        HirKind::Concat(parts) => Hir::concat(all(parts)?),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)?),
    })
}

/// Characters that a text in JSON can only hold escaped.
fn unwritable() -> ClassUnicode {
    let ranges = [('\0', '\x1f'), ('"', '"'), ('\\', '\\'), ('\x7f', '\x7f')];
    ClassUnicode::new(ranges.map(|(first, last)| ClassUnicodeRange::new(first, last)))
}

#[cfg(test)]
mod tests {
    use super::super::language::{ByteSet, Language};
    use super::*;

    fn accepts(pattern: &str, text: &str) -> bool {
        let mut language = Language::new(ByteSet::default());
        let start = language
            .regex(&parse(&quoted(pattern).unwrap()).unwrap())
            .unwrap();
        let json = serde_json::Value::from(text).to_string();
        let end = language.derive_all(start, json.as_bytes());
        end.is_some_and(|end| language.is_accepting(end))
    }

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_anchored() {
        assert!(accepts("[0-9]{2}", "the 42nd") && !accepts("^[0-9]{2}", "the 42nd"));
        assert!(accepts("^[0-9]{2}$", "42") && !accepts("^[0-9]{2}$", "421"));
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_or_never_written() {
        assert!(accepts(r#"^a"b\\c$"#, r#"a"b\c"#));
        assert!(accepts("^.{2}$", "é猫") && !accepts("^.$", "\""));
    }
}
