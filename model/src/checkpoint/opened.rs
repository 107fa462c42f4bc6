//! A checkpoint that was opened, and so checked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::adapter::Adapter;
use super::entry::TensorEntry;
use super::error::LoadError;
use super::files::{CONFIG_FILE, CONFIG_LIMIT, FILE_LIMIT};
use super::header;
use super::packed::{self, Packing};
use super::shards::{self, Shard, Stored, unwrap_names};
use super::source::Source;
use crate::config::ModelConfig;
use crate::families;

/// A model's configuration, weights and tokenizer files; cheap to clone.
#[derive(Clone)]
pub struct Checkpoint {
    pub(super) opened: Arc<Opened>,
    /// What changes the weights as they are loaded.
    pub(super) adapter: Option<Arc<Adapter>>,
}

pub(super) struct Opened {
    pub(super) name: String,
    pub(super) config: ModelConfig,
    pub(super) source: Source,
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: Vec<TensorEntry>,
    pub(super) index: HashMap<String, usize>,
    pub(super) packing: Option<Packing>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened { name, tensors, .. } = &*self.opened;
        f.debug_struct("Checkpoint")
            .field("name", name)
            .field("tensors", &tensors.len())
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens a model folder, or a file of weights by PyTorch, and checks it; the weights are mapped, not
    /// read.
    ///
    /// The files must not be changed in place while the checkpoint is in use, or a model that was loaded from
    /// a packed one. [`Checkpoint::save`] does not do so: it puts new files in the place of old ones, which
    /// stay as they are for processes that have them open.
    ///
    /// # Errors
    /// [`LoadError`] names the file, and the tensor or key in it, with what was expected and what was found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let (name, source) = Source::folder(path.as_ref())?;
        Self::read(name, source)
    }

    /// Opens a checkpoint that is part of the binary, given as file names with their contents.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`].
    pub fn from_static(
        name: impl Into<String>,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self, LoadError> {
        Self::read(name.into(), Source::Static(files))
    }

    fn read(name: String, source: Source) -> Result<Self, LoadError> {
        let json = source.file(&name, CONFIG_FILE, CONFIG_LIMIT)?;
        let config = json.map(|json| {
            ModelConfig::from_json(&json).map_err(|error| LoadError::Config {
                file: source.shown(&name, CONFIG_FILE),
                source: error,
            })
        });
        let config = config.transpose()?;
        // A folder without either is told first that it lacks a configuration.
        let Stored {
            file,
            shards,
            mut tensors,
            packing,
            is_pth,
        } = match shards::open(&name, &source) {
            Err(LoadError::MissingFile { .. }) if config.is_none() => {
                return Err(source.missing(&name, CONFIG_FILE));
            }
            shards => shards?,
        };
        unwrap_names(&mut tensors);
        if let Some(config) = &config {
            shards::rename_embeddings(config, &mut tensors, &shards, &file)?;
        }
        let shape = |name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            let packed = || packing.as_ref()?.shapes.get(name);
            tensor.map(|tensor| &tensor.shape).or_else(packed).cloned()
        };
        let mut config = match config {
            Some(config) => config,
            None if !is_pth => return Err(source.missing(&name, CONFIG_FILE)),
            None => Self::inferred(&file, &shape)?,
        };
        config.adapt(&shape);
        let used = |entry: &&TensorEntry| !config.is_unused(&entry.name);
        let stored: Vec<&TensorEntry> = tensors.iter().filter(used).collect();
        let expected = match &packing {
            Some(packing) => packed::tensors(&config, packing.weights),
            None => config.tensors(),
        };
        header::check(&stored, &expected, &file)?;
        if let Some(packing) = &packing {
            packed::check(packing, &config, &file)?;
        }
        let names = tensors.iter().enumerate();
        let index = names.map(|(i, entry)| (entry.name.clone(), i)).collect();
        tracing::debug!(
            checkpoint = name,
            files = shards.len(),
            tensors = tensors.len(),
            "checkpoint opened"
        );
        Ok(Self {
            opened: Arc::new(Opened {
                name,
                config,
                source,
                shards,
                tensors,
                index,
                packing,
            }),
            adapter: None,
        })
    }

    /// Tells what model weights without a configuration belong to.
    fn inferred(file: &str, shapes: &families::Shapes) -> Result<ModelConfig, LoadError> {
        let json = families::infer(shapes).map_err(|problem| LoadError::NoConfig {
            file: file.to_owned(),
            problem,
        })?;
        ModelConfig::from_json(json.as_bytes()).map_err(|source| LoadError::Config {
            file: file.to_owned(),
            source,
        })
    }

    /// Lists the files with weights: their names, without folders, and their bytes.
    pub fn weights_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.opened.shards.iter().map(|shard| {
            let name = shard.file.rsplit(['/', '\\']).next().unwrap_or(&shard.file);
            (name, shard.weights.bytes())
        })
    }

    /// Returns the name: the folder's, or the one given for embedded bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.opened.name
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.opened.config
    }

    /// Lists the tensors in the order in which the files store them.
    #[must_use]
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.opened.tensors
    }

    /// Reads another file of the checkpoint, such as `tokenizer.json`, if it is there.
    ///
    /// # Errors
    /// [`LoadError::FileName`] where `name` is not a plain file name, [`LoadError::FileTooLarge`] above 64
    /// MiB, and [`LoadError::Io`] where the file cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, LoadError> {
        self.opened.source.file(&self.opened.name, name, FILE_LIMIT)
    }
}
