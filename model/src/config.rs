//! The configuration of a model, whatever its family: plain data, read from `config.json` and checked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which rows of a sample attend to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionPattern {
    /// Every row attends to every row, as in BEiT-3.
    Joint,
    /// Image rows attend to image rows only; text rows to all. The encoder's state of a picture then does not
    /// depend on the text beside it, and can be reused.
    ImagePrefix,
    /// Image rows attend to image rows only; a text row to the image and causally to the text.
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
    #[error("architecture '{found}' is not known; expected {expected}")]
    Architecture {
        /// The value in the file.
        found: String,
        /// The names that are known.
        expected: String,
    },
    /// A value that no model can be built with.
    #[error("'{key}' is {found}, expected {expected}")]
    Value {
        /// The key in the file.
        key: &'static str,
        /// The value in the file.
        found: String,
        /// The values that are allowed.
        expected: String,
    },
}

/// The activation of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GEGLU: two projections, one of which gates the other through the tanh form of GELU.
    GatedGelu,
    /// ReLU of one projection.
    Relu,
    /// GELU of one projection, by the error function.
    Gelu,
}

/// A positional encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector for each position is added to the embedding.
    Learned,
    /// RoPE: queries and keys are rotated by an angle proportional to the position.
    Rotary {
        /// Base of the angles.
        theta: f64,
    },
    /// A learned bias for each bucket of distances is added to the scores.
    Relative {
        /// Number of buckets.
        buckets: usize,
        /// Distances from this one on fall into the last bucket.
        max_distance: usize,
        /// Whether each layer has biases of its own rather than those of the first.
        every_layer: bool,
    },
}

/// The layers of the encoder or of the decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackConfig {
    /// Number of layers.
    pub layers: usize,
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
    /// The positional encoding.
    pub positions: Positions,
}

impl StackConfig {
    /// Counts the columns of queries, keys and values, H times Dh.
    #[must_use]
    pub fn inner_size(&self) -> usize {
        self.heads * self.head_size
    }
}

/// Pictures as a model takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square input picture, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// How many pictures one prompt may hold.
    pub max_images: usize,
    /// Mean of the red, green and blue channels, in 0..1.
    pub image_mean: [f32; 3],
    /// Standard deviation of the red, green and blue channels, in 0..1.
    pub image_std: [f32; 3],
    /// Whether pictures keep their proportions and are cropped to the square in their middle, rather than
    /// squashed.
    pub crops: bool,
    /// Patches along one side of the pictures that the stored positions belong to, where these are of another
    /// size.
    pub(crate) stored_grid: Option<usize>,
}

impl VisionConfig {
    /// Counts the patches along one side of a picture.
    #[must_use]
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }
}

/// Which row of a text an embedding is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextRow {
    /// The row of the first token.
    First,
    /// The row of the last token.
    Last,
}

/// A head that embeds pictures and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddingConfig {
    /// Length of an embedding, E.
    pub size: usize,
    /// Which row stands for a text.
    pub text_row: TextRow,
}

/// Which rows a class head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The class row of the picture.
    ClassRow,
    /// The mean of the rows of the patches.
    PatchMean,
    /// The class rows and first text rows of two neighbouring samples, which have the same text.
    Pair,
}

/// A head that scores classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Number of classes.
    pub classes: usize,
    /// Which rows the head reads.
    pub pooling: Pooling,
}

/// The built-in tasks that a model was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskGroup {
    /// All tasks of the native family.
    Native,
    /// Text to text, with sentinel tokens for gaps.
    T5,
    /// Text to text on bytes, whose gaps have no sentinel tokens.
    ByT5,
    /// None: the bare encoder.
    Encoder,
    /// An answer of a closed list, from picture and question.
    Vqa,
    /// Whether a sentence is true of two pictures.
    Nlvr2,
    /// The class of a picture.
    ImageClassification,
    /// Embeddings of pictures and of texts.
    Retrieval,
    /// The next word of a caption, at a mask behind the words so far.
    Captioning,
    /// Masked words, and the visual codes of masked patches.
    Pretraining,
}

/// The kind of tokenizer that a model was trained with, which decides how its files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerKind {
    /// As its file says.
    Plain,
    /// That of T5, or the bytes of ByT5.
    T5,
    /// That of XLM-R, which numbers a SentencePiece model's pieces anew.
    XlmRoberta,
}

/// A weight: its name in the layers, its name in the file, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightSpec {
    pub(crate) name: String,
    pub(crate) stored: String,
    pub(crate) shape: Vec<usize>,
}

/// Describes a model, whatever its family; every value has been checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The name by which `config.json` tells the family.
    pub(crate) model_type: String,
    /// The built-in tasks that it was trained for.
    pub task_group: TaskGroup,
    /// The kind of its tokenizer.
    pub tokenizer: TokenizerKind,
    /// Number of token ids, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width of the feed-forward layers, F.
    pub intermediate_size: usize,
    /// The encoder's layers.
    pub encoder: StackConfig,
    /// In how many of the top encoder layers both modalities share one fusion expert.
    pub fusion_layers: usize,
    /// Whether the attention projections are shared by the experts (the paper) or doubled (the released
    /// BEiT-3).
    pub shared_attention: bool,
    /// Which rows see which.
    pub attention_pattern: AttentionPattern,
    /// Whether the encoder ends in a norm; else heads have norms of their own.
    pub encoder_norm: bool,
    /// The text decoder's layers, where there is one.
    pub decoder: Option<StackConfig>,
    /// Pictures, where the model takes any.
    pub vision: Option<VisionConfig>,
    /// How many text tokens one prompt may hold, the closing `</s>` included.
    pub max_text_length: usize,
    /// How many tokens the model may write, the start token included.
    pub max_target_length: usize,
    /// Number of visual codes that masked patches are predicted as, where there is a head for it.
    pub visual_vocab_size: Option<usize>,
    /// The head for retrieval, where there is one.
    pub embedding: Option<EmbeddingConfig>,
    /// The head for classes, where there is one.
    pub class_head: Option<ClassConfig>,
    /// Added to the mean square, or to the variance, in norms.
    pub norm_eps: f64,
    /// Whether embeddings are multiplied by the root of their width.
    pub scales_embeddings: bool,
    /// Whether words are scored with the table of embeddings rather than with a matrix of their own.
    pub tied_output: bool,
    /// Factor between the last norm and the logits.
    pub output_scale: f64,
    /// Whether `config.json` states that factor; else the weights in the file may say otherwise.
    pub(crate) states_output_scale: bool,
    /// Id of `<pad>`.
    pub pad_token_id: u32,
    /// Id of `</s>`.
    pub eos_token_id: u32,
    /// Id that the decoder starts from.
    pub decoder_start_token_id: u32,
    /// The ids that end a text, `</s>` first.
    pub(crate) end_token_ids: Vec<u32>,
    /// The token that opens a text before the encoder.
    pub(crate) text_start: Option<u32>,
    /// Id of `<mask>`, where the vocabulary has one.
    pub(crate) mask_token_id: Option<u32>,
    /// Whether a head names the words behind masks.
    pub(crate) names_words: bool,
    /// The names of the tasks that it was trained on, where the checkpoint says so.
    pub(crate) trained_tasks: Option<Vec<String>>,
}

impl ModelConfig {
    /// Returns the factor between embeddings and the first layer.
    pub(crate) fn embedding_scale(&self) -> f64 {
        if self.scales_embeddings {
            (self.hidden_size as f64).sqrt()
        } else {
            1.0
        }
    }

    /// Lists the names of the tasks that the model was trained on; `None` where the checkpoint does not say.
    ///
    /// # Examples
    ///
    /// ```
    /// let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// let tasks = checkpoint.config().trained_tasks().unwrap_or_default();
    /// assert!(tasks.iter().any(|task| task == "caption"));
    /// # Ok::<(), multiway_model::LoadError>(())
    /// ```
    #[must_use]
    pub fn trained_tasks(&self) -> Option<&[String]> {
        self.trained_tasks.as_deref()
    }

    /// Lists the ids that end a text: `</s>`, and where a configuration lists several, the others.
    #[must_use]
    pub fn end_token_ids(&self) -> Vec<u32> {
        self.end_token_ids.clone()
    }

    /// Says whether the model writes text: by a decoder, or word by word through its encoder.
    #[must_use]
    pub fn writes_text(&self) -> bool {
        self.max_target_length > 0
    }

    /// Returns the token that opens a text before the encoder, where there is one. In such models a prompt of
    /// pictures alone has no text rows at all, while elsewhere its text is a lone `</s>`.
    #[must_use]
    pub fn text_start(&self) -> Option<u32> {
        self.text_start
    }

    /// Returns the id of the mask behind which the encoder itself writes the next word; none where a decoder
    /// writes.
    #[must_use]
    pub fn writing_mask(&self) -> Option<u32> {
        self.mask_token_id
            .filter(|_| self.decoder.is_none() && self.writes_text())
    }

    /// Returns the id of `<mask>`, where the model has a head that names the words behind masks.
    #[must_use]
    pub fn word_mask(&self) -> Option<u32> {
        self.mask_token_id.filter(|_| self.names_words)
    }

    /// Tells whether the model has a head that names hidden patches of a picture by visual codes.
    #[must_use]
    pub fn names_patches(&self) -> bool {
        self.visual_vocab_size.is_some()
    }

    /// Counts the classes that the model's head knows.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.class_head.map_or(0, |head| head.classes)
    }

    /// Counts the numbers of a retrieval embedding, E.
    #[must_use]
    pub fn embedding_size(&self) -> usize {
        self.embedding.map_or(0, |head| head.size)
    }

    /// Counts the layers of the decoder.
    #[must_use]
    pub fn decoder_layers(&self) -> usize {
        self.decoder.map_or(0, |decoder| decoder.layers)
    }

    /// Names the weight that a decoder's words are scored with: its own, or where it has none, the
    /// embeddings.
    pub(crate) fn output_weight(&self) -> Option<&'static str> {
        let name = if self.tied_output {
            "text_embed.weight"
        } else {
            "output.weight"
        };
        self.decoder.is_some().then_some(name)
    }

    /// Counts the pictures that one prompt may hold.
    #[must_use]
    pub fn max_images(&self) -> usize {
        self.vision.map_or(0, |vision| vision.max_images)
    }

    /// Counts the pixels along one side of an input picture.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.vision.map_or(0, |vision| vision.image_size)
    }

    /// Counts the patches along one side of a picture.
    #[must_use]
    pub fn grid(&self) -> usize {
        self.vision.map_or(0, |vision| vision.grid())
    }

    /// Counts the patches of one picture, P.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Counts the numbers of one picture, three channels.
    #[must_use]
    pub fn image_values(&self) -> usize {
        3 * self.image_size() * self.image_size()
    }

    /// Names the experts of an encoder layer's feed-forward network: vision and language, or one fusion
    /// expert.
    #[must_use]
    pub fn experts(&self, layer: usize) -> &'static [&'static str] {
        if self.vision.is_none() {
            &["language"]
        } else if layer + self.fusion_layers >= self.encoder.layers {
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

/// Checks the epsilon of a norm.
pub(crate) fn check_eps(key: &'static str, eps: f64) -> Result<(), ConfigError> {
    if eps > 0.0 && eps < 1.0 {
        return Ok(());
    }
    Err(value(key, eps, "a number between 0 and 1"))
}
