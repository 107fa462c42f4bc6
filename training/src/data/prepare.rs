//! Writes prepared data.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::concepts::read_concepts;
use super::drawings::{Art, Drawing, concept_drawings, digits, shapes};
use super::hands::{further_drawings, named, other_names, photographs, sketches};
use super::iconify::icon_names;
use super::lettering::read_fonts;
use super::names::NameIndex;
use super::packages::Packages;
use super::statements::{Stated, read_statements, records_of};
use super::texts::training_texts;
use super::{DataError, PictureRecord, QuestionRecord, SketchRecord, Source, Split};

/// Pictures drawn between two reports of progress.
const CHUNK: usize = 256;

/// Reports how far a preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    /// How much of it is done.
    pub done: usize,
    /// How much of it there is.
    pub total: usize,
}

/// Counts what was prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreparedSummary {
    /// Pictures by source and split.
    pub pictures: BTreeMap<Source, BTreeMap<Split, usize>>,
    /// Concepts by split.
    pub concepts: BTreeMap<Split, usize>,
    /// Questions by split.
    pub questions: BTreeMap<Split, usize>,
    /// Sentences about pictures, true or false.
    pub statements: usize,
    /// Lines of training text.
    pub texts: usize,
    /// Fonts that words are written in.
    pub fonts: usize,
    /// Records of data sets that could not be read and were passed over.
    pub passed_over: Vec<String>,
}

/// Prepares training data: draws every picture of the packages at one size, and writes it with its records to
/// `out`.
///
/// `packages` is the folder that `scripts/fetch_data.sh` fills; `shards`, where it is given, holds the
/// photographs and sketches that no registry has. The same packages give the same bytes. The files appear in
/// `out` only once all are complete; `progress` is told how far the work is.
///
/// # Errors
///
/// Fails where a package is missing or not as expected, where a drawing cannot be rendered, where concepts on
/// different sides of the split share a name or a drawing, and where a file cannot be written.
pub fn prepare(
    packages: &Path,
    shards: Option<&Path>,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PreparedSummary, DataError> {
    let packages = Packages::new(packages);
    progress(Progress {
        stage: "reading packages",
        done: 0,
        total: 1,
    });
    let concepts = read_concepts(packages)?;
    let (noto, fluent) = (
        icon_names(packages, "noto")?,
        icon_names(packages, "fluent-emoji-flat")?,
    );
    let others = other_names(&concepts, [&noto, &fluent]);
    let index = NameIndex::new(
        &concepts,
        others.iter().map(|(index, name)| (*index, name.as_str())),
    );
    let mut drawings = concept_drawings(packages, &concepts, [&noto, &fluent])?;
    drawings.extend(further_drawings(packages, &concepts, &index)?);
    let mut passed_over = Vec::new();
    if let Some(shards) = shards {
        drawings.extend(sketches(shards, &concepts, &index)?);
        let (photographs, unread) = photographs(shards)?;
        drawings.extend(photographs);
        passed_over = unread;
    }
    let first_shape = drawings.len();
    let shapes = shapes(packages)?;
    let shape_index: HashMap<(Split, usize), usize> = shapes
        .keys()
        .enumerate()
        .map(|(index, key)| (*key, first_shape + index))
        .collect();
    drawings.extend(shapes.into_values());
    drawings.extend(digits(packages)?);
    let stated = shards.map(read_statements).transpose()?.unwrap_or_default();
    let statements = records_of(&stated, drawings.len());
    drawings.extend(stated.into_iter().flat_map(stated_drawings));
    let questions = read_questions(packages, &shape_index)?;
    let fonts = read_fonts(packages)?;
    let free_names = drawings.iter().flat_map(|drawing| &drawing.record.names);
    let texts = training_texts(packages, &concepts, &questions, free_names)?;
    progress(Progress {
        stage: "reading packages",
        done: 1,
        total: 1,
    });

    let files = Files::create(out)?;
    draw(&drawings, &files.partial("pictures.bin"), progress)?;
    files.write_lines("pictures.jsonl", drawings.iter().map(|drawing| &drawing.record))?;
    files.write_lines("concepts.jsonl", &concepts)?;
    files.write_lines("questions.jsonl", &questions)?;
    files.write_lines("texts.jsonl", &texts)?;
    files.write_lines("statements.jsonl", &statements)?;
    files.write_lines("sketches.jsonl", sketch_records(&drawings))?;
    files.write_lines("fonts.jsonl", &fonts)?;
    files.publish(&[
        "fonts.jsonl",
        "sketches.jsonl",
        "statements.jsonl",
        "pictures.bin",
        "pictures.jsonl",
        "concepts.jsonl",
        "questions.jsonl",
        "texts.jsonl",
    ])?;

    let mut summary = PreparedSummary {
        texts: texts.len(),
        fonts: fonts.len(),
        statements: statements.len(),
        passed_over,
        ..PreparedSummary::default()
    };
    for PictureRecord { source, split, .. } in drawings.iter().map(|drawing| &drawing.record) {
        *summary
            .pictures
            .entry(*source)
            .or_default()
            .entry(*split)
            .or_default() += 1;
    }
    concepts
        .iter()
        .for_each(|concept| *summary.concepts.entry(concept.split).or_default() += 1);
    questions
        .iter()
        .for_each(|question| *summary.questions.entry(question.split).or_default() += 1);
    Ok(summary)
}

fn stated_drawings(stated: Stated) -> impl Iterator<Item = Drawing> {
    let pictures = stated.pictures.into_iter();
    pictures.map(move |picture| named(stated.source, Vec::new(), Art::Drawn(picture)))
}

fn sketch_records(drawings: &[Drawing]) -> impl Iterator<Item = SketchRecord> {
    let drawings = drawings.iter().enumerate();
    drawings.filter_map(|(picture, drawing)| match &drawing.art {
        Art::Sketch(strokes) => Some(SketchRecord {
            picture,
            strokes: strokes.clone(),
        }),
        _ => None,
    })
}

/// Draws all pictures into one file, and checks that no drawing of a held-out concept is a training picture
/// too.
fn draw(drawings: &[Drawing], path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), DataError> {
    let mut file = BufWriter::new(File::create(path).map_err(DataError::file("write", path))?);
    let mut seen: HashMap<[u8; 32], &PictureRecord> = HashMap::new();
    for (index, chunk) in drawings.chunks(CHUNK).enumerate() {
        progress(Progress {
            stage: "drawing pictures",
            done: index * CHUNK,
            total: drawings.len(),
        });
        let pictures: Vec<_> = chunk
            .par_iter()
            .map(Drawing::rasterise)
            .collect::<Result<_, _>>()?;
        for (Drawing { record, .. }, picture) in chunk.iter().zip(&pictures) {
            file.write_all(picture.as_raw())
                .map_err(DataError::file("write", path))?;
            let first = *seen
                .entry(Sha256::digest(picture.as_raw()).into())
                .or_insert(record);
            check_same_split(first, record)?;
        }
    }
    progress(Progress {
        stage: "drawing pictures",
        done: drawings.len(),
        total: drawings.len(),
    });
    file.flush().map_err(DataError::file("write", path))
}

/// Checks that two pictures of the same pixels are on the same side of the split, where they show concepts.
fn check_same_split(first: &PictureRecord, second: &PictureRecord) -> Result<(), DataError> {
    match (&first.concept, &second.concept) {
        (Some(one), Some(other)) if first.split != second.split => Err(DataError::SplitConflict {
            first: one.clone(),
            second: other.clone(),
            shared: format!(
                "a drawing (in {} and {})",
                first.source.name(),
                second.source.name()
            ),
        }),
        _ => Ok(()),
    }
}

/// Reads the questions of easy-VQA: lists of question, answer and the picture's number within its split.
fn read_questions(
    packages: Packages<'_>,
    shapes: &HashMap<(Split, usize), usize>,
) -> Result<Vec<QuestionRecord>, DataError> {
    let mut records = Vec::new();
    for (split, name) in [(Split::Train, "train"), (Split::Test, "test")] {
        let file = format!("easy_vqa/data/{name}/questions.json");
        let questions: Vec<(String, String, usize)> = packages.json("easy-vqa", &file)?;
        for (question, answer, number) in questions {
            let picture = shapes
                .get(&(split, number))
                .copied()
                .ok_or_else(|| DataError::Unexpected {
                    path: file.clone().into(),
                    expected: "questions about pictures that exist".to_owned(),
                    found: format!("one about picture {number}"),
                })?;
            records.push(QuestionRecord {
                picture,
                question,
                answer,
                split,
            });
        }
    }
    Ok(records)
}

/// Files that are written under another name and appear together, so that a reader never sees half of one.
pub(super) struct Files<'a> {
    folder: &'a Path,
}

impl<'a> Files<'a> {
    pub(super) fn create(folder: &'a Path) -> Result<Self, DataError> {
        fs::create_dir_all(folder).map_err(DataError::file("create", folder))?;
        Ok(Self { folder })
    }

    /// Names the file to write to until it is complete.
    pub(super) fn partial(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.partial"))
    }

    pub(super) fn write_lines<T: Serialize>(
        &self,
        name: &str,
        records: impl IntoIterator<Item = T>,
    ) -> Result<(), DataError> {
        let path = self.partial(name);
        let mut file = BufWriter::new(File::create(&path).map_err(DataError::file("write", &path))?);
        for record in records {
            serde_json::to_writer(&mut file, &record).map_err(|source| DataError::Json {
                path: path.clone(),
                line: None,
                source,
            })?;
            file.write_all(b"\n").map_err(DataError::file("write", &path))?;
        }
        file.flush().map_err(DataError::file("write", &path))
    }

    pub(super) fn publish(&self, names: &[&str]) -> Result<(), DataError> {
        for name in names {
            let path = self.folder.join(name);
            fs::rename(self.partial(name), &path).map_err(DataError::file("write", &path))?;
        }
        Ok(())
    }
}
