//! Finds what matters in a template's source: special tokens, names and filters, each with its line.
//!
//! The tokens are those of minijinja's own lexer, so that both agree on where data, tags, strings and
//! comments are. What is found in a template that minijinja refuses means nothing, but the measures of size
//! hold for any text, and are checked before minijinja parses it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use minijinja::Error;
use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use crate::markers::is_candidate;
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

/// A tag that names another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImportSite {
    pub(crate) line: usize,
    /// `include`, `import`, `from` or `extends`.
    pub(crate) tag: &'static str,
    /// The path, or `None` where it is not written down as it must be.
    pub(crate) path: Option<String>,
}

/// A block that other templates may override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockSite {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// Whether it is inside of another block.
    pub(crate) is_nested: bool,
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
    /// The tags that name other files.
    pub(crate) imports: Vec<ImportSite>,
    /// The blocks, in the order in which they are opened.
    pub(crate) block_sites: Vec<BlockSite>,
    /// Whether all that the template writes is in blocks.
    pub(crate) only_blocks: bool,
    /// Of each tag that is open: whether what is inside is kept for later.
    open: Vec<bool>,
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

// minijinja limits how deeply brackets and blocks nest together (to 150, which is a megabyte of stack in a
// debug build), but not how long a chain `a + b + c ...`, `x | f | g ...` or `if ... elif ... elif ...` may
// be, and it walks such chains recursively too, to the end of the stack. These limits keep it within a
// quarter of a thread's stack.
const MAX_TAG_TOKENS: usize = 256;
const MAX_BRACKETS: usize = 16;
const MAX_BLOCKS: usize = 16;
const MAX_ELIFS: usize = 32;

/// The statements that open a block, besides a `set` without `=`.
const OPENERS: [&str; 8] = [
    "autoescape",
    "block",
    "call",
    "filter",
    "for",
    "if",
    "macro",
    "with",
];

/// The tags that name other files.
const IMPORTS: [&str; 4] = ["extends", "from", "import", "include"];

/// The names that are values.
const CONSTANTS: [&str; 6] = ["False", "None", "True", "false", "none", "true"];

/// The openers whose content is written where it is asked for, and not where it stands.
const KEEPERS: [&str; 3] = ["block", "macro", "set"];

impl Scan {
    /// Scans a template.
    pub(crate) fn new(source: &str, syntax: SyntaxConfig) -> Self {
        let mut scanner = Scanner {
            source,
            scan: Self {
                only_blocks: true,
                ..Self::default()
            },
        };
        scanner.run(tokenize(source, false, syntax));
        scanner.scan
    }

    /// Finds, in template data, the names that a checkpoint has besides the usual forms of special tokens; of
    /// several that start at one place the longest. Returns all special tokens of the template, in order.
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

/// A token and the bytes that it stands for.
type Spanned<'s> = (Token<'s>, Span);

/// Reads what matters from the tokens of a template.
struct Scanner<'s> {
    source: &'s str,
    scan: Scan,
}

impl<'s> Scanner<'s> {
    /// Reads tokens up to the first that is none, at which minijinja refuses the template.
    fn run(&mut self, tokens: impl Iterator<Item = Result<Spanned<'s>, Error>>) {
        let mut tag = Vec::new();
        let mut is_block = false;
        for (token, span) in tokens.map_while(Result::ok) {
            match token {
                Token::TemplateData(_) => self.add_data(bytes(span)),
                Token::VariableStart => {
                    is_block = false;
                    self.note_written();
                }
                Token::BlockStart => is_block = true,
                Token::VariableEnd | Token::BlockEnd => self.add_tag(&std::mem::take(&mut tag), is_block),
                token => tag.push((token, span)),
            }
        }
        self.add_tag(&tag, is_block);
    }

    /// Notes that something is written here.
    fn note_written(&mut self) {
        self.scan.only_blocks &= self.scan.open.contains(&true);
    }

    fn add_data(&mut self, range: Range<usize>) {
        if self
            .source
            .get(range.clone())
            .is_some_and(|data| !data.trim().is_empty())
        {
            self.note_written();
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

    fn add_tag(&mut self, tokens: &[Spanned<'s>], is_block: bool) {
        self.measure(tokens, is_block);
        self.add_names(tokens);
        if is_block {
            self.add_import(tokens);
        }
    }

    /// Reads a tag that names another file, or opens a block.
    fn add_import(&mut self, tokens: &[Spanned<'s>]) {
        let [(Token::Ident(first), span), rest @ ..] = tokens else {
            return;
        };
        let line = usize::from(span.start_line);
        if let ("block", [(Token::Ident(name), _), ..]) = (*first, rest) {
            let outer = self.scan.open.split_last().map_or(&[][..], |(_, outer)| outer);
            self.scan.block_sites.push(BlockSite {
                name: (*name).to_owned(),
                line,
                is_nested: outer.contains(&true),
            });
        }
        let Some(tag) = IMPORTS.into_iter().find(|tag| tag == first) else {
            return;
        };
        let path = match (tag, rest) {
            // minijinja parses any expression behind `as`, and panics where it is no name.
            (
                "import",
                [
                    (Token::Str(path), _),
                    (Token::Ident("as"), _),
                    (Token::Ident(name), _),
                ],
            ) if !CONSTANTS.contains(name) => Some((*path).to_owned()),
            ("include", [(Token::Str(path), _)])
            | ("from", [(Token::Str(path), _), (Token::Ident("import"), _), ..]) => Some((*path).to_owned()),
            _ => None,
        };
        if tag == "include" {
            self.note_written();
        }
        self.scan.imports.push(ImportSite { line, tag, path });
    }

    /// Measures what a tag adds to the stack that minijinja needs.
    fn measure(&mut self, tokens: &[Spanned<'s>], is_block: bool) {
        let Some((first, span)) = tokens.first() else {
            return;
        };
        let line = usize::from(span.start_line);
        if let Token::Ident(name) = first
            && is_block
        {
            let assigns = || tokens.iter().any(|(token, _)| matches!(token, Token::Assign));
            if OPENERS.contains(name) || (*name == "set" && !assigns()) {
                self.scan.blocks += 1;
                self.scan.open.push(KEEPERS.contains(name));
            } else if name.starts_with("end") {
                self.scan.blocks = self.scan.blocks.saturating_sub(1);
                self.scan.open.pop();
            } else if *name == "elif" {
                self.scan.elifs += 1;
            }
        }
        let measures = [
            (tokens.len(), MAX_TAG_TOKENS, "words and signs in one tag"),
            (brackets(tokens), MAX_BRACKETS, "brackets inside each other"),
            (self.scan.blocks, MAX_BLOCKS, "blocks inside each other"),
            (self.scan.elifs, MAX_ELIFS, "`elif` in one prompt"),
        ];
        if let Some((_, limit, what)) = measures.into_iter().find(|(size, limit, _)| size > limit) {
            self.scan.too_large.get_or_insert(TooLarge { line, what, limit });
        }
    }

    fn add_names(&mut self, tokens: &[Spanned<'s>]) {
        for (index, (token, span)) in tokens.iter().enumerate() {
            let line = usize::from(span.start_line);
            let name = match token {
                Token::Ident(name) => *name,
                Token::String(text) if marks(text) > marks(self.written(*span)) => {
                    self.scan.bad_escape.get_or_insert(line);
                    continue;
                }
                _ => continue,
            };
            let before = |distance: usize| Some(&tokens.get(index.checked_sub(distance)?)?.0);
            let role = match before(1) {
                Some(Token::Pipe) => NameRole::Filter,
                Some(Token::Ident("filter")) if index == 1 => NameRole::Filter,
                Some(Token::Dot) => NameRole::Attribute,
                Some(Token::Ident("is")) if name != "not" => NameRole::Test,
                Some(Token::Ident("not")) if matches!(before(2), Some(Token::Ident("is"))) => NameRole::Test,
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
            [
                (_, name),
                (Token::ParenOpen, _),
                (Token::Str(token), _),
                (Token::ParenClose, close),
                ..,
            ] if is_special_form(token) || is_bracketed_name(token) => {
                self.scan.specials.push(SpecialSite {
                    range: bytes(*name).start..bytes(*close).end,
                    token: (*token).to_owned(),
                    in_expression: true,
                });
                return;
            }
            [
                _,
                (Token::ParenOpen, _),
                (Token::Str(_) | Token::String(_), text),
                (Token::ParenClose, _),
                ..,
            ] => {
                let quoted = self.written(*text);
                quoted.get(1..quoted.len().saturating_sub(1)).map(str::to_owned)
            }
            _ => None,
        };
        self.scan.bad_special.get_or_insert(BadSpecial { line, found });
    }

    /// Returns a token as it is written.
    fn written(&self, span: Span) -> &'s str {
        self.source.get(bytes(span)).unwrap_or_default()
    }
}

fn bytes(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Measures how deeply brackets nest in a tag.
fn brackets(tokens: &[Spanned<'_>]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for (token, _) in tokens {
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => depth += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Counts the characters that rendering may mark parts with. An escape must not make one; the character
/// itself may stand in a template, since none that does is chosen.
fn marks(text: &str) -> usize {
    text.chars().filter(|c| is_candidate(*c)).count()
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, OutputSpanKind};
    use proptest::prelude::*;

    use super::*;
    use crate::sandbox::syntax;

    fn scan(source: &str) -> Scan {
        Scan::new(source, SyntaxConfig::default())
    }

    fn names(source: &str) -> Vec<(String, usize, NameRole)> {
        scan(source)
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
        let specials: Vec<_> = scan(source)
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
            assert!(scan(source).bad_special.is_some(), "{source}");
        }
        assert_eq!(
            scan("special(x) {# special(x) #}{{ x.special }}{{ 'special' }}").bad_special,
            None
        );
    }

    #[test]
    fn a_newline_that_a_checkpoint_knows_as_a_token_is_one_where_it_is_written_only() {
        let source = "{% if x %}\na\nb\n{% endif %}\n";
        let scan = Scan::new(source, syntax().unwrap());
        let specials = scan.specials_with(source, &["\n"]);
        let places: Vec<usize> = specials.iter().map(|site| site.range.start).collect();
        assert_eq!(places, [12, 14]);
    }

    #[test]
    fn escapes_that_make_private_use_characters_are_seen_in_strings_only() {
        assert_eq!(scan("\n{{ '\\uDB80\\udc00' }}").bad_escape, Some(2));
        assert_eq!(scan("{{ '\u{F0000}\\udb80\\udc00' }}").bad_escape, Some(1));
        assert_eq!(scan("{{ '\u{F0000}\\n' }}").bad_escape, None);
        assert_eq!(scan("{{ '\\ud83d\\ude00 \\u00e9' }} '\\udb80'").bad_escape, None);
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
            let mut env = Environment::new();
            env.set_syntax(syntax().unwrap());
            let Ok(template) = env.template_from_str(&source) else { return Ok(()) };
            let Ok((_, spans)) = template.render_with_spans(()) else { return Ok(()) };
            let data = Scan::new(&source, syntax().unwrap()).data;
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
            let scan = Scan::new(&source, syntax().unwrap());
            let mut end = 0;
            for site in &scan.specials {
                prop_assert!(end <= site.range.start && source.get(site.range.clone()).is_some());
                end = site.range.end;
            }
        }
    }
}
