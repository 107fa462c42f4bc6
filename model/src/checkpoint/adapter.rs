//! Low-rank adapters: small changes of a checkpoint's weights, in files of their own.
//!
//! Source: Hu et al. 2021, LoRA (arXiv 2106.09685), section 4.1.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::error::shown;
use super::low_rank::compose;
use crate::config::ModelConfig;

/// The name of the file that describes an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter.json";

/// The name of the file with an adapter's factors.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter.safetensors";

/// The largest description that is read, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// The largest file of factors that is read, in bytes.
const WEIGHTS_LIMIT: u64 = 4 << 30;

/// The parts of layers whose weights an adapter may change.
const LINEAR: [&str; 8] = [
    "q_proj", "k_proj", "v_proj", "out_proj", "gate_up", "gate", "up", "down",
];

/// What can be wrong with an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file cannot be read or written.
    #[error("cannot {action} '{}'", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The description is not what it should be.
    #[error("'{}' does not describe an adapter: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The file of factors is no safetensors file.
    #[error("'{}' is no whole safetensors file: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// The factors are not those that the description names.
    #[error("'{}': expected {expected}, found {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The adapter changes a weight that the model does not have.
    #[error(
        "the adapter of '{base}' does not fit this model: expected {expected} for the weight '{weight}', found {found}; use the checkpoint that it was trained on"
    )]
    OtherModel {
        /// The name of the checkpoint that it was trained on.
        base: String,
        /// The weight.
        weight: String,
        /// What the adapter expects.
        expected: String,
        /// What the model has.
        found: String,
    },
    /// It was trained on another checkpoint.
    #[error(
        "the adapter was trained on the checkpoint '{base}' ({expected}), and '{name}' is another ({found})"
    )]
    OtherBase {
        /// The checkpoint that it was trained on, as the adapter calls it.
        base: String,
        /// The fingerprint of that one.
        expected: String,
        /// The checkpoint at hand.
        name: String,
        /// The fingerprint of this one.
        found: String,
    },
    /// The checkpoint is packed.
    #[error(
        "an adapter changes weights, and those of a packed checkpoint cannot be changed: use the original"
    )]
    Packed,
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Describes an adapter, as `adapter.json` does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// The name of the checkpoint whose weights it changes.
    pub base: String,
    /// What tells that checkpoint from others; whoever loads the adapter compares it.
    pub base_fingerprint: String,
    /// Rows of the first factor, and columns of the second.
    pub rank: usize,
    /// The product of the factors is multiplied by this over the rank.
    pub alpha: f64,
    /// The names of the weights that are changed.
    pub weights: Vec<String>,
}

impl AdapterConfig {
    /// Returns what the product of the factors is multiplied by.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }
}

/// A low-rank change of some weights: `W + alpha / rank * B A` stands for the weight `W`.
///
/// # Shapes
/// Of a weight `[out, in]`, `A` is `[rank, in]` and `B` is `[out, rank]`.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: AdapterConfig,
    /// `A` and `B` by the names of weights.
    factors: BTreeMap<String, [Tensor; 2]>,
}

impl Adapter {
    /// Endings of the names of the factors' tensors: `A`, then `B`.
    pub const ENDINGS: [&'static str; 2] = [".lora_a", ".lora_b"];

    /// Makes an adapter of factors by the names of weights.
    #[must_use]
    pub fn new(mut config: AdapterConfig, factors: BTreeMap<String, [Tensor; 2]>) -> Self {
        config.weights = factors.keys().cloned().collect();
        Self { config, factors }
    }

    /// Reads an adapter from its folder.
    ///
    /// # Errors
    /// [`AdapterError`] where a file is missing or not what it should be.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let folder = folder.as_ref();
        let path = folder.join(ADAPTER_CONFIG_FILE);
        let config = read(&path, CONFIG_LIMIT)?;
        let config: AdapterConfig =
            serde_json::from_slice(&config).map_err(|source| AdapterError::Config {
                path: path.clone(),
                source,
            })?;
        #[expect(clippy::cast_possible_truncation, reason = "weights are multiplied in f32")]
        let scale = config.scale() as f32;
        if config.rank == 0 || !scale.is_finite() {
            return Err(AdapterError::Content {
                path,
                expected: "a rank from 1 and an alpha that is finite in f32".to_owned(),
                found: format!("rank {}, alpha {:e}", config.rank, config.alpha),
            });
        }
        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        let bytes = read(&path, WEIGHTS_LIMIT)?;
        let stored = SafeTensors::deserialize(&bytes).map_err(|source| AdapterError::Format {
            path: path.clone(),
            source,
        })?;
        let named: BTreeSet<&String> = config.weights.iter().collect();
        if named.len() != config.weights.len() || stored.len() != 2 * named.len() {
            return Err(AdapterError::Content {
                path,
                expected: format!("two factors for each of {} different weights", named.len()),
                found: format!("{} names, {} tensors", config.weights.len(), stored.len()),
            });
        }
        let mut factors = BTreeMap::new();
        for weight in &config.weights {
            let [a, b] = Self::ENDINGS.map(|ending| factor(&stored, &path, &format!("{weight}{ending}")));
            let (a, b) = (a?, b?);
            if a.dim(0)? != config.rank || b.dim(1)? != config.rank {
                return Err(AdapterError::Content {
                    path,
                    expected: format!("factors of rank {} for '{}'", config.rank, shown(weight)),
                    found: format!("{:?} and {:?}", a.dims(), b.dims()),
                });
            }
            factors.insert(weight.clone(), [a, b]);
        }
        Ok(Self { config, factors })
    }

    /// Checks that it was trained on the checkpoint that is called `name` and has this fingerprint.
    ///
    /// # Errors
    /// [`AdapterError::OtherBase`] where it was trained on another.
    pub fn check_base(&self, name: &str, fingerprint: &str) -> Result<(), AdapterError> {
        let config = &self.config;
        if config.base_fingerprint == fingerprint {
            return Ok(());
        }
        Err(AdapterError::OtherBase {
            base: shown(&config.base),
            expected: shown(&config.base_fingerprint),
            name: name.to_owned(),
            found: fingerprint.to_owned(),
        })
    }

    /// Returns the description.
    #[must_use]
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Lists the factors `A` and `B`, by the names of the weights.
    pub fn factors(&self) -> impl Iterator<Item = (&str, &[Tensor; 2])> {
        self.factors
            .iter()
            .map(|(name, factors)| (name.as_str(), factors))
    }

    /// Tells whether a weight is changed.
    pub(super) fn changes(&self, name: &str) -> bool {
        self.factors.contains_key(name)
    }

    /// Changes a weight, if the adapter has factors for it.
    pub(super) fn apply(&self, name: &str, weight: Tensor) -> candle_core::Result<Tensor> {
        match self.factors.get(name) {
            Some([a, b]) => compose(&weight, a, b, self.config.scale()),
            None => Ok(weight),
        }
    }

    /// Checks that the weights of a model are those that the adapter changes.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), AdapterError> {
        let adaptable: BTreeMap<String, [usize; 2]> = config.adaptable_weights().into_iter().collect();
        for (weight, [a, b]) in &self.factors {
            let expected = [b.dim(0)?, a.dim(1)?];
            let found = adaptable.get(weight);
            if found != Some(&expected) {
                return Err(AdapterError::OtherModel {
                    base: shown(&self.config.base),
                    weight: shown(weight),
                    expected: format!("the shape {expected:?}"),
                    found: found.map_or("none".to_owned(), |found| format!("{found:?}")),
                });
            }
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Lists the weights that an adapter may change, as the file names them: those of the linear layers of
    /// attention and feed-forward networks, with their shapes `[out, in]`.
    #[must_use]
    pub fn adaptable_weights(&self) -> Vec<(String, [usize; 2])> {
        let weights = self.weights().into_iter().filter_map(|weight| {
            let part = weight.name.strip_suffix(".weight")?.rsplit('.').next()?;
            let is_linear = weight.name.contains(".layers.") && LINEAR.contains(&part);
            let shape: [usize; 2] = weight.shape.try_into().ok()?;
            is_linear.then_some((weight.stored, shape))
        });
        weights.collect()
    }
}

/// Reads a file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, AdapterError> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    file.map_err(|source| AdapterError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > limit {
        return Err(AdapterError::Content {
            path: path.to_owned(),
            expected: format!("at most {limit} bytes"),
            found: "more".to_owned(),
        });
    }
    Ok(bytes)
}

/// Reads a factor, a matrix of F32.
fn factor(stored: &SafeTensors<'_>, path: &Path, name: &str) -> Result<Tensor, AdapterError> {
    let wrong = |found: String| AdapterError::Content {
        path: path.to_owned(),
        expected: format!("a matrix '{}' of F32", shown(name)),
        found,
    };
    let view = stored.tensor(name).map_err(|_| wrong("none".to_owned()))?;
    if view.dtype() != Dtype::F32 || view.shape().len() != 2 {
        return Err(wrong(format!("{:?} {:?}", view.dtype(), view.shape())));
    }
    let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu)?;
    Ok(tensor)
}
