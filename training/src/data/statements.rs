//! Statements about pictures, each true or false: people's (NLVR), and generated ones (ShapeWorld).

use std::collections::HashMap;
use std::path::Path;

use image::RgbaImage;
use image::imageops::{self, FilterType};
use multiway_data::Record;
use serde::Deserialize;
use serde_json::Value;

use super::packages::read_records;
use super::{DataError, PICTURE_SIDE, Source, StatementRecord, raster};

/// Boxes of an NLVR picture, side by side.
const BOXES: u32 = 3;

/// A picture with what is said of it.
#[derive(Debug)]
pub(crate) struct Stated {
    pub(crate) source: Source,
    /// The picture, or its parts from left to right.
    pub(crate) pictures: Vec<RgbaImage>,
    /// Each sentence, its language, and whether it is true.
    pub(crate) statements: Vec<(String, String, bool)>,
}

/// Reads `nlvr-train.tar` and the training part of `shapeworld.tar` of a folder.
pub(super) fn read_statements(folder: &Path) -> Result<Vec<Stated>, DataError> {
    let mut stated = read_nlvr(folder, "train")?;
    stated.extend(shapeworld(folder)?);
    Ok(stated)
}

/// Reads `nlvr-SPLIT.tar` of a folder.
pub(crate) fn read_nlvr(folder: &Path, split: &str) -> Result<Vec<Stated>, DataError> {
    let mut stated = Vec::new();
    for record in read_records(&folder.join(format!("nlvr-{split}.tar")))? {
        let sentence = record.text("sentence").unwrap_or_default();
        let label = record.value("label") == Some(&Value::Bool(true));
        stated.push(Stated {
            source: Source::Nlvr,
            pictures: boxes(&picture(&record, folder)?),
            statements: vec![(sentence, "en".to_owned(), label)],
        });
    }
    Ok(stated)
}

/// Cuts a picture of boxes side by side into the boxes, each filling a square as the model sees it.
fn boxes(picture: &RgbaImage) -> Vec<RgbaImage> {
    let (width, height) = picture.dimensions();
    let side = u32::try_from(PICTURE_SIDE).unwrap_or(u32::MAX);
    // Between two boxes stands a gap of half a box: three boxes and two gaps are four boxes wide.
    let box_width = (width / (BOXES + 1)).max(1);
    let start = |index: u32| index * box_width * 3 / 2;
    (0..BOXES)
        .map(|index| {
            let part = imageops::crop_imm(picture, start(index), 0, box_width, height).to_image();
            imageops::resize(&part, side, side, FilterType::CatmullRom)
        })
        .collect()
}

fn picture(record: &Record, folder: &Path) -> Result<RgbaImage, DataError> {
    let found = record
        .pictures("image")
        .and_then(|pictures| pictures.into_iter().next());
    let found = found.ok_or_else(|| DataError::Unexpected {
        path: folder.to_owned(),
        expected: format!("a picture in record {}", record.id()),
        found: "none".to_owned(),
    })?;
    let bytes = found.read().map_err(|source| DataError::Records {
        folder: folder.to_owned(),
        source,
    })?;
    raster::decode(&bytes, Path::new(record.id()))
}

/// A line of ShapeWorld's index.
#[derive(Debug, Deserialize)]
struct ShapeWorldLine {
    picture: String,
    split: String,
    #[serde(default = "english")]
    lang: String,
    captions: Vec<String>,
    agreement: Vec<u8>,
}

fn english() -> String {
    "en".to_owned()
}

fn shapeworld(folder: &Path) -> Result<Vec<Stated>, DataError> {
    let path = folder.join("shapeworld.tar");
    let mut pictures = HashMap::new();
    let mut index = String::new();
    for record in read_records(&path)? {
        match record.text("ndjson") {
            Some(text) => index = text,
            None => {
                pictures.insert(record.id().to_owned(), picture(&record, folder)?);
            }
        }
    }
    let side = u32::try_from(PICTURE_SIDE).unwrap_or(u32::MAX);
    let mut stated = Vec::new();
    for (number, line) in index.lines().enumerate() {
        let line: ShapeWorldLine = serde_json::from_str(line).map_err(|source| DataError::Json {
            path: path.clone(),
            line: Some(number + 1),
            source,
        })?;
        let key = line.picture.strip_suffix(".png").unwrap_or(&line.picture);
        let (true, Some(picture)) = (line.split == "train", pictures.get(key)) else {
            continue;
        };
        let statements = line
            .captions
            .into_iter()
            .zip(line.agreement)
            .map(|(caption, agreement)| (caption, line.lang.clone(), agreement == 1));
        stated.push(Stated {
            source: Source::ShapeWorld,
            pictures: vec![imageops::resize(picture, side, side, FilterType::CatmullRom)],
            statements: statements.collect(),
        });
    }
    Ok(stated)
}

/// Numbers the pictures of statements from `first` on, and writes a record for each sentence.
pub(super) fn records_of(stated: &[Stated], first: usize) -> Vec<StatementRecord> {
    let mut next = first;
    let mut records = Vec::new();
    for stated in stated {
        let pictures: Vec<usize> = (next..next + stated.pictures.len()).collect();
        next += pictures.len();
        for (sentence, lang, label) in &stated.statements {
            records.push(StatementRecord {
                pictures: pictures.clone(),
                sentence: sentence.clone(),
                lang: lang.clone(),
                label: *label,
            });
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgba;

    #[test]
    fn a_picture_of_three_boxes_is_cut_into_them() {
        let picture = RgbaImage::from_fn(400, 100, |x, _| match x {
            0..100 => Rgba([255, 0, 0, 255]),
            150..250 => Rgba([0, 255, 0, 255]),
            300..400 => Rgba([0, 0, 255, 255]),
            _ => Rgba([255, 255, 255, 255]),
        });
        let parts = boxes(&picture);
        let colours: Vec<[u8; 4]> = parts.iter().map(|part| part.get_pixel(48, 48).0).collect();
        assert_eq!(colours, [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]]);
        assert!(
            parts
                .iter()
                .all(|part| part.pixels().all(|pixel| *pixel == *part.get_pixel(0, 0)))
        );
    }
}
