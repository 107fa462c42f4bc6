//! Draws training examples from prepared data.

use std::collections::HashSet;
use std::sync::Arc;

use multiway_model::{ModelConfig, Patch};
use multiway_prompts::{InputValue, Inputs};
use multiway_runtime::{TokenId, Tokenizer};
use multiway_tasks::TaskLibrary;
use rand_chacha::ChaCha8Rng;

use crate::augment::Augmentation;
use crate::data::{ConceptRecord, LANGUAGES, PreparedData, QuestionRecord, Split};
use crate::error::TrainError;
use crate::masking::{PatchGrid, corrupt_spans, mask_patches};
use crate::objective::{Example, ExamplePicture};
use crate::random::{below, chance, fork};
use crate::teacher::Codes;

/// English names of [`LANGUAGES`], as the caption task takes them.
const LANGUAGE_NAMES: [&str; 9] = [
    "English",
    "German",
    "French",
    "Spanish",
    "Portuguese",
    "Italian",
    "Russian",
    "Japanese",
    "Chinese",
];

/// How many of a hundred fine-tuning examples are questions, if nothing else is said.
pub const QUESTION_SHARE: usize = 16;

/// How many names of other concepts stand beside each picture's own in retrieval: texts cost little.
const OTHER_NAMES: usize = 2;

/// How much of a picture is hidden from the encoder, as shares of its patches.
///
/// Patches that are left out cost nothing. Source: Li et al. 2023, FLIP (arXiv 2212.00794).
#[derive(Debug, Clone, Copy, Default)]
struct Hiding {
    /// In blocks, each patch a mask that is asked for its visual code.
    masked: f32,
    /// Each of the other patches by itself, without a trace.
    left_out: f32,
}

/// Hides what only the picture itself can tell.
const PICTURE_ALONE: Hiding = Hiding {
    masked: 0.4,
    left_out: 0.0,
};

/// Hides less where a text has to be answered from the rest.
const WITH_TEXT: Hiding = Hiding {
    masked: 0.12,
    left_out: 0.45,
};

/// Which examples a run asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Masked modelling of text, pictures, and both together.
    Pretrain,
    /// The task files' prompts.
    Finetune,
}

/// Draws examples; everything random comes from the seed and the example's number.
pub struct ExampleSource {
    data: PreparedData,
    codes: Codes,
    tokenizer: Tokenizer,
    config: ModelConfig,
    tasks: TaskLibrary,
    concepts: Vec<(String, Vec<usize>)>,
    /// Questions whose answer is yes or no, and all others; where there is no question of one kind, both are
    /// all.
    questions: [Vec<usize>; 2],
    question_share: usize,
    seed: u64,
}

impl std::fmt::Debug for ExampleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExampleSource")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl ExampleSource {
    /// Opens prepared data for drawing.
    ///
    /// # Errors
    ///
    /// Fails where there is nothing to train on, or the built-in tasks cannot be read.
    pub fn new(
        data: PreparedData,
        codes: Codes,
        tokenizer: Tokenizer,
        config: ModelConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let concepts: Vec<_> = data
            .train_pictures_by_concept()
            .iter()
            .map(|(key, pictures)| (key.clone(), pictures.clone()))
            .collect();
        let questions = data
            .questions()
            .iter()
            .enumerate()
            .filter(|(_, q)| q.split == Split::Train);
        let questions = by_kind(questions);
        if concepts.is_empty() || questions.iter().any(Vec::is_empty) || data.texts().is_empty() {
            return Err(TrainError::NothingToTrainOn {
                folder: data.folder().to_owned(),
            });
        }
        if codes.pictures() != data.pictures().len() {
            return Err(TrainError::Codes {
                found: codes.pictures(),
                expected: data.pictures().len(),
            });
        }
        let tasks = TaskLibrary::builtin()?;
        Ok(Self {
            data,
            codes,
            tokenizer,
            config,
            tasks,
            concepts,
            questions,
            question_share: QUESTION_SHARE,
            seed,
        })
    }

    /// Sets how many of a hundred fine-tuning examples are questions; else [`QUESTION_SHARE`].
    #[must_use]
    pub fn with_question_share(mut self, share: usize) -> Self {
        self.question_share = share.min(100);
        self
    }

    /// Returns how many of a hundred fine-tuning examples are questions.
    #[must_use]
    pub fn question_share(&self) -> usize {
        self.question_share
    }

    /// Draws one worker's share of a step.
    ///
    /// # Errors
    ///
    /// Fails where a picture or a prompt cannot be made.
    pub fn batch(
        &self,
        stage: Stage,
        step: u64,
        worker: u64,
        size: usize,
    ) -> Result<Vec<Example>, TrainError> {
        let mut examples = Vec::with_capacity(size * 4);
        let mut paired = HashSet::new();
        for index in 0..size {
            let mut rng = fork(self.seed, &[stage as u64, step, worker, index as u64]);
            match stage {
                Stage::Pretrain => examples.push(self.masked(&mut rng)?),
                Stage::Finetune => self.asked(&mut rng, &mut examples, &mut paired)?,
            }
        }
        let mut rng = fork(self.seed, &[stage as u64, step, worker, size as u64]);
        for _ in 0..paired.len() * OTHER_NAMES {
            examples.extend(self.other_name(&paired, &mut rng).transpose()?);
        }
        Ok(examples)
    }

    /// Draws an example of masked modelling.
    fn masked(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let draw = below(rng, 100);
        if draw < 8 {
            return self.masked_text(rng);
        }
        if draw < 20 {
            return self.masked_answer(rng);
        }
        let (concept, picture) = self.concept_and_picture(rng);
        let alone = draw < 24;
        let augmentation = Augmentation::training(self.config.image_size());
        let hiding = if alone { PICTURE_ALONE } else { WITH_TEXT };
        let picture = Some(Arc::new(self.picture(picture, &augmentation, hiding, rng)?));
        if alone {
            // The picture alone: only its patches are asked.
            return Ok(Example {
                picture,
                tokens: vec![self.config.eos_token_id],
                ..Example::default()
            });
        }
        let (language, name) = self.name(concept, rng);
        if draw < 88 {
            let (tokens, target) = self.caption(language, name)?;
            return Ok(Example {
                picture,
                tokens,
                target,
                given: 1,
                ..Example::default()
            });
        }
        let (mut tokens, mut target) = self.corrupt(&self.tokenizer.encode_text(name)?, 0.5, rng);
        tokens.push(self.config.eos_token_id);
        target.push(self.config.eos_token_id);
        Ok(Example {
            picture,
            tokens,
            target,
            given: 0,
            ..Example::default()
        })
    }

    fn masked_text(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let texts = self.data.texts();
        let text = texts
            .get(below(rng, texts.len()))
            .map_or("", |record| record.text.as_str());
        let mut tokens = self.tokenizer.encode_text(text)?;
        let limit = self.config.max_target_length.min(self.config.max_text_length / 2);
        tokens.truncate(limit / 2 * 2 - 8);
        let (mut tokens, mut target) = self.corrupt(&tokens, 0.15, rng);
        tokens.push(self.config.eos_token_id);
        target.push(self.config.eos_token_id);
        target.truncate(self.config.max_target_length);
        Ok(Example {
            tokens,
            target,
            ..Example::default()
        })
    }

    /// A question with its answer, of which the answer is masked.
    fn masked_answer(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let question = self.question(rng);
        let augmentation = Augmentation::faithful(self.config.image_size());
        let picture = self.picture(question.picture, &augmentation, Hiding::default(), rng)?;
        let (tokens, target) = self.answer(question)?;
        Ok(Example {
            picture: Some(Arc::new(picture)),
            tokens,
            target,
            given: 1,
            ..Example::default()
        })
    }

    /// Draws an example of a task, and for retrieval its partner.
    ///
    /// `paired` gathers the concepts whose names retrieval asks for.
    fn asked(
        &self,
        rng: &mut ChaCha8Rng,
        examples: &mut Vec<Example>,
        paired: &mut HashSet<String>,
    ) -> Result<(), TrainError> {
        if below(rng, 100) < self.question_share {
            examples.push(self.masked_answer(rng)?);
            return Ok(());
        }
        let draw = below(rng, 100);
        if draw < 4 {
            examples.push(self.masked_text(rng)?);
            return Ok(());
        }
        let (concept, picture) = self.concept_and_picture(rng);
        let left_out = if chance(rng, 0.5) { 0.4 } else { 0.0 };
        let hiding = Hiding {
            masked: 0.0,
            left_out,
        };
        let augmentation = if chance(rng, 0.7) {
            Augmentation::training(self.config.image_size())
        } else {
            Augmentation::faithful(self.config.image_size())
        };
        let picture = self.picture(picture, &augmentation, hiding, rng)?;
        let (language, name) = self.name(concept, rng);
        let (tokens, target) = self.caption(language, name)?;
        let pair = if draw < 82 { Some(examples.len() + 1) } else { None };
        examples.push(Example {
            picture: Some(Arc::new(picture)),
            tokens,
            target,
            given: 1,
            pair,
            candidate: false,
        });
        if pair.is_some() {
            examples.push(self.name_alone(name)?);
            paired.extend(concept.map(|c| c.concept.clone()));
        }
        Ok(())
    }

    fn name_alone(&self, name: &str) -> Result<Example, TrainError> {
        let mut tokens = self.tokenizer.encode_text(name)?;
        tokens.truncate(self.config.max_text_length - 1);
        tokens.push(self.config.eos_token_id);
        Ok(Example {
            tokens,
            candidate: true,
            ..Example::default()
        })
    }

    /// Draws a name that is right for no picture of the batch.
    fn other_name(
        &self,
        paired: &HashSet<String>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Result<Example, TrainError>> {
        let (key, _) = self.concepts.get(below(rng, self.concepts.len()))?;
        if paired.contains(key) {
            return None;
        }
        let (_, name) = self.name(self.data.concept(key), rng);
        Some(self.name_alone(name))
    }

    fn concept_and_picture(&self, rng: &mut ChaCha8Rng) -> (Option<&ConceptRecord>, usize) {
        match self.concepts.get(below(rng, self.concepts.len())) {
            Some((key, pictures)) => {
                let picture = pictures.get(below(rng, pictures.len())).copied().unwrap_or(0);
                (self.data.concept(key), picture)
            }
            None => (None, 0),
        }
    }

    /// Chooses a language, mostly English, and the concept's name in it.
    fn name<'a>(&self, concept: Option<&'a ConceptRecord>, rng: &mut ChaCha8Rng) -> (usize, &'a str) {
        let language = if chance(rng, 0.75) {
            0
        } else {
            below(rng, LANGUAGES.len())
        };
        let name = concept.and_then(|c| c.name(LANGUAGES[language]));
        (language, name.unwrap_or_default())
    }

    /// Draws a question: one to be answered with yes or no as often as any other, for the others teach more.
    fn question(&self, rng: &mut ChaCha8Rng) -> &QuestionRecord {
        let kind = &self.questions[usize::from(chance(rng, 0.5))];
        // Each kind holds indices of `data.questions()`, and is not empty.
        &self.data.questions()[kind[below(rng, kind.len())]]
    }

    fn caption(&self, language: usize, name: &str) -> Result<(Vec<TokenId>, Vec<TokenId>), TrainError> {
        let inputs = Inputs::from_iter([
            ("image".to_owned(), InputValue::Image(0)),
            (
                "language".to_owned(),
                InputValue::Text(LANGUAGE_NAMES[language].to_owned()),
            ),
        ]);
        self.prompt_and_target("caption", &inputs, name)
    }

    fn answer(&self, question: &QuestionRecord) -> Result<(Vec<TokenId>, Vec<TokenId>), TrainError> {
        let inputs = Inputs::from_iter([
            ("image".to_owned(), InputValue::Image(0)),
            ("question".to_owned(), InputValue::Text(question.question.clone())),
        ]);
        self.prompt_and_target("vqa", &inputs, &question.answer)
    }

    /// Renders a task's prompt and tokenizes prompt and answer, the answer behind the task's prefix.
    fn prompt_and_target(
        &self,
        task: &str,
        inputs: &Inputs,
        answer: &str,
    ) -> Result<(Vec<TokenId>, Vec<TokenId>), TrainError> {
        let file = self.tasks.get(task)?.file();
        let prompt = file.complete(inputs)?.render(&self.tokenizer.special_names())?;
        let tokens = self.tokenizer.encode_prompt(&prompt)?;
        let mut target = Vec::new();
        for special in &file.decode.prefix {
            target.push(self.tokenizer.require_special(special)?);
        }
        target.extend(self.tokenizer.encode_text(answer)?);
        target.truncate(self.config.max_target_length - 1);
        target.push(self.config.eos_token_id);
        Ok((tokens, target))
    }

    fn corrupt(&self, tokens: &[TokenId], ratio: f32, rng: &mut ChaCha8Rng) -> (Vec<TokenId>, Vec<TokenId>) {
        let last = self.config.vocab_size - 1;
        let sentinel = |n: usize| u32::try_from(last - n).unwrap_or(self.config.eos_token_id);
        corrupt_spans(tokens, ratio, 3.0, sentinel, rng)
    }

    /// Augments a picture and hides some of its patches.
    fn picture(
        &self,
        index: usize,
        augmentation: &Augmentation,
        hiding: Hiding,
        rng: &mut ChaCha8Rng,
    ) -> Result<ExamplePicture, TrainError> {
        let rgba = self.data.rgba(index).unwrap_or_default();
        let mut augmented = augmentation.apply(rgba, rng)?;
        if let Some(vision) = &self.config.vision {
            let area = vision.image_size * vision.image_size;
            for (i, value) in augmented.pixels.iter_mut().enumerate() {
                let channel = i / area;
                *value = (*value - vision.image_mean[channel]) / vision.image_std[channel];
            }
        }
        let side = self.config.grid();
        let grid = PatchGrid {
            rows: side,
            columns: side,
        };
        let mask = mask_patches(grid, hiding.masked, rng);
        let (mut patches, mut codes) = (Vec::with_capacity(mask.len()), Vec::new());
        for (patch, masked) in mask.iter().enumerate() {
            if !masked && chance(rng, hiding.left_out) {
                continue;
            }
            patches.push(Patch {
                index: patch,
                masked: *masked,
            });
            if *masked {
                let cell = augmented.source_cell(patch % side, patch / side, 8);
                codes.push(
                    cell.and_then(|(x, y)| self.codes.code(index, x, y))
                        .map(u32::from),
                );
            }
        }
        Ok(ExamplePicture {
            pixels: augmented.pixels,
            patches,
            codes,
        })
    }
}

/// Parts questions into those to be answered with yes or no and the others; where one part is empty, both are
/// all.
fn by_kind<'a>(questions: impl Iterator<Item = (usize, &'a QuestionRecord)>) -> [Vec<usize>; 2] {
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for (index, question) in questions {
        let is_closed = ["yes", "no"].contains(&question.answer.as_str());
        (if is_closed { &mut closed } else { &mut open }).push(index);
    }
    match (closed.is_empty(), open.is_empty()) {
        (true, _) => [open.clone(), open],
        (_, true) => [closed.clone(), closed],
        _ => [closed, open],
    }
}
