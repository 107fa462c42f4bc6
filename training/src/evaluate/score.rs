//! What is evaluated on, and the scores.

use std::path::PathBuf;

use multiway_model::{CacheType, Device, ImageError, LoadError, WeightType};
use multiway_runtime::EngineError;
use multiway_tasks::TaskError;
use multiway_tasks::metrics::wilson_interval;
use serde::{Serialize, Serializer};

use crate::data::{AuditReport, DataError};

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
    /// A data set cannot be read.
    #[error("cannot read the data in {}", folder.display())]
    Records {
        /// Its folder.
        folder: PathBuf,
        /// What the reader said.
        source: multiway_data::DataError,
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

/// Which pictures are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationSplit {
    /// Training pictures that training does not draw: for choosing between models.
    Validation,
    /// What is held out: other artists, other concepts, the test splits of data sets. For a last look.
    Test,
}

/// What to evaluate on.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Which pictures are shown.
    pub split: EvaluationSplit,
    /// The tests to run, by their names or the beginnings of them; all where there are none.
    pub only: Vec<String>,
    /// Prepared data, for easy-VQA, digits, the validation split and the audit.
    pub prepared: PathBuf,
    /// The prepared OpenMoji pictures.
    pub openmoji: PathBuf,
    /// Folder of the test shards of photographs and statements; their tests are left out without it.
    pub shards: Option<PathBuf>,
    /// Folder of pictures that are named by their files; its test is left out without it.
    pub named: Option<PathBuf>,
    /// Folder of pictures with a file of right answers, `answers.jsonl`; its test is left out without it.
    pub examples: Option<PathBuf>,
    /// How many drawings to show, and how many scenes of each kind.
    pub pictures: usize,
    /// How many questions to ask of a data set; all where `None`.
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

impl EvaluateOptions {
    /// Tells whether a test is wanted, or one whose name begins so.
    pub(super) fn wants(&self, test: &str) -> bool {
        let is_one = |only: &String| test.starts_with(only.as_str()) || only.starts_with(test);
        self.only.is_empty() || self.only.iter().any(is_one)
    }
}

/// Right answers of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

    /// Returns the bounds of the interval that holds the true share with 95 % confidence (Wilson's).
    #[must_use]
    pub fn interval(&self) -> [f64; 2] {
        let interval = wilson_interval(self.right, self.total);
        [interval.low, interval.high]
    }

    pub(super) fn of(answers: impl IntoIterator<Item = bool>) -> Self {
        let mut count = Self::default();
        for right in answers {
            count.right += usize::from(right);
            count.total += 1;
        }
        count
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [low, high] = self.interval();
        let fields = serde_json::json!({
            "right": self.right, "total": self.total, "rate": self.rate(), "low": low, "high": high,
        });
        fields.serialize(serializer)
    }
}

/// The score of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestScore {
    /// The test's name.
    pub test: String,
    /// What counts as right.
    pub what: &'static str,
    /// Right answers of all.
    #[serde(flatten)]
    pub count: Count,
}

/// The scores of a checkpoint.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The tests, in the order in which they ran.
    pub tests: Vec<TestScore>,
    /// What the audit of the held-out split looked at.
    pub audit: AuditReport,
}

/// Gathers scores, of the tests that are wanted.
pub(super) struct Scores<'a> {
    pub(super) options: &'a EvaluateOptions,
    pub(super) tests: Vec<TestScore>,
}

impl Scores<'_> {
    pub(super) fn push(&mut self, test: impl Into<String>, what: &'static str, count: Count) {
        let test = test.into();
        if count.total > 0 && self.options.wants(&test) {
            self.tests.push(TestScore { test, what, count });
        }
    }

    /// Tells whether one of the tests is wanted.
    pub(super) fn wants(&self, tests: &[&str]) -> bool {
        tests.iter().any(|test| self.options.wants(test))
    }
}
