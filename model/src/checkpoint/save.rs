//! Writing a checkpoint.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, View};

use super::{
    CONFIG_FILE, Checkpoint, INDEX_FILE, SaveError, WEIGHTS_FILE, error::shown, source::is_plain_file_name,
};
use crate::config::ModelConfig;

impl Checkpoint {
    /// Writes a checkpoint into a folder, which is made if need be.
    ///
    /// Each file is written beside its place, flushed to the disk and renamed into it; `config.json` comes last. A
    /// reader, or a machine that loses power, therefore finds the old file or the new one, and a new folder
    /// cannot be opened before it is complete. Files that are not named stay.
    ///
    /// `tensors` are those of [`ModelConfig::tensors`], each stored in its own type: F32, BF16 or F16. The same
    /// tensors give the same bytes.
    ///
    /// # Errors
    /// [`SaveError`] where the tensors are not the model's, before anything is written; or where writing fails.
    pub fn save(
        folder: impl AsRef<Path>,
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        files: &[(&str, &[u8])],
    ) -> Result<(), SaveError> {
        let folder = folder.as_ref();
        for (name, _) in files {
            if !is_plain_file_name(name) || [CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE].contains(name) {
                return Err(SaveError::FileName { name: shown(name) });
            }
        }
        let weights = weights(config, tensors)?;
        fs::create_dir_all(folder).map_err(|source| SaveError::Io {
            file: folder.display().to_string(),
            source,
        })?;
        for (name, bytes) in files {
            write(&folder.join(name), bytes)?;
        }
        write(&folder.join(WEIGHTS_FILE), &weights)?;
        write(&folder.join(CONFIG_FILE), config.to_json().as_bytes())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    write_atomically(path, bytes).map_err(|source| SaveError::Io {
        file: path.display().to_string(),
        source,
    })
}

/// Puts a file in the place of another as a whole: at any time there is the old one or the new one.
///
/// # Errors
/// What the system says; the old file is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path has no file name",
        ));
    };
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(
        ".{}.{}-{write}.tmp",
        name.to_string_lossy(),
        process::id()
    ));
    let result = write_through(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    match result {
        Ok(()) => sync_folder(path),
        Err(error) => {
            // The first failure is the one to report; a temporary file that stays does no harm.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn write_through(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename last; elsewhere than on Unix folders cannot be flushed, and need not be.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}

/// A tensor's bytes as the format wants them.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Makes the contents of the weights file.
fn weights(config: &ModelConfig, tensors: &HashMap<String, Tensor>) -> Result<Vec<u8>, SaveError> {
    let expected = config.tensors();
    let mut stored = Vec::with_capacity(expected.len());
    for (name, shape) in &expected {
        let Some(tensor) = tensors.get(name) else {
            return Err(SaveError::MissingTensor {
                tensor: name.clone(),
                expected: shape.clone(),
            });
        };
        if tensor.dims() != shape.as_slice() {
            let (expected, found) = (shape.clone(), tensor.dims().to_vec());
            return Err(SaveError::Shape {
                tensor: name.clone(),
                expected,
                found,
            });
        }
        stored.push((name.as_str(), store(name, tensor)?));
    }
    if stored.len() != tensors.len() {
        // The smallest name, so that the message does not change from run to run.
        let unexpected = tensors
            .keys()
            .filter(|name| !expected.iter().any(|(known, _)| known == *name))
            .min();
        return Err(SaveError::UnexpectedTensor {
            tensor: unexpected.map_or_else(String::new, |name| shown(name)),
        });
    }
    // Python readers ask which framework wrote a file; "pt" is what they all accept.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(
        stored.iter().map(|(name, stored)| (*name, stored)),
        Some(metadata),
    )?)
}

fn store(name: &str, tensor: &Tensor) -> Result<Stored, SaveError> {
    let flat = tensor.flatten_all()?; // [elements]
    let (dtype, bytes) = match tensor.dtype() {
        DType::F32 => (
            Dtype::F32,
            flat.to_vec1::<f32>()?
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        DType::BF16 => (
            Dtype::BF16,
            flat.to_vec1::<bf16>()?
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        DType::F16 => (
            Dtype::F16,
            flat.to_vec1::<f16>()?
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        found => {
            return Err(SaveError::Dtype {
                tensor: name.to_owned(),
                found,
            });
        }
    };
    Ok(Stored {
        dtype,
        shape: tensor.dims().to_vec(),
        bytes,
    })
}
