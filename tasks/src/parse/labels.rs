//! Labels: several short texts between separators.

use std::collections::HashSet;

use serde::Serialize;

/// Holds labels that were read from text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LabelsAnswer {
    /// The labels, each once, in the order of the text.
    pub labels: Vec<String>,
    /// What the text names beside them that is not in the closed set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Cuts a text at a separator. With a closed set, what is not in it is unknown; case counts.
///
/// # Examples
///
/// ```
/// use multiway_tasks::parse::parse_labels;
///
/// let read = parse_labels("cat, 猫, cat, unicorn", ",", Some(&["cat".to_owned(), "猫".to_owned()]));
/// assert_eq!(read.labels, ["cat", "猫"]);
/// assert_eq!(read.unknown, ["unicorn"]);
/// ```
pub fn parse_labels(text: &str, separator: &str, closed: Option<&[String]>) -> LabelsAnswer {
    let known: Option<HashSet<&str>> = closed.map(|labels| labels.iter().map(String::as_str).collect());
    let mut seen = HashSet::new();
    let mut answer = LabelsAnswer::default();
    let parts: Vec<&str> = if separator.is_empty() {
        vec![text]
    } else {
        text.split(separator).collect()
    };
    for label in parts.into_iter().map(str::trim) {
        if label.is_empty() || !seen.insert(label) {
            continue;
        }
        let is_known = known.as_ref().is_none_or(|known| known.contains(label));
        let list = if is_known {
            &mut answer.labels
        } else {
            &mut answer.unknown
        };
        list.push(label.to_owned());
    }
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_read_once_in_their_order_in_any_script() {
        let read = parse_labels("  قطة ، 猫、 ", "،", None);
        assert_eq!(read.labels, ["قطة", "猫、"]);
        assert_eq!(parse_labels("b\na\nb\n\n", "\n", None).labels, ["b", "a"]);
        assert_eq!(parse_labels("", ",", None), LabelsAnswer::default());
    }

    #[test]
    fn a_label_of_another_case_is_unknown() {
        let read = parse_labels("Cat,cat", ",", Some(&["cat".to_owned()]));
        assert_eq!(
            (read.labels, read.unknown),
            (vec!["cat".to_owned()], vec!["Cat".to_owned()])
        );
    }

    proptest! {
        #[test]
        fn joined_labels_are_read_back(labels in prop::collection::hash_set("[^,\\s]{1,8}", 0..9)) {
            let labels: Vec<String> = labels.into_iter().collect();
            let read = parse_labels(&labels.join(", "), ",", None);
            prop_assert_eq!(read.labels, labels);
        }
    }
}
