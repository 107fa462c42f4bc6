//! Languages by derivatives, with shortest completions.
//!
//! An expression denotes the texts that may still follow. Its derivative by a byte is another expression, and
//! its shortest text depends on the expression alone. That is what constrained answers need besides a mask:
//! to be complete before the tokens run out.
//!
//! An expression may refer to a definition that it is part of, so that the language nests and is not regular.
//! Its derivatives are found in the same way; the rest of the innermost value is then followed by the rests
//! of those around it ([`Node::Within`]), as on a stack.
//!
//! Source: Owens, Reppy and Turon 2009, "Regular-expression derivatives re-examined", section 3.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The most expressions of one answer; a language that needs more is refused, or its answer fails.
const MAX_NODES: usize = 1 << 18;

/// The id of an expression in one [`Language`].
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

    /// Chooses the byte of a completion: one that is a token, preferably a letter or digit.
    fn example(self, writable: Self) -> Option<u8> {
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
    /// From the first to the second number of times; unbounded without a second.
    Repeat(Expression, u32, Option<u32>),
    /// What a definition matches, by its number.
    Reference(usize),
    /// What is left of a definition's text, then what follows it. Unlike those of [`Concat`](Self::Concat),
    /// its parts keep their shape: the first is the same however deeply it is nested, so that a level takes
    /// one expression.
    Within(Expression, Expression),
}

impl Node {
    /// Lists what it is made of.
    fn parts(&self) -> Vec<Expression> {
        match self {
            Self::Never | Self::Empty | Self::Bytes(_) | Self::Reference(_) => Vec::new(),
            Self::Concat(a, b) | Self::Within(a, b) => vec![*a, *b],
            Self::Or(parts) => parts.to_vec(),
            Self::Repeat(part, ..) => vec![*part],
        }
    }

    /// Gives its parts new names, whose order must be the same.
    fn renamed(self, name: impl Fn(Expression) -> Expression) -> Self {
        match self {
            Self::Concat(a, b) => Self::Concat(name(a), name(b)),
            Self::Or(parts) => Self::Or(parts.iter().copied().map(name).collect()),
            Self::Repeat(part, least, most) => Self::Repeat(name(part), least, most),
            Self::Within(a, b) => Self::Within(name(a), name(b)),
            Self::Never | Self::Empty | Self::Bytes(_) | Self::Reference(_) => self,
        }
    }
}

/// Attributes of an expression, computed from its parts.
#[derive(Clone, Debug)]
struct Facts {
    node: Node,
    is_accepting: bool,
    /// The bytes of its shortest text; saturates, and means nothing where there is no text.
    shortest: u32,
}

/// Expressions, and the derivatives that were taken.
#[derive(Clone, Debug, Default)]
struct Nodes {
    facts: Vec<Facts>,
    known: HashMap<Node, Expression>,
    derivatives: HashMap<(Expression, u8), Expression>,
    /// How many parts the alternatives have, all together.
    parts: usize,
}

impl Nodes {
    /// Estimates their bytes; a hash table is up to twice as large as its entries.
    fn bytes(&self) -> usize {
        let node = size_of::<Facts>() + 2 * size_of::<(Node, Expression)>();
        let derivative = 2 * size_of::<((Expression, u8), Expression)>();
        self.facts.len() * node
            + self.derivatives.len() * derivative
            + 2 * self.parts * size_of::<Expression>()
    }
}

/// Expressions that share their parts.
///
/// A clone shares the expressions of the last call of [`share`](Self::share), and adds its own.
#[derive(Clone, Debug)]
pub(super) struct Language {
    common: Arc<Nodes>,
    own: Nodes,
    /// What references mean.
    definitions: Arc<BTreeMap<usize, Expression>>,
    /// The bytes that can be written on their own; completions prefer them.
    writable: ByteSet,
}

impl Language {
    pub(super) fn new(writable: ByteSet) -> Self {
        let mut language = Self {
            common: Arc::default(),
            own: Nodes::default(),
            definitions: Arc::default(),
            writable,
        };
        language.intern(Node::Never);
        language.intern(Node::Empty);
        language
    }

    /// Shares all expressions so far with later clones.
    pub(super) fn share(self) -> Self {
        let mut common = Arc::unwrap_or_clone(self.common);
        common.facts.extend(self.own.facts);
        common.known.extend(self.own.known);
        common.derivatives.extend(self.own.derivatives);
        common.parts += self.own.parts;
        Self {
            common: Arc::new(common),
            own: Nodes::default(),
            definitions: self.definitions,
            writable: self.writable,
        }
    }

    /// Drops what was added since, except for the parts of an expression, and returns that expression's new
    /// id.
    ///
    /// Ids keep their order, so ties between shortest completions are broken as before.
    pub(super) fn keep_only(&mut self, expression: Expression) -> Expression {
        let old = std::mem::take(&mut self.own);
        let added = |part: Expression| {
            let place = (part.0 as usize).checked_sub(self.common.facts.len())?;
            old.facts.get(place)
        };
        let (mut needed, mut unseen) = (BTreeSet::new(), vec![expression]);
        while let Some(part) = unseen.pop() {
            if let Some(facts) = added(part)
                && needed.insert(part)
            {
                unseen.extend(facts.node.parts());
            }
        }
        let nodes: Vec<(Expression, Node)> = needed
            .into_iter()
            .filter_map(|part| Some((part, added(part)?.node.clone())))
            .collect();
        let mut names = HashMap::new();
        // Parts have lower ids than the expressions that contain them.
        for (part, node) in nodes {
            let node = node.renamed(|old| names.get(&old).copied().unwrap_or(old));
            names.insert(part, self.intern(node));
        }
        names.get(&expression).copied().unwrap_or(expression)
    }

    /// Returns whether the bound on expressions is exceeded.
    pub(super) fn is_too_large(&self) -> bool {
        self.common.facts.len() + self.own.facts.len() > MAX_NODES
    }

    /// Counts the expressions that all clones share.
    pub(super) fn common_len(&self) -> usize {
        self.common.facts.len()
    }

    /// Counts the expressions that were added.
    pub(super) fn own_len(&self) -> usize {
        self.own.facts.len()
    }

    /// Estimates the bytes of what all clones share.
    pub(super) fn common_bytes(&self) -> usize {
        self.common.bytes()
    }

    /// Estimates the bytes of what was added.
    pub(super) fn own_bytes(&self) -> usize {
        self.own.bytes()
    }

    fn intern(&mut self, node: Node) -> Expression {
        let known = self.common.known.get(&node).or_else(|| self.own.known.get(&node));
        if let Some(known) = known {
            return *known;
        }
        let (is_accepting, shortest) = self.measure(&node);
        let place = self.common.facts.len() + self.own.facts.len();
        // `is_too_large` is asked long before ids run out.
        let expression = Expression(u32::try_from(place).unwrap_or(u32::MAX));
        if let Node::Or(parts) = &node {
            self.own.parts += parts.len();
        }
        self.own.facts.push(Facts {
            node: node.clone(),
            is_accepting,
            shortest,
        });
        self.own.known.insert(node, expression);
        expression
    }

    fn facts(&self, expression: Expression) -> Option<&Facts> {
        let place = expression.0 as usize;
        match place.checked_sub(self.common.facts.len()) {
            None => self.common.facts.get(place),
            Some(place) => self.own.facts.get(place),
        }
    }

    fn measure(&self, node: &Node) -> (bool, u32) {
        match node {
            Node::Never => (false, u32::MAX),
            Node::Empty => (true, 0),
            Node::Bytes(_) => (false, 1),
            // A definition's text is never empty.
            Node::Reference(definition) => {
                let meaning = self.definitions.get(definition);
                (false, meaning.map_or(u32::MAX, |meaning| self.shortest(*meaning)))
            }
            Node::Concat(a, b) | Node::Within(a, b) => (
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
        self.facts(expression).map_or(&Node::Never, |facts| &facts.node)
    }

    /// Returns whether the empty text matches.
    pub(super) fn is_accepting(&self, expression: Expression) -> bool {
        self.facts(expression).is_some_and(|facts| facts.is_accepting)
    }

    fn shortest(&self, expression: Expression) -> u32 {
        self.facts(expression).map_or(u32::MAX, |facts| facts.shortest)
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
            _ if let Node::Within(inner, rest) = *self.node(a) => {
                let rest = self.within(rest, b);
                self.within(inner, rest)
            }
            _ => {
                // Leaning to the right, so that equal rests are the same expression. What is written can be
                // as long as an expression, so it is gone through without recursion.
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

    /// Matches the rest of a definition's text, then another expression.
    fn within(&mut self, inner: Expression, rest: Expression) -> Expression {
        match (inner, rest) {
            (Expression::NEVER, _) | (_, Expression::NEVER) => Expression::NEVER,
            (Expression::EMPTY, rest) => rest,
            _ => match *self.node(inner) {
                Node::Within(innermost, around) => {
                    let rest = self.within(around, rest);
                    self.within(innermost, rest)
                }
                _ => self.intern(Node::Within(inner, rest)),
            },
        }
    }

    /// Matches what a definition matches. Its text must not be empty, nor begin with its own.
    pub(super) fn reference(&mut self, definition: usize) -> Expression {
        self.intern(Node::Reference(definition))
    }

    /// Says what references to a definition mean. Once all are defined, [`settle`](Self::settle) is called.
    pub(super) fn define(&mut self, definition: usize, meaning: Expression) {
        Arc::make_mut(&mut self.definitions).insert(definition, meaning);
    }

    /// Finds the lengths of the shortest texts of all that refers to definitions, now that these are known.
    pub(super) fn settle(&mut self) {
        let mut recursive = BTreeSet::new();
        for (place, facts) in self.own.facts.iter().enumerate() {
            let first = self.common.facts.len();
            let is_part = |part: &Expression| recursive.contains(&(part.0 as usize).saturating_sub(first));
            if matches!(facts.node, Node::Reference(_)) || facts.node.parts().iter().any(is_part) {
                recursive.insert(place);
            }
        }
        // Lengths only shrink, and each time round those of another definition are found.
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            for place in &recursive {
                let Some(facts) = self.own.facts.get(*place) else {
                    continue;
                };
                let (_, shortest) = self.measure(&facts.node);
                if let Some(facts) = self.own.facts.get_mut(*place)
                    && facts.shortest != shortest
                {
                    facts.shortest = shortest;
                    has_changed = true;
                }
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

    /// Returns the derivative by a byte.
    ///
    /// What is written can nest as deep as an answer is long, so expressions are gone through without
    /// recursion.
    pub(super) fn derivative(&mut self, expression: Expression, byte: u8) -> Expression {
        let mut open = vec![expression];
        while let Some(last) = open.last().copied() {
            if self.known_derivative(last, byte).is_none() {
                let mut needed = self.heads(last);
                needed.retain(|head| self.known_derivative(*head, byte).is_none());
                if !needed.is_empty() {
                    open.extend(needed);
                    continue;
                }
                let derivative = self.derived(last, byte);
                self.own.derivatives.insert((last, byte), derivative);
            }
            open.pop();
        }
        self.known_derivative(expression, byte)
            .unwrap_or(Expression::NEVER)
    }

    fn known_derivative(&self, expression: Expression, byte: u8) -> Option<Expression> {
        let key = (expression, byte);
        let known = self.common.derivatives.get(&key);
        known.or_else(|| self.own.derivatives.get(&key)).copied()
    }

    /// Lists the parts to which the next byte may belong.
    fn heads(&self, expression: Expression) -> Vec<Expression> {
        match self.node(expression) {
            Node::Never | Node::Empty | Node::Bytes(_) => Vec::new(),
            Node::Or(parts) => parts.to_vec(),
            Node::Repeat(part, ..) => vec![*part],
            Node::Reference(definition) => self.definitions.get(definition).copied().into_iter().collect(),
            Node::Within(inner, rest) if self.is_accepting(*inner) => vec![*inner, *rest],
            Node::Within(inner, _) => vec![*inner],
            Node::Concat(..) => {
                // The byte may belong to any part before which all others may be empty.
                let (mut heads, mut rest) = (Vec::new(), expression);
                while let Node::Concat(first, second) = *self.node(rest) {
                    heads.push(first);
                    if !self.is_accepting(first) {
                        return heads;
                    }
                    rest = second;
                }
                heads.push(rest);
                heads
            }
        }
    }

    /// Makes a derivative from those of the [heads](Self::heads).
    fn derived(&mut self, expression: Expression, byte: u8) -> Expression {
        let known = |language: &Self, head| {
            let known = language.known_derivative(head, byte);
            known.unwrap_or(Expression::NEVER)
        };
        match self.node(expression).clone() {
            Node::Never | Node::Empty => Expression::NEVER,
            Node::Bytes(set) if set.contains(byte) => Expression::EMPTY,
            Node::Bytes(_) => Expression::NEVER,
            Node::Concat(..) => {
                let (mut ways, mut rest) = (Vec::new(), expression);
                while let Node::Concat(first, second) = *self.node(rest) {
                    let first_derivative = known(self, first);
                    ways.push(self.concat(first_derivative, second));
                    rest = second;
                    if !self.is_accepting(first) {
                        return self.or(ways);
                    }
                }
                ways.push(known(self, rest));
                self.or(ways)
            }
            Node::Within(inner, rest) => {
                let inner_derivative = known(self, inner);
                let inside = self.within(inner_derivative, rest);
                let behind = self.is_accepting(inner).then(|| known(self, rest));
                self.or([Some(inside), behind].into_iter().flatten())
            }
            Node::Reference(definition) => {
                let meaning = self.definitions.get(&definition).copied();
                let inner = known(self, meaning.unwrap_or(Expression::NEVER));
                self.within(inner, Expression::EMPTY)
            }
            Node::Or(parts) => {
                let parts: Vec<Expression> = parts.iter().map(|part| known(self, *part)).collect();
                self.or(parts)
            }
            Node::Repeat(part, least, most) => {
                let first = known(self, part);
                let rest = self.repeat(
                    part,
                    least.saturating_sub(1),
                    most.map(|most| most.saturating_sub(1)),
                );
                self.concat(first, rest)
            }
        }
    }

    /// Returns the derivative by some bytes; `None` if they cannot follow.
    pub(super) fn derive_all(&mut self, expression: Expression, bytes: &[u8]) -> Option<Expression> {
        self.derive_within(expression, bytes, MAX_NODES)
    }

    /// Returns the same, but `None` also if that adds more than `most` expressions. Cached derivatives are
    /// always returned.
    pub(super) fn derive_within(
        &mut self,
        expression: Expression,
        bytes: &[u8],
        most: usize,
    ) -> Option<Expression> {
        let (mut expression, known) = (expression, self.own_len());
        for byte in bytes {
            expression = self.derivative(expression, *byte);
            let added = self.own_len();
            if expression == Expression::NEVER || self.is_too_large() || (added > most && added > known) {
                return None;
            }
        }
        Some(expression)
    }

    /// Returns the shortest text that an expression matches; `None` if it is longer than `limit` bytes or
    /// there is none.
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
                Node::Concat(a, b) | Node::Within(a, b) => rest.extend([*b, *a]),
                Node::Reference(definition) => rest.push(*self.definitions.get(definition)?),
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
            let end = language.derive_all(start, text.as_bytes());
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
            let state = language.derive_all(start, prefix.as_bytes()).unwrap();
            assert_eq!(
                language.completion(state, 99).unwrap(),
                rest.as_bytes(),
                "after {prefix}"
            );
        }
        assert_eq!(language.completion(start, 2), None);
    }

    /// What a list in brackets matches, which may hold another: `[x]`, `[[x]]`, `[[[x]x]x]`.
    fn nested(language: &mut Language) -> Expression {
        let inner = language.reference(0);
        let (x, open, close) = (
            language.literal(b"x"),
            language.literal(b"["),
            language.literal(b"]"),
        );
        let with_inner = language.repeat(inner, 0, Some(1));
        let bare = language.sequence(&[open, inner, close]);
        let full = language.sequence(&[open, with_inner, x, close]);
        let meaning = language.or([full, bare]);
        language.define(0, meaning);
        language.settle();
        meaning
    }

    #[test]
    fn a_definition_may_hold_itself() {
        let mut language = Language::new(ByteSet::default());
        let start = nested(&mut language);
        let mut accepts = |text: &str| {
            let end = language.derive_all(start, text.as_bytes());
            end.is_some_and(|end| language.is_accepting(end))
        };
        assert!(
            ["[x]", "[[x]]", "[[[x]x]x]", "[[[x]]x]"]
                .iter()
                .all(|text| accepts(text))
        );
        assert!(
            !["", "[", "x", "[]", "[[x]", "[x]]", "[xx]"]
                .iter()
                .any(|text| accepts(text))
        );
    }

    #[test]
    fn the_shortest_completion_closes_all_that_is_open() {
        let mut language = Language::new(ByteSet::default());
        let start = nested(&mut language);
        for (prefix, rest) in [
            ("", "[x]"),
            ("[", "x]"),
            ("[[[", "x]]]"),
            ("[[[x]x", "]]"),
            ("[[[x", "]]]"),
            ("[x]", ""),
        ] {
            let state = language.derive_all(start, prefix.as_bytes()).unwrap();
            let completion = language.completion(state, 99).unwrap();
            assert_eq!(completion, rest.as_bytes(), "after {prefix}");
        }
    }

    #[test]
    fn each_level_of_nesting_takes_as_little_as_the_one_before() {
        let mut language = Language::new(ByteSet::default());
        let start = nested(&mut language);
        let mut language = language.share();
        let mut state = start;
        let mut taken = Vec::new();
        for _ in 0..3 {
            for _ in 0..1000 {
                state = language.derivative(state, b'[');
            }
            state = language.keep_only(state);
            taken.push(language.own_bytes());
        }
        assert!(taken[2] - taken[1] <= taken[1] - taken[0] + 64, "{taken:?}");
        assert!(taken[2] < 3000 * 4 * 256, "{taken:?}");
        let end = language
            .derive_all(state, format!("x{}", "]".repeat(3000)).as_bytes())
            .unwrap();
        assert!(language.is_accepting(end));
    }

    #[test]
    fn what_is_forgotten_changes_no_answer() {
        let mut language = Language::new(ByteSet::default());
        let start = example(&mut language);
        let mut kept = language.share();
        let mut forgetful = kept.clone();
        let (mut state, mut other) = (start, start);
        for byte in *b"abcabz" {
            state = kept.derivative(state, byte);
            other = forgetful.derivative(other, byte);
            other = forgetful.keep_only(other);
            assert_eq!(kept.completion(state, 99), forgetful.completion(other, 99));
            assert_eq!(kept.is_accepting(state), forgetful.is_accepting(other));
        }
        assert!(kept.is_accepting(state) && forgetful.own_bytes() < kept.own_bytes());
        assert_eq!(forgetful.own_bytes(), 0, "the end was known from the start");
    }

    #[test]
    fn a_clone_shares_what_was_known_and_adds_its_own() {
        let mut language = Language::new(ByteSet::default());
        let start = example(&mut language);
        let language = language.share();
        let (mut one, mut other) = (language.clone(), language.clone());
        assert!(Arc::ptr_eq(&one.common, &other.common) && one.own_bytes() == 0);
        one.derive_all(start, b"ab").unwrap();
        assert!(one.own_bytes() > 0 && other.own_bytes() == 0);
        let end = other.derive_all(start, b"ccx").unwrap();
        assert!(other.is_accepting(end));
    }

    #[test]
    fn unbounded_repetition_stays_one_expression() {
        let mut language = Language::new(ByteSet::default());
        let letter = language.literal(b"a");
        let letters = language.repeat(letter, 0, None);
        let end = language.literal(b"!");
        let start = language.concat(letters, end);
        assert_eq!(language.derive_all(start, &[b'a'; 1000]), Some(start));
    }
}
