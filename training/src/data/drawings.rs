//! Finds what every vendor drew.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use image::RgbaImage;

use super::iconify::IconSet;
use super::packages::{Packages, file_names, read_json};
use super::sketches::{Pen, Sketch};
use super::split::rank;
use super::{ConceptRecord, DataError, PICTURE_SIDE, PictureRecord, Source, Split, concept_key, raster};

/// Digits kept for the test, of the 10,000.
const TEST_DIGITS_IN_TEN: usize = 2;
/// Side of a digit before it is resampled.
const DIGIT_SIDE: usize = 28;

/// A picture that is not yet pixels.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) record: PictureRecord,
    pub(super) art: Art,
}

#[derive(Debug)]
pub(super) enum Art {
    Svg {
        document: String,
        name: String,
    },
    Bitmap(PathBuf),
    Digit(Vec<f32>),
    /// Drawn by strokes.
    Sketch(Sketch),
    /// The bytes of a file, which fills the square whatever its proportions.
    Photograph(Vec<u8>),
    /// Pixels of the prepared size.
    Drawn(RgbaImage),
}

impl Drawing {
    pub(super) fn of_concept(source: Source, concept: &ConceptRecord, art: Art) -> Self {
        let record = PictureRecord {
            source,
            concept: Some(concept.concept.clone()),
            label: None,
            names: Vec::new(),
            split: concept.split,
        };
        Self { record, art }
    }

    /// Draws it on a square of the prepared size.
    pub(super) fn rasterise(&self) -> Result<RgbaImage, DataError> {
        let side = u32::try_from(PICTURE_SIDE).unwrap_or(u32::MAX);
        let (picture, path) = match &self.art {
            Art::Svg { document, name } => (raster::render_svg(document, side, name)?, PathBuf::from(name)),
            Art::Bitmap(path) => {
                let bytes = fs::read(path).map_err(DataError::file("read", path))?;
                (raster::decode_bitmap(&bytes, side, path)?, path.clone())
            }
            Art::Digit(brightness) => {
                let rows = u32::try_from(DIGIT_SIDE).unwrap_or(u32::MAX);
                (raster::grey_square(brightness, rows, side), PathBuf::new())
            }
            Art::Sketch(sketch) => {
                let drawn = sketch.draw(Pen::FELT, PICTURE_SIDE);
                let picture = RgbaImage::from_raw(side, side, drawn).unwrap_or_default();
                (picture, PathBuf::from("a sketch"))
            }
            Art::Drawn(picture) => (picture.clone(), PathBuf::new()),
            Art::Photograph(bytes) => {
                let path = PathBuf::from(self.record.names.join(", "));
                (raster::fill_square(bytes, side, &path)?, path)
            }
        };
        if picture.pixels().all(|pixel| pixel.0[3] == 0) {
            let (expected, found) = ("a picture".to_owned(), "nothing but transparency".to_owned());
            return Err(DataError::Unexpected {
                path,
                expected,
                found,
            });
        }
        Ok(picture)
    }
}

/// Lists the drawings of concepts, vendor by vendor, each in the order of the concepts. Two sets of icons
/// have tables of which icon draws which concept: Noto and Fluent.
pub(super) fn concept_drawings(
    packages: Packages<'_>,
    concepts: &[ConceptRecord],
    [noto, fluent]: [&BTreeMap<String, String>; 2],
) -> Result<Vec<Drawing>, DataError> {
    let mut drawings = bitmaps(
        packages,
        "emoji-datasource-google",
        "img/google/64",
        Source::NotoPng,
        concepts,
    )?;
    drawings.extend(bitmaps(
        packages,
        "emoji-datasource-twitter",
        "img/twitter/64",
        Source::Twemoji,
        concepts,
    )?);
    drawings.extend(bitmaps(
        packages,
        "fluent-emoji-3d",
        "assets",
        Source::Fluent3d,
        concepts,
    )?);
    // The first Noto set has no table of code points, but its icons are named as in the others.
    let names = |concept: &ConceptRecord| {
        let known = [noto.get(&concept.concept), fluent.get(&concept.concept)]
            .into_iter()
            .flatten()
            .cloned();
        known.chain(concept.name("en").map(slug)).collect()
    };
    let named = |table: &BTreeMap<String, String>, concept: &ConceptRecord| -> Vec<String> {
        table.get(&concept.concept).cloned().into_iter().collect()
    };
    drawings.extend(icons(packages, "noto", Source::Noto, concepts, |concept| {
        named(noto, concept)
    })?);
    drawings.extend(icons(packages, "noto-v1", Source::NotoV1, concepts, names)?);
    let flat = icons(
        packages,
        "fluent-emoji-flat",
        Source::FluentFlat,
        concepts,
        |concept| named(fluent, concept),
    )?;
    drawings.extend(flat);
    drawings.extend(flags(packages, concepts)?);
    Ok(drawings)
}

/// Writes a name as icon sets do: lowercase words joined with `-`.
fn slug(name: &str) -> String {
    let words = name
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

/// Finds bitmaps named by code points; where two names mean one concept, the first in order is taken.
fn bitmaps(
    packages: Packages<'_>,
    package: &'static str,
    folder: &str,
    source: Source,
    concepts: &[ConceptRecord],
) -> Result<Vec<Drawing>, DataError> {
    let folder = packages.folder(package)?.join(folder);
    let mut files = BTreeMap::new();
    for name in file_names(&folder)? {
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        if let Some(key) = concept_key(stem) {
            files.entry(key).or_insert(name);
        }
    }
    let drawing = |concept: &ConceptRecord| {
        let path = folder.join(files.get(&concept.concept)?);
        Some(Drawing::of_concept(source, concept, Art::Bitmap(path)))
    };
    Ok(concepts.iter().filter_map(drawing).collect())
}

/// Finds icons by the names that a concept may have in a set; the first that exists is taken.
fn icons(
    packages: Packages<'_>,
    package: &'static str,
    source: Source,
    concepts: &[ConceptRecord],
    names: impl Fn(&ConceptRecord) -> Vec<String>,
) -> Result<Vec<Drawing>, DataError> {
    let set = IconSet::read(packages, package)?;
    let drawing = |concept: &ConceptRecord| {
        names(concept).into_iter().find_map(|name| {
            let art = Art::Svg {
                document: set.document(&name)?,
                name: format!("{package}:{name}"),
            };
            Some(Drawing::of_concept(source, concept, art))
        })
    };
    Ok(concepts.iter().filter_map(drawing).collect())
}

/// Finds the flags of countries, drawn at three by four.
fn flags(packages: Packages<'_>, concepts: &[ConceptRecord]) -> Result<Vec<Drawing>, DataError> {
    let folder = packages.folder("flag-icons")?.join("flags/4x3");
    let mut drawings = Vec::new();
    for concept in concepts {
        let Some(code) = country_code(&concept.concept) else {
            continue;
        };
        let path = folder.join(format!("{code}.svg"));
        if !path.exists() {
            continue;
        }
        let document = fs::read_to_string(&path).map_err(DataError::file("read", &path))?;
        let art = Art::Svg {
            document,
            name: path.display().to_string(),
        };
        drawings.push(Drawing::of_concept(Source::Flags, concept, art));
    }
    Ok(drawings)
}

/// Reads the country's code out of a flag's key: two regional indicators, or a black flag with tags.
fn country_code(concept_key: &str) -> Option<String> {
    let points: Option<Vec<u32>> = concept_key
        .split('-')
        .map(|part| u32::from_str_radix(part, 16).ok())
        .collect();
    let letter = |point: u32, first: u32| char::from_u32(point.checked_sub(first)? + u32::from('a'));
    match points?.as_slice() {
        [first, second]
            if [first, second]
                .iter()
                .all(|point| (0x1f1e6..=0x1f1ff).contains(*point)) =>
        {
            Some(
                [letter(*first, 0x1f1e6)?, letter(*second, 0x1f1e6)?]
                    .iter()
                    .collect(),
            )
        }
        [0x1f3f4, tags @ .., 0xe007f] => {
            let code: String = tags
                .iter()
                .map(|tag| letter(*tag, 0xe0061))
                .collect::<Option<_>>()?;
            let (country, region) = code.split_at_checked(2)?;
            Some(format!("{country}-{region}"))
        }
        _ => None,
    }
}

/// Lists the pictures of easy-VQA: first those of training by number, then those of the test.
pub(super) fn shapes(packages: Packages<'_>) -> Result<BTreeMap<(Split, usize), Drawing>, DataError> {
    let mut drawings = BTreeMap::new();
    for (split, name) in [(Split::Train, "train"), (Split::Test, "test")] {
        let folder = packages
            .folder("easy-vqa")?
            .join(format!("easy_vqa/data/{name}/images"));
        for file in file_names(&folder)? {
            let Some(number) = file.strip_suffix(".png").and_then(|number| number.parse().ok()) else {
                continue;
            };
            let record = PictureRecord {
                source: Source::EasyVqa,
                concept: None,
                label: None,
                names: Vec::new(),
                split,
            };
            drawings.insert(
                (split, number),
                Drawing {
                    record,
                    art: Art::Bitmap(folder.join(&file)),
                },
            );
        }
    }
    Ok(drawings)
}

/// A file of digits: pictures one after the other, brightness from 0 to 1.
#[derive(Debug, serde::Deserialize)]
struct DigitFile {
    data: Vec<f32>,
}

/// Lists the digits; a fixed fifth of them, by hash of digit and number, is the test.
pub(super) fn digits(packages: Packages<'_>) -> Result<Vec<Drawing>, DataError> {
    let folder = packages.folder("mnist")?.join("src/digits");
    let mut drawings = Vec::new();
    let mut ranks = Vec::new();
    for digit in 0..10 {
        let path = folder.join(format!("{digit}.json"));
        let file: DigitFile = read_json(&path)?;
        let (pictures, rest) = file.data.as_chunks::<{ DIGIT_SIDE * DIGIT_SIDE }>();
        if !rest.is_empty() {
            let expected = format!("whole pictures of {DIGIT_SIDE}x{DIGIT_SIDE} numbers");
            return Err(DataError::Unexpected {
                path,
                expected,
                found: format!("{} numbers", file.data.len()),
            });
        }
        for (number, picture) in pictures.iter().enumerate() {
            ranks.push((rank(&format!("mnist/{digit}/{number}")), drawings.len()));
            let label = Some(digit.to_string());
            let record = PictureRecord {
                source: Source::Mnist,
                concept: None,
                label,
                names: Vec::new(),
                split: Split::Train,
            };
            drawings.push(Drawing {
                record,
                art: Art::Digit(picture.to_vec()),
            });
        }
    }
    ranks.sort_unstable();
    for (_, index) in ranks.iter().take(drawings.len() * TEST_DIGITS_IN_TEN / 10) {
        if let Some(drawing) = drawings.get_mut(*index) {
            drawing.record.split = Split::Test;
        }
    }
    Ok(drawings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_spells_its_country() {
        assert_eq!(country_code("1f1f3-1f1f4").as_deref(), Some("no"));
        assert_eq!(
            country_code("1f3f4-e0067-e0062-e0073-e0063-e0074-e007f").as_deref(),
            Some("gb-sct")
        );
        for key in [
            "1f600",
            "1f1f3",
            "1f3f4",
            "1f3f4-200d-2620",
            "1f3f4-e0067-e007f",
            "1f3f4-e0020-e0062-e007f",
            "zz",
        ] {
            assert_eq!(country_code(key), None, "{key}");
        }
    }

    #[test]
    fn names_become_words_joined_by_hyphens() {
        assert_eq!(slug("woman’s boot"), "woman-s-boot");
        assert_eq!(slug("keycap: 4"), "keycap-4");
    }
}
