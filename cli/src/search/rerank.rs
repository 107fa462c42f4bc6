//! Re-ranking: the nearest pictures by two towers, ordered by the model that sees picture and text together.

use std::cmp::Ordering;
use std::path::Path;

use anyhow::anyhow;
use clap::Args;
use futures_util::stream::{self, StreamExt};
use multiway::checkpoint::ModelConfig;
use multiway::prompt::{Choices, InputKind, OutputSpec};
use multiway::tokenizer::Tokenizer;
use multiway::{Engine, ImageProcessor, Task, TaskInputs, TaskLibrary};
use serde::Serialize;

use crate::failure::{Failure, Outcome, task_failure};
use crate::output::note;
use crate::pictures;
use crate::usage::whole_number;

/// How many pictures are decoded and scored at a time.
const AT_A_TIME: usize = 32;

/// The task that says how likely a text is for a picture.
const CAPTION: &str = "caption";

/// A picture that was found.
#[derive(Debug, Serialize)]
pub(super) struct Hit {
    pub(super) path: String,
    /// The cosine similarity.
    pub(super) score: f32,
    /// The score of re-ranking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rerank: Option<f64>,
}

/// Says how the nearest pictures are ordered anew.
#[derive(Debug, Args)]
pub(super) struct RerankArgs {
    /// Order the K nearest images anew by the log-likelihood of the text query as their caption
    #[arg(long, value_name = "K", value_parser = whole_number::<usize>)]
    rerank: Option<usize>,

    /// Task that scores an image and the text query: one that writes text, by the log-likelihood of the
    /// query; one that says yes or no, or chooses among listed answers, by the probability of yes or of the
    /// first, given the query as its required text input
    #[arg(long, value_name = "TASK", default_value = CAPTION, requires = "rerank")]
    rerank_task: String,
}

impl RerankArgs {
    /// Returns how many pictures are ordered anew.
    pub(super) fn count(&self) -> Option<usize> {
        self.rerank
    }

    /// Finds what scores pictures, if that is asked for.
    pub(super) fn reranker<'a>(
        &self,
        library: &'a TaskLibrary,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
        texts: &[String],
    ) -> Outcome<Option<Reranker<'a>>> {
        if self.rerank.is_none() {
            return Ok(None);
        }
        if texts.is_empty() {
            return Err(Failure::Input(anyhow!(
                "--rerank scores images with a text: give the query as --text"
            )));
        }
        let task = library.get(&self.rerank_task).map_err(Failure::input)?;
        let scoring = Scoring::of(task)?;
        for token in &task.file().decode.prefix {
            tokenizer.require_special(token).map_err(Failure::input)?;
        }
        Ok(Some(Reranker {
            task,
            scoring,
            processor: task.image_processor(config),
        }))
    }
}

/// What the score of a picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scoring {
    /// The log-likelihood of the query as the answer.
    Likelihood,
    /// The probability of the answer `first`, given the query as the input `query`.
    Probability { query: String, first: String },
}

impl Scoring {
    fn of(task: &Task) -> Outcome<Self> {
        let file = task.file();
        let first = match &file.output {
            OutputSpec::Text { fill: None } => return Ok(Self::Likelihood),
            OutputSpec::Predicate(predicate) => Some(&predicate.yes),
            OutputSpec::Choice(choice) => match &choice.choices {
                Choices::Listed(choices) => choices.first(),
                _ => None,
            },
            _ => None,
        };
        let Some(first) = first else {
            return Err(Failure::Input(anyhow!(
                "{}: expected a task to re-rank with, which writes text, says yes or no, or chooses among listed \
                 answers; found the output kind {}",
                task.origin(),
                file.output.kind()
            )));
        };
        let mut required = file
            .inputs
            .iter()
            .filter(|(_, spec)| spec.kind == InputKind::Text && spec.is_required());
        match (required.next(), required.next()) {
            (Some((query, _)), None) => Ok(Self::Probability {
                query: query.clone(),
                first: first.clone(),
            }),
            _ => Err(Failure::Input(anyhow!(
                "{}: to re-rank, a task that chooses needs one required input of type text, the query",
                task.origin()
            ))),
        }
    }
}

/// Scores pictures with a text.
pub(super) struct Reranker<'a> {
    task: &'a Task,
    scoring: Scoring,
    processor: ImageProcessor,
}

impl Reranker<'_> {
    /// Orders pictures by their scores, the best first, of equal ones the nearer. One that cannot be read is
    /// noted, and comes last.
    pub(super) async fn order(&self, engine: &Engine, text: &str, hits: &mut [Hit]) -> Outcome {
        let scores: Vec<Outcome<f64>> = stream::iter(hits.iter().map(|hit| hit.path.clone()))
            .map(|path| self.score(engine, text, path))
            .buffered(AT_A_TIME)
            .collect()
            .await;
        for (hit, score) in hits.iter_mut().zip(scores) {
            match score {
                Ok(score) => hit.rerank = Some(score),
                Err(Failure::Input(error)) => note(&format!("cannot re-rank {}: {error:#}", hit.path)),
                Err(failure) => return Err(failure),
            }
        }
        hits.sort_by(|a, b| match (a.rerank, b.rerank) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        Ok(())
    }

    async fn score(&self, engine: &Engine, text: &str, path: String) -> Outcome<f64> {
        let processor = self.processor.clone();
        let image =
            tokio::task::spawn_blocking(move || pictures::open_unnamed(&processor, Path::new(&path))).await;
        let image = image.map_err(Failure::runtime)?.map_err(Failure::input)?;
        let mut inputs = TaskInputs::new().with_image(image);
        if let Scoring::Probability { query, .. } = &self.scoring {
            inputs = inputs.with(query, text);
        }
        let prepared = self
            .task
            .prepare(engine.tokenizer(), &inputs)
            .map_err(task_failure)?;
        match &self.scoring {
            Scoring::Likelihood => prepared
                .log_likelihood(engine, text)
                .await
                .map(f64::from)
                .map_err(task_failure),
            Scoring::Probability { first, .. } => {
                let run = prepared.run(engine).map_err(task_failure)?;
                let outcome = run.wait().await.map_err(task_failure)?;
                let choices = outcome.answer.choices().iter();
                let probability = choices
                    .filter(|choice| &choice.text == first)
                    .map(|choice| choice.probability)
                    .next();
                Ok(probability.unwrap_or_default())
            }
        }
    }
}
