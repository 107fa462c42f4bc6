//! Prompt and target of a template that writes both, with `|||` between them.
//!
//! The template is rendered as a whole and cut afterwards, so the separator may be inside of `{% if %}`, and
//! what is set before it is known behind it. Cutting the template instead gives the target the assignments of
//! the prompt, and each branch its own part of both.

use std::collections::HashSet;

use super::error::ImportError;
use super::jinja::{Node, words};

/// What stands between the prompt and the target, and between answers to choose from.
pub(super) const SEPARATOR: &str = "|||";

/// A template as two.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Split {
    pub(super) prompt: Vec<Node>,
    pub(super) target: Vec<Node>,
    /// How the separator is met.
    pub(super) met: Met,
}

/// How often a piece of a template writes the separator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Met {
    /// Never.
    #[default]
    Never,
    /// In some branches.
    Sometimes,
    /// Once.
    Once,
}

/// Cuts a template at its separator.
pub(super) fn split(nodes: &[Node]) -> Result<Split, ImportError> {
    let mut split = cut(nodes)?;
    prune(&mut split.prompt);
    prune(&mut split.target);
    Ok(split)
}

fn cut(nodes: &[Node]) -> Result<Split, ImportError> {
    let mut split = Split::default();
    for node in nodes {
        match (node, split.met) {
            (Node::Data(text), met) => match (text.split_once(SEPARATOR), met) {
                (Some((before, after)), Met::Never) if !after.contains(SEPARATOR) => {
                    split.prompt.push(Node::Data(before.to_owned()));
                    split.target.push(Node::Data(after.to_owned()));
                    split.met = Met::Once;
                }
                (Some(_), _) => return Err(separator("it may be written twice")),
                (None, Met::Never) => split.prompt.push(node.clone()),
                (None, _) => split.target.push(node.clone()),
            },
            (Node::Output(source) | Node::Statement(source), _) if source.contains(SEPARATOR) => {
                return Err(separator("it is in a text of an expression"));
            }
            (Node::Statement(_), Met::Never) => {
                split.prompt.push(node.clone());
                split.target.push(node.clone());
            }
            (Node::Output(_), Met::Never) => split.prompt.push(node.clone()),
            (Node::Output(_) | Node::Statement(_), _) => split.target.push(node.clone()),
            (Node::Block { branches, close }, met) => {
                let met_inside = cut_block(&mut split, branches, close)?;
                split.met = match (met, met_inside) {
                    (met, Met::Never) => met,
                    (Met::Never, inside) => inside,
                    _ => return Err(separator("it may be written twice")),
                };
            }
        }
    }
    Ok(split)
}

/// Cuts each branch of a block, and adds the halves to both sides.
fn cut_block(split: &mut Split, branches: &[(String, Vec<Node>)], close: &str) -> Result<Met, ImportError> {
    let is_if = branches.first().is_some_and(|(tag, _)| Node::word(tag) == "if");
    let mut halves = Vec::with_capacity(branches.len());
    for (tag, inside) in branches {
        halves.push((tag.clone(), cut(inside)?));
    }
    let has_else = branches.last().is_some_and(|(tag, _)| Node::word(tag) == "else");
    let everywhere = has_else && halves.iter().all(|(_, half)| half.met == Met::Once);
    let nowhere = halves.iter().all(|(_, half)| half.met == Met::Never);
    if !nowhere && !is_if {
        return Err(separator("it is inside of a loop or a filter"));
    }
    let before_separator = split.met == Met::Never;
    let block = |half: fn(Split) -> Vec<Node>, halves: Vec<(String, Split)>| Node::Block {
        branches: halves
            .into_iter()
            .map(|(tag, split)| (tag, half(split)))
            .collect(),
        close: close.to_owned(),
    };
    if nowhere && !before_separator {
        split.target.push(block(|half| half.prompt, halves));
        return Ok(Met::Never);
    }
    let twin = halves
        .iter()
        .map(|(tag, half)| {
            let (prompt, target, met) = (half.prompt.clone(), half.target.clone(), half.met);
            (tag.clone(), Split { prompt, target, met })
        })
        .collect();
    split.prompt.push(block(|half| half.prompt, halves));
    split.target.push(block(|half| half.target, twin));
    Ok(match (nowhere, everywhere) {
        (true, _) => Met::Never,
        (false, true) => Met::Once,
        (false, false) => Met::Sometimes,
    })
}

fn separator(why: &str) -> ImportError {
    let message = format!("the separator `{SEPARATOR}` must stand once, in text: {why}");
    ImportError::Separator { message }
}

/// Removes assignments that nothing reads, and blocks that hold nothing.
fn prune(nodes: &mut Vec<Node>) {
    loop {
        let mut read = HashSet::new();
        collect_read(nodes, &mut read);
        if !prune_unread(nodes, &read) {
            return;
        }
    }
}

/// Notes the names that are read. An assignment reads its own name where it stands on both sides.
fn collect_read(nodes: &[Node], read: &mut HashSet<String>) {
    for node in nodes {
        match node {
            Node::Data(_) => {}
            Node::Output(source) => read.extend(words(source).into_iter().map(str::to_owned)),
            Node::Statement(source) => {
                let assigned = assigned(source).unwrap_or_default();
                let value = source.split_once('=').map_or("", |(_, value)| value);
                let names = words(value).into_iter().filter(|name| *name != assigned);
                read.extend(names.map(str::to_owned));
            }
            Node::Block { branches, .. } => {
                for (tag, inside) in branches {
                    read.extend(words(tag).into_iter().map(str::to_owned));
                    collect_read(inside, read);
                }
            }
        }
    }
}

/// Returns the name that `set name = value`, `set name.attribute = value` or `set a, b = value` assigns.
fn assigned(statement: &str) -> Option<&str> {
    let (left, _) = statement.strip_prefix("set")?.split_once('=')?;
    let name = left.split(['.', '[']).next()?.trim();
    (!name.contains(',')).then_some(name)
}

fn prune_unread(nodes: &mut Vec<Node>, read: &HashSet<String>) -> bool {
    let before = nodes.len();
    nodes.retain(|node| match node {
        Node::Statement(source) => assigned(source).is_none_or(|name| read.contains(name)),
        _ => true,
    });
    let mut changed = nodes.len() != before;
    for node in nodes.iter_mut() {
        if let Node::Block { branches, .. } = node {
            for (_, inside) in branches {
                changed |= prune_unread(inside, read);
            }
        }
    }
    let before = nodes.len();
    nodes.retain(|node| match node {
        Node::Block { branches, .. } => branches.iter().any(|(_, inside)| !inside.is_empty()),
        Node::Data(text) => !text.is_empty(),
        _ => true,
    });
    changed || nodes.len() != before
}

#[cfg(test)]
mod tests {
    use super::super::jinja::parse;
    use super::*;

    fn halves(source: &str) -> Result<Split, ImportError> {
        split(&parse(source, &mut Vec::new()).unwrap())
    }

    #[test]
    fn assignments_before_the_separator_are_known_behind_it() {
        let split = halves("{% set x = a %}{% set y = b %}{{ y }}|||{{ x }}").unwrap();
        assert_eq!(split.met, Met::Once);
        assert_eq!(
            split.prompt,
            [Node::Statement("set y = b".into()), Node::Output("y".into())]
        );
        assert_eq!(
            split.target,
            [Node::Statement("set x = a".into()), Node::Output("x".into())]
        );
    }

    #[test]
    fn a_separator_in_each_branch_cuts_each() {
        let split = halves("{% if a %}b ||| c{% else %}d ||| e{% endif %}f").unwrap();
        assert_eq!(split.met, Met::Once);
        assert_eq!(split.target.last(), Some(&Node::Data("f".into())));
    }

    #[test]
    fn a_separator_that_may_come_twice_is_refused() {
        for source in [
            "a ||| b ||| c",
            "{% if a %}b ||| c{% endif %}d ||| e",
            "{% for a in b %}c ||| d{% endfor %}",
            "{{ a | join('|||') }}",
        ] {
            assert!(halves(source).is_err(), "{source}");
        }
    }
}
