//! A regular language as the texts that may still follow, which knows how it ends soonest.
//!
//! An expression is what may still be written. Reading a byte gives another expression, its derivative; and the
//! shortest text that is left to write is found by looking at the expression alone. That is what constrained answers
//! need besides a mask: to be complete before the tokens run out.
//!
//! Source: Owens, Reppy and Turon 2009, "Regular-expression derivatives re-examined", section 3.

use std::collections::HashMap;

/// The most expressions that one answer may lead to; a language that needs more is refused or its answer fails.
const MAX_NODES: usize = 1 << 18;

/// Names an expression of one [`Language`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Expression(u32);

impl Expression {
    /// Matches nothing, not even the empty text.
    pub(super) const NEVER: Self = Self(0);
    /// Matches the empty text.
    pub(super) const EMPTY: Self = Self(1);
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(super) fn of(byte: u8) -> Self {
        let mut set = Self::default();
        set.insert(byte, byte);
        set
    }

    /// Adds the bytes from `first` to `last`.
    pub(super) fn insert(&mut self, first: u8, last: u8) {
        for byte in first..=last {
            if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
                *word |= 1 << (byte & 63);
            }
        }
    }

    fn contains(self, byte: u8) -> bool {
        let word = self.0.get(usize::from(byte >> 6));
        word.is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    /// Chooses the byte that an answer is completed with: a letter or digit where one will do, and one that can be
    /// written.
    fn example(self, writable: ByteSet) -> Option<u8> {
        let plain = (b'a'..=b'z').chain(b'0'..=b'9').chain(b'A'..=b'Z');
        let mut own = plain.chain(0..=u8::MAX).filter(|byte| self.contains(*byte));
        let first = own.clone().next();
        own.find(|byte| writable.contains(*byte)).or(first)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    Never,
    Empty,
    Bytes(ByteSet),
    Concat(Expression, Expression),
    /// Sorted, without repetitions, at least two.
    Or(Box<[Expression]>),
    /// At least so many times, at most so many; without a bound above where there is none.
    Repeat(Expression, u32, Option<u32>),
}

/// What is known of an expression from its parts.
#[derive(Clone, Debug)]
struct Facts {
    node: Node,
    is_accepting: bool,
    /// The bytes of its shortest text; saturates, and means nothing where there is no text.
    shortest: u32,
}

/// Expressions that share their parts, and the derivatives that were taken.
#[derive(Clone, Debug)]
pub(super) struct Language {
    facts: Vec<Facts>,
    known: HashMap<Node, Expression>,
    derivatives: HashMap<(Expression, u8), Expression>,
    /// The bytes that can be written on their own; completions prefer them.
    writable: ByteSet,
}

impl Language {
    pub(super) fn new(writable: ByteSet) -> Self {
        let mut language = Self {
            facts: Vec::new(),
            known: HashMap::new(),
            derivatives: HashMap::new(),
            writable,
        };
        language.intern(Node::Never);
        language.intern(Node::Empty);
        language
    }

    /// Tells whether more expressions were made than one answer may need.
    pub(super) fn is_too_large(&self) -> bool {
        self.facts.len() > MAX_NODES
    }

    fn intern(&mut self, node: Node) -> Expression {
        if let Some(known) = self.known.get(&node) {
            return *known;
        }
        let (is_accepting, shortest) = self.measure(&node);
        // `is_too_large` is asked long before ids run out.
        let expression = Expression(u32::try_from(self.facts.len()).unwrap_or(u32::MAX));
        self.facts.push(Facts {
            node: node.clone(),
            is_accepting,
            shortest,
        });
        self.known.insert(node, expression);
        expression
    }

    fn measure(&self, node: &Node) -> (bool, u32) {
        match node {
            Node::Never => (false, u32::MAX),
            Node::Empty => (true, 0),
            Node::Bytes(_) => (false, 1),
            Node::Concat(a, b) => (
                self.is_accepting(*a) && self.is_accepting(*b),
                self.shortest(*a).saturating_add(self.shortest(*b)),
            ),
            Node::Or(parts) => (
                parts.iter().any(|part| self.is_accepting(*part)),
                parts
                    .iter()
                    .map(|part| self.shortest(*part))
                    .min()
                    .unwrap_or(u32::MAX),
            ),
            Node::Repeat(part, least, _) => (
                *least == 0 || self.is_accepting(*part),
                self.shortest(*part).saturating_mul(*least),
            ),
        }
    }

    fn node(&self, expression: Expression) -> &Node {
        let facts = self.facts.get(expression.0 as usize);
        facts.map_or(&Node::Never, |facts| &facts.node)
    }

    /// Tells whether nothing more has to be written.
    pub(super) fn is_accepting(&self, expression: Expression) -> bool {
        let facts = self.facts.get(expression.0 as usize);
        facts.is_some_and(|facts| facts.is_accepting)
    }

    fn shortest(&self, expression: Expression) -> u32 {
        let facts = self.facts.get(expression.0 as usize);
        facts.map_or(u32::MAX, |facts| facts.shortest)
    }

    /// Matches one of a set of bytes.
    pub(super) fn bytes(&mut self, set: ByteSet) -> Expression {
        if set == ByteSet::default() {
            return Expression::NEVER;
        }
        self.intern(Node::Bytes(set))
    }

    /// Matches one text.
    pub(super) fn literal(&mut self, text: &[u8]) -> Expression {
        let rest = text.iter().rev();
        rest.fold(Expression::EMPTY, |rest, byte| {
            let first = self.bytes(ByteSet::of(*byte));
            self.concat(first, rest)
        })
    }

    /// Matches one expression, then the other.
    pub(super) fn concat(&mut self, a: Expression, b: Expression) -> Expression {
        match (a, b) {
            (Expression::NEVER, _) | (_, Expression::NEVER) => Expression::NEVER,
            (Expression::EMPTY, other) | (other, Expression::EMPTY) => other,
            _ => {
                // Leaning to the right, so that equal rests are the same expression. What is written can be as long as an
                // expression, so it is gone through without recursion.
                let (mut firsts, mut last) = (Vec::new(), a);
                while let Node::Concat(first, second) = *self.node(last) {
                    firsts.push(first);
                    last = second;
                }
                firsts.push(last);
                let firsts = firsts.into_iter().rev();
                firsts.fold(b, |rest, first| self.intern(Node::Concat(first, rest)))
            }
        }
    }

    /// Matches all expressions, one after the other.
    pub(super) fn sequence(&mut self, parts: &[Expression]) -> Expression {
        let parts = parts.iter().rev();
        parts.fold(Expression::EMPTY, |rest, part| self.concat(*part, rest))
    }

    /// Matches any of the expressions.
    pub(super) fn or(&mut self, parts: impl IntoIterator<Item = Expression>) -> Expression {
        let mut all: Vec<Expression> = Vec::new();
        for part in parts {
            match self.node(part) {
                Node::Never => {}
                Node::Or(inner) => all.extend(inner.iter().copied()),
                _ => all.push(part),
            }
        }
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [] => Expression::NEVER,
            [one] => *one,
            _ => self.intern(Node::Or(all.into())),
        }
    }

    /// Matches an expression `least` to `most` times.
    pub(super) fn repeat(&mut self, part: Expression, least: u32, most: Option<u32>) -> Expression {
        match (part, least, most) {
            (_, _, Some(0)) | (Expression::EMPTY, ..) | (Expression::NEVER, 0, _) => Expression::EMPTY,
            (Expression::NEVER, ..) => Expression::NEVER,
            (_, 1, Some(1)) => part,
            _ => self.intern(Node::Repeat(part, least, most)),
        }
    }

    /// Returns what may follow once `byte` was written.
    pub(super) fn derivative(&mut self, expression: Expression, byte: u8) -> Expression {
        let key = (expression, byte);
        if let Some(known) = self.derivatives.get(&key) {
            return *known;
        }
        let derivative = match self.node(expression).clone() {
            Node::Never | Node::Empty => Expression::NEVER,
            Node::Bytes(set) if set.contains(byte) => Expression::EMPTY,
            Node::Bytes(_) => Expression::NEVER,
            Node::Concat(..) => {
                // The byte may belong to any part before which all others may be empty.
                let (mut ways, mut rest) = (Vec::new(), expression);
                while let Node::Concat(first, second) = *self.node(rest) {
                    let derivative = self.derivative(first, byte);
                    ways.push(self.concat(derivative, second));
                    rest = second;
                    if !self.is_accepting(first) {
                        rest = Expression::NEVER;
                    }
                }
                ways.push(self.derivative(rest, byte));
                self.or(ways)
            }
            Node::Or(parts) => {
                let parts: Vec<Expression> = parts.iter().map(|part| self.derivative(*part, byte)).collect();
                self.or(parts)
            }
            Node::Repeat(part, least, most) => {
                let first = self.derivative(part, byte);
                let rest = self.repeat(
                    part,
                    least.saturating_sub(1),
                    most.map(|most| most.saturating_sub(1)),
                );
                self.concat(first, rest)
            }
        };
        self.derivatives.insert(key, derivative);
        derivative
    }

    /// Returns what may follow once some bytes were written; nothing where they cannot be.
    pub(super) fn read(&mut self, expression: Expression, bytes: &[u8]) -> Option<Expression> {
        let mut expression = expression;
        for byte in bytes {
            expression = self.derivative(expression, *byte);
            if expression == Expression::NEVER || self.is_too_large() {
                return None;
            }
        }
        Some(expression)
    }

    /// Writes the shortest text that an expression matches, or nothing where it is longer than `limit` bytes or there is
    /// none.
    pub(super) fn completion(&self, expression: Expression, limit: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(self.shortest(expression)).ok()?;
        if length > limit {
            return None;
        }
        let mut text = Vec::with_capacity(length);
        let mut rest = vec![expression];
        while let Some(expression) = rest.pop() {
            match self.node(expression) {
                Node::Never => return None,
                Node::Empty => {}
                Node::Bytes(set) => text.push(set.example(self.writable)?),
                Node::Concat(a, b) => rest.extend([*b, *a]),
                Node::Or(parts) => rest.push(*parts.iter().min_by_key(|part| self.shortest(**part))?),
                Node::Repeat(_, 0, _) => {}
                // Its text is empty, however often it is repeated.
                Node::Repeat(part, ..) if self.shortest(*part) == 0 => {}
                Node::Repeat(part, least, _) => rest.extend((0..*least).map(|_| *part)),
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(ab|c){2,3}` and then one of `x` to `z`.
    fn example(language: &mut Language) -> Expression {
        let (ab, c) = (language.literal(b"ab"), language.literal(b"c"));
        let either = language.or([ab, c]);
        let repeated = language.repeat(either, 2, Some(3));
        let mut set = ByteSet::default();
        set.insert(b'x', b'z');
        let last = language.bytes(set);
        language.concat(repeated, last)
    }

    #[test]
    fn derivatives_follow_texts_of_the_language_and_no_others() {
        let mut language = Language::new(ByteSet::default());
        let start = example(&mut language);
        let mut accepts = |text: &str| {
            let end = language.read(start, text.as_bytes());
            end.is_some_and(|end| language.is_accepting(end))
        };
        assert!(
            ["ccx", "abcy", "ababz", "cabcx", "cccz"]
                .iter()
                .all(|text| accepts(text))
        );
        assert!(
            !["", "cx", "cccc", "ccccx", "abc", "ccw", "acx"]
                .iter()
                .any(|text| accepts(text))
        );
    }

    #[test]
    fn a_completion_is_the_shortest_from_every_prefix() {
        let mut language = Language::new(ByteSet::default());
        let start = example(&mut language);
        for (prefix, rest) in [
            ("", "ccx"),
            ("c", "cx"),
            ("a", "bcx"),
            ("aba", "bx"),
            ("ccc", "x"),
            ("ccy", ""),
        ] {
            let state = language.read(start, prefix.as_bytes()).unwrap();
            assert_eq!(
                language.completion(state, 99).unwrap(),
                rest.as_bytes(),
                "after {prefix}"
            );
        }
        assert_eq!(language.completion(start, 2), None);
    }

    #[test]
    fn unbounded_repetition_stays_one_expression() {
        let mut language = Language::new(ByteSet::default());
        let letter = language.literal(b"a");
        let letters = language.repeat(letter, 0, None);
        let end = language.literal(b"!");
        let start = language.concat(letters, end);
        assert_eq!(language.read(start, &[b'a'; 1000]), Some(start));
    }
}
