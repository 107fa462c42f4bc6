//! YAML of other libraries, with limits, and with the tag `!function` kept as a text.

use serde_json::Value;

use super::error::ImportError;

/// The most bytes that a file may have.
pub(super) const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// What a value starts with that is the name of a Python function.
pub(super) const FUNCTION: &str = "!function ";

/// Reads a file. Tags are ignored, but for `!function NAME`, which becomes the text `!function NAME`.
pub(super) fn read(text: &str) -> Result<Value, ImportError> {
    let text = with_functions(text);
    serde_saphyr::from_str_with_options(&text, options()).map_err(|error| ImportError::Yaml {
        message: error.without_snippet().to_string(),
    })
}

/// Returns the function that a value names.
pub(super) fn function(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(FUNCTION)
}

/// Quotes `!function NAME` at the end of lines.
fn with_functions(text: &str) -> String {
    let quoted = text.split_inclusive('\n').map(|line| {
        let end = line.trim_end();
        let Some((before, name)) = end.rsplit_once(FUNCTION) else {
            return line.to_owned();
        };
        let is_value = before.trim_end().ends_with([':', '-']) && !before.trim_start().starts_with('#');
        if !is_value || name.is_empty() || name.contains(|c: char| c.is_whitespace() || "\"'#".contains(c)) {
            return line.to_owned();
        }
        let ending = line.get(end.len()..).unwrap_or_default();
        format!("{before}\"{FUNCTION}{name}\"{ending}")
    });
    quoted.collect()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_nodes: 200_000,
            max_events: 800_000,
            max_documents: 1,
            max_anchors: 256,
            max_aliases: 1_000,
            max_merge_keys: 64,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: MAX_FILE_BYTES,
            max_total_scalar_bytes: MAX_FILE_BYTES,
        },
        // As PyYAML has it: the last of several wins.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        strict_booleans: true,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn functions_become_texts_and_other_tags_vanish() {
        let text = "a: !function utils.f\nb:\n  - !function utils.g\n  - !Template\n    c: No\nd: |\n  see !function here\n";
        let expected = json!({
            "a": "!function utils.f",
            "b": ["!function utils.g", {"c": "No"}],
            "d": "see !function here\n",
        });
        assert_eq!(read(text).unwrap(), expected);
    }
}
