//! Opens prepared data and vouches for its form.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{
    ConceptRecord, DataError, FontRecord, PICTURE_BYTES, PictureRecord, QuestionRecord, Sketch, SketchRecord,
    Split, StatementRecord, TextRecord,
};

/// Longest line that is read, in bytes: a record is shorter, even a font of torn outlines, and a broken file
/// must not fill the memory.
const MAX_LINE_BYTES: usize = 4 << 20;

/// One training picture in this many is kept for validation.
const VALIDATION_ONE_IN: u64 = 40;

/// Prepared data, checked: the pictures are mapped into memory, the records are parsed.
#[derive(Debug)]
pub struct PreparedData {
    folder: PathBuf,
    pixels: Mmap,
    pictures: Vec<PictureRecord>,
    concepts: Vec<ConceptRecord>,
    questions: Vec<QuestionRecord>,
    texts: Vec<TextRecord>,
    sketches: HashMap<usize, Sketch>,
    statements: Vec<StatementRecord>,
    fonts: Vec<FontRecord>,
    /// Which pictures are kept for validation.
    validation: OnceLock<Vec<bool>>,
}

impl PreparedData {
    /// Opens a folder that [`prepare`](super::prepare) wrote, and checks that its files agree with each
    /// other.
    ///
    /// # Errors
    ///
    /// Fails where the folder holds no prepared data, a file is missing, a line is not a record of its kind,
    /// the pixels are not as many as the pictures, or a record points to a picture or concept that does not
    /// exist or has another split.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let concepts = read_concepts(folder)?;
        let pictures: Vec<PictureRecord> = read_lines(&folder.join("pictures.jsonl"))?;
        let questions: Vec<QuestionRecord> = read_lines(&folder.join("questions.jsonl"))?;
        let texts = read_lines(&folder.join("texts.jsonl"))?;
        let sketches: Vec<SketchRecord> = read_lines(&folder.join("sketches.jsonl"))?;
        let statements: Vec<StatementRecord> = read_lines(&folder.join("statements.jsonl"))?;
        // Folders that were prepared before there were any have no fonts.
        let fonts = folder.join("fonts.jsonl");
        let fonts = if fonts.exists() {
            read_lines(&fonts)?
        } else {
            Vec::new()
        };
        check_statements(&statements, &pictures, &folder.join("statements.jsonl"))?;
        check_pictures(&pictures, &concepts, &folder.join("pictures.jsonl"))?;
        check_questions(&questions, &pictures, &folder.join("questions.jsonl"))?;
        let pixels = map_pixels(&folder.join("pictures.bin"), pictures.len())?;
        Ok(Self {
            folder: folder.to_owned(),
            pixels,
            pictures,
            concepts,
            questions,
            texts,
            sketches: sketches
                .into_iter()
                .map(|sketch| (sketch.picture, sketch.strokes))
                .collect(),
            statements,
            fonts,
            validation: OnceLock::new(),
        })
    }

    /// Returns the folder that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists what the pictures show, by index.
    pub fn pictures(&self) -> &[PictureRecord] {
        &self.pictures
    }

    /// Returns a picture's pixels: [`PICTURE_BYTES`] bytes, RGBA, straight alpha, row-major. None beyond the
    /// last.
    pub fn rgba(&self, picture: usize) -> Option<&[u8]> {
        let start = picture.checked_mul(PICTURE_BYTES)?;
        self.pixels.get(start..start.checked_add(PICTURE_BYTES)?)
    }

    /// Returns a picture's strokes, where it is a sketch.
    pub fn sketch(&self, picture: usize) -> Option<&Sketch> {
        self.sketches.get(&picture)
    }

    /// Lists the concepts, in the order of their keys.
    pub fn concepts(&self) -> &[ConceptRecord] {
        &self.concepts
    }

    /// Finds a concept by its key.
    pub fn concept(&self, key: &str) -> Option<&ConceptRecord> {
        find_concept(&self.concepts, key)
    }

    /// Lists the questions.
    pub fn questions(&self) -> &[QuestionRecord] {
        &self.questions
    }

    /// Lists the sentences about pictures.
    pub fn statements(&self) -> &[StatementRecord] {
        &self.statements
    }

    /// Lists the fonts that words are written in.
    pub fn fonts(&self) -> &[FontRecord] {
        &self.fonts
    }

    /// Lists the lines of training text.
    pub fn texts(&self) -> &[TextRecord] {
        &self.texts
    }

    /// Tells whether a training picture is kept for validation: by a hash of its pixels, so that a picture
    /// stays on its side when others come or go. The first call hashes all of them.
    pub fn is_validation(&self, picture: usize) -> bool {
        let kept = self.validation.get_or_init(|| {
            let pictures = self.pixels.par_chunks_exact(PICTURE_BYTES).zip(&self.pictures);
            pictures
                .map(|(pixels, record)| record.split == Split::Train && is_kept(pixels))
                .collect()
        });
        kept.get(picture).copied().unwrap_or(false)
    }
}

fn is_kept(pixels: &[u8]) -> bool {
    let digest = Sha256::digest(pixels);
    let first = digest.first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(first).is_multiple_of(VALIDATION_ONE_IN)
}

/// Parses the concepts of prepared data, and checks them.
pub(super) fn read_concepts(folder: &Path) -> Result<Vec<ConceptRecord>, DataError> {
    let path = folder.join("concepts.jsonl");
    if !path.exists() {
        return Err(DataError::NotPrepared {
            folder: folder.to_owned(),
        });
    }
    let concepts: Vec<ConceptRecord> = read_lines(&path)?;
    check_concepts(&concepts, &path)?;
    Ok(concepts)
}

fn find_concept<'a>(concepts: &'a [ConceptRecord], key: &str) -> Option<&'a ConceptRecord> {
    let index = concepts
        .binary_search_by(|concept| concept.concept.as_str().cmp(key))
        .ok()?;
    concepts.get(index)
}

/// Parses a file of one JSON record a line.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DataError> {
    let file = File::open(path).map_err(DataError::file("read", path))?;
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let read = std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut line);
        if read.map_err(DataError::file("read", path))? == 0 {
            return Ok(records);
        }
        let number = records.len() + 1;
        if line.len() >= MAX_LINE_BYTES && !line.ends_with(b"\n") {
            let expected = format!("line {number} to be shorter than {MAX_LINE_BYTES} bytes");
            return Err(unexpected(path, expected, "a longer one"));
        }
        let record = serde_json::from_slice(&line).map_err(|source| DataError::Json {
            path: path.to_owned(),
            line: Some(number),
            source,
        })?;
        records.push(record);
    }
}

#[expect(
    unsafe_code,
    reason = "a memory map is only as stable as its file; see the safety comment"
)]
fn map_pixels(path: &Path, pictures: usize) -> Result<Mmap, DataError> {
    let file = File::open(path).map_err(DataError::file("read", path))?;
    // SAFETY: prepared files are written under another name and then renamed, never changed in place, so the
    // mapped file keeps its length and bytes; any bytes are valid pixels.
    let pixels = unsafe { Mmap::map(&file) }.map_err(DataError::file("map", path))?;
    if Some(pixels.len()) == pictures.checked_mul(PICTURE_BYTES) {
        return Ok(pixels);
    }
    let expected = format!("{PICTURE_BYTES} bytes for each of the {pictures} pictures in pictures.jsonl");
    Err(unexpected(path, expected, format!("{} bytes", pixels.len())))
}

fn check_concepts(concepts: &[ConceptRecord], path: &Path) -> Result<(), DataError> {
    for pair in concepts.windows(2) {
        if let [first, second] = pair
            && first.concept >= second.concept
        {
            let expected = "concepts in the order of their keys, each once".to_owned();
            return Err(unexpected(
                path,
                expected,
                format!("{} before {}", first.concept, second.concept),
            ));
        }
    }
    match concepts.iter().find(|concept| concept.split == Split::Test) {
        Some(concept) => Err(unexpected(
            path,
            "split 'train' or 'held'",
            format!("'test' for {}", concept.concept),
        )),
        None => Ok(()),
    }
}

fn check_pictures(
    pictures: &[PictureRecord],
    concepts: &[ConceptRecord],
    path: &Path,
) -> Result<(), DataError> {
    for (index, picture) in pictures.iter().enumerate() {
        let line = index + 1;
        let Some(key) = &picture.concept else {
            if picture.split == Split::Held {
                let expected = format!("a concept for the held-out picture of line {line}");
                return Err(unexpected(path, expected, "none"));
            }
            continue;
        };
        let concept = find_concept(concepts, key).ok_or_else(|| {
            let expected = format!("line {line} to name a concept of concepts.jsonl");
            unexpected(path, expected, format!("'{key}'"))
        })?;
        if picture.split != concept.split {
            let expected = format!(
                "line {line} to have the split {:?} of its concept {key}",
                concept.split
            );
            return Err(unexpected(path, expected, format!("{:?}", picture.split)));
        }
    }
    Ok(())
}

fn check_questions(
    questions: &[QuestionRecord],
    pictures: &[PictureRecord],
    path: &Path,
) -> Result<(), DataError> {
    for (index, question) in questions.iter().enumerate() {
        let line = index + 1;
        let picture = pictures.get(question.picture).ok_or_else(|| {
            let expected = format!("line {line} to name one of {} pictures", pictures.len());
            unexpected(path, expected, format!("picture {}", question.picture))
        })?;
        if question.split != picture.split {
            let expected = format!("line {line} to have the split {:?} of its picture", picture.split);
            return Err(unexpected(path, expected, format!("{:?}", question.split)));
        }
    }
    Ok(())
}

fn check_statements(
    statements: &[StatementRecord],
    pictures: &[PictureRecord],
    path: &Path,
) -> Result<(), DataError> {
    for (index, statement) in statements.iter().enumerate() {
        let line = index + 1;
        let found = |picture: &usize| pictures.get(*picture).is_some_and(|p| p.split == Split::Train);
        if statement.pictures.is_empty() || !statement.pictures.iter().all(found) {
            let expected = format!("line {line} to name training pictures");
            return Err(unexpected(path, expected, format!("{:?}", statement.pictures)));
        }
    }
    Ok(())
}

fn unexpected(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::Unexpected {
        path: path.to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}
