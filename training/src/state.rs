//! A run's whole state on disk, so that a stopped run goes on to the bit.
//!
//! One safetensors file holds the weights, the optimiser's moments and moving average, and in its metadata
//! the [`Progress`]. It is written under another name, forced to disk and renamed, so that a file with a
//! state's name is always whole; a digest over all of it says so again at loading.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::Var;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::optimizer::{AdamW, OptimizerError, ParameterState};

mod file;

/// States that are kept in a folder: the newest, and one in case the newest turns out broken.
const KEPT_STATES: usize = 2;
const EXTENSION: &str = "safetensors";
const PREFIX: &str = "state-";

/// What can go wrong in saving or loading a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("{path} is no whole safetensors file: delete it to resume from the state before")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What the parser found.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The file is not what this version of the program writes.
    #[error("{path}: expected {expected}, found {found}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The state belongs to a model with other parameters.
    #[error("the state does not fit the model: resume with the settings that the run began with")]
    Optimizer(#[from] OptimizerError),
    /// A weight could not be read or written.
    #[error("cannot read or write the parameter '{name}'")]
    Tensor {
        /// Name of the parameter.
        name: String,
        /// The library's error.
        #[source]
        source: candle_core::Error,
    },
}

/// Where a random number generator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngState {
    seed: [u8; 32],
    stream: u64,
    /// The word position's low and high half.
    position: [u64; 2],
}

impl RngState {
    /// Notes where a generator stands.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    pub fn of(rng: &ChaCha8Rng) -> Self {
        let position = rng.get_word_pos();
        Self {
            seed: rng.get_seed(),
            stream: rng.get_stream(),
            position: [position as u64, (position >> 64) as u64],
        }
    }

    /// Makes a generator that goes on from there.
    #[must_use]
    pub fn generator(&self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(self.stream);
        rng.set_word_pos(u128::from(self.position[0]) | u128::from(self.position[1]) << 64);
        rng
    }
}

/// How far a run has come, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// The run's generators, by what they are used for.
    pub generators: BTreeMap<String, RngState>,
    /// How far each source of data was read, by its name.
    pub data_position: BTreeMap<String, u64>,
    /// The bits of the best loss on the validation split, and how many looks ago it was.
    #[serde(default)]
    pub best: Option<(u64, u64)>,
    /// The run's settings, as its maker writes them; a resumed run compares them.
    pub settings: String,
}

/// A state that was read from disk and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    progress: Progress,
    optimizer_steps: u64,
    parameters: BTreeMap<String, StoredParameter>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct StoredParameter {
    shape: Vec<usize>,
    weights: Vec<f32>,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
    average: Option<Vec<f32>>,
}

impl TrainingState {
    /// Copies the state of a running training.
    ///
    /// # Errors
    ///
    /// Fails where a variable cannot be read, or the optimiser was made for others.
    pub fn capture(
        progress: Progress,
        vars: &[(String, Var)],
        optimizer: &AdamW,
    ) -> Result<Self, StateError> {
        let mut parameters = BTreeMap::new();
        for parameter in optimizer.parameters() {
            let (name, shape) = (parameter.name, parameter.shape);
            let found = vars
                .iter()
                .find(|(other, var)| other == name && var.dims() == shape);
            let (_, var) = found.ok_or_else(|| missing_parameter(name, shape))?;
            let weights = var
                .flatten_all()
                .and_then(|flat| flat.to_vec1())
                .map_err(tensor_error(name))?;
            let stored = StoredParameter {
                shape: shape.to_vec(),
                weights,
                first_moment: parameter.first_moment.to_vec(),
                second_moment: parameter.second_moment.to_vec(),
                average: parameter.average.map(<[f32]>::to_vec),
            };
            parameters.insert(name.to_owned(), stored);
        }
        Ok(Self {
            progress,
            optimizer_steps: optimizer.steps(),
            parameters,
        })
    }

    /// Writes the state to a folder, beside the one before; older ones are removed. Returns the file's path.
    ///
    /// # Errors
    ///
    /// Fails where the folder cannot be written; an earlier state is then still whole.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, StateError> {
        fs::create_dir_all(folder).map_err(file_error("create", folder))?;
        let path = folder.join(format!("{PREFIX}{:012}.{EXTENSION}", self.progress.step));
        let temporary = folder.join(format!("{PREFIX}unfinished.tmp"));
        self.write(&temporary)?;
        let written = File::open(&temporary).and_then(|file| file.sync_all());
        written.map_err(file_error("force to disk", &temporary))?;
        fs::rename(&temporary, &path).map_err(file_error("rename into", &path))?;
        // The new name is safe on disk before an old state goes.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(file_error("force to disk", folder))?;
        for old in saved_states(folder)?
            .into_iter()
            .rev()
            .filter(|old| *old != path)
            .skip(KEPT_STATES - 1)
        {
            fs::remove_file(&old).map_err(file_error("remove", &old))?;
        }
        Ok(path)
    }

    /// Loads the newest whole state of a folder; none where there is none. A broken one is warned about and
    /// passed over.
    ///
    /// # Errors
    ///
    /// Fails where the folder cannot be read, or every state in it is broken.
    pub fn load_latest(folder: &Path) -> Result<Option<Self>, StateError> {
        if !folder.exists() {
            return Ok(None);
        }
        let mut newest_error = None;
        for path in saved_states(folder)?.into_iter().rev() {
            match Self::load(&path) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "passing over a broken training state");
                    newest_error = newest_error.or(Some(error));
                }
            }
        }
        newest_error.map_or(Ok(None), Err)
    }

    /// Returns how far the run had come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Lists the weights by name, with their shape.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.parameters
            .iter()
            .map(|(name, stored)| (name.as_str(), stored.shape.as_slice(), stored.weights.as_slice()))
    }

    /// Puts weights, moments and averages back into a run's variables and optimiser.
    ///
    /// # Errors
    ///
    /// Fails where the variables or the optimiser have other names, shapes or averages than the state. The
    /// optimiser is then unchanged.
    pub fn restore(&self, vars: &[(String, Var)], optimizer: &mut AdamW) -> Result<(), StateError> {
        for (name, stored) in &self.parameters {
            let fits = vars
                .iter()
                .any(|(other, var)| other == name && var.dims() == stored.shape);
            if !fits {
                return Err(missing_parameter(name, &stored.shape));
            }
        }
        optimizer.restore(self.optimizer_steps, |name| self.parameter(name))?;
        for (name, var) in vars {
            let Some(stored) = self.parameters.get(name) else {
                return Err(missing_parameter(name, var.dims()));
            };
            candle_core::Tensor::from_slice(&stored.weights, var.shape(), var.device())
                .and_then(|tensor| var.set(&tensor))
                .map_err(tensor_error(name))?;
        }
        Ok(())
    }

    fn parameter(&self, name: &str) -> Option<ParameterState<'_>> {
        let (name, stored) = self.parameters.get_key_value(name)?;
        Some(ParameterState {
            name,
            shape: &stored.shape,
            first_moment: &stored.first_moment,
            second_moment: &stored.second_moment,
            average: stored.average.as_deref(),
        })
    }
}

/// Lists a folder's states, oldest first.
fn saved_states(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let entries = fs::read_dir(folder).map_err(file_error("list", folder))?;
    let mut states = Vec::new();
    for entry in entries {
        let path = entry.map_err(file_error("list", folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(EXTENSION) {
            states.push(path);
        }
    }
    // Steps are written with leading zeros, so names sort as steps do.
    states.sort();
    Ok(states)
}

fn missing_parameter(name: &str, shape: &[usize]) -> StateError {
    StateError::Optimizer(OptimizerError::Parameters {
        index: 0,
        expected_count: 0,
        expected: format!("{name} {shape:?}"),
        found: "no parameter of this name and shape".to_owned(),
    })
}

fn tensor_error(name: &str) -> impl FnOnce(candle_core::Error) -> StateError {
    let name = name.to_owned();
    move |source| StateError::Tensor { name, source }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { action, path, source }
}

#[cfg(test)]
mod tests;
