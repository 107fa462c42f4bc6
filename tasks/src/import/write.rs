//! Writes pieces of a foreign template as a template of a task file, which renders to the same text.

use minijinja::machinery::ast::Expr;
use multiway_prompts::special_name_at_start;

use super::jinja::{Node, quoted};
use super::uses::Columns;

/// Says what is done with white space around what a template writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edges {
    /// It is removed.
    Stripped,
    /// It stays.
    Kept,
}

/// Writes a template. Values that may be lists, mappings or nothing are written as Python writes them.
pub(super) fn template(mut nodes: Vec<Node>, columns: &Columns, edges: Edges) -> String {
    let mut open = false;
    if edges == Edges::Stripped {
        let start = strip(nodes.iter_mut(), str::trim_start);
        let end = strip(nodes.iter_mut().rev(), str::trim_end);
        open = start || end;
        nodes.retain(|node| !matches!(node, Node::Data(text) if text.is_empty()));
    }
    let mut writer = Writer {
        columns,
        text: String::new(),
    };
    if let ([Node::Output(source)], true) = (nodes.as_slice(), open) {
        return stripped(source, columns);
    }
    if open {
        let branches = vec![("filter trim".to_owned(), nodes)];
        let close = "endfilter".to_owned();
        nodes = vec![Node::Block { branches, close }];
    }
    writer.nodes(&nodes, None);
    writer.text
}

/// Writes one expression without white space around it. Answers to choose from have none.
fn stripped(source: &str, columns: &Columns) -> String {
    let is_answer = minijinja::machinery::parse_expr(source).is_ok_and(|expr| is_answer(&expr));
    let text = text_of(source, columns);
    if is_answer {
        return format!("{{{{ {text} }}}}");
    }
    format!("{{{{ {} | trim }}}}", operand(&text))
}

fn is_answer(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::GetItem(item) => matches!(&item.expr, Expr::Var(name) if name.id == "answer_choices"),
        _ => false,
    }
}

/// Writes an expression so that it gives text.
pub(super) fn text_of(source: &str, columns: &Columns) -> String {
    if columns.is_writable(source) {
        source.to_owned()
    } else {
        format!("{} | string", operand(source))
    }
}

/// Puts brackets around an expression that does not bind as a filter does.
pub(super) fn operand(source: &str) -> String {
    let binds = minijinja::machinery::parse_expr(source).is_ok_and(|expr| {
        matches!(
            expr,
            Expr::Var(_)
                | Expr::Const(_)
                | Expr::GetAttr(_)
                | Expr::GetItem(_)
                | Expr::Slice(_)
                | Expr::Call(_)
                | Expr::Filter(_)
                | Expr::List(_)
        )
    });
    if binds {
        source.to_owned()
    } else {
        format!("({source})")
    }
}

/// Trims the text at one end, and tells whether something else may leave white space there.
fn strip<'n>(nodes: impl Iterator<Item = &'n mut Node>, trim: fn(&str) -> &str) -> bool {
    for node in nodes {
        match node {
            Node::Data(text) => {
                *text = trim(text).to_owned();
                if !text.is_empty() {
                    return false;
                }
            }
            Node::Statement(_) => {}
            Node::Output(_) | Node::Block { .. } => return true,
        }
    }
    false
}

struct Writer<'c> {
    columns: &'c Columns,
    text: String,
}

impl Writer<'_> {
    /// Writes pieces before a tag, or before the end.
    fn nodes(&mut self, nodes: &[Node], after: Option<&Node>) {
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes.get(index + 1).or(after);
            match node {
                Node::Data(text) => self.data(text, next.is_some()),
                Node::Output(source) => {
                    let source = text_of(source, self.columns);
                    self.text.push_str(&format!("{{{{ {source} }}}}"));
                }
                Node::Statement(tag) => self.tag(tag, next),
                Node::Block { branches, close } => {
                    // Whatever stands behind text in a block, it is a tag.
                    let tag_follows = Node::Statement(String::new());
                    for (tag, inside) in branches {
                        self.tag(tag, inside.first());
                        self.nodes(inside, Some(&tag_follows));
                    }
                    self.tag(close, next);
                }
            }
        }
    }

    /// Writes a tag that leaves the white space around it as it is.
    fn tag(&mut self, tag: &str, next: Option<&Node>) {
        let line = self.text.rsplit('\n').next().unwrap_or_default();
        let indented = !line.is_empty() && line.trim().is_empty();
        let breaks = matches!(next, Some(Node::Data(text)) if text.starts_with(['\n', '\r']));
        let (open, close) = (if indented { "+" } else { "" }, if breaks { "+" } else { "" });
        self.text.push_str(&format!("{{%{open} {tag} {close}%}}"));
    }

    /// Writes text, with what would mean something in a template in quotes.
    fn data(&mut self, text: &str, tag_follows: bool) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let opens = ["{{", "{%", "{#"].iter().any(|open| rest.starts_with(open));
            let literal = match special_name_at_start(rest) {
                Some(name) => name,
                None if opens => rest.get(..2).unwrap_or_default(),
                None if rest == "{" && tag_follows => rest,
                None => {
                    self.text.push(c);
                    rest = rest.get(c.len_utf8()..).unwrap_or_default();
                    continue;
                }
            };
            self.text.push_str(&format!("{{{{ {} }}}}", quoted(literal)));
            rest = rest.get(literal.len()..).unwrap_or_default();
        }
    }
}
