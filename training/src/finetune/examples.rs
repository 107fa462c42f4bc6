//! Records, tokenized.

use std::sync::Arc;

use multiway_data::Corrupt;
use multiway_jobs::{LabelledRecord, LabelledRecords, UnusableRecord};
use multiway_model::{ModelConfig, Patch, Pooling};
use multiway_prompts::{Choices, OutputSpec, Prompt, PromptPart};
use multiway_runtime::{Engine, TokenId, Tokenizer, TokenizerError};
use multiway_tasks::{PreparedTask, Task};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::error::FinetuneError;
use crate::objective::{Example, ExamplePicture};
use crate::random::below;

/// The most bytes that the pictures of all examples may take.
const MAX_PICTURE_BYTES: usize = 4 << 30;

/// What the model is to answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// One of these texts, each with the task's prefix before it and `</s>` behind it.
    Texts {
        targets: Vec<Vec<TokenId>>,
        /// How many tokens of each are the prefix.
        given: usize,
    },
    /// One of the classes of the model's head.
    Classes(Vec<u32>),
}

/// A record as the model takes it.
#[derive(Debug, Clone)]
pub struct TuningExample {
    id: String,
    pictures: Vec<Arc<ExamplePicture>>,
    tokens: Vec<TokenId>,
    pub(super) wanted: Wanted,
    /// A digest of all that the model sees and is to answer.
    digest: [u8; 32],
    /// A digest of the pictures, or of the prompt where there are none: the records of a picture stay
    /// together when some are taken out to validate with.
    source: [u8; 32],
}

/// The records of a data set that can be used, and what is wrong with the others.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ExampleSet {
    /// Those that can be used, in the order of the data.
    pub examples: Vec<TuningExample>,
    /// Those that cannot.
    pub unusable: Vec<UnusableRecord>,
    /// The rows of the data that could not be read.
    pub corrupt: Vec<Corrupt>,
}

impl ExampleSet {
    /// Takes about this share of the examples out, to validate with: those whose pictures, or
    /// prompts where there are none, have the smallest digests, so that a picture is always on one side. One
    /// at least is taken where there are two
    /// and the share is not zero.
    #[must_use]
    pub fn split_off(&mut self, share: f64) -> Vec<TuningExample> {
        let all = std::mem::take(&mut self.examples);
        let is_below = |example: &TuningExample| example.place() < share;
        let (mut validation, mut train): (Vec<_>, Vec<_>) = all.into_iter().partition(is_below);
        if validation.is_empty() && share > 0.0 && train.len() > 1 {
            let lowest = train.iter().map(|example| example.source).min();
            (validation, train) = train
                .into_iter()
                .partition(|example| Some(example.source) == lowest);
        }
        self.examples = train;
        validation
    }
}

impl TuningExample {
    /// Returns what names the record.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Returns a number from 0 to 1 that the contents alone decide.
    fn place(&self) -> f64 {
        let [a, b, c, d, ..] = self.source;
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }

    /// Counts the numbers of its pictures.
    fn picture_values(&self) -> usize {
        self.pictures.iter().map(|picture| picture.pixels.len()).sum()
    }

    /// Makes an example with one of the right answers: a drawn one, or the first.
    pub(super) fn drawn(&self, rng: Option<&mut ChaCha8Rng>) -> (Example, Option<u32>) {
        let at = |count: usize| rng.map_or(0, |rng| below(rng, count));
        let mut example = Example {
            pictures: self.pictures.clone(),
            tokens: self.tokens.clone(),
            ..Example::default()
        };
        match &self.wanted {
            Wanted::Texts { targets, given } => {
                example.target = targets.get(at(targets.len())).cloned().unwrap_or_default();
                example.given = *given;
                (example, None)
            }
            Wanted::Classes(classes) => (example, classes.get(at(classes.len())).copied()),
        }
    }
}

/// What examples are made for.
struct Reading<'e> {
    tokenizer: &'e Tokenizer,
    config: &'e ModelConfig,
    /// The classes of the model's head, where the task asks for one of them.
    labels: Option<Arc<Vec<String>>>,
    patches: Vec<Patch>,
}

/// Reads all records of a task's data, and keeps them in memory. At most `most_unusable` may be unusable.
///
/// # Errors
///
/// Fails where the model cannot be trained on the task, the data cannot be read, lacks a field, or has too
/// many records that cannot be used.
pub fn read_examples(
    mut records: LabelledRecords<'_>,
    task: &Task,
    engine: &Engine,
    model: &str,
    most_unusable: usize,
) -> Result<ExampleSet, FinetuneError> {
    let reading = Reading::new(task, engine, model)?;
    let mut set = ExampleSet::default();
    let mut values = 0;
    for record in records.by_ref() {
        let unusable = match record? {
            Ok(record) => match reading.example(&record) {
                Ok(example) => {
                    values += example.picture_values();
                    if values * size_of::<f32>() > MAX_PICTURE_BYTES {
                        return Err(FinetuneError::TooLarge {
                            most: MAX_PICTURE_BYTES,
                        });
                    }
                    set.examples.push(example);
                    continue;
                }
                Err(reason) => UnusableRecord::new(record.id, reason),
            },
            Err(unusable) => unusable,
        };
        tracing::debug!(
            record = unusable.id,
            reason = unusable.reason,
            "a record cannot be used"
        );
        set.unusable.push(unusable);
        if let ([first, ..], Some(last)) = (set.unusable.as_slice(), set.unusable.last())
            && set.unusable.len() > most_unusable
        {
            return Err(FinetuneError::TooManyUnusable {
                unusable: set.unusable.len(),
                most: most_unusable,
                first: first.clone(),
                last: last.clone(),
            });
        }
    }
    set.corrupt = records.take_corrupt();
    if set.examples.is_empty() {
        return Err(FinetuneError::NoExamples {
            unusable: set.unusable.len(),
            first: set.unusable.first().cloned(),
        });
    }
    Ok(set)
}

impl<'e> Reading<'e> {
    /// Checks that the model can be trained on the task.
    fn new(task: &Task, engine: &'e Engine, model: &str) -> Result<Self, FinetuneError> {
        let (config, output) = (engine.config(), &task.file().output);
        let refuse = |reason| FinetuneError::Model {
            model: model.to_owned(),
            task: task.name().to_owned(),
            reason,
        };
        let of_model = matches!(output, OutputSpec::Choice(choice) if choice.choices == Choices::OfModel);
        let labels = if of_model {
            if config
                .class_head
                .is_some_and(|head| head.pooling == Pooling::Pair)
            {
                return Err(refuse("its head reads two pictures of one sentence at a time"));
            }
            let labels = engine.labels();
            Some(labels.map_err(|_| refuse("it has no head with named classes"))?)
        } else {
            if !is_written(output) {
                return Err(FinetuneError::Kind {
                    task: task.name().to_owned(),
                    kind: output.kind(),
                });
            }
            if config.decoder.is_none() {
                return Err(refuse(match config.writing_mask() {
                    Some(_) => {
                        "it writes through its encoder, a word at a time at a mask, which cannot be differentiated here"
                    }
                    None => "it has no decoder that writes text",
                }));
            }
            None
        };
        let patches = (0..config.patches()).map(|index| Patch { index, masked: false });
        Ok(Self {
            tokenizer: engine.tokenizer(),
            config,
            labels,
            patches: patches.collect(),
        })
    }

    /// Encodes a record. The error says what is wrong with it.
    fn example(&self, record: &LabelledRecord) -> Result<TuningExample, String> {
        let task = &record.task;
        let tokens = self.prompt(task)?;
        let pictures = self.pictures(task)?;
        // Every prompt ends in `</s>`.
        if tokens.len() < 2 && pictures.is_empty() {
            return Err("the prompt is empty".to_owned());
        }
        let wanted = match &self.labels {
            Some(labels) => Wanted::Classes(classes(&record.targets, labels)?),
            None => self.texts(task, &record.targets)?,
        };
        let digest = digest(&tokens, &pictures, &wanted);
        Ok(TuningExample {
            id: record.id.clone(),
            source: source(&tokens, &pictures),
            tokens,
            pictures,
            wanted,
            digest,
        })
    }

    fn prompt(&self, task: &PreparedTask) -> Result<Vec<TokenId>, String> {
        let tokens = self.tokenizer.encode_prompt(task.prompt()).map_err(told)?;
        let (found, most) = (tokens.len(), self.config.max_text_length);
        if found > most {
            return Err(format!(
                "the prompt has {found} tokens, expected at most {most}, the model's limit"
            ));
        }
        Ok(tokens)
    }

    fn pictures(&self, task: &PreparedTask) -> Result<Vec<Arc<ExamplePicture>>, String> {
        let shown: Vec<usize> = task.prompt().images().collect();
        let (found, most) = (shown.len(), self.config.max_images());
        if found > most {
            return Err(format!(
                "the prompt shows {found} pictures, the model takes at most {most}"
            ));
        }
        let picture = |index: usize| {
            let image = task.images().get(index);
            let image =
                image.ok_or_else(|| format!("the prompt shows picture {index}, and there is none"))?;
            Ok(Arc::new(ExamplePicture {
                pixels: image.pixels().to_vec(),
                patches: self.patches.clone(),
                answers: Vec::new(),
                whole: None,
            }))
        };
        shown.into_iter().map(picture).collect()
    }

    /// Tokenizes right answers as the engine scores candidates.
    fn texts(&self, task: &PreparedTask, targets: &[Prompt]) -> Result<Wanted, String> {
        let prefix = self.tokenizer.encode_prefix(task.prefix()).map_err(told)?;
        let target = |target: &Prompt| {
            let tokens = self.tokens(target).map_err(told)?;
            // A target may spell the prefix out.
            let own = tokens.strip_prefix(prefix.as_slice()).unwrap_or(&tokens);
            let all = [prefix.as_slice(), own, &[self.config.eos_token_id]].concat();
            let (found, most) = (all.len(), self.config.max_target_length);
            if found > most {
                return Err(format!(
                    "the target has {found} tokens, prefix and end included, expected at most {most}, the model's limit"
                ));
            }
            Ok(all)
        };
        Ok(Wanted::Texts {
            targets: targets.iter().map(target).collect::<Result<_, String>>()?,
            given: prefix.len(),
        })
    }

    fn tokens(&self, target: &Prompt) -> Result<Vec<TokenId>, TokenizerError> {
        let mut tokens = Vec::new();
        for part in &target.parts {
            match part {
                PromptPart::Text(text) => tokens.extend(self.tokenizer.encode_text(text)?),
                PromptPart::Special(name) => tokens.push(self.tokenizer.require_special(name)?),
                PromptPart::Image(_) => {}
            }
        }
        Ok(tokens)
    }
}

/// Tells whether answers of a kind are a text, without places in a picture.
fn is_written(output: &OutputSpec) -> bool {
    matches!(
        output,
        OutputSpec::Text { fill: None }
            | OutputSpec::Choice(_)
            | OutputSpec::Predicate(_)
            | OutputSpec::Level(_)
            | OutputSpec::Labels(_)
            | OutputSpec::Number(_)
            | OutputSpec::Table
            | OutputSpec::Json { .. }
    )
}

/// Finds the classes of right answers; those that the model does not know are left out, unless it knows none.
fn classes(targets: &[Prompt], labels: &[String]) -> Result<Vec<u32>, String> {
    let texts: Vec<String> = targets.iter().map(Prompt::text).collect();
    let class = |text: &String| u32::try_from(labels.iter().position(|label| label == text)?).ok();
    let classes: Vec<u32> = texts.iter().filter_map(class).collect();
    if classes.is_empty() {
        return Err(format!(
            "expected one of the {} classes of the model's head, found '{}'",
            labels.len(),
            texts.join("', '")
        ));
    }
    Ok(classes)
}

fn digest(tokens: &[TokenId], pictures: &[Arc<ExamplePicture>], wanted: &Wanted) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Tokens of a vocabulary are below its size: the separator is none of them.
    let mut add = |ids: &[u32]| {
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        hash.update(u32::MAX.to_le_bytes());
    };
    add(tokens);
    match wanted {
        Wanted::Texts { targets, .. } => targets.iter().for_each(|target| add(target)),
        Wanted::Classes(classes) => add(classes),
    }
    for picture in pictures {
        picture
            .pixels
            .iter()
            .for_each(|value| hash.update(value.to_le_bytes()));
    }
    hash.finalize().into()
}

fn source(tokens: &[TokenId], pictures: &[Arc<ExamplePicture>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for value in pictures.iter().flat_map(|picture| &picture.pixels) {
        hash.update(value.to_le_bytes());
    }
    if pictures.is_empty() {
        tokens.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    hash.finalize().into()
}

fn told(error: TokenizerError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(number: u32) -> TuningExample {
        let wanted = Wanted::Texts {
            targets: vec![vec![9, number, 1], vec![9, 7, 1]],
            given: 1,
        };
        let tokens = vec![number, 1];
        TuningExample {
            id: format!("record {number}"),
            pictures: Vec::new(),
            digest: digest(&tokens, &[], &wanted),
            source: source(&tokens, &[]),
            tokens,
            wanted,
        }
    }

    fn ids(examples: &[TuningExample]) -> Vec<&str> {
        examples.iter().map(TuningExample::id).collect()
    }

    #[test]
    fn the_contents_alone_decide_who_validates() {
        let set = |numbers: &mut dyn Iterator<Item = u32>| ExampleSet {
            examples: numbers.map(example).collect(),
            ..ExampleSet::default()
        };
        let (mut forth, mut back) = (set(&mut (0..300)), set(&mut (0..300).rev()));
        let (some, same) = (forth.split_off(0.2), back.split_off(0.2));
        assert!((40..80).contains(&some.len()), "{}", some.len());
        assert_eq!(some.len() + forth.examples.len(), 300);
        let (mut some, mut same) = (ids(&some), ids(&same));
        some.sort_unstable();
        same.sort_unstable();
        assert_eq!(some, same);

        let mut few = set(&mut (0..2));
        assert_eq!(few.split_off(1e-9).len(), 1, "one at least");
        let mut none = set(&mut (0..300));
        assert!(none.split_off(0.0).is_empty());
    }

    #[test]
    fn questions_about_one_picture_stay_together() {
        let question = |number: u32| {
            let picture = Arc::new(ExamplePicture {
                pixels: vec![(number / 3) as f32; 12],
                patches: Vec::new(),
                answers: Vec::new(),
                whole: None,
            });
            let pictures = vec![picture];
            TuningExample {
                source: source(&[number, 1], &pictures),
                pictures,
                ..example(number)
            }
        };
        let mut set = ExampleSet {
            examples: (0..300).map(question).collect(),
            ..ExampleSet::default()
        };
        let some = set.split_off(0.2);
        let pixel = |example: &TuningExample| example.pictures[0].pixels[0].to_bits();
        let shown: std::collections::BTreeSet<u32> = some.iter().map(pixel).collect();
        assert!((8..35).contains(&shown.len()), "{}", shown.len());
        assert_eq!(some.len(), 3 * shown.len());
        assert!(!set.examples.iter().any(|example| shown.contains(&pixel(example))));
    }

    #[test]
    fn any_right_answer_is_drawn_and_the_first_validates() {
        let example = example(4);
        let mut rng = crate::random::fork(1, &[]);
        let drawn: Vec<u32> = (0..50)
            .map(|_| example.drawn(Some(&mut rng)).0.target[1])
            .collect();
        assert!(drawn.contains(&4) && drawn.contains(&7), "{drawn:?}");
        let (first, class) = example.drawn(None);
        assert_eq!((first.target, first.given, class), (vec![9, 4, 1], 1, None));
    }
}
