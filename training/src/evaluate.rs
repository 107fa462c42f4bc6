//! Scores a checkpoint on what training never saw, through the same tasks and engine that users have.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use multiway_model::{CacheType, Checkpoint, Device, ImageError, ImageProcessor, LoadError, WeightType};
use multiway_prompts::InputValue;
use multiway_runtime::{Engine, EngineBuilder, EngineError};
use multiway_tasks::{TaskError, TaskInputs, TaskLibrary};
use serde::Serialize;

use crate::data::{AuditReport, DataError, PreparedData, Split, TestPictureRecord, audit, open_test};
use crate::random::{fork, shuffle};

/// What can go wrong in an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// There is nothing to evaluate on.
    #[error("expected at least {expected} {what}, found {found}")]
    TooFew {
        /// What was looked for.
        what: &'static str,
        /// How many were asked for.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A picture cannot be read.
    #[error("cannot read {}", path.display())]
    Picture {
        /// The file, or the prepared data.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The data is unfit, or training data holds what is held out.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine cannot be built.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// What to evaluate on.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Prepared data, for the easy-VQA test split and the audit.
    pub prepared: PathBuf,
    /// The prepared OpenMoji pictures.
    pub openmoji: PathBuf,
    /// How many OpenMoji pictures to draw.
    pub pictures: usize,
    /// How many test questions to ask; all where `None`.
    pub questions: Option<usize>,
    /// Seed of the drawing.
    pub seed: u64,
    /// How many requests to keep running.
    pub concurrency: usize,
    /// Where the model computes.
    pub device: Device,
    /// How the weights of linear layers are kept; else as a packed checkpoint has them, and of others as f32.
    pub weights: Option<WeightType>,
    /// How keys and values are kept between decoding steps.
    pub cache: CacheType,
}

/// Right answers of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Right answers.
    pub right: usize,
    /// All answers.
    pub total: usize,
}

impl Count {
    /// Returns the share of right answers, 0 to 1.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.right as f64 / self.total.max(1) as f64
    }
}

/// The scores of a checkpoint.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// OpenMoji drawings of concepts known from other artists: the right English name ranks first of all
    /// drawn ones.
    pub openmoji_rank_1: Count,
    /// The same drawings: of all drawn names, the right one's vector is nearest to the picture's.
    pub openmoji_nearest: Count,
    /// The same drawings: the caption that is written freely is the English name, letter by letter.
    pub openmoji_exact_caption: Count,
    /// The test split of easy-VQA: the answer is the reference.
    pub easy_vqa: Count,
    /// What the audit of the held-out split looked at.
    pub audit: AuditReport,
}

/// Evaluates a checkpoint; the split is audited first.
///
/// `progress` is told what is done, how many of how many.
///
/// # Errors
///
/// Fails where held-out data is found in training data, or anything cannot be read or run.
pub fn evaluate(
    checkpoint: &Checkpoint,
    options: &EvaluateOptions,
    progress: &(dyn Fn(&'static str, usize, usize) + Sync),
) -> Result<EvaluationReport, EvaluateError> {
    let data = PreparedData::open(&options.prepared)?;
    let audit = audit(&data)?;
    let builder = Engine::builder(checkpoint)
        .device(options.device.clone())
        .cache(options.cache);
    let engine = options
        .weights
        .into_iter()
        .fold(builder, EngineBuilder::weights)
        .build()?;
    let asker = Asker {
        engine,
        tasks: TaskLibrary::builtin()?,
        processor: ImageProcessor::new(checkpoint.config()),
        concurrency: options.concurrency.max(1),
        progress,
    };
    let [openmoji_rank_1, openmoji_nearest, openmoji_exact_caption] = asker.openmoji(options)?;
    let easy_vqa = asker.easy_vqa(&data, options)?;
    Ok(EvaluationReport {
        openmoji_rank_1,
        openmoji_nearest,
        openmoji_exact_caption,
        easy_vqa,
        audit,
    })
}

/// Draws test pictures of known concepts whose names are all different.
fn draw(
    records: Vec<TestPictureRecord>,
    options: &EvaluateOptions,
) -> Result<Vec<TestPictureRecord>, EvaluateError> {
    let mut known: Vec<_> = records
        .into_iter()
        .filter(|record| record.split == Split::Train)
        .collect();
    shuffle(&mut fork(options.seed, &[]), &mut known);
    let mut names = std::collections::HashSet::new();
    known.retain(|record| names.insert(record.name.clone()));
    if known.len() < options.pictures {
        let (expected, found) = (options.pictures, known.len());
        return Err(EvaluateError::TooFew {
            what: "OpenMoji pictures of known concepts",
            expected,
            found,
        });
    }
    known.truncate(options.pictures);
    Ok(known)
}

/// The cosine of two vectors of unit length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

struct Asker<'a> {
    engine: Engine,
    tasks: TaskLibrary,
    processor: ImageProcessor,
    concurrency: usize,
    progress: &'a (dyn Fn(&'static str, usize, usize) + Sync),
}

impl Asker<'_> {
    /// Counts right names ranked first by likelihood and by vectors, and right captions.
    fn openmoji(&self, options: &EvaluateOptions) -> Result<[Count; 3], EvaluateError> {
        let drawn = draw(open_test(&options.openmoji)?, options)?;
        let names: Vec<String> = drawn.iter().map(|record| record.name.clone()).collect();
        let vectors = self.each("names", &names, |name| {
            self.embed(TaskInputs::new().with("text", name.as_str()))
        })?;
        let answers = self.each("OpenMoji pictures", &drawn, |record| {
            let path = options.openmoji.join(&record.file);
            let image = self
                .processor
                .open(&path)
                .map_err(|source| EvaluateError::Picture { path, source })?;
            let inputs = TaskInputs::new().with_image(image);
            let written = self.answer("caption", inputs.clone())?;
            let vector = self.embed(inputs.clone())?;
            let nearest = (0..names.len()).max_by(|a, b| {
                let cosine = |name: &usize| cosine(&vector, &vectors[*name]);
                cosine(a).total_cmp(&cosine(b))
            });
            let nearest = nearest.and_then(|name| names.get(name));
            let ranked = self.answer(
                "classify",
                inputs.with("choices", InputValue::List(names.clone())),
            )?;
            let name = &record.name;
            Ok([ranked == *name, nearest == Some(name), written == *name])
        })?;
        let total = answers.len();
        Ok([0, 1, 2].map(|test: usize| Count {
            right: answers.iter().filter(|answer| answer[test]).count(),
            total,
        }))
    }

    fn easy_vqa(&self, data: &PreparedData, options: &EvaluateOptions) -> Result<Count, EvaluateError> {
        let mut questions: Vec<_> = data
            .questions()
            .iter()
            .filter(|q| q.split == Split::Test)
            .collect();
        shuffle(&mut fork(options.seed, &[1]), &mut questions);
        questions.truncate(options.questions.unwrap_or(usize::MAX));
        if questions.is_empty() {
            return Err(EvaluateError::TooFew {
                what: "test questions",
                expected: 1,
                found: 0,
            });
        }
        let side = u32::try_from(crate::data::PICTURE_SIDE).unwrap_or(0);
        let answers = self.each("easy-VQA questions", &questions, |question| {
            // The shapes are opaque: the colours stand as they are.
            let rgba = data.rgba(question.picture).unwrap_or_default();
            let rgb: Vec<u8> = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
            let image = self.processor.process_rgb8(side, side, &rgb);
            let path = || data.folder().join("pictures.bin");
            let image = image.map_err(|source| EvaluateError::Picture { path: path(), source })?;
            let inputs = TaskInputs::new()
                .with_image(image)
                .with("question", question.question.as_str());
            Ok(self.answer("vqa", inputs)? == question.answer)
        })?;
        Ok(Count {
            right: answers.iter().filter(|right| **right).count(),
            total: answers.len(),
        })
    }

    fn answer(&self, task: &str, inputs: TaskInputs) -> Result<String, EvaluateError> {
        let outcome = self
            .tasks
            .get(task)?
            .run(&self.engine, &inputs)?
            .wait_blocking()?;
        Ok(outcome.answer.text().unwrap_or_default().trim().to_owned())
    }

    fn embed(&self, inputs: TaskInputs) -> Result<Vec<f32>, EvaluateError> {
        let outcome = self.tasks.get("retrieve")?.run(&self.engine, &inputs)?;
        let outcome = outcome.wait_blocking()?;
        Ok(outcome.answer.embedding().unwrap_or_default().to_vec())
    }

    /// Answers each item, several at a time; the answers come in the order of the items.
    fn each<T: Sync, R: Send>(
        &self,
        what: &'static str,
        items: &[T],
        answer: impl Fn(&T) -> Result<R, EvaluateError> + Sync,
    ) -> Result<Vec<R>, EvaluateError> {
        let done = AtomicUsize::new(0);
        let share = items.len().div_ceil(self.concurrency).max(1);
        let work = |chunk: &[T]| {
            let one = |item: &T| {
                let result = answer(item);
                (self.progress)(what, done.fetch_add(1, Ordering::Relaxed) + 1, items.len());
                result
            };
            chunk.iter().map(one).collect::<Result<Vec<R>, _>>()
        };
        let parts: Vec<Result<Vec<R>, EvaluateError>> = std::thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> = items
                .chunks(share)
                .map(|chunk| scope.spawn(move || work(chunk)))
                .collect();
            handles
                .into_iter()
                .map(|handle| {
                    handle
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        let mut all = Vec::with_capacity(items.len());
        for part in parts {
            all.extend(part?);
        }
        Ok(all)
    }
}
