//! Weights as PyTorch saves them: a zip archive of a pickle that describes tensors, and of their raw numbers.
//!
//! Of the pickle is [read](super::pickle) what describes weights, and nothing is executed; whatever else a
//! training script put beside them is passed over. The numbers are not compressed, so they are used where
//! they lie in the mapped file, as those of safetensors are.
//!
//! Source: `torch.save` since PyTorch 1.6, and `torch/_utils.py`, `_rebuild_tensor_v2`.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use candle_core::DType;
use zip::{CompressionMethod, ZipArchive};

use super::entry::TensorEntry;
use super::error::{PthError, shown};
use super::pickle::{Id, Pickle};

/// The largest pickle that is read, in bytes; the numbers are not in it.
const PICKLE_LIMIT: u64 = 16 << 20;

/// The keys under which a file's weights stand where it holds other things beside them.
const STATE_KEYS: [&str; 4] = ["model", "module", "state_dict", "model_state_dict"];

/// How many tables deep the weights may stand.
const STATE_DEPTH: usize = 4;

/// The file in the archive that describes the tensors.
pub(super) const PICKLE_FILE: &str = "data.pkl";

/// Tells whether a file begins as a zip archive does.
pub(super) fn is_archive(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04")
}

/// Tells whether a file begins as `torch.save` begins one, whatever it is called: the description is the
/// first file in it.
pub(super) fn begins_as_pth(head: &[u8]) -> bool {
    // A file's header in an archive: 26 bytes, the length of its name, that of what else there is, and its
    // name.
    let name = head.get(26..).and_then(<[u8]>::split_first_chunk::<2>);
    let name = name.and_then(|(length, rest)| rest.get(2..2 + usize::from(u16::from_le_bytes(*length))));
    let name = name.and_then(|name| name.strip_suffix(PICKLE_FILE.as_bytes()));
    is_archive(head) && name.is_some_and(|folder| folder.is_empty() || folder.ends_with(b"/"))
}

/// Where a storage's numbers lie in the file.
struct Storage {
    start: usize,
    bytes: usize,
}

/// Lists the tensors of a whole file, with their places counted from its start.
pub(super) fn parse(file: &[u8]) -> Result<Vec<TensorEntry>, PthError> {
    if !is_archive(file) {
        return Err(PthError::NotAnArchive);
    }
    let mut archive =
        ZipArchive::new(Cursor::new(file)).map_err(|error| PthError::Archive(error.to_string()))?;
    let (folder, bytes) = description(&mut archive)?;
    let pickle = Pickle::read(&bytes)?;
    tensors(&pickle, &mut Storages::new(archive, folder, file.len()))
}

/// Reads the pickle, and the folder of the archive in which it lies.
fn description(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Result<(String, Vec<u8>), PthError> {
    let fail = |error: zip::result::ZipError| PthError::Archive(error.to_string());
    for index in 0..archive.len() {
        // As it lies there: what compressed it is not of interest.
        let entry = archive.by_index_raw(index).map_err(fail)?;
        let name = entry.name().map_err(fail)?.into_owned();
        let Some(folder) = name
            .strip_suffix(PICKLE_FILE)
            .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        else {
            continue;
        };
        if entry.compression() != CompressionMethod::Stored {
            return Err(PthError::Compressed);
        }
        if entry.size() > PICKLE_LIMIT {
            return Err(PthError::PickleSize {
                found: entry.size(),
                limit: PICKLE_LIMIT,
            });
        }
        let folder = folder.to_owned();
        let mut bytes = Vec::new();
        // What an entry says about its size need not be true.
        let read = entry.take(PICKLE_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|error| PthError::Archive(error.to_string()))?;
        if bytes.len() as u64 > PICKLE_LIMIT {
            return Err(PthError::PickleSize {
                found: bytes.len() as u64,
                limit: PICKLE_LIMIT,
            });
        }
        return Ok((folder, bytes));
    }
    Err(PthError::NoPickle)
}

/// The archive's storages, found on demand.
struct Storages<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
    /// Bytes of the whole file.
    length: usize,
    known: HashMap<String, Storage>,
}

impl<'a> Storages<'a> {
    fn new(archive: ZipArchive<Cursor<&'a [u8]>>, folder: String, length: usize) -> Self {
        Self {
            archive,
            folder,
            length,
            known: HashMap::new(),
        }
    }

    fn find(&mut self, tensor: &str, key: &str) -> Result<&Storage, PthError> {
        let wrong = |problem: String| PthError::Tensor {
            tensor: shown(tensor),
            problem,
        };
        if !self.known.contains_key(key) {
            let name = format!("{}data/{key}", self.folder);
            let entry = self
                .archive
                .by_name(&name)
                .map_err(|error| wrong(format!("its numbers '{}' cannot be found: {error}", shown(&name))))?;
            if entry.compression() != CompressionMethod::Stored {
                return Err(PthError::Compressed);
            }
            let place = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let place = place.zip(usize::try_from(entry.size()).ok());
            let storage = place
                .filter(|(start, bytes)| start.checked_add(*bytes).is_some_and(|end| end <= self.length));
            let Some((start, bytes)) = storage else {
                return Err(wrong(
                    "its numbers reach beyond the end of the file, which may be truncated".to_owned(),
                ));
            };
            self.known.insert(key.to_owned(), Storage { start, bytes });
        }
        self.known
            .get(key)
            .ok_or_else(|| wrong("its numbers cannot be found".to_owned()))
    }
}

/// Finds the table of weights and reads its tensors.
fn tensors(pickle: &Pickle, storages: &mut Storages) -> Result<Vec<TensorEntry>, PthError> {
    let root = pickle.table(pickle.root()).ok_or(PthError::NoTable)?;
    let entries =
        weights(pickle, root, STATE_DEPTH).unwrap_or_else(|| states(pickle, root).next().unwrap_or(root));
    let has_tensors = entries.iter().any(|(_, value)| is_tensor(pickle, *value));
    let mut found: Vec<TensorEntry> = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        // Counts, names and settings may stand among the weights.
        if has_tensors && !is_tensor(pickle, *value) {
            continue;
        }
        let name = pickle.text(*name).ok_or(PthError::NoTable)?;
        found.push(tensor(name, pickle, *value, storages)?);
    }
    // Tensors may share numbers, as tied weights do, but not so that little makes much.
    let total = found
        .iter()
        .map(|tensor| tensor.bytes as u64)
        .fold(0, u64::saturating_add);
    if total > 2 * storages.length as u64 {
        return Err(PthError::Shared {
            found: total,
            file: storages.length,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = found.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(PthError::Tensor {
            tensor: shown(&pair[0].name),
            problem: "it is there twice".to_owned(),
        });
    }
    Ok(found)
}

/// Lists the tables under the keys of weights, the likeliest key first.
fn states<'p>(pickle: &'p Pickle, table: &'p [(Id, Id)]) -> impl Iterator<Item = &'p [(Id, Id)]> {
    STATE_KEYS.iter().flat_map(move |key| {
        let under_key = table.iter().filter(|(name, _)| pickle.text(*name) == Some(key));
        under_key.filter_map(|(_, value)| pickle.table(*value))
    })
}

/// Finds the table that holds tensors: the one under a key of weights before the one around it, which may
/// hold others.
fn weights<'p>(pickle: &'p Pickle, table: &'p [(Id, Id)], depth: usize) -> Option<&'p [(Id, Id)]> {
    let inner = match depth.checked_sub(1) {
        Some(depth) => states(pickle, table).find_map(|inner| weights(pickle, inner, depth)),
        None => None,
    };
    let has_tensors = || table.iter().any(|(_, value)| is_tensor(pickle, *value));
    inner.or_else(|| has_tensors().then_some(table))
}

/// Tells whether an object is described as tensors of any kind are.
fn is_tensor(pickle: &Pickle, value: Id) -> bool {
    pickle.call(value).is_some_and(|((module, name), _)| {
        ["torch._utils", "torch._tensor"].contains(&module) && name.starts_with("_rebuild")
    })
}

/// Reads one tensor's description: `_rebuild_tensor_v2(storage, offset, size, stride, ...)`.
fn tensor(name: &str, pickle: &Pickle, value: Id, storages: &mut Storages) -> Result<TensorEntry, PthError> {
    let wrong = |problem: &str| PthError::Tensor {
        tensor: shown(name),
        problem: problem.to_owned(),
    };
    let is_not = || wrong("it is no tensor as PyTorch saves one");
    let arguments = rebuilt(pickle, value).ok_or_else(is_not)?;
    let [storage, offset, size, stride, ..] = arguments else {
        return Err(is_not());
    };
    let (class, key) = storage_of(pickle, *storage).ok_or_else(is_not)?;
    let dtype = dtype(name, class)?;
    let counts = |id: Id| {
        let items = pickle.tuple(id)?.iter();
        items
            .map(|item| pickle.count(*item))
            .collect::<Option<Vec<usize>>>()
    };
    let (Some(offset), Some(shape), Some(stride)) = (pickle.count(*offset), counts(*size), counts(*stride))
    else {
        return Err(is_not());
    };
    if shape.len() != stride.len() || !is_contiguous(&shape, &stride) {
        return Err(wrong(
            "its numbers do not lie side by side; save it with .contiguous()",
        ));
    }
    let width = dtype.size_in_bytes();
    let product = |values: &[usize]| {
        values
            .iter()
            .try_fold(width, |all: usize, size| all.checked_mul(*size))
    };
    let too_large = || wrong("its shape has more numbers than any file");
    if shape.contains(&0) {
        return Err(wrong("its shape has no numbers at all"));
    }
    let (bytes, offset) = product(&shape)
        .zip(offset.checked_mul(width))
        .ok_or_else(too_large)?;
    let end = offset.checked_add(bytes).ok_or_else(too_large)?;
    let storage = storages.find(name, key)?;
    if end > storage.bytes {
        let problem = format!(
            "its shape {shape:?} needs {bytes} bytes from byte {offset} on, but its storage has {}",
            storage.bytes
        );
        return Err(wrong(&problem));
    }
    let start = storage.start + offset;
    Ok(TensorEntry {
        name: name.to_owned(),
        shape,
        dtype,
        bytes,
        start,
        shard: 0,
    })
}

/// Returns the arguments of `_rebuild_tensor_v2`, also where a parameter or a class of tensors is made of
/// what it returns.
fn rebuilt<'p>(pickle: &'p Pickle, value: Id) -> Option<&'p [Id]> {
    let (function, arguments) = pickle.call(value)?;
    let (function, arguments) = match function {
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            pickle.call(*arguments.first()?)?
        }
        // The function, the class, and the function's arguments.
        ("torch._tensor", "_rebuild_from_type_v2") => {
            let [function, _, arguments, ..] = arguments else {
                return None;
            };
            (pickle.class(*function)?, pickle.tuple(*arguments)?)
        }
        _ => (function, arguments),
    };
    (function == ("torch._utils", "_rebuild_tensor_v2")).then_some(arguments)
}

/// Reads `("storage", type, key, device, length)`.
fn storage_of<'p>(pickle: &Pickle<'p>, storage: Id) -> Option<(&'p str, &'p str)> {
    let [kind, class, key, ..] = pickle.tuple(pickle.elsewhere(storage)?)? else {
        return None;
    };
    let (_, class) = pickle.class(*class)?;
    (pickle.text(*kind)? == "storage").then_some((class, pickle.text(*key)?))
}

fn dtype(tensor: &str, class: &str) -> Result<DType, PthError> {
    match class {
        "FloatStorage" => Ok(DType::F32),
        "HalfStorage" => Ok(DType::F16),
        "BFloat16Storage" => Ok(DType::BF16),
        _ => Err(PthError::Dtype {
            tensor: shown(tensor),
            found: shown(class),
        }),
    }
}

/// Tells whether strides are those of rows one behind the other; of dimensions of size 1 the stride means
/// nothing.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    for (size, stride) in shape.iter().zip(stride).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(*size);
    }
    true
}
