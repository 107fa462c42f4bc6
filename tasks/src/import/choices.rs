//! Answers to choose from, which a template writes with `|||` between them.

use super::error::ImportError;
use super::jinja::{Node, quoted, words};
use super::split::SEPARATOR;
use super::uses::Columns;
use super::write::{operand, text_of};

/// Answers to choose from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answers {
    /// The same for every row.
    Listed(Vec<String>),
    /// A template each of whose `{{ }}` gives answers.
    Computed(String),
}

/// Reads the template of answers.
pub(super) fn answers(nodes: &[Node], columns: &Columns) -> Result<Answers, ImportError> {
    if let [Node::Data(text)] = nodes {
        let listed = text.split(SEPARATOR).map(|answer| answer.trim().to_owned());
        return Ok(Answers::Listed(listed.collect()));
    }
    let mut writer = Writer {
        columns,
        text: String::new(),
        part: Vec::new(),
        wants_separator: false,
    };
    writer.nodes(nodes)?;
    writer.end_part(true)?;
    Ok(Answers::Computed(writer.text))
}

struct Writer<'c> {
    columns: &'c Columns,
    text: String,
    /// The pieces of the answer that is being read.
    part: Vec<Node>,
    /// Whether an answer has just ended with a block, so that nothing may be added to it.
    wants_separator: bool,
}

impl Writer<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<(), ImportError> {
        for node in nodes {
            match node {
                Node::Data(text) => self.data(text)?,
                Node::Output(_) => {
                    self.check_separated()?;
                    self.part.push(node.clone());
                }
                Node::Statement(tag) => self.text.push_str(&format!("{{% {tag} %}}")),
                Node::Block { branches, close } => self.block(branches, close)?,
            }
        }
        Ok(())
    }

    fn data(&mut self, text: &str) -> Result<(), ImportError> {
        let mut parts = text.split(SEPARATOR);
        let first = parts.next().unwrap_or_default();
        if !first.trim().is_empty() {
            self.check_separated()?;
        }
        self.part.push(Node::Data(first.to_owned()));
        for part in parts {
            if self.wants_separator {
                self.part.clear();
                self.wants_separator = false;
            } else {
                self.end_part(true)?;
            }
            self.part.push(Node::Data(part.to_owned()));
        }
        Ok(())
    }

    /// Writes the answers of a block, which starts and ends between answers.
    fn block(&mut self, branches: &[(String, Vec<Node>)], close: &str) -> Result<(), ImportError> {
        let is_loop = branches.first().is_some_and(|(tag, _)| Node::word(tag) == "for");
        let is_if = branches.first().is_some_and(|(tag, _)| Node::word(tag) == "if");
        if !self.is_blank() || !(is_loop || is_if) {
            return Err(wrong("an answer has `{% if %}` or another tag inside of it"));
        }
        self.part.clear();
        for (tag, inside) in branches {
            self.text.push_str(&format!("{{% {tag} %}}"));
            self.nodes(inside)?;
            if is_loop && !self.is_blank() {
                return Err(wrong("a loop writes answers without a separator behind each"));
            }
            self.end_part(is_if && !only_statements(inside))?;
        }
        self.text.push_str(&format!("{{% {close} %}}"));
        self.wants_separator = is_if;
        Ok(())
    }

    fn check_separated(&self) -> Result<(), ImportError> {
        if self.wants_separator {
            return Err(wrong("there is no separator behind the answers of `{% if %}`"));
        }
        Ok(())
    }

    fn is_blank(&self) -> bool {
        self.part
            .iter()
            .all(|node| matches!(node, Node::Data(text) if text.trim().is_empty()))
    }

    /// Writes the answer that ends here.
    fn end_part(&mut self, required: bool) -> Result<(), ImportError> {
        let part = std::mem::take(&mut self.part);
        let blank = |node: &Node| matches!(node, Node::Data(text) if text.trim().is_empty());
        if part.iter().all(blank) {
            if required && !self.wants_separator {
                return Err(wrong("one of them is empty"));
            }
            return Ok(());
        }
        let outer: Vec<&Node> = part.iter().filter(|node| !blank(node)).collect();
        let written = match outer.as_slice() {
            [Node::Output(source)] => match joined(source) {
                Some(list) => {
                    format!("{{% for answer in {list} %}}{{{{ answer | string | trim }}}}{{% endfor %}}")
                }
                None => format!("{{{{ {} | trim }}}}", operand(&text_of(source, self.columns))),
            },
            [Node::Data(text)] => format!("{{{{ {} }}}}", quoted(text.trim())),
            _ => format!("{{{{ ({}) | trim }}}}", self.concatenated(&part)?),
        };
        self.text.push_str(&written);
        Ok(())
    }

    fn concatenated(&self, part: &[Node]) -> Result<String, ImportError> {
        let pieces = part.iter().map(|node| match node {
            Node::Data(text) => Ok(quoted(text)),
            Node::Output(source) if joined(source).is_none() => {
                Ok(format!("({})", text_of(source, self.columns)))
            }
            _ => Err(wrong("a list of them stands beside other text")),
        });
        Ok(pieces.collect::<Result<Vec<_>, _>>()?.join(" ~ "))
    }
}

fn only_statements(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Statement(_)))
}

/// Returns the list of `list | join("|||")`, as it is written.
fn joined(source: &str) -> Option<&str> {
    let (list, call) = source.split_at(source.rfind("join")?);
    let list = list.trim_end().strip_suffix('|')?.trim_end();
    let argument = call
        .strip_prefix("join")?
        .trim()
        .strip_prefix('(')?
        .strip_suffix(')')?;
    let text = argument.trim().trim_matches(['"', '\'']);
    let is_separator = text.trim() == SEPARATOR && words(argument).is_empty();
    is_separator.then_some(list)
}

fn wrong(message: &str) -> ImportError {
    let message = message.to_owned();
    ImportError::Choices { message }
}

#[cfg(test)]
mod tests {
    use super::super::jinja::parse;
    use super::*;

    fn computed(source: &str) -> String {
        let mut columns = Columns::default();
        columns.read(source, &[]).unwrap();
        match answers(&parse(source, &mut Vec::new()).unwrap(), &columns).unwrap() {
            Answers::Computed(text) => text,
            Answers::Listed(answers) => answers.join("/"),
        }
    }

    #[test]
    fn answers_between_separators_are_written_each_by_itself() {
        assert_eq!(computed("yes ||| no"), "yes/no");
        assert_eq!(computed("{{ a }} ||| {{ b }}"), "{{ a | trim }}{{ b | trim }}");
        assert_eq!(
            computed("x {{ a }} ||| no"),
            "{{ (\"x \" ~ (a) ~ \" \") | trim }}{{ \"no\" }}"
        );
        assert_eq!(
            computed("{{ options.text | join(\" ||| \") }}"),
            "{% for answer in options.text %}{{ answer | string | trim }}{% endfor %}"
        );
        assert_eq!(
            computed("{% for a in b[:-1] %}{{ a }} ||| {% endfor %}{{ b[-1] }}"),
            "{% for a in b[:-1] %}{{ a | string | trim }}{% endfor %}{{ b[-1] | string | trim }}"
        );
    }

    #[test]
    fn answers_that_cannot_be_told_apart_are_refused() {
        for source in [
            "{{ a }} |||",
            "{% for a in b %}{{ a }}{% endfor %}",
            "x{% if a %}b{% endif %}",
        ] {
            let nodes = parse(source, &mut Vec::new()).unwrap();
            assert!(answers(&nodes, &Columns::default()).is_err(), "{source}");
        }
    }
}
