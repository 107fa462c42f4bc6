//! Lists that a foreign template grows in place: `numbers.append(1)`. Values of task files do not change, so
//! such a list becomes a member of a `namespace`, which a template may set anew.

use std::collections::HashSet;
use std::ops::Range;

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The member of the namespace.
const MEMBER: &str = "list";

/// The tokens of a tag, each with its bytes.
type Tokens<'s> = Vec<(Token<'s>, Range<usize>)>;

/// A tag: its tokens, and the bytes of its opening and of its closing sign.
struct Tag<'s> {
    tokens: Tokens<'s>,
    open: Range<usize>,
    close: Range<usize>,
}

/// An `append` that is all that a tag does.
struct Append {
    /// The list as it is written, and its name if it is a name alone.
    list: String,
    is_name: bool,
    /// The bytes of what is added.
    item: Range<usize>,
    /// What the tag writes.
    written: &'static str,
}

/// Writes a template without `append`, where every one is all that its tag does, and every list is set by the
/// template itself. Any other template is returned as it is.
pub(super) fn without_append(source: &str) -> String {
    rewritten(source).unwrap_or_else(|| source.to_owned())
}

fn rewritten(source: &str) -> Option<String> {
    let tags = tags(source)?;
    let appends: Vec<Option<Append>> = tags.iter().map(|tag| append(source, tag)).collect();
    if appends.iter().all(Option::is_none) {
        return None;
    }
    let lists: HashSet<&str> = appends
        .iter()
        .flatten()
        .filter(|append| append.is_name)
        .map(|append| append.list.as_str())
        .collect();
    let is_set = |list: &&str| tags.iter().any(|tag| assigned(tag) == Some(*list));
    if !lists.iter().all(is_set) || tags.iter().any(|tag| rebinds(tag, &lists)) {
        return None;
    }
    let mut text = String::with_capacity(source.len());
    let mut position = 0;
    for (tag, append) in tags.iter().zip(&appends) {
        text.push_str(source.get(position..tag.open.start)?);
        position = tag.close.end;
        let Some(append) = append else {
            text.push_str(source.get(tag.open.clone())?);
            text.push_str(&renamed(source, tag, &lists, tag.open.end..tag.close.start)?);
            text.push_str(source.get(tag.close.clone())?);
            continue;
        };
        let list = if append.is_name {
            format!("{}.{MEMBER}", append.list)
        } else {
            append.list.clone()
        };
        let item = renamed(source, tag, &lists, append.item.clone())?;
        let open = source.get(tag.open.clone())?.replacen("{{", "{%", 1);
        let close = source.get(tag.close.clone())?.replacen("}}", "%}", 1);
        text.push_str(&format!(
            "{open} set {list} = {list} + [{item}] {close}{}",
            append.written
        ));
    }
    text.push_str(source.get(position..)?);
    Some(text)
}

fn tags(source: &str) -> Option<Vec<Tag<'_>>> {
    let bytes = |span: Span| span.start_offset as usize..span.end_offset as usize;
    let mut tags: Vec<Tag<'_>> = Vec::new();
    let mut open: Option<(Range<usize>, Tokens<'_>)> = None;
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.ok()?;
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => open = Some((bytes(span), Vec::new())),
            Token::VariableEnd | Token::BlockEnd => {
                let (start, tokens) = open.take()?;
                tags.push(Tag {
                    tokens,
                    open: start,
                    close: bytes(span),
                });
            }
            token => open.as_mut()?.1.push((token, bytes(span))),
        }
    }
    Some(tags)
}

/// Returns the name that `set name = value` sets.
fn assigned<'s>(tag: &Tag<'s>) -> Option<&'s str> {
    match tag.tokens.as_slice() {
        [
            (Token::Ident("set"), _),
            (Token::Ident(name), _),
            (Token::Assign, _),
            ..,
        ] => Some(name),
        _ => None,
    }
}

/// Tells whether a loop gives one of the names to something else.
fn rebinds(tag: &Tag<'_>, lists: &HashSet<&str>) -> bool {
    let [(Token::Ident("for"), _), rest @ ..] = tag.tokens.as_slice() else {
        return false;
    };
    let targets = rest
        .iter()
        .take_while(|(token, _)| !matches!(token, Token::Ident("in")));
    targets
        .into_iter()
        .any(|(token, _)| matches!(token, Token::Ident(name) if lists.contains(name)))
}

/// Reads `list.append(item)`, with nothing around it but what keeps it from being written.
fn append(source: &str, tag: &Tag<'_>) -> Option<Append> {
    let is_set = assigned(tag).is_some();
    let skipped = match tag.tokens.as_slice() {
        [(Token::Ident("do"), _), ..] => 1,
        _ if is_set => 3,
        [(Token::Ident(_), _), ..] if source.get(tag.open.clone())?.starts_with("{{") => 0,
        _ => return None,
    };
    let tokens = tag.tokens.get(skipped..)?;
    let call = tokens.windows(3).position(|tokens| {
        matches!(
            tokens,
            [
                (Token::Dot, _),
                (Token::Ident("append"), _),
                (Token::ParenOpen, _)
            ]
        )
    })?;
    let path = tokens.get(..call)?;
    let is_path = path
        .iter()
        .all(|(token, _)| matches!(token, Token::Ident(_) | Token::Dot));
    let (start, end) = (path.first()?.1.start, path.last()?.1.end);
    let close = closing(tokens, call + 2)?;
    let rest = tokens.get(close + 1..)?;
    let is_silent = match rest {
        [] => false,
        [(Token::Ident("or"), _), (Token::Str(""), _)]
        | [
            (Token::Pipe, _),
            (Token::Ident("default" | "d"), _),
            (Token::ParenOpen, _),
            (Token::Str(""), _),
            (Token::Comma, _),
            (Token::Ident("True" | "true"), _),
            (Token::ParenClose, _),
        ] => true,
        _ => return None,
    };
    let item = tokens.get(call + 2)?.1.end..tokens.get(close)?.1.start;
    (is_path && !source.get(item.clone())?.trim().is_empty()).then(|| Append {
        list: source.get(start..end).unwrap_or_default().to_owned(),
        is_name: path.len() == 1,
        item,
        written: if skipped == 0 && !is_silent { "None" } else { "" },
    })
}

/// Finds the bracket that closes the one at `open`.
fn closing(tokens: &[(Token<'_>, Range<usize>)], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, (token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => depth += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// Writes a part of a tag with the member of the namespace in place of each list.
fn renamed(source: &str, tag: &Tag<'_>, lists: &HashSet<&str>, part: Range<usize>) -> Option<String> {
    let mut text = String::new();
    let mut position = part.start;
    let sets = assigned(tag).filter(|name| lists.contains(name));
    for (index, (token, bytes)) in tag.tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| tag.tokens.get(index));
        let is_member = matches!(before, Some((Token::Dot, _)));
        let next = tag.tokens.get(index + 1);
        let is_assigned = matches!(next, Some((Token::Assign, _)));
        let is_list =
            matches!(token, Token::Ident(name) if lists.contains(name)) && !is_member && !is_assigned;
        if !is_list || bytes.start < part.start || bytes.end > part.end {
            continue;
        }
        text.push_str(source.get(position..bytes.end)?);
        text.push_str(&format!(".{MEMBER}"));
        position = bytes.end;
    }
    text.push_str(source.get(position..part.end)?);
    if sets.is_none() || part.end != tag.close.start {
        return Some(text);
    }
    let (head, value) = text.split_once('=')?;
    Some(format!("{head}= namespace({MEMBER}={}) ", value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_grows_is_a_member_of_a_namespace() {
        assert_eq!(
            without_append(
                "{% set a = [] %}{% for b in c %}{{ a.append(b) or \"\" }}{% endfor %}{{ a | join }}"
            ),
            "{% set a = namespace(list=[]) %}{% for b in c %}{% set a.list = a.list + [b] %}{% endfor %}{{ a.list | join }}"
        );
        assert_eq!(
            without_append("{% set n = namespace(v=[]) %}{%- set _ = n.v.append(1) -%}"),
            "{% set n = namespace(v=[]) %}{%- set n.v = n.v + [1] -%}"
        );
    }

    #[test]
    fn a_column_that_grows_and_a_template_without_append_stay_as_they_are() {
        for source in [
            "{{ column.append(1) }}",
            "{% set a = [] %}{{ a }}",
            "{{ a.append(1) + 2 }}",
        ] {
            assert_eq!(without_append(source), source);
        }
    }
}
