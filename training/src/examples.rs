//! Draws training examples from prepared data.

mod classes;
mod scene_art;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use multiway_model::{ModelConfig, Patch};
use multiway_prompts::{InputValue, Inputs};
use multiway_runtime::{TokenId, Tokenizer};
use multiway_tasks::TaskLibrary;
use rand_chacha::ChaCha8Rng;

pub(crate) use self::classes::ValidationPictures;
use self::classes::{Class, Classes, Name};
pub use self::scene_art::TrainingArt;
use crate::augment::Augmentation;
use crate::data::{PICTURE_SIDE, Pen, PreparedData, QuestionRecord, Split};
use crate::error::TrainError;
use crate::masking::{PatchGrid, corrupt_spans, mask_patches};
use crate::objective::{Example, ExamplePicture, PatchAnswer};
use crate::random::{below, between, chance, fork, shuffle, unit};
use crate::recipe::{Kind, Stage};
use crate::scenes::{self, LetterSplit, Letters, SceneKind};
use crate::teacher::{Codes, Features, GRID_SIDE, TeacherError};

/// English names of the prepared languages, as the caption task takes them.
pub(crate) const LANGUAGE_NAMES: [&str; 12] = [
    "English",
    "German",
    "French",
    "Spanish",
    "Portuguese",
    "Italian",
    "Russian",
    "Japanese",
    "Chinese",
    "Dutch",
    "Polish",
    "Turkish",
];

/// How many names of other things stand beside each picture's own in retrieval: texts cost little.
const OTHER_NAMES: usize = 2;
/// How often a thing's other English names stand for it.
const SYNONYMS: f32 = 0.1;
/// Pictures that validation shows at most.
const VALIDATION: usize = 512;

/// How much of a picture is hidden from the encoder, as shares of its patches.
#[derive(Debug, Clone, Copy, Default)]
struct Hiding {
    /// In blocks, each patch a mask that something is asked of.
    masked: f32,
    /// Each of the other patches by itself, without a trace.
    left_out: f32,
}

/// What the teacher says of the prepared pictures.
#[derive(Debug)]
pub struct Teacher {
    /// Visual codes of patches.
    pub codes: Codes,
    /// Features of patches and of whole pictures.
    pub features: Features,
}

impl Teacher {
    /// Opens what `multiway train codes` wrote beside prepared pictures.
    ///
    /// # Errors
    ///
    /// Fails where a file cannot be read or is not whole.
    pub fn open(prepared: &Path) -> Result<Self, TeacherError> {
        Ok(Self {
            codes: Codes::open(prepared)?,
            features: Features::open(prepared)?,
        })
    }
}

/// Draws examples; everything random comes from the seed and the example's number.
pub struct ExampleSource {
    data: PreparedData,
    teacher: Option<Teacher>,
    tokenizer: Tokenizer,
    config: ModelConfig,
    tasks: TaskLibrary,
    classes: Classes,
    /// Questions whose answer is yes or no, and all others; where there is no question of one kind, both are
    /// all.
    questions: [Vec<usize>; 2],
    /// Pictures of handwritten digits, each with its digit.
    digits: Vec<(usize, String)>,
    /// Sentences about pictures.
    statements: Vec<usize>,
    /// Things that scenes show.
    scene_things: Vec<usize>,
    /// What scenes write.
    letters: Option<Letters>,
    seed: u64,
}

impl std::fmt::Debug for ExampleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExampleSource")
            .field("seed", &self.seed)
            .field("classes", &self.classes.count())
            .finish_non_exhaustive()
    }
}

/// The examples of a step that are being drawn.
#[derive(Default)]
struct Draft {
    examples: Vec<Example>,
    /// The things whose names retrieval asks for.
    paired: HashSet<usize>,
}

impl ExampleSource {
    /// Opens prepared data for drawing. Without a teacher, nothing is asked of masked patches.
    ///
    /// # Errors
    ///
    /// Fails where there is nothing to train on, or the built-in tasks cannot be read.
    pub fn new(
        data: PreparedData,
        teacher: Option<Teacher>,
        tokenizer: Tokenizer,
        config: ModelConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let classes = Classes::of(&data);
        let questions = data
            .questions()
            .iter()
            .enumerate()
            .filter(|(_, q)| q.split == Split::Train && !data.is_validation(q.picture));
        let questions = by_kind(questions);
        if classes.is_empty() || questions.iter().any(Vec::is_empty) || data.texts().is_empty() {
            return Err(TrainError::NothingToTrainOn {
                folder: data.folder().to_owned(),
            });
        }
        if let Some(teacher) = &teacher {
            let expected = data.pictures().len();
            let known = [teacher.codes.pictures(), teacher.features.pictures()];
            if let Some(found) = known.into_iter().find(|found| *found != expected) {
                return Err(TrainError::Codes { found, expected });
            }
        }
        let tasks = TaskLibrary::builtin()?;
        let drawn = |picture: usize, split: Split| split == Split::Train && !data.is_validation(picture);
        let digits = data.pictures().iter().enumerate();
        let digits = digits.filter(|(index, picture)| drawn(*index, picture.split));
        let digits = digits.filter_map(|(index, picture)| Some((index, picture.label.clone()?)));
        let statements = data.statements().iter().enumerate();
        let statements = statements.filter(|(_, statement)| {
            let first = statement.pictures.first();
            first.is_some_and(|picture| drawn(*picture, Split::Train))
        });
        Ok(Self {
            digits: digits.collect(),
            statements: statements.map(|(index, _)| index).collect(),
            scene_things: scene_art::things(&classes),
            letters: Letters::of(&data, LetterSplit::Train),
            data,
            teacher,
            tokenizer,
            config,
            tasks,
            classes,
            questions,
            seed,
        })
    }

    /// Checks that there is all that a stage asks for.
    ///
    /// # Errors
    ///
    /// Fails where it mixes in a kind of which the data has nothing, or asks what no teacher says.
    pub fn check(&self, stage: &Stage) -> Result<(), TrainError> {
        if stage.asks_teacher() && self.teacher.is_none() {
            return Err(TrainError::NoTeacher {
                stage: stage.name.clone(),
            });
        }
        for (kind, missing) in [
            (Kind::Digit, self.digits.is_empty()),
            (Kind::Statement, self.statements.is_empty()),
        ] {
            if missing && stage.mix.get(&kind).is_some_and(|share| *share > 0.0) {
                return Err(TrainError::NoExamples {
                    stage: stage.name.clone(),
                    kind,
                });
            }
        }
        let asks = |kind: SceneKind| stage.scenes.get(&kind).is_some_and(|share| *share > 0.0);
        let draws_scenes = stage.mix.get(&Kind::Scene).is_some_and(|share| *share > 0.0);
        if draws_scenes && asks(SceneKind::Read) && self.letters.is_none() {
            return Err(TrainError::NoLetters {
                stage: stage.name.clone(),
                folder: self.data.folder().to_owned(),
            });
        }
        Ok(())
    }

    /// Draws one worker's share of a step: `size` examples, and for retrieval the names beside them. The
    /// stage has to be one that [`check`](Self::check) accepts.
    ///
    /// # Errors
    ///
    /// Fails where a picture or a prompt cannot be made.
    pub fn batch(
        &self,
        stage: &Stage,
        step: u64,
        worker: u64,
        size: usize,
    ) -> Result<Vec<Example>, TrainError> {
        let mut draft = Draft::default();
        let path = |index: usize| [name_hash(&stage.name), step, worker, index as u64];
        for index in 0..size {
            let mut rng = fork(self.seed, &path(index));
            self.draw(stage, &mut rng, &mut draft)?;
        }
        let mut rng = fork(self.seed, &path(size));
        for _ in 0..draft.paired.len() * OTHER_NAMES {
            let other = self.other_name(&draft.paired, &mut rng).transpose()?;
            draft.examples.extend(other);
        }
        Ok(draft.examples)
    }

    /// Lists examples of the validation split: pictures with their whole English names to be written, plain
    /// and nothing hidden.
    ///
    /// # Errors
    ///
    /// Fails where a picture or a prompt cannot be made.
    pub fn validation(&self) -> Result<Vec<Example>, TrainError> {
        let mut chosen: Vec<_> = self.classes.validation().collect();
        shuffle(&mut fork(0, &[]), &mut chosen);
        let examples = chosen.into_iter().take(VALIDATION).map(|(picture, class)| {
            let augmentation = Augmentation::plain(self.config.image_size());
            let picture = self.picture(picture, &augmentation, Hiding::default(), &mut fork(0, &[1]))?;
            let name = Name {
                language: 0,
                name: class.english(),
            };
            self.captioned(picture, name)
        });
        examples.collect()
    }

    fn draw(&self, stage: &Stage, rng: &mut ChaCha8Rng, draft: &mut Draft) -> Result<(), TrainError> {
        let mask = &stage.mask;
        let hiding = Hiding {
            masked: mask.beside_text,
            left_out: if chance(rng, mask.left_out_of) {
                mask.left_out
            } else {
                0.0
            },
        };
        let example = match draw_of(&stage.mix, rng).unwrap_or(Kind::Text) {
            Kind::Text => self.masked_text(mask.text, rng)?,
            Kind::Question => self.question_and_answer(rng)?,
            Kind::Digit => self.digit(rng)?,
            Kind::Statement => self.statement(rng)?,
            Kind::Scene => self.scene(stage, rng)?,
            Kind::Picture => {
                let alone = Hiding {
                    masked: mask.picture,
                    left_out: 0.0,
                };
                let (_, _, picture) = self.thing(alone, rng)?;
                Example {
                    pictures: vec![Arc::new(picture)],
                    tokens: vec![self.config.eos_token_id],
                    ..Example::default()
                }
            }
            Kind::Spans => {
                let (_, class, picture) = self.thing(hiding, rng)?;
                let name = class.name(&self.data, SYNONYMS, rng).name;
                let text = self.tokenizer.encode_text(name)?;
                let (mut tokens, mut target) = self.corrupt(&text, mask.spans, rng);
                tokens.push(self.config.eos_token_id);
                target.push(self.config.eos_token_id);
                Example {
                    pictures: vec![Arc::new(picture)],
                    tokens,
                    target,
                    ..Example::default()
                }
            }
            Kind::Caption => {
                let (_, class, picture) = self.thing(hiding, rng)?;
                self.captioned(picture, class.name(&self.data, SYNONYMS, rng))?
            }
            Kind::Retrieval => {
                let (index, class, picture) = self.thing(hiding, rng)?;
                let name = class.name(&self.data, SYNONYMS, rng);
                let pair = Some(draft.examples.len() + 1);
                let example = Example {
                    pair,
                    ..self.captioned(picture, name)?
                };
                draft.examples.push(example);
                draft.paired.insert(index);
                self.name_alone(name.name)?
            }
        };
        draft.examples.push(example);
        Ok(())
    }

    /// Draws a thing and a picture of it, augmented and partly hidden.
    fn thing(
        &self,
        hiding: Hiding,
        rng: &mut ChaCha8Rng,
    ) -> Result<(usize, &Class, ExamplePicture), TrainError> {
        let drawn = self.classes.draw(rng);
        let (index, class) = drawn.ok_or_else(|| TrainError::NothingToTrainOn {
            folder: self.data.folder().to_owned(),
        })?;
        let size = self.config.image_size();
        let mut augmentation = match class.set.is_some() {
            true => Augmentation::photograph(size),
            false => Augmentation::training(size),
        };
        augmentation.flip = if class.mirrors { 0.5 } else { 0.0 };
        let picture = self.picture(class.picture(rng), &augmentation, hiding, rng)?;
        Ok((index, class, picture))
    }

    fn masked_text(&self, ratio: f32, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let texts = self.data.texts();
        let text = texts
            .get(below(rng, texts.len()))
            .map_or("", |record| record.text.as_str());
        let mut tokens = self.tokenizer.encode_text(text)?;
        let limit = self.config.max_target_length.min(self.config.max_text_length / 2);
        tokens.truncate(limit / 2 * 2 - 8);
        let (mut tokens, mut target) = self.corrupt(&tokens, ratio, rng);
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
    fn question_and_answer(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let question = self.question(rng);
        let augmentation = Augmentation::faithful(self.config.image_size());
        let picture = self.picture(question.picture, &augmentation, Hiding::default(), rng)?;
        let inputs = one_picture([("question", question.question.clone())]);
        self.answered(vec![Arc::new(picture)], "vqa", &inputs, &question.answer)
    }

    /// A handwritten digit, to be read or asked for.
    fn digit(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        const QUESTIONS: [&str; 3] = [
            "which digit is this?",
            "what number is shown?",
            "what digit is it?",
        ];
        let (index, label) = &self.digits[below(rng, self.digits.len())];
        let augmentation = Augmentation::faithful(self.config.image_size());
        let picture = self.picture(*index, &augmentation, Hiding::default(), rng)?;
        let (task, inputs) = if chance(rng, 0.4) {
            ("read", one_picture([]))
        } else {
            let question = QUESTIONS[below(rng, QUESTIONS.len())];
            ("vqa", one_picture([("question", question.to_owned())]))
        };
        self.answered(vec![Arc::new(picture)], task, &inputs, label)
    }

    /// A sentence about pictures: whether it is true of them. Pictures side by side are shown in any order,
    /// as NLVR's makers did.
    fn statement(&self, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let index = self.statements[below(rng, self.statements.len())];
        let statement = &self.data.statements()[index];
        let mut shown = statement.pictures.clone();
        shuffle(rng, &mut shown);
        let augmentation = Augmentation {
            rotation: 0.0,
            ..Augmentation::faithful(self.config.image_size())
        };
        let pictures = shown.iter().map(|picture| {
            let picture = self.picture(*picture, &augmentation, Hiding::default(), rng);
            picture.map(Arc::new)
        });
        let pictures = pictures.collect::<Result<_, _>>()?;
        let inputs = Inputs::from_iter([
            (
                "images".to_owned(),
                InputValue::Images((0..shown.len()).collect()),
            ),
            (
                "sentence".to_owned(),
                InputValue::Text(statement.sentence.clone()),
            ),
        ]);
        let answer = if statement.label { "true" } else { "false" };
        self.answered(pictures, "verify", &inputs, answer)
    }

    /// A scene that is made on the spot, and a question about it.
    fn scene(&self, stage: &Stage, rng: &mut ChaCha8Rng) -> Result<Example, TrainError> {
        let letters = self.letters.as_ref();
        let art = TrainingArt::styled(&self.data, &self.classes, &self.scene_things, letters);
        // What cannot be asked, for there are no letters, is drawn again: `check` refuses a stage that asks
        // for nothing else.
        let asked = loop {
            let kind = draw_of(&stage.scenes, rng)
                .unwrap_or_else(|| SceneKind::ALL[below(rng, SceneKind::ALL.len())]);
            if let Some(asked) = scenes::ask(kind, &art, self.config.image_size(), rng) {
                break asked;
            }
        };
        let patches: Vec<Patch> = (0..self.config.grid() * self.config.grid())
            .map(|index| Patch { index, masked: false })
            .collect();
        let pictures = asked.pictures.into_iter().map(|mut pixels| {
            self.normalise(&mut pixels);
            Arc::new(ExamplePicture {
                pixels,
                patches: patches.clone(),
                answers: Vec::new(),
                whole: None,
            })
        });
        self.answered(pictures.collect(), asked.task, &asked.inputs, &asked.answer)
    }

    fn captioned(&self, picture: ExamplePicture, name: Name<'_>) -> Result<Example, TrainError> {
        let inputs = one_picture([("language", LANGUAGE_NAMES[name.language].to_owned())]);
        self.answered(vec![Arc::new(picture)], "caption", &inputs, name.name)
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
        paired: &HashSet<usize>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Result<Example, TrainError>> {
        let (index, class) = self.classes.draw(rng)?;
        if paired.contains(&index) {
            return None;
        }
        Some(self.name_alone(class.name(&self.data, SYNONYMS, rng).name))
    }

    /// Draws a question: one to be answered with yes or no as often as any other, for the others teach more.
    fn question(&self, rng: &mut ChaCha8Rng) -> &QuestionRecord {
        let kind = &self.questions[usize::from(chance(rng, 0.5))];
        // Each kind holds indices of `data.questions()`, and is not empty.
        &self.data.questions()[kind[below(rng, kind.len())]]
    }

    /// Asks a task: its prompt, and the answer to be written behind the task's prefix, which is given.
    fn answered(
        &self,
        pictures: Vec<Arc<ExamplePicture>>,
        task: &str,
        inputs: &Inputs,
        answer: &str,
    ) -> Result<Example, TrainError> {
        let file = self.tasks.get(task)?.file();
        let prompt = file.complete(inputs)?.render(&self.tokenizer.special_names())?;
        let tokens = self.tokenizer.encode_prompt(&prompt)?;
        let mut target = self.tokenizer.encode_prefix(&file.decode.prefix)?;
        target.extend(self.encode_answer(answer)?);
        target.truncate(self.config.max_target_length - 1);
        target.push(self.config.eos_token_id);
        Ok(Example {
            pictures,
            tokens,
            target,
            given: 1,
            ..Example::default()
        })
    }

    /// Tokenizes an answer, in which places are special tokens: `cat<loc_3><loc_7>`.
    fn encode_answer(&self, answer: &str) -> Result<Vec<TokenId>, TrainError> {
        let mut tokens = Vec::new();
        let mut rest = answer;
        while let Some((before, after)) = rest.split_once("<loc_") {
            let Some((number, behind)) = after.split_once('>') else {
                break;
            };
            if !before.is_empty() {
                tokens.extend(self.tokenizer.encode_text(before)?);
            }
            tokens.push(self.tokenizer.require_special(&format!("<loc_{number}>"))?);
            rest = behind;
        }
        if !rest.is_empty() {
            tokens.extend(self.tokenizer.encode_text(rest)?);
        }
        Ok(tokens)
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
        let sketched = self
            .data
            .sketch(index)
            .map(|sketch| sketch.draw(pen(rng), PICTURE_SIDE));
        let rgba = match &sketched {
            Some(sketched) => sketched,
            None => self.data.rgba(index).unwrap_or_default(),
        };
        let mut augmented = augmentation.apply(rgba, rng)?;
        self.normalise(&mut augmented.pixels);
        let side = self.config.grid();
        let grid = PatchGrid {
            rows: side,
            columns: side,
        };
        let mask = mask_patches(grid, hiding.masked, rng);
        let (mut patches, mut answers) = (Vec::with_capacity(mask.len()), Vec::with_capacity(mask.len()));
        for (patch, is_masked) in mask.iter().enumerate() {
            if !is_masked && chance(rng, hiding.left_out) {
                continue;
            }
            patches.push(Patch {
                index: patch,
                masked: *is_masked,
            });
            let cell = augmented
                .placement
                .source_cell(patch % side, patch / side, GRID_SIDE, side);
            answers.push(self.patch_answer(index, cell));
        }
        let whole = self
            .teacher
            .as_ref()
            .and_then(|teacher| teacher.features.whole(index));
        Ok(ExamplePicture {
            pixels: augmented.pixels,
            patches,
            answers,
            whole,
        })
    }

    /// Takes planes of colours from 0 to 1 to what the model sees.
    fn normalise(&self, pixels: &mut [f32]) {
        let Some(vision) = &self.config.vision else {
            return;
        };
        let planes = pixels.chunks_exact_mut(vision.image_size * vision.image_size);
        for (plane, (mean, std)) in planes.zip(vision.image_mean.iter().zip(&vision.image_std)) {
            plane.iter_mut().for_each(|value| *value = (*value - mean) / std);
        }
    }

    fn patch_answer(&self, picture: usize, cell: Option<(usize, usize)>) -> PatchAnswer {
        let (Some(teacher), Some((x, y))) = (&self.teacher, cell) else {
            return PatchAnswer::default();
        };
        PatchAnswer {
            code: teacher.codes.code(picture, x, y).map(u32::from),
            features: teacher.features.cell(picture, x, y),
        }
    }
}

/// The inputs of a task about one picture: the picture, and texts by name.
fn one_picture<const N: usize>(texts: [(&str, String); N]) -> Inputs {
    let texts = texts.map(|(name, text)| (name.to_owned(), InputValue::Text(text)));
    let picture = ("image".to_owned(), InputValue::Image(0));
    std::iter::once(picture).chain(texts).collect()
}

/// Draws a key as often as its share says; none where there are no shares.
fn draw_of<K: Copy>(shares: &BTreeMap<K, f64>, rng: &mut ChaCha8Rng) -> Option<K> {
    let total: f64 = shares.values().sum();
    let mut at = f64::from(unit(rng)) * total;
    let drawn = shares.iter().find(|(_, share)| {
        at -= **share;
        at < 0.0
    });
    drawn.or_else(|| shares.iter().next_back()).map(|(key, _)| *key)
}

/// Draws a pen: thin or thick, dark, mostly black.
fn pen(rng: &mut ChaCha8Rng) -> Pen {
    let width = 0.012 * between(rng, 0.0, 1.6).exp();
    let mut colour = [0; 3];
    if chance(rng, 0.4) {
        colour = colour.map(|_: u8| u8::try_from(below(rng, 140)).unwrap_or(0));
    }
    Pen { width, colour }
}

/// Numbers a stage's name, so that stages draw other examples.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
