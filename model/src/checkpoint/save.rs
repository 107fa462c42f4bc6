//! Writing a checkpoint.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, View};

use super::error::{SaveError, shown};
use super::files::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use super::opened::Checkpoint;
use super::source::is_plain_file_name;
use crate::config::ModelConfig;

impl Checkpoint {
    /// Writes a checkpoint into a folder, which is made if need be.
    ///
    /// Each file is written beside its place, flushed to the disk and renamed into it; `config.json` comes
    /// last. A reader, or a machine that loses power, therefore finds the old file or the new one, and a new
    /// folder cannot be opened before it is complete. Files that are not named stay.
    ///
    /// `tensors` are those of [`ModelConfig::tensors`], each stored in its own type: F32, BF16 or F16. The
    /// same tensors give the same bytes.
    ///
    /// # Errors
    /// [`SaveError`] where the tensors are not the model's, before anything is written; or where writing
    /// fails.
    pub fn save(
        folder: impl AsRef<Path>,
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        files: &[(&str, &[u8])],
    ) -> Result<(), SaveError> {
        let folder = folder.as_ref();
        let weights = weights(config, tensors)?;
        save(folder, config, files, |write| write(&weights))
    }
}

/// Takes the bytes of a file, piece by piece.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), SaveError> + 'a;

/// Writes a folder, whose file with weights is made by `weights`.
pub(crate) fn save<T, E: From<SaveError>>(
    folder: &Path,
    config: &ModelConfig,
    files: &[(&str, &[u8])],
    weights: impl FnOnce(&mut Sink) -> Result<T, E>,
) -> Result<T, E> {
    for (name, _) in files {
        if !is_plain_file_name(name) || [CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE].contains(name) {
            return Err(SaveError::FileName { name: shown(name) }.into());
        }
    }
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    // What can fail comes first: whatever is in the folder stays as it is then.
    let path = folder.join(WEIGHTS_FILE);
    let fail = |source| failed(&path, source);
    let made = replace(
        &path,
        |source| fail(source).into(),
        |file| weights(&mut |bytes| file.write_all(bytes).map_err(fail)),
    )?;
    for (name, bytes) in files {
        write(&folder.join(name), bytes)?;
    }
    write(&folder.join(CONFIG_FILE), config.to_json().as_bytes())?;
    Ok(made)
}

fn failed(path: &Path, source: io::Error) -> SaveError {
    let file = path.display().to_string();
    SaveError::Io { file, source }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    write_atomically(path, bytes).map_err(|source| failed(path, source))
}

/// Puts a file in the place of another as a whole: at any time there is the old one or the new one.
///
/// # Errors
/// What the system says; the old file is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// Puts a file in the place of another as [`write_atomically`] does, once `write` has written all of it.
///
/// # Errors
/// What the system or `write` says; the old file is then still there.
pub fn write_atomically_with<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    replace(path, |error| error, write)
}

/// Puts a file in the place of another once `write` has written all of it; `fail` makes an error of the
/// system's.
fn replace<T, E>(
    path: &Path,
    fail: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name");
        return Err(fail(error));
    };
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(
        ".{}.{}-{number}.tmp",
        name.to_string_lossy(),
        process::id()
    ));
    let write_through = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(&fail)?;
        let made = write(&mut file)?;
        file.sync_all().map_err(&fail)?;
        fs::rename(&temporary, path).map_err(&fail)?;
        Ok(made)
    };
    match write_through() {
        Ok(made) => {
            sync_folder(path).map_err(fail)?;
            Ok(made)
        }
        Err(error) => {
            // The first failure is the one to report; a temporary file that stays does no harm.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
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
