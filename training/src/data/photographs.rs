//! Reads photographs with names from a WebDataset.

use std::path::{Path, PathBuf};

use multiway_data::{DataOptions, DataSource, Record};
use rayon::prelude::*;
use serde_json::Value;

use super::{DataError, Source, raster};

/// How many records that cannot be read, or whose picture cannot, are passed over.
const MAX_CORRUPT: usize = 100;

/// A photograph with its names.
#[derive(Debug)]
pub(crate) struct Photograph {
    /// The record that it comes from.
    id: String,
    pub(crate) source: Source,
    /// Its name, and other names that are true of it.
    pub(crate) names: Vec<String>,
    /// The picture's file.
    pub(crate) bytes: Vec<u8>,
}

/// Reads the shards `photos96-SPLIT-*.tar.gz` of a folder.
///
/// Returns the photographs, and a line for each record that was passed over.
pub(crate) fn read_photographs(
    folder: &Path,
    split: &str,
) -> Result<(Vec<Photograph>, Vec<String>), DataError> {
    let shards = shards(folder, split)?;
    let mut options = DataOptions::default();
    options.max_corrupt = MAX_CORRUPT;
    let failed = |source| DataError::Records {
        folder: folder.to_owned(),
        source,
    };
    let source = DataSource::open(&shards, options).map_err(failed)?;
    let mut records = source.records(None).map_err(failed)?;
    let mut photographs = Vec::new();
    for record in records.by_ref() {
        if let Some(photograph) = photograph(&record.map_err(failed)?, folder)? {
            photographs.push(photograph);
        }
    }
    let mut passed_over: Vec<String> = records.corrupt().iter().map(ToString::to_string).collect();
    passed_over.extend(drop_unreadable(&mut photographs));
    if passed_over.len() > MAX_CORRUPT {
        return Err(DataError::Unexpected {
            path: folder.to_owned(),
            expected: format!("at most {MAX_CORRUPT} records that cannot be read"),
            found: format!("{}, the first of them: {}", passed_over.len(), passed_over[0]),
        });
    }
    Ok((photographs, passed_over))
}

/// Takes out the photographs whose pictures cannot be decoded, and returns a line for each.
fn drop_unreadable(photographs: &mut Vec<Photograph>) -> Vec<String> {
    let reasons: Vec<Option<String>> = photographs
        .par_iter()
        .map(|photograph| {
            let decoded = raster::decode(&photograph.bytes, Path::new(&photograph.id));
            decoded.err().map(|error| error.to_string())
        })
        .collect();
    let mut kept = reasons.iter().map(Option::is_none);
    photographs.retain(|_| kept.next().unwrap_or(true));
    reasons.into_iter().flatten().collect()
}

fn shards(folder: &Path, split: &str) -> Result<Vec<PathBuf>, DataError> {
    let prefix = format!("photos96-{split}-");
    let names = super::packages::file_names(folder)?;
    let shards: Vec<PathBuf> = names
        .iter()
        .filter(|name| name.starts_with(&prefix) && name.contains(".tar"))
        .map(|name| folder.join(name))
        .collect();
    if shards.is_empty() {
        return Err(DataError::Unexpected {
            path: folder.to_owned(),
            expected: format!("shards {prefix}*.tar.gz"),
            found: "none".to_owned(),
        });
    }
    Ok(shards)
}

/// Makes a photograph of a record; nothing where it has no name.
fn photograph(record: &Record, folder: &Path) -> Result<Option<Photograph>, DataError> {
    let unexpected = |expected: &str, found: String| DataError::Unexpected {
        path: folder.to_owned(),
        expected: format!("{expected} in record {}", record.id()),
        found,
    };
    let set = record.text("set").unwrap_or_default();
    let source = match set.as_str() {
        "caltech101" => Source::Caltech,
        "grocery" => Source::Groceries,
        "clothing" => Source::Clothes,
        "flowers" => Source::Flowers,
        "trashnet" => Source::Materials,
        "signdigits" => Source::HandSigns,
        // Scenes with captions, not things with names.
        "coco" => return Ok(None),
        other => return Err(unexpected("a known set", format!("'{other}'"))),
    };
    let Some(name) = record.text("name").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let others = match record.value("names") {
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let picture = record
        .pictures("image")
        .and_then(|pictures| pictures.into_iter().next());
    let picture = picture.ok_or_else(|| unexpected("a picture", "none".to_owned()))?;
    let bytes = picture.read().map_err(|source| DataError::Records {
        folder: folder.to_owned(),
        source,
    })?;
    let mut names: Vec<String> = std::iter::once(name).chain(others).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(Some(Photograph {
        id: record.id().to_owned(),
        source,
        names,
        bytes,
    }))
}
