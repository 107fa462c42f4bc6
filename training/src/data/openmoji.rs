//! Prepares the public test: another artist's drawings of the same concepts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::packages::{Packages, file_names};
use super::prepare::{Files, Progress};
use super::prepared::{read_concepts, read_lines};
use super::{ConceptRecord, DataError, Split, concept_key, raster};

/// Side of a test picture, in pixels: as a user's file would be, larger than what the model sees.
const TEST_SIDE: u32 = 288;
const CHUNK: usize = 128;

/// Describes a test picture: a line of `index.jsonl` beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPictureRecord {
    /// Name of the PNG file.
    pub file: String,
    /// Key of the concept that it shows.
    pub concept: String,
    /// The concept's English name.
    pub name: String,
    /// Whether training knows the concept (from other artists) or not at all.
    pub split: Split,
}

/// Prepares OpenMoji's drawings (CC-BY-SA-4.0) as PNG files with an index, for evaluation only.
///
/// `packages` is the folder that `scripts/fetch_data.sh test` fills, `prepared` one that
/// [`prepare`](super::prepare) wrote. The pictures stay files because evaluation reads them as a user's
/// pictures are read.
///
/// # Errors
///
/// Fails where a package or prepared file is missing, a drawing cannot be rendered or a file not be written.
pub fn prepare_test(
    packages: &Path,
    prepared: &Path,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<TestPictureRecord>, DataError> {
    let concepts = read_concepts(prepared)?;
    let folder = Packages::new(packages).folder("openmoji")?.join("color/svg");
    let mut drawings = BTreeMap::new();
    for name in file_names(&folder)? {
        if let Some(key) = name.strip_suffix(".svg").and_then(concept_key) {
            drawings.entry(key).or_insert(name);
        }
    }
    let pairs: Vec<(&ConceptRecord, &String)> = concepts
        .iter()
        .filter_map(|concept| Some((concept, drawings.get(&concept.concept)?)))
        .collect();
    let files = Files::create(out)?;
    let mut records = Vec::new();
    for (index, chunk) in pairs.chunks(CHUNK).enumerate() {
        progress(Progress {
            stage: "drawing test pictures",
            done: index * CHUNK,
            total: pairs.len(),
        });
        let drawn: Result<Vec<_>, _> = chunk
            .par_iter()
            .map(|(concept, name)| draw(concept, &folder.join(name), out))
            .collect();
        records.extend(drawn?);
    }
    progress(Progress {
        stage: "drawing test pictures",
        done: pairs.len(),
        total: pairs.len(),
    });
    files.write_lines("index.jsonl", &records)?;
    files.publish(&["index.jsonl"])?;
    Ok(records)
}

/// Opens the index of test pictures that [`prepare_test`] wrote.
///
/// # Errors
///
/// Fails where the index is missing or a line is not a record.
pub fn open_test(folder: &Path) -> Result<Vec<TestPictureRecord>, DataError> {
    read_lines(&folder.join("index.jsonl"))
}

fn draw(concept: &ConceptRecord, drawing: &Path, out: &Path) -> Result<TestPictureRecord, DataError> {
    let svg = fs::read_to_string(drawing).map_err(DataError::file("read", drawing))?;
    let picture = raster::render_svg(&svg, TEST_SIDE, &drawing.display().to_string())?;
    let file = format!("{}.png", concept.concept);
    let path = out.join(&file);
    picture
        .save(&path)
        .map_err(|source| DataError::Bitmap { path, source })?;
    let name = concept.name("en").unwrap_or_default().to_owned();
    Ok(TestPictureRecord {
        file,
        concept: concept.concept.clone(),
        name,
        split: concept.split,
    })
}
