//! What a family is: names, and conversions of its `config.json`.

use crate::config::{ConfigError, ModelConfig, WeightSpec};

/// Finds the shape of a weight by the name that its file has for it.
pub(crate) type Shapes<'a> = dyn Fn(&str) -> Option<Vec<usize>> + 'a;

/// Tells from the shapes of weights what `config.json` would say; or why they are of no such model.
type Infer = fn(&Shapes) -> Result<String, String>;

/// A family: what its `config.json` and its weights are called.
pub(super) struct Family {
    /// The values of `model_type`, or of `architecture`, by which a `config.json` belongs to it.
    pub(super) model_types: &'static [&'static str],
    /// Reads and checks a `config.json`.
    pub(super) read: fn(&[u8]) -> Result<ModelConfig, ConfigError>,
    /// Writes a `config.json` that `read` reads back.
    pub(super) write: fn(&ModelConfig) -> String,
    /// Lists every weight.
    pub(super) weights: fn(&ModelConfig) -> Vec<WeightSpec>,
    /// Adapts to the weights that a file really holds, where `config.json` leaves it open.
    pub(super) adapt: fn(&mut ModelConfig, &Shapes),
    /// Says whether a weight may stand in a file without being read.
    pub(super) is_unused: fn(&ModelConfig, &str) -> bool,
    /// The table of embeddings, and what else files call it where they store it as a part of the model.
    pub(super) embedding_aliases: Option<(&'static str, &'static [&'static str])>,
    /// Tells from the shapes of weights alone what `config.json` would say, or why they are of no such model.
    pub(super) infer: Option<Infer>,
}
