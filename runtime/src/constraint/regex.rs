//! Regular expressions, read into a [`Language`].

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look, Repetition};
use regex_syntax::utf8::{Utf8Sequence, Utf8Sequences};

use super::language::{ByteSet, Expression, Language};

/// The deepest nesting of groups.
const MAX_NESTING: u32 = 64;
/// The most times that a bounded repetition may repeat.
const MAX_REPEAT: u32 = 1 << 16;

/// Parses a regular expression in the syntax of the `regex` crate.
pub(super) fn parse(pattern: &str) -> Result<Hir, String> {
    let mut parser = ParserBuilder::new().nest_limit(MAX_NESTING).build();
    parser.parse(pattern).map_err(|error| match error {
        regex_syntax::Error::Parse(error) => {
            format!("{} at byte {}", error.kind(), error.span().start.offset)
        }
        regex_syntax::Error::Translate(error) => {
            format!("{} at byte {}", error.kind(), error.span().start.offset)
        }
        other => other.to_string(),
    })
}

impl Language {
    /// Matches what a regular expression matches as a whole.
    ///
    /// `^` and `$` say nothing new at the ends; elsewhere, and word boundaries anywhere, are refused.
    pub(super) fn regex(&mut self, hir: &Hir) -> Result<Expression, String> {
        let (body, _) = without_anchors(hir);
        self.hir(&body)
    }

    fn hir(&mut self, hir: &Hir) -> Result<Expression, String> {
        if self.is_too_large() {
            return Err("it is too large".to_owned());
        }
        match hir.kind() {
            HirKind::Empty => Ok(Expression::EMPTY),
            HirKind::Literal(literal) => Ok(self.literal(&literal.0)),
            HirKind::Class(Class::Unicode(class)) => Ok(self.class(class)),
            HirKind::Class(Class::Bytes(class)) => {
                let mut set = ByteSet::default();
                class
                    .ranges()
                    .iter()
                    .for_each(|range| set.insert(range.start(), range.end()));
                Ok(self.bytes(set))
            }
            HirKind::Look(look) => Err(format!(
                "it uses {}, which only `^` at the start and `$` at the end may be",
                look_name(*look)
            )),
            HirKind::Repetition(repetition) => {
                let (least, most) = (repetition.min, repetition.max);
                if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT) {
                    return Err(format!("it repeats more than {MAX_REPEAT} times"));
                }
                let part = self.hir(&repetition.sub)?;
                Ok(self.repeat(part, least, most))
            }
            HirKind::Capture(capture) => self.hir(&capture.sub),
            HirKind::Concat(parts) => {
                let parts: Result<Vec<Expression>, String> =
                    parts.iter().map(|part| self.hir(part)).collect();
                Ok(self.sequence(&parts?))
            }
            HirKind::Alternation(parts) => {
                let parts: Result<Vec<Expression>, String> =
                    parts.iter().map(|part| self.hir(part)).collect();
                Ok(self.or(parts?))
            }
        }
    }

    /// Matches one character of a class, as its bytes in UTF-8.
    fn class(&mut self, class: &ClassUnicode) -> Expression {
        let ranges = class.ranges().iter();
        let sequences = ranges.flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
        let mut single = ByteSet::default();
        let mut parts = Vec::new();
        for sequence in sequences {
            match sequence {
                Utf8Sequence::One(range) => single.insert(range.start, range.end),
                longer => {
                    let bytes = longer.as_slice().iter().map(|range| {
                        let mut set = ByteSet::default();
                        set.insert(range.start, range.end);
                        self.bytes(set)
                    });
                    let bytes: Vec<Expression> = bytes.collect();
                    parts.push(self.sequence(&bytes));
                }
            }
        }
        parts.push(self.bytes(single));
        self.or(parts)
    }
}

fn look_name(look: Look) -> &'static str {
    match look {
        Look::Start | Look::StartLF | Look::StartCRLF => "`^` inside of the expression",
        Look::End | Look::EndLF | Look::EndCRLF => "`$` inside of the expression",
        _ => "a word boundary",
    }
}

/// Takes the groups' names and numbers away: to the grammar library some names mean more than a group.
pub(super) fn without_captures(hir: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(without_captures).collect();
    match hir.kind() {
        HirKind::Capture(capture) => without_captures(&capture.sub),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(without_captures(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
    }
}

/// Which ends of a regular expression are anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    pub(super) start: bool,
    pub(super) end: bool,
}

/// Takes `^` from the start and `$` from the end of a regular expression.
pub(super) fn without_anchors(hir: &Hir) -> (Hir, Anchors) {
    let mut parts: Vec<Hir> = match hir.kind() {
        HirKind::Concat(parts) => parts.clone(),
        _ => vec![hir.clone()],
    };
    let start = parts
        .first()
        .is_some_and(|part| *part.kind() == HirKind::Look(Look::Start));
    if start {
        parts.remove(0);
    }
    let end = parts
        .last()
        .is_some_and(|part| *part.kind() == HirKind::Look(Look::End));
    if end {
        parts.pop();
    }
    (Hir::concat(parts), Anchors { start, end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(pattern: &str, text: &str) -> bool {
        let mut language = Language::new(ByteSet::default());
        let start = language.regex(&parse(pattern).unwrap()).unwrap();
        let end = language.derive_all(start, text.as_bytes());
        end.is_some_and(|end| language.is_accepting(end))
    }

    #[test]
    fn expressions_match_whole_texts() {
        assert!(accepts("cat|dog", "cat") && accepts("^cat$", "cat") && !accepts("cat", "cats"));
        assert!(accepts("(?i)[a-zé]{2,}", "É猫").eq(&false) && accepts("(?i)[a-zé]{2,}", "Éa"));
        assert!(accepts(".{3}", "a猫🦜") && !accepts(".{3}", "a猫"));
        assert!(accepts(r"\d{4}-\d\d", "2024-01") && !accepts(r"\d{4}-\d\d", "2024-1"));
    }

    #[test]
    fn what_has_no_derivative_is_refused() {
        let refusals = [r"a\bb", "(", "a^b", "a{9}{9999999}"].map(|pattern| {
            let read = parse(pattern).and_then(|hir| Language::new(ByteSet::default()).regex(&hir));
            read.unwrap_err()
        });
        insta::assert_snapshot!(refusals.join("\n"));
    }

    proptest! {
        #[test]
        fn a_completion_completes(pattern in "([ab]|c{1,3}|[x-z]?|(de)+|é\\*){1,4}", count in 0_usize..6) {
            let mut language = Language::new(ByteSet::default());
            let mut state = language.regex(&parse(&pattern).unwrap()).unwrap();
            for _ in 0..count {
                let next = (0..=255_u8).rev().map(|byte| language.derivative(state, byte)).find(|next| *next != Expression::NEVER);
                state = next.unwrap_or(state);
                let rest = language.completion(state, 999).unwrap();
                let end = language.derive_all(state, &rest).unwrap();
                prop_assert!(language.is_accepting(end));
            }
        }
    }
}
