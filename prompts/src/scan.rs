//! Finds what matters in a template's source: special tokens, names and filters, each with its line.
//!
//! This follows the boundaries of minijinja's lexer (template data, `{{ }}`, `{% %}`, `{# #}`, raw blocks, strings,
//! brackets) and knows nothing else of the language. What it finds in a template that minijinja refuses means nothing,
//! but its measures of size hold for any text, and are checked before minijinja sees it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use crate::special::{is_bracketed_name, is_special_form, special_at_start};

/// A special token in the source, and the bytes that stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecialSite {
    pub(crate) range: Range<usize>,
    pub(crate) token: String,
    /// Whether it is a call `special("...")` inside an expression, and not template data.
    pub(crate) in_expression: bool,
}

/// A name in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameSite {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) role: NameRole,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRole {
    /// A variable, a function or a keyword.
    Variable,
    /// A filter: it follows `|`.
    Filter,
    /// A test: it follows `is` or `is not`.
    Test,
    /// An attribute: it follows `.`.
    Attribute,
}

/// Why a call of `special` is not one that the template may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadSpecial {
    pub(crate) line: usize,
    /// The string given, or `None` when something else was given.
    pub(crate) found: Option<String>,
}

/// What a template's source holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) data: Vec<Range<usize>>,
    pub(crate) specials: Vec<SpecialSite>,
    pub(crate) names: Vec<NameSite>,
    pub(crate) bad_special: Option<BadSpecial>,
    /// The line of a string whose `\u` escapes could make a character that rendering keeps for itself.
    pub(crate) bad_escape: Option<usize>,
    /// The first place where the template is too large for the stack.
    pub(crate) too_large: Option<TooLarge>,
    elifs: usize,
    blocks: usize,
}

/// What is too large for the stack, and the line where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) line: usize,
    pub(crate) what: &'static str,
    pub(crate) limit: usize,
}

// minijinja limits how deeply brackets and blocks nest together (to 150, which is a megabyte of stack in a debug
// build), but not how long a chain `a + b + c ...`, `x | f | g ...` or `if ... elif ... elif ...` may be, and it walks
// such chains recursively too, to the end of the stack. These limits keep it within a quarter of a thread's stack.
const MAX_TAG_TOKENS: usize = 256;
const MAX_BRACKETS: usize = 16;
const MAX_BLOCKS: usize = 16;
const MAX_ELIFS: usize = 32;

/// The statements that open a block, besides a `set` without `=`.
const OPENERS: [&str; 7] = ["autoescape", "call", "filter", "for", "if", "macro", "with"];

impl Scan {
    /// Scans a template.
    pub(crate) fn new(source: &str) -> Scan {
        let mut scanner = Scanner {
            source,
            position: 0,
            counted: (0, 1),
            scan: Scan::default(),
        };
        scanner.run();
        scanner.scan
    }

    /// Finds, in template data, the names that a checkpoint has besides the usual forms of special tokens; of several that
    /// start at one place the longest. Returns all special tokens of the template, in order.
    pub(crate) fn specials_with<'a>(&'a self, source: &str, names: &[&str]) -> Cow<'a, [SpecialSite]> {
        let mut names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !name.is_empty() && !is_special_form(name) && source.contains(name))
            .collect();
        if names.is_empty() {
            return Cow::Borrowed(&self.specials);
        }
        names.sort_by_key(|name| Reverse(name.len()));
        let mut all = self.specials.clone();
        for data in &self.data {
            let mut position = data.start;
            while let Some(rest) = source.get(position..data.end).filter(|rest| !rest.is_empty()) {
                if let Some(known) = self.specials.iter().find(|site| site.range.start == position) {
                    position = known.range.end;
                    continue;
                }
                let name = names.iter().find(|name| rest.starts_with(**name));
                // A name may not reach into another token.
                let name = name.filter(|name| {
                    let end = position + name.len();
                    !self
                        .specials
                        .iter()
                        .any(|site| (position..end).contains(&site.range.start))
                });
                let Some(name) = name else {
                    position += rest.chars().next().map_or(1, char::len_utf8);
                    continue;
                };
                all.push(SpecialSite {
                    range: position..position + name.len(),
                    token: (*name).to_owned(),
                    in_expression: false,
                });
                position += name.len();
            }
        }
        all.sort_by_key(|site| site.range.start);
        Cow::Owned(all)
    }

    /// Finds the line at which a variable is first used.
    pub(crate) fn line_of(&self, variable: &str) -> Option<usize> {
        self.names
            .iter()
            .find(|site| site.role == NameRole::Variable && site.name == variable)
            .map(|site| site.line)
    }

    /// Tells whether the template applies a filter.
    pub(crate) fn uses_filter(&self, filter: &str) -> bool {
        self.names
            .iter()
            .any(|site| site.role == NameRole::Filter && site.name == filter)
    }
}

struct Scanner<'s> {
    source: &'s str,
    position: usize,
    /// The offset up to which lines were counted, and the line there.
    counted: (usize, usize),
    scan: Scan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'s> {
    Name(&'s str),
    Text(&'s str),
    Number,
    Symbol(u8),
}

struct Spanned<'s> {
    token: Token<'s>,
    range: Range<usize>,
}

impl<'s> Spanned<'s> {
    fn name(&self) -> Option<&'s str> {
        match self.token {
            Token::Name(name) => Some(name),
            Token::Text(_) | Token::Number | Token::Symbol(_) => None,
        }
    }
}

impl<'s> Scanner<'s> {
    fn run(&mut self) {
        while let Some((start, opener)) = self.next_tag() {
            self.add_data(self.position..start);
            self.position = start + 2;
            match opener {
                b'{' => self.expression("}}"),
                b'#' => self.comment(),
                _ => self.block(),
            }
        }
        self.add_data(self.position..self.source.len());
        self.position = self.source.len();
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.position..).unwrap_or_default()
    }

    /// Finds the next `{{`, `{%` or `{#`.
    fn next_tag(&self) -> Option<(usize, u8)> {
        let bytes = self.rest().as_bytes();
        bytes
            .windows(2)
            .enumerate()
            .find_map(|(offset, pair)| match pair {
                [b'{', opener @ (b'{' | b'%' | b'#')] => Some((self.position + offset, *opener)),
                _ => None,
            })
    }

    fn comment(&mut self) {
        if self.rest().starts_with(['-', '+']) {
            self.position += 1;
        }
        self.position = match self.rest().find("#}") {
            Some(offset) => self.position + offset + 2,
            None => self.source.len(),
        };
    }

    fn block(&mut self) {
        let after_sign = self.rest().strip_prefix(['-', '+']).unwrap_or(self.rest());
        match tag_length(after_sign, "raw") {
            Some(length) => {
                self.position = self.source.len() - after_sign.len() + length;
                self.raw();
            }
            None => self.expression("%}"),
        }
    }

    /// Reads the data of a raw block and its `{% endraw %}`.
    fn raw(&mut self) {
        let start = self.position;
        let mut search = start;
        while let Some(offset) = self.source.get(search..).and_then(|rest| rest.find("{%")) {
            let tag = search + offset;
            search = tag + 2;
            let inner = self.source.get(search..).unwrap_or_default();
            let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
            if let Some(length) = tag_length(inner, "endraw") {
                self.add_data(start..tag);
                self.position = self.source.len() - inner.len() + length;
                return;
            }
        }
        self.position = self.source.len();
    }

    /// Reads the tokens of a tag until `end`, outside of all brackets.
    fn expression(&mut self, end: &str) {
        let mut tokens = Vec::new();
        let mut depth = 0_isize;
        let mut deepest = 0;
        loop {
            let trimmed = self.rest().trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.position = self.source.len() - trimmed.len();
            if trimmed.is_empty() {
                break;
            }
            let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
            if depth == 0 && unsigned.starts_with(end) {
                self.position = self.source.len() - unsigned.len() + end.len();
                break;
            }
            let token = self.token(trimmed);
            depth += match token.token {
                Token::Symbol(b'(' | b'[' | b'{') => 1,
                Token::Symbol(b')' | b']' | b'}') => -1,
                _ => 0,
            };
            deepest = deepest.max(depth);
            tokens.push(token);
        }
        self.measure(&tokens, deepest.unsigned_abs(), end == "%}");
        self.add_tokens(&tokens);
    }

    fn token(&mut self, rest: &'s str) -> Spanned<'s> {
        let start = self.position;
        let first = rest.as_bytes().first().copied().unwrap_or_default();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word_length = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
        let (token, length) = match first {
            b'"' | b'\'' => {
                let length = string_length(rest, first);
                (Token::Text(rest.get(1..length - 1).unwrap_or_default()), length)
            }
            b'0'..=b'9' => (Token::Number, word_length),
            _ if word_length > 0 => (
                Token::Name(rest.get(..word_length).unwrap_or_default()),
                word_length,
            ),
            _ => (
                Token::Symbol(first),
                rest.chars().next().map_or(1, char::len_utf8),
            ),
        };
        self.position = start + length;
        Spanned {
            token,
            range: start..self.position,
        }
    }

    fn add_data(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut position = range.start;
        while let Some(offset) = self
            .source
            .get(position..range.end)
            .and_then(|data| data.find('<'))
        {
            let start = position + offset;
            position = start + 1;
            if let Some(token) = self.source.get(start..range.end).and_then(special_at_start) {
                position = start + token.len();
                let token = token.to_owned();
                self.scan.specials.push(SpecialSite {
                    range: start..position,
                    token,
                    in_expression: false,
                });
            }
        }
        self.scan.data.push(range);
    }

    /// Measures what a tag adds to the stack that minijinja needs.
    fn measure(&mut self, tokens: &[Spanned<'s>], brackets: usize, is_block: bool) {
        let Some(first) = tokens.first() else { return };
        let line = self.line(first.range.start);
        if let Some(name) = first.name().filter(|_| is_block) {
            let opens = OPENERS.contains(&name)
                || (name == "set" && !tokens.iter().any(|token| token.token == Token::Symbol(b'=')));
            if opens {
                self.scan.blocks += 1;
            } else if name.starts_with("end") {
                self.scan.blocks = self.scan.blocks.saturating_sub(1);
            } else if name == "elif" {
                self.scan.elifs += 1;
            }
        }
        let measures = [
            (tokens.len(), MAX_TAG_TOKENS, "words and signs in one tag"),
            (brackets, MAX_BRACKETS, "brackets inside each other"),
            (self.scan.blocks, MAX_BLOCKS, "blocks inside each other"),
            (self.scan.elifs, MAX_ELIFS, "`elif` in one prompt"),
        ];
        if let Some((_, limit, what)) = measures.into_iter().find(|(size, limit, _)| size > limit) {
            self.scan.too_large.get_or_insert(TooLarge { line, what, limit });
        }
    }

    fn add_tokens(&mut self, tokens: &[Spanned<'s>]) {
        for (index, spanned) in tokens.iter().enumerate() {
            let line = self.line(spanned.range.start);
            let name = match spanned.token {
                Token::Name(name) => name,
                Token::Text(text) if makes_private_characters(text) => {
                    self.scan.bad_escape.get_or_insert(line);
                    continue;
                }
                Token::Text(_) | Token::Number | Token::Symbol(_) => continue,
            };
            let before = |distance: usize| Some(tokens.get(index.checked_sub(distance)?)?.token);
            let role = match before(1) {
                Some(Token::Symbol(b'|')) => NameRole::Filter,
                Some(Token::Name("filter")) if index == 1 => NameRole::Filter,
                Some(Token::Symbol(b'.')) => NameRole::Attribute,
                Some(Token::Name("is")) if name != "not" => NameRole::Test,
                Some(Token::Name("not")) if before(2) == Some(Token::Name("is")) => NameRole::Test,
                _ => NameRole::Variable,
            };
            if name == "special" && role == NameRole::Variable {
                self.add_special_call(tokens.get(index..).unwrap_or_default(), line);
            }
            self.scan.names.push(NameSite {
                name: name.to_owned(),
                line,
                role,
            });
        }
    }

    /// Reads `special ( "token" )`: the only form in which the name `special` may stand.
    fn add_special_call(&mut self, tokens: &[Spanned<'s>], line: usize) {
        let found = match tokens {
            [name, open, text, close, ..]
                if open.token == Token::Symbol(b'(') && close.token == Token::Symbol(b')') =>
            {
                let Token::Text(token) = text.token else {
                    self.refuse_special(line, None);
                    return;
                };
                if is_special_form(token) || is_bracketed_name(token) {
                    let range = name.range.start..close.range.end;
                    let token = token.to_owned();
                    self.scan.specials.push(SpecialSite {
                        range,
                        token,
                        in_expression: true,
                    });
                    return;
                }
                Some(token.to_owned())
            }
            _ => None,
        };
        self.refuse_special(line, found);
    }

    fn refuse_special(&mut self, line: usize, found: Option<String>) {
        self.scan.bad_special.get_or_insert(BadSpecial { line, found });
    }

    /// Counts the lines up to an offset, which must not lie before the one asked for last.
    fn line(&mut self, offset: usize) -> usize {
        let (from, line) = self.counted;
        let new_lines = self
            .source
            .bytes()
            .take(offset)
            .skip(from)
            .filter(|byte| *byte == b'\n')
            .count();
        self.counted = (offset.max(from), line + new_lines);
        self.counted.1
    }
}

/// Tells whether a string's escapes reach the supplementary private use areas: `\udb80` to `\udbff` open those pairs.
fn makes_private_characters(text: &str) -> bool {
    text.to_ascii_lowercase()
        .match_indices("\\udb")
        .any(|(offset, _)| {
            matches!(
                text.as_bytes().get(offset + 4),
                Some(b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F')
            )
        })
}

/// Measures `  name -%}`, or returns `None` when something else stands there.
fn tag_length(text: &str, name: &str) -> Option<usize> {
    let rest = text
        .trim_start_matches(|c: char| c.is_ascii_whitespace())
        .strip_prefix(name)?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// Measures a quoted string with its quotes; one that is not closed reaches to the end.
fn string_length(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, OutputSpanKind};
    use proptest::prelude::*;

    use super::*;

    fn names(source: &str) -> Vec<(String, usize, NameRole)> {
        Scan::new(source)
            .names
            .into_iter()
            .map(|site| (site.name, site.line, site.role))
            .collect()
    }

    #[test]
    fn names_have_their_line_and_role() {
        let variable = |name: &str, line| (name.to_owned(), line, NameRole::Variable);
        assert_eq!(
            names("a {{ x.y | f(z) }}\n{% filter g %}{{ w is not\n t }}"),
            [
                variable("x", 1),
                ("y".to_owned(), 1, NameRole::Attribute),
                ("f".to_owned(), 1, NameRole::Filter),
                variable("z", 1),
                variable("filter", 2),
                ("g".to_owned(), 2, NameRole::Filter),
                variable("w", 2),
                variable("is", 2),
                variable("not", 2),
                ("t".to_owned(), 3, NameRole::Test),
            ]
        );
    }

    #[test]
    fn special_tokens_count_in_data_and_in_calls_and_nowhere_else() {
        let source = "</s>{{ '<pad>' }}{# <unk> #}{% raw %}<loc_1>{{{% endraw %}{{ special( '<extra_id_3>' ) }}<loc_01>";
        let specials: Vec<_> = Scan::new(source)
            .specials
            .into_iter()
            .map(|site| (site.token, site.in_expression))
            .collect();
        assert_eq!(
            specials,
            [
                ("</s>".to_owned(), false),
                ("<loc_1>".to_owned(), false),
                ("<extra_id_3>".to_owned(), true)
            ]
        );
    }

    #[test]
    fn a_name_special_that_is_no_call_with_one_quoted_token_is_refused() {
        for source in [
            "{{ special }}",
            "{{ special(x) }}",
            "{{ special('</s>' ~ x) }}",
            "{{ special('</s>', x) }}",
            "{{ special('<' '/s>') }}",
            "{{ special('\\u003c/s>') }}",
            "{% set special = x %}",
            "{% macro special() %}",
            "{{ m(special='</s>') }}",
        ] {
            assert!(Scan::new(source).bad_special.is_some(), "{source}");
        }
        assert_eq!(
            Scan::new("special(x) {# special(x) #}{{ x.special }}{{ 'special' }}").bad_special,
            None
        );
    }

    #[test]
    fn escapes_that_make_private_use_characters_are_seen_in_strings_only() {
        assert_eq!(Scan::new("\n{{ '\\uDB80\\udc00' }}").bad_escape, Some(2));
        assert_eq!(
            Scan::new("{{ '\\ud83d\\ude00 \\u00e9' }} '\\udb80'").bad_escape,
            None
        );
    }

    /// Makes sources out of everything that opens, closes or hides something.
    fn source() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{{ 1 }}",
            "{{ '}}' }}",
            "{{ \"%}{{\" }}",
            "{{- {'a': {}} | length -}}",
            "{{+ 'it\\'s' }}",
            "{{ [1, (2)] | first }}",
            "{% if 1 %}",
            "{%- endif +%}",
            "{%+ if '%}' -%}",
            "{% endif %}",
            "{# {{ #}",
            "{#- x -#}",
            "{#-#}",
            "{#+ %} #}",
            "{% raw %}",
            "{%- raw -%}",
            "{% endraw %}",
            "{%- endraw +%}",
            "{% set a = {'}}': 1} %}",
            "</s>",
            "<extra_id_1>",
            "text",
            " ",
            "\n",
            "{",
            "}",
            "%",
            "#",
            "'",
            "\"",
            "é",
            "\r\n",
            "\t",
            "{{",
            "}}",
            "-",
        ]);
        proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_minijinja_writes_verbatim_is_data_and_what_it_evaluates_is_not(source in source()) {
            let env = Environment::new();
            let Ok(template) = env.template_from_str(&source) else { return Ok(()) };
            let Ok((_, spans)) = template.render_with_spans(()) else { return Ok(()) };
            let data = Scan::new(&source).data;
            for span in spans {
                let range = span.source_range();
                let inside = data.iter().any(|data| data.start <= range.start && range.end <= data.end);
                let apart = data.iter().all(|data| range.end <= data.start || data.end <= range.start);
                let as_expected = if span.kind() == OutputSpanKind::Raw { inside } else { apart };
                prop_assert!(as_expected, "{:?} of {:?} with data {:?}", span, source, data);
            }
        }

        #[test]
        fn scanning_any_text_ends_and_ranges_are_in_order(source in any::<String>(), pieces in source()) {
            let source = source + &pieces;
            let scan = Scan::new(&source);
            let mut end = 0;
            for site in &scan.specials {
                prop_assert!(end <= site.range.start && source.get(site.range.clone()).is_some());
                end = site.range.end;
            }
        }
    }
}
