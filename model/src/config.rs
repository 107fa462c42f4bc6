//! What a model looks like, whatever family it belongs to; read from `config.json` and checked before use.

use crate::families::{beit3, multiway, t5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Says which rows of one sample may attend to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionPattern {
    /// Every row sees every row, as in BEiT-3.
    Joint,
    /// Image rows see image rows only; text rows see everything. What the encoder makes of a picture then
    /// does not depend on the text beside it.
    ImagePrefix,
    /// Image rows see image rows only; a text row sees the image and the text up to itself.
    Causal,
}

/// Errors of reading a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or has a key of the wrong type, an unknown key, or lacks one.
    #[error("not a model configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// The file belongs to another kind of model.
    #[error(
        "architecture '{found}' is not known; expected '{}', 't5', 'mt5', 'umt5' or 'beit3'",
        multiway::ARCHITECTURE
    )]
    Architecture {
        /// What the file says.
        found: String,
    },
    /// A value is outside what the model can be built with.
    #[error("'{key}' is {found}, expected {expected}")]
    Value {
        /// The key in the file.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },
}

/// How a feed-forward network bends its hidden values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Two projections, one of which gates the other through the tanh form of GELU.
    GatedGelu,
    /// One projection, cut off at zero.
    Relu,
    /// One projection through GELU itself, by the error function.
    Gelu,
}

/// How the rows of a stack know where they stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector for each place is added to the embedding.
    Learned,
    /// Queries and keys are turned by an angle that grows with the place.
    Rotary {
        /// Base of the angles.
        theta: f64,
    },
    /// A learned bias for each bucket of distances is added to the scores.
    Relative {
        /// Number of buckets.
        buckets: usize,
        /// Distance from which on everything falls into the last bucket.
        max_distance: usize,
        /// Whether each layer has biases of its own rather than those of the first.
        every_layer: bool,
    },
}

/// What one layer of the encoder or decoder is assembled from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// Number of attention heads, H.
    pub heads: usize,
    /// Size of a head, Dh; H times Dh need not be the width of the residual stream.
    pub head_size: usize,
    /// Whether scores are divided by the root of the head size.
    pub scaled: bool,
    /// Whether attention and feed-forward network have another norm before their last projection.
    pub sub_norm: bool,
    /// The feed-forward network's activation.
    pub activation: Activation,
    /// How places are told.
    pub positions: Positions,
}

/// The family that a model belongs to, and what only this family has.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// The native family: pictures and text.
    Multiway,
    /// T5, T5 v1.1, Flan-T5, mT5, UMT5 and ByT5: text only.
    T5(t5::T5Details),
    /// BEiT-3 as released: pictures and text, with a head for one task.
    Beit3(beit3::Beit3Details),
}

/// A weight: what layers call it, what the file calls it, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightSpec {
    pub(crate) name: String,
    pub(crate) stored: String,
    pub(crate) shape: Vec<usize>,
}

/// Describes a model; every value has been checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Which family it belongs to.
    pub family: Family,
    /// Number of token ids, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width of the feed-forward layers, F.
    pub intermediate_size: usize,
    /// Number of encoder layers.
    pub encoder_layers: usize,
    /// Number of attention heads in the encoder.
    pub encoder_heads: usize,
    /// In how many of the top encoder layers both modalities share one fusion expert.
    pub fusion_layers: usize,
    /// Number of decoder layers.
    pub decoder_layers: usize,
    /// Number of attention heads in the decoder.
    pub decoder_heads: usize,
    /// Whether the attention projections are shared by the experts (the paper) or doubled (the released BEiT-3).
    pub shared_attention: bool,
    /// Which rows see which.
    pub attention_pattern: AttentionPattern,
    /// Side of the square input picture, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// How many pictures one prompt may hold.
    pub max_images: usize,
    /// How many text tokens one prompt may hold, the closing `</s>` included.
    pub max_text_length: usize,
    /// How many tokens the decoder may hold, the start token included.
    pub max_target_length: usize,
    /// Number of discrete visual codes that masked patches are predicted as.
    pub visual_vocab_size: usize,
    /// Length of a retrieval embedding, E.
    pub embedding_size: usize,
    /// Added to the mean square, or to the variance, in norms.
    pub norm_eps: f64,
    /// Base of the decoder's rotary positions.
    pub rope_theta: f64,
    /// Mean of the red, green and blue channels, in 0..1.
    pub image_mean: [f32; 3],
    /// Standard deviation of the red, green and blue channels, in 0..1.
    pub image_std: [f32; 3],
    /// Id of `<pad>`.
    pub pad_token_id: u32,
    /// Id of `</s>`.
    pub eos_token_id: u32,
    /// Id that the decoder starts from.
    pub decoder_start_token_id: u32,
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, what was found and what was expected.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        // The architecture is looked at first: a foreign file would otherwise fail on its first unknown key.
        let value: Value = serde_json::from_slice(json)?;
        let text = |key: &str| value.get(key).and_then(|v| v.as_str());
        match (text("architecture"), text("model_type")) {
            (Some(multiway::ARCHITECTURE), _) | (None, None) => multiway::read(json),
            // Foreign files may have a key of the name of ours.
            (_, Some("t5" | "mt5" | "umt5")) => t5::read(json),
            (_, Some("beit3")) => beit3::read(json),
            (Some(found), _) | (None, Some(found)) => Err(ConfigError::Architecture {
                found: found.to_owned(),
            }),
        }
    }

    /// Writes the configuration as the text of a `config.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        match &self.family {
            Family::Multiway => multiway::write(self),
            Family::T5(details) => t5::write(self, details),
            Family::Beit3(details) => beit3::write(self, details),
        }
    }

    /// Describes the encoder's layers.
    #[must_use]
    pub fn encoder(&self) -> LayerConfig {
        match &self.family {
            Family::Multiway => multiway::encoder(self),
            Family::T5(details) => t5::layer(self, details),
            Family::Beit3(_) => beit3::layer(self),
        }
    }

    /// Describes the decoder's layers.
    #[must_use]
    pub fn decoder(&self) -> LayerConfig {
        match &self.family {
            Family::Multiway => multiway::decoder(self),
            Family::T5(details) => t5::layer(self, details),
            Family::Beit3(_) => beit3::layer(self),
        }
    }

    /// Returns the factor between embeddings and the first layer.
    pub(crate) fn embedding_scale(&self) -> f64 {
        match self.family {
            Family::Multiway => (self.hidden_size as f64).sqrt(),
            Family::T5(_) | Family::Beit3(_) => 1.0,
        }
    }

    /// Returns the factor between the last norm and the logits.
    pub(crate) fn output_scale(&self) -> f64 {
        match &self.family {
            Family::Multiway | Family::Beit3(_) => 1.0,
            Family::T5(details) => details.output_scale,
        }
    }

    /// Adapts to the weights that a file really holds, where `config.json` leaves it open.
    pub(crate) fn adapt(&mut self, shape: impl Fn(&str) -> Option<Vec<usize>>) {
        match &mut self.family {
            Family::Multiway => {}
            Family::T5(details) => t5::adapt(details, shape),
            Family::Beit3(details) => beit3::adapt(details, &mut self.visual_vocab_size, shape),
        }
    }

    /// Names the table of embeddings, and what else files call it where they store it as a part of the model.
    pub(crate) fn embedding_aliases(&self) -> Option<(&'static str, &'static [&'static str])> {
        match &self.family {
            Family::Multiway | Family::Beit3(_) => None,
            Family::T5(_) => Some((t5::SHARED, &t5::SHARED_ALIASES)),
        }
    }

    /// Lists the ids that end a text: `</s>`, and where a configuration lists several, the others.
    #[must_use]
    pub fn end_token_ids(&self) -> Vec<u32> {
        match &self.family {
            Family::T5(details) => details.end_token_ids.clone(),
            Family::Multiway | Family::Beit3(_) => vec![self.eos_token_id],
        }
    }

    /// Says whether a weight may stand in a file without being read.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        match &self.family {
            Family::Multiway => false,
            Family::T5(_) => t5::is_unused(name),
            Family::Beit3(details) => beit3::is_unused(name, details),
        }
    }

    /// Says whether the model writes text: by a decoder, or word by word through its encoder.
    #[must_use]
    pub fn writes_text(&self) -> bool {
        self.max_target_length > 0
    }

    /// Says whether pictures keep their proportions and are cut to the square in their middle, rather than squashed.
    #[must_use]
    pub fn crops_images(&self) -> bool {
        match &self.family {
            Family::Beit3(details) => details.task == beit3::Beit3Task::ImageClassification,
            Family::Multiway | Family::T5(_) => false,
        }
    }

    /// Returns the token that opens a text before the encoder, where there is one. In such models a prompt of pictures
    /// alone has no text rows at all, while elsewhere its text is a lone `</s>`.
    #[must_use]
    pub fn text_start(&self) -> Option<u32> {
        match self.family {
            Family::Beit3(_) => Some(self.decoder_start_token_id),
            Family::Multiway | Family::T5(_) => None,
        }
    }

    /// Returns the id of the mask behind which the encoder itself writes the next word; none where a decoder writes.
    #[must_use]
    pub fn writing_mask(&self) -> Option<u32> {
        match &self.family {
            Family::Beit3(details) if self.writes_text() => Some(details.mask_token_id),
            _ => None,
        }
    }

    /// Returns the id of `<mask>`, where the model has a head that names the words behind masks.
    #[must_use]
    pub fn word_mask(&self) -> Option<u32> {
        match &self.family {
            Family::Beit3(details) if details.task == beit3::Beit3Task::Pretraining => {
                Some(details.mask_token_id)
            }
            _ => None,
        }
    }

    /// Tells whether the model has a head that names hidden patches of a picture by visual codes.
    #[must_use]
    pub fn names_patches(&self) -> bool {
        self.visual_vocab_size > 0
    }

    /// Counts the classes that the model's head knows; zero where it has none.
    #[must_use]
    pub fn classes(&self) -> usize {
        match &self.family {
            Family::Beit3(details) => details.classes,
            Family::Multiway | Family::T5(_) => 0,
        }
    }

    /// Says whether the model sees pictures.
    #[must_use]
    pub fn has_vision(&self) -> bool {
        self.max_images > 0
    }

    /// Lists every weight, in the order in which a native checkpoint stores them.
    ///
    /// This table is the only place where a weight's name and shape are decided: files are checked against it,
    /// and training initialises from it.
    pub(crate) fn weights(&self) -> Vec<WeightSpec> {
        match &self.family {
            Family::Multiway => multiway::weights(self),
            Family::T5(details) => t5::weights(self, details),
            Family::Beit3(details) => beit3::weights(self, details),
        }
    }

    /// Names the weight that a decoder's words are scored with: its own, or where it has none, the embeddings.
    pub(crate) fn output_weight(&self) -> Option<&'static str> {
        match &self.family {
            _ if self.decoder_layers == 0 => None,
            Family::T5(details) if details.own_output => Some("output.weight"),
            Family::Multiway | Family::T5(_) | Family::Beit3(_) => Some("text_embed.weight"),
        }
    }

    /// Counts the patches along one side of the pictures that the stored positions belong to.
    pub(crate) fn stored_grid(&self) -> usize {
        match &self.family {
            Family::Beit3(details) => details.stored_grid,
            Family::Multiway | Family::T5(_) => self.grid(),
        }
    }

    /// Lists every weight as the file has it: name and shape.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let all = self.weights().into_iter();
        all.map(|weight| (weight.stored, weight.shape)).collect()
    }

    /// Counts the patches along one side of a picture.
    #[must_use]
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }

    /// Counts the patches of one picture, P.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Counts the numbers in one patch, three channels.
    #[must_use]
    pub fn patch_values(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Names the experts of an encoder layer's feed-forward network: vision and language, or one fusion expert.
    #[must_use]
    pub fn experts(&self, layer: usize) -> &'static [&'static str] {
        if !self.has_vision() {
            &["language"]
        } else if layer + self.fusion_layers >= self.encoder_layers {
            &["fusion"]
        } else {
            &["vision", "language"]
        }
    }

    /// Names the parts that an encoder layer's attention is split into: one if shared, else as the experts.
    #[must_use]
    pub fn attention_experts(&self, layer: usize) -> &'static [&'static str] {
        if self.shared_attention {
            &["shared"]
        } else {
            self.experts(layer)
        }
    }

    /// Counts the model's parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }
}

/// The largest value accepted for any size: it bounds what a hostile file can ask to be allocated, and keeps
/// products of two sizes inside 64 bits.
pub(crate) const MAX_SIZE: usize = 1 << 20;

/// Reads the keys of a foreign file: one that is null says as much as one that is not there.
pub(crate) fn foreign_keys(json: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    let mut keys: Map<String, Value> = serde_json::from_slice(json)?;
    keys.retain(|_, value| !value.is_null());
    Ok(keys)
}

/// Makes the error of a value that a model cannot be built with.
pub(crate) fn value(key: &'static str, found: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}

/// Checks that sizes lie between a least and a most.
pub(crate) fn check_sizes(sizes: &[(&'static str, usize, usize, usize)]) -> Result<(), ConfigError> {
    match sizes
        .iter()
        .find(|(_, found, least, most)| found < least || found > most)
    {
        Some((key, found, least, most)) => Err(value(key, found, format!("{least} to {most}"))),
        None => Ok(()),
    }
}

/// Checks that token ids are in the vocabulary.
pub(crate) fn check_ids(ids: &[(&'static str, u32)], vocab_size: usize) -> Result<(), ConfigError> {
    match ids.iter().find(|(_, id)| *id as usize >= vocab_size) {
        Some((key, id)) => Err(value(key, id, format!("an id below vocab_size ({vocab_size})"))),
        None => Ok(()),
    }
}

/// Checks what is added under the root of a norm.
pub(crate) fn check_eps(key: &'static str, eps: f64) -> Result<(), ConfigError> {
    if eps > 0.0 && eps < 1.0 {
        return Ok(());
    }
    Err(value(key, eps, "a number between 0 and 1"))
}
