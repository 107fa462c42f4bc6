//! What a task says about itself: its version, its metadata, and how its pictures are prepared.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::problem::Problem;
use crate::spec::{ImageFit, MetadataValue, Preprocessing};
use crate::suggest::quoted;

/// The most keys that metadata may have, and the most texts in a list of one key.
const MAX_METADATA: usize = 32;

/// The most bytes of a text of metadata.
const MAX_METADATA_BYTES: usize = 1_000;

/// The most model families that a task may have settings for.
const MAX_FAMILIES: usize = 32;

/// The settings of one model family, as task files write them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPreprocessing {
    fit: Option<ImageFit>,
}

/// Reads a version: a whole number from 1, or three numbers as semantic versioning has them.
pub(super) fn version(raw: &Spanned<serde_json::Value>) -> Result<String, Problem> {
    let found = match &raw.value {
        serde_json::Value::Number(number) if number.as_u64().is_some_and(|number| number > 0) => {
            return Ok(number.to_string());
        }
        serde_json::Value::String(text) if is_semantic_version(text) => return Ok(text.clone()),
        serde_json::Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    let message =
        format!("expected a whole number of at least 1, or a text such as \"1.2.0\", found {found}");
    Err(Problem::new(raw, "version", message))
}

/// Source: Semantic Versioning 2.0.0, sections 2, 9 and 10.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, release) = text
        .split_once('-')
        .map_or((text, None), |(core, release)| (core, Some(release)));
    let is_number = |part: &str| {
        (1..=9).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    let is_label = |label: &str| {
        label.len() <= 64
            && label.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && build.is_none_or(is_label)
        && release.is_none_or(is_label)
}

/// Reads metadata: texts and lists of texts, by free names.
pub(super) fn metadata(
    raw: IndexMap<Spanned<String>, Spanned<serde_json::Value>>,
) -> Result<IndexMap<String, MetadataValue>, Problem> {
    let mut metadata = IndexMap::new();
    for (name, value) in raw {
        if metadata.len() == MAX_METADATA {
            let message = format!("expected at most {MAX_METADATA} keys");
            return Err(Problem::new(&name, "metadata", message));
        }
        if !is_metadata_name(&name.value) {
            let message = format!(
                "expected a name of at most 64 letters, digits, '-', '_' and '.', found {}",
                quoted(&name.value)
            );
            return Err(Problem::new(&name, "metadata", message));
        }
        let read = metadata_value(&value.value).ok_or_else(|| {
            let message = format!(
                "expected text, or a list of at most {MAX_METADATA} texts, each of at most {MAX_METADATA_BYTES} bytes, \
                 found {}",
                quoted(&value.value.to_string())
            );
            Problem::new(&value, format!("metadata.{}", name.value), message)
        })?;
        metadata.insert(name.value, read);
    }
    Ok(metadata)
}

fn is_metadata_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn metadata_value(value: &serde_json::Value) -> Option<MetadataValue> {
    let text = |value: &serde_json::Value| {
        let text = value.as_str().filter(|text| text.len() <= MAX_METADATA_BYTES);
        text.map(str::to_owned)
    };
    match value {
        serde_json::Value::Array(items) if items.len() <= MAX_METADATA => items
            .iter()
            .map(text)
            .collect::<Option<_>>()
            .map(MetadataValue::Texts),
        value => text(value).map(MetadataValue::Text),
    }
}

/// Reads how pictures are prepared, by model family.
pub(super) fn preprocessing(
    raw: IndexMap<Spanned<String>, RawPreprocessing>,
) -> Result<IndexMap<String, Preprocessing>, Problem> {
    let mut families = IndexMap::new();
    for (family, settings) in raw {
        if families.len() == MAX_FAMILIES {
            let message = format!("expected at most {MAX_FAMILIES} model families");
            return Err(Problem::new(&family, "preprocessing", message));
        }
        let key = format!("preprocessing.{}", family.value);
        let Some(fit) = settings.fit else {
            let message = "expected a setting: write `fit: squash` or `fit: crop`";
            return Err(Problem::new(&family, key, message));
        };
        families.insert(family.value, Preprocessing { fit });
    }
    Ok(families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_semantic_versioning() {
        for version in ["0.0.0", "1.2.3", "10.20.30-rc.1", "1.0.0-a-b+build.5", "1.0.0+x"] {
            assert!(is_semantic_version(version), "{version}");
        }
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3+",
            "v1.2.3",
            "1.2.3-a..b",
        ] {
            assert!(!is_semantic_version(text), "{text}");
        }
    }
}
