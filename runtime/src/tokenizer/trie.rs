//! A trie over bytes, built once, read often.

use std::collections::VecDeque;
use std::ops::Range;

/// Maps byte strings to numbers and walks them from any position.
///
/// A node's children lie side by side, in the order of their bytes.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads to each node.
    labels: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Range<u32>,
    value: Option<u32>,
}

impl Trie {
    /// Builds a trie; of entries with equal keys the first one counts.
    pub(crate) fn new<'a>(entries: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut entries: Vec<(&[u8], u32)> = entries.into_iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        let mut trie = Self {
            nodes: vec![Node::default()],
            labels: vec![0],
        };
        // Which entries lie below a node, in the order of the nodes; all share their first `depth` bytes.
        let mut pending = VecDeque::from([(0..entries.len(), 0)]);
        let mut node = 0;
        while let Some((range, depth)) = pending.pop_front() {
            let first_child = trie.nodes.len();
            let mut below = entries.get(range.clone()).unwrap_or_default();
            let mut start = range.start;
            let mut value = None;
            if let Some((key, id)) = below.first()
                && key.len() == depth
            {
                value = Some(*id);
                below = below.get(1..).unwrap_or_default();
                start += 1;
            }
            for group in below.chunk_by(|(a, _), (b, _)| a.get(depth) == b.get(depth)) {
                let label = group
                    .first()
                    .and_then(|(key, _)| key.get(depth))
                    .copied()
                    .unwrap_or_default();
                trie.nodes.push(Node::default());
                trie.labels.push(label);
                pending.push_back((start..start + group.len(), depth + 1));
                start += group.len();
            }
            let children = index(first_child)..index(trie.nodes.len());
            if let Some(node) = trie.nodes.get_mut(node) {
                *node = Node { children, value };
            }
            node += 1;
        }
        trie
    }

    /// Walks `text` from its start and yields the length and the value of every key that is a prefix of it.
    pub(crate) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = self.nodes.first();
        let mut steps = (1..).zip(text);
        std::iter::from_fn(move || {
            loop {
                let (length, byte) = steps.next()?;
                node = self.child(node?, *byte);
                if let Some(value) = node?.value {
                    return Some((length, value));
                }
            }
        })
    }

    /// Finds the length of the longest key that `text` starts with.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<usize> {
        self.prefixes(text).last().map(|(length, _)| length)
    }

    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let range = node.children.start as usize..node.children.end as usize;
        let place = self.labels.get(range.clone())?.binary_search(&byte).ok()?;
        self.nodes.get(range.start + place)
    }
}

/// Narrows a node number: a trie has no more nodes than its file had bytes, and files are bounded.
fn index(node: usize) -> u32 {
    u32::try_from(node).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_trie_finds_the_same_prefixes_as_a_map(
            keys in prop::collection::vec("[ab]{1,4}", 0..12),
            text in "[abc]{0,8}",
        ) {
            let mut map = BTreeMap::new();
            for (id, key) in (0..).zip(&keys) {
                map.entry(key.as_bytes()).or_insert(id);
            }
            let trie = Trie::new(keys.iter().map(|key| key.as_bytes()).zip(0..));
            let expected: Vec<(usize, u32)> =
                (1..=text.len()).filter_map(|n| map.get(&text.as_bytes()[..n]).map(|id| (n, *id))).collect();
            prop_assert_eq!(trie.prefixes(text.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }
}
