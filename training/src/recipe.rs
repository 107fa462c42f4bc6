//! A recipe: the stages of a training run, as a TOML file.
//!
//! Stages run one after the other; each begins with the averaged weights of the one before (VLMo, arXiv
//! 2111.02358: pictures and texts alone first, then both together). A stage is a mixture of kinds of
//! examples, what their losses count, how much is masked, and how the optimiser steps.
//!
//! ```
//! use multiway_training::recipe::Recipe;
//!
//! let recipe = Recipe::parse(r#"
//!     [[stage]]
//!     name = "pairs"
//!     steps = 2000
//!     mix = { text = 8, picture = 12, caption = 80 }
//!
//!     [[stage]]
//!     name = "tasks"
//!     steps = 5000
//!     learning_rate = 0.0005
//!     freeze = ["language_embed.*"]
//!     mix = { caption = 50, retrieval = 30, question = 20 }
//! "#)?;
//! assert_eq!(recipe.stages[1].batch, 64);
//! # Ok::<(), multiway_training::recipe::RecipeError>(())
//! ```

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use multiway_model::ModelConfig;
use multiway_model::kernels::Products;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::objective::{LossWeights, default_config};
use crate::scenes::SceneKind;

/// What can go wrong in reading a recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("the recipe is not as expected: {0}")]
    Form(#[from] toml::de::Error),
    /// A value cannot be used.
    #[error("{place}: expected {expected}, found {found}")]
    Value {
        /// Which stage and setting.
        place: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The model's settings cannot be used.
    #[error("[model] of the recipe cannot be used")]
    Model(#[from] multiway_model::ConfigError),
}

/// The stages of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The seed of weights and examples.
    #[serde(default = "one")]
    pub seed: u64,
    /// Settings of the model that differ from the default.
    #[serde(default)]
    pub model: BTreeMap<String, Value>,
    /// The stages, in their order.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name: also the folder of its states and losses.
    pub name: String,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Examples a step, over all workers.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// The highest learning rate.
    #[serde(default = "default_rate")]
    pub learning_rate: f64,
    /// Steps until the highest learning rate; a twentieth of all, at most 500, if it is not given.
    pub warmup: Option<u64>,
    /// The share of the steps, at the end, over which the learning rate falls to a fiftieth of the highest:
    /// 1 falls from the end of the warm-up.
    ///
    /// Source: Hu et al. 2024, MiniCPM (arXiv 2404.06395), section 4: a run that may be prolonged stays at
    /// its highest rate and falls late.
    #[serde(default = "all")]
    pub decay: f64,
    /// How hidden matrices are stepped.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How linear layers and Muon multiply.
    #[serde(default)]
    pub products: ProductType,
    /// Decay of the moving average of the weights, which is what a stage hands on.
    #[serde(default = "default_average")]
    pub average_decay: f32,
    /// Steps between two saved states.
    #[serde(default = "default_save")]
    pub save_every: u64,
    /// Steps between two looks at the validation split; 0 looks never.
    #[serde(default = "default_validate")]
    pub validate_every: u64,
    /// The stage ends early after this many looks at the validation split without a better one; 0 never ends
    /// it.
    #[serde(default)]
    pub patience: u64,
    /// Steps in a row whose gradient is not finite that are passed over, weights unchanged; one more ends the
    /// run.
    #[serde(default = "default_skips")]
    pub skip_not_finite: u64,
    /// Parameters that stay as they are, by patterns of their names, in which `*` stands for anything.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// How often each kind of example is drawn, relative to the others.
    pub mix: BTreeMap<Kind, f64>,
    /// How often each kind of scene is made, relative to the others; all as often, if nothing is said.
    #[serde(default)]
    pub scenes: BTreeMap<SceneKind, f64>,
    /// How the parts of the loss are weighed.
    #[serde(default)]
    pub loss: LossWeights,
    /// How much is masked.
    #[serde(default)]
    pub mask: Masking,
}

/// A kind of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A text alone: spans of it are masked.
    Text,
    /// A picture alone: patches of it are masked.
    Picture,
    /// A picture with its name: the whole name is masked, and some patches.
    Caption,
    /// A picture with its name: spans of the name are masked, and some patches.
    Spans,
    /// A picture with a question: the answer is masked.
    Question,
    /// A picture with its name, and both pulled together.
    Retrieval,
    /// A handwritten digit: which one it is.
    Digit,
    /// Pictures with a sentence: whether it is true of them.
    Statement,
    /// A scene that is made on the spot, of a kind that [`Stage::scenes`] says.
    Scene,
}

impl Kind {
    /// Names it as recipes do.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Picture => "picture",
            Self::Caption => "caption",
            Self::Spans => "spans",
            Self::Question => "question",
            Self::Retrieval => "retrieval",
            Self::Digit => "digit",
            Self::Statement => "statement",
            Self::Scene => "scene",
        }
    }
}

/// How hidden matrices are stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// By `AdamW`, like everything else.
    #[serde(rename = "adamw")]
    AdamW,
    /// By Muon.
    #[default]
    Muon,
}

/// How linear layers and Muon multiply; weights, sums and all else are `f32` in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductType {
    /// In `bf16` where the processor has a fast instruction for it, in `f32` elsewhere.
    #[default]
    Fastest,
    /// Factors as they are.
    F32,
    /// Factors rounded to `bf16`, also where that is slow.
    Bf16,
}

impl ProductType {
    /// Chooses for this machine.
    #[must_use]
    pub fn here(self) -> Products {
        match self {
            Self::Fastest => Products::fastest(),
            Self::F32 => Products::F32,
            Self::Bf16 => Products::Bf16,
        }
    }
}

/// How much is masked, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masking {
    /// Of a text alone.
    pub text: f32,
    /// Of a name beside its picture, in [`Kind::Spans`].
    pub spans: f32,
    /// Of a picture alone.
    pub picture: f32,
    /// Of a picture beside a text.
    pub beside_text: f32,
    /// Of the other patches of a picture beside a text: left out of the encoder without a trace, which makes
    /// a step cheaper (FLIP, arXiv 2212.00794).
    pub left_out: f32,
    /// How often patches are left out at all.
    pub left_out_of: f32,
}

impl Default for Masking {
    fn default() -> Self {
        Self {
            text: 0.15,
            spans: 0.5,
            picture: 0.4,
            beside_text: 0.2,
            left_out: 0.4,
            left_out_of: 1.0,
        }
    }
}

fn one() -> u64 {
    1
}

fn default_batch() -> usize {
    64
}

fn default_rate() -> f64 {
    1e-3
}

fn all() -> f64 {
    1.0
}

fn default_average() -> f32 {
    0.998
}

fn default_skips() -> u64 {
    5
}

fn default_save() -> u64 {
    250
}

fn default_validate() -> u64 {
    500
}

impl Recipe {
    /// The default recipe.
    pub const BUILTIN: &'static str = include_str!("../recipes/default.toml");

    /// Reads a recipe.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read, is not of this form, or a value cannot be used.
    pub fn open(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Parses a recipe.
    ///
    /// # Errors
    ///
    /// Fails where the text is not of this form, or a value cannot be used.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text)?;
        let mut names = HashSet::new();
        for stage in &recipe.stages {
            stage.check()?;
            if !names.insert(&stage.name) {
                return Err(stage.wrong("name", "a name of its own", &stage.name));
            }
        }
        if recipe.stages.is_empty() {
            return Err(RecipeError::Value {
                place: "the recipe".to_owned(),
                expected: "at least one [[stage]]",
                found: "none".to_owned(),
            });
        }
        Ok(recipe)
    }

    /// Describes the model, with a vocabulary of `vocab_size`.
    ///
    /// # Errors
    ///
    /// Fails where the settings cannot be used together.
    pub fn config(&self, vocab_size: usize) -> Result<ModelConfig, RecipeError> {
        let mut settings: Value =
            serde_json::from_str(&default_config(vocab_size)?.to_json()).unwrap_or_default();
        if let Value::Object(settings) = &mut settings {
            for (name, value) in &self.model {
                settings.insert(name.clone(), value.clone());
            }
        }
        Ok(ModelConfig::from_json(settings.to_string().as_bytes())?)
    }
}

impl Stage {
    /// Steps until the highest learning rate.
    #[must_use]
    pub fn warmup_steps(&self) -> u64 {
        self.warmup.unwrap_or((self.steps / 20).min(500)).min(self.steps)
    }

    /// Tells whether it asks for what the teacher says.
    #[must_use]
    pub fn asks_teacher(&self) -> bool {
        let loss = &self.loss;
        [loss.codes, loss.features, loss.shown, loss.whole]
            .into_iter()
            .any(|weight| weight > 0.0)
    }

    /// Tells whether a parameter stays as it is.
    #[must_use]
    pub fn is_frozen(&self, parameter: &str) -> bool {
        self.freeze.iter().any(|pattern| matches(pattern, parameter))
    }

    fn check(&self) -> Result<(), RecipeError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(self.wrong("name", "letters, digits, '-' and '_'", &self.name));
        }
        if self.steps == 0 || self.batch == 0 {
            let least = self.steps.min(self.batch as u64);
            return Err(self.wrong("steps and batch", "at least 1", &least.to_string()));
        }
        if self.save_every == 0 {
            return Err(self.wrong("save_every", "at least 1", "0"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let found = self.learning_rate.to_string();
            return Err(self.wrong("learning_rate", "a number above 0", &found));
        }
        let total: f64 = self.mix.values().sum();
        if self.mix.values().any(|share| *share < 0.0) || !(total > 0.0 && total.is_finite()) {
            return Err(self.wrong(
                "mix",
                "shares from 0 of at least one kind",
                &format!("{:?}", self.mix),
            ));
        }
        if let Some(share) = self
            .scenes
            .values()
            .find(|share| !(**share >= 0.0 && share.is_finite()))
        {
            return Err(self.wrong("scenes", "shares from 0", &share.to_string()));
        }
        let mask = &self.mask;
        let shares = [
            ("decay", self.decay),
            ("average_decay", f64::from(self.average_decay)),
            ("loss.smoothing", f64::from(self.loss.smoothing)),
            ("loss.soft", f64::from(self.loss.soft)),
            ("mask.text", f64::from(mask.text)),
            ("mask.spans", f64::from(mask.spans)),
            ("mask.picture", f64::from(mask.picture)),
            ("mask.beside_text", f64::from(mask.beside_text)),
            ("mask.left_out", f64::from(mask.left_out)),
            ("mask.left_out_of", f64::from(mask.left_out_of)),
        ];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(self.wrong(name, "a share from 0 to 1", &share.to_string()));
            }
        }
        let loss = &self.loss;
        let weights = [
            loss.text,
            loss.codes,
            loss.features,
            loss.shown,
            loss.whole,
            loss.retrieval,
        ];
        if let Some(weight) = weights
            .iter()
            .find(|weight| !(**weight >= 0.0 && weight.is_finite()))
        {
            return Err(self.wrong("loss", "weights from 0", &weight.to_string()));
        }
        Ok(())
    }

    fn wrong(&self, setting: &str, expected: &'static str, found: &str) -> RecipeError {
        RecipeError::Value {
            place: format!("{setting} of stage '{}'", self.name),
            expected,
            found: format!("'{found}'"),
        }
    }
}

/// Tells whether a name is as a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(more: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse(&format!(
            "[[stage]]\nname = \"a\"\nsteps = 1000\nmix = {{ text = 1 }}\n{more}"
        ))
    }

    #[test]
    fn a_stage_has_defaults() {
        let recipe = stage("").unwrap();
        let stage = &recipe.stages[0];
        assert_eq!((recipe.seed, stage.batch, stage.warmup_steps()), (1, 64, 50));
        assert_eq!(stage.optimizer, Optimizer::Muon);
        let config = recipe.config(7000).unwrap();
        assert_eq!((config.vocab_size, config.hidden_size), (7000, 256));
        let recipe = Recipe::parse(
            "[model]\nencoder_layers = 4\n[[stage]]\nname = \"a\"\nsteps = 1\nmix = { text = 1 }",
        );
        assert_eq!(recipe.unwrap().config(7000).unwrap().encoder.layers, 4);
    }

    #[test]
    fn the_default_recipe_is_one() {
        let recipe = Recipe::parse(Recipe::BUILTIN).unwrap();
        assert!(recipe.config(7000).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (more, expected) in [
            ("stepz = 3", "unknown field `stepz`"),
            (
                "batch = 0",
                "steps and batch of stage 'a': expected at least 1, found '0'",
            ),
            (
                "decay = 1.5",
                "decay of stage 'a': expected a share from 0 to 1, found '1.5'",
            ),
            (
                "learning_rate = nan",
                "learning_rate of stage 'a': expected a number above 0",
            ),
            (
                "loss = { text = -1.0 }",
                "loss of stage 'a': expected weights from 0, found '-1'",
            ),
            ("mask = { picture = 2.0 }", "mask.picture of stage 'a'"),
            (
                "[[stage]]\nname = \"a\"\nsteps = 1\nmix = { text = 1 }",
                "name of stage 'a': expected a name of its own",
            ),
            (
                "[[stage]]\nname = \"../b\"\nsteps = 1\nmix = { text = 1 }",
                "letters, digits",
            ),
            (
                "[[stage]]\nname = \"b\"\nsteps = 1\nmix = { pixels = 1 }",
                "unknown variant `pixels`",
            ),
            (
                "[[stage]]\nname = \"b\"\nsteps = 1\nmix = {}",
                "mix of stage 'b': expected shares",
            ),
        ] {
            let error = stage(more).unwrap_err().to_string();
            assert!(error.contains(expected), "{more}: {error}");
        }
        assert!(
            Recipe::parse("stage = []")
                .unwrap_err()
                .to_string()
                .contains("at least one [[stage]]")
        );
    }

    #[test]
    fn patterns_hold_for_whole_names() {
        for (pattern, name, expected) in [
            ("encoder.*", "encoder.layers.0.norm", true),
            ("encoder.*", "decoder.layers.0", false),
            ("*.norm.weight", "encoder.layers.0.norm.weight", true),
            ("*.norm.weight", "encoder.layers.0.norm.weights", false),
            ("encoder.*.attention.*", "encoder.3.attention.q", true),
            ("encoder.*.attention.*", "encoder.3.ffn.q", false),
            ("embed", "embed", true),
            ("embed", "embedding", false),
            ("a*b*b", "ab", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
