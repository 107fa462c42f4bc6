//! Foreign Jinja templates, cut into text, expressions and tags, with white space as Jinja leaves it.

use std::mem;

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::error::{ImportError, ImportNote};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Text.
    Data(String),
    /// `{{ expression }}`.
    Output(String),
    /// A tag that stands alone: `set name = value`.
    Statement(String),
    /// Tags around other pieces: `if`, `elif` and `else`, each with what follows it, and `endif`.
    Block {
        branches: Vec<(String, Vec<Self>)>,
        close: String,
    },
}

impl Node {
    /// Returns the first word of a tag.
    pub(super) fn word(tag: &str) -> &str {
        tag.split_whitespace().next().unwrap_or_default()
    }
}

/// The tags that have others around what they hold.
const OPENERS: [&str; 5] = ["if", "for", "filter", "with", "set"];
/// The tags that divide what others hold.
const DIVIDERS: [&str; 2] = ["elif", "else"];

/// The filters that take the name of a test.
const FILTERING: [&str; 4] = ["reject", "rejectattr", "select", "selectattr"];
/// Other names of the tests that compare.
const TESTS: [(&str, &str); 9] = [
    ("equalto", "eq"),
    ("==", "eq"),
    ("!=", "ne"),
    ("<", "lt"),
    ("lessthan", "lt"),
    ("<=", "le"),
    (">", "gt"),
    ("greaterthan", "gt"),
    (">=", "ge"),
];

/// A block that is not closed yet: what came before it, and its finished branches.
struct Open {
    before: Vec<Node>,
    branches: Vec<(String, Vec<Node>)>,
    tag: String,
}

/// Reads a template. What draws at random takes the first instead, which `notes` tell.
pub(super) fn parse(source: &str, notes: &mut Vec<ImportNote>) -> Result<Vec<Node>, ImportError> {
    let mut reader = Reader {
        source,
        nodes: Vec::new(),
        open: Vec::new(),
        tag: Vec::new(),
        draws: false,
    };
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|error| ImportError::jinja(&error))?;
        reader.add(token, span)?;
    }
    if let Some(open) = reader.open.last() {
        let message = format!("`{{% {} %}}` is not closed", open.tag);
        return Err(ImportError::Jinja { message });
    }
    if reader.draws {
        notes.push(ImportNote::new(
            "choice",
            "the template draws one of several at random: here it is always the first",
        ));
    }
    Ok(reader.nodes)
}

struct Reader<'s> {
    source: &'s str,
    nodes: Vec<Node>,
    open: Vec<Open>,
    tag: Vec<(Token<'s>, Span)>,
    draws: bool,
}

impl<'s> Reader<'s> {
    fn add(&mut self, token: Token<'s>, span: Span) -> Result<(), ImportError> {
        match token {
            Token::TemplateData(text) => self.add_data(text),
            Token::VariableStart | Token::BlockStart => self.tag.clear(),
            Token::VariableEnd => {
                let source = self.take_tag();
                self.nodes.push(Node::Output(source));
            }
            Token::BlockEnd => return self.add_tag(),
            token => self.tag.push((token, span)),
        }
        Ok(())
    }

    /// Adds text. The lexer cuts it at comments, which leave nothing behind.
    fn add_data(&mut self, text: &str) {
        match self.nodes.last_mut() {
            Some(Node::Data(last)) => last.push_str(text),
            _ => self.nodes.push(Node::Data(text.to_owned())),
        }
    }

    fn add_tag(&mut self) -> Result<(), ImportError> {
        let assigns = self.tag.iter().any(|(token, _)| matches!(token, Token::Assign));
        let source = self.take_tag();
        let word = Node::word(&source).to_owned();
        if word == "set" && assigns {
            self.nodes.push(Node::Statement(source));
        } else if OPENERS.contains(&word.as_str()) {
            let before = mem::take(&mut self.nodes);
            let branches = Vec::new();
            self.open.push(Open {
                before,
                branches,
                tag: source,
            });
        } else if DIVIDERS.contains(&word.as_str()) {
            let inside = mem::take(&mut self.nodes);
            let open = self.open.last_mut().ok_or_else(|| stray(&source))?;
            open.branches.push((mem::replace(&mut open.tag, source), inside));
        } else if word.starts_with("end") {
            let mut open = self.open.pop().ok_or_else(|| stray(&source))?;
            let inside = mem::replace(&mut self.nodes, open.before);
            open.branches.push((open.tag, inside));
            self.nodes.push(Node::Block {
                branches: open.branches,
                close: source,
            });
        } else {
            return Err(ImportError::Construct {
                what: format!("the tag `{word}`"),
            });
        }
        Ok(())
    }

    /// Returns a tag as it is written, but for filters that draw at random, and names of tests.
    fn take_tag(&mut self) -> String {
        let tag = mem::take(&mut self.tag);
        let mut written = String::new();
        let mut position = tag.first().map_or(0, |(_, span)| span.start_offset as usize);
        let end = tag.last().map_or(0, |(_, span)| span.end_offset as usize);
        let filters = tag
            .iter()
            .any(|(token, _)| matches!(token, Token::Ident(name) if FILTERING.contains(name)));
        for pair in tag.windows(2) {
            let (span, replacement) = match pair {
                [(Token::Pipe, _), (Token::Ident("choice" | "random"), span)] => {
                    self.draws = true;
                    (span, "first".to_owned())
                }
                [(Token::ParenOpen | Token::Comma, _), (Token::Str(test), span)] if filters => {
                    match TESTS.iter().find(|(name, _)| name == test) {
                        Some((_, name)) => (span, quoted(name)),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let start = span.start_offset as usize;
            written.push_str(self.source.get(position..start).unwrap_or_default());
            written.push_str(&replacement);
            position = span.end_offset as usize;
        }
        written.push_str(self.source.get(position..end).unwrap_or_default());
        written
    }
}

fn stray(tag: &str) -> ImportError {
    let message = format!("`{{% {tag} %}}` closes nothing");
    ImportError::Jinja { message }
}

/// Lists the names in a tag or an expression, attributes and filters too.
pub(super) fn words(source: &str) -> Vec<&str> {
    let tokens = tokenize(source, true, SyntaxConfig::default()).map_while(Result::ok);
    tokens
        .filter_map(|(token, span)| match token {
            Token::Ident(_) => source.get(span.start_offset as usize..span.end_offset as usize),
            _ => None,
        })
        .collect()
}

/// Writes a text as a string of an expression.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
