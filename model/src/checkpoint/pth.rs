//! Weights as PyTorch saves them: a zip archive of a pickle that describes tensors, and of their raw numbers.
//!
//! The pickle is read by candle's reader, which executes nothing. That reader trusts its input for its use of memory, so
//! the pickle is [scanned](super::pickle_scan) first. The numbers are not compressed, so they are used where they lie in
//! the mapped file, as those of safetensors are.
//!
//! Source: `torch.save` since PyTorch 1.6, and `torch/_utils.py`, `_rebuild_tensor_v2`.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use candle_core::DType;
use candle_core::pickle::{Object, Stack};
use zip::{CompressionMethod, ZipArchive};

use super::TensorEntry;
use super::error::{PthError, shown};
use super::pickle_scan::scan;

/// The largest pickle that is read, in bytes; the numbers are not in it.
const PICKLE_LIMIT: u64 = 16 << 20;

/// The keys under which a file's weights stand where it holds other things beside them.
const STATE_KEYS: [&str; 3] = ["model", "module", "state_dict"];

/// Tells whether a file begins as a zip archive does.
pub(super) fn is_archive(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04")
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
    let (folder, pickle) = pickle(&mut archive)?;
    scan(&pickle)?;
    let mut stack = Stack::empty();
    stack
        .read_loop(&mut pickle.as_slice())
        .and_then(|()| stack.finalize())
        .map_err(|error| PthError::Pickle(shown(&error.to_string())))
        .and_then(|object| tensors(object, &mut Storages::new(archive, folder, file.len())))
}

/// Reads the pickle, and the folder of the archive in which it lies.
fn pickle(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Result<(String, Vec<u8>), PthError> {
    let fail = |error: zip::result::ZipError| PthError::Archive(error.to_string());
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(fail)?;
        let name = entry.name().map_err(fail)?.into_owned();
        let Some(folder) = name
            .strip_suffix("data.pkl")
            .filter(|folder| folder.ends_with('/'))
        else {
            continue;
        };
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

/// The archive's storages, found as they are asked for.
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
                return Err(wrong(
                    "its numbers are compressed, which PyTorch never does".to_owned(),
                ));
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
fn tensors(object: Object, storages: &mut Storages) -> Result<Vec<TensorEntry>, PthError> {
    let Object::Dict(mut entries) = object else {
        return Err(PthError::NoTable);
    };
    let state = STATE_KEYS.iter().find_map(|key| {
        let is_state = |(name, value): &(Object, Object)| {
            matches!(name, Object::Unicode(name) if name == key) && matches!(value, Object::Dict(_))
        };
        entries.iter().position(is_state)
    });
    if let Some(place) = state
        && let (_, Object::Dict(inner)) = entries.swap_remove(place)
    {
        entries = inner;
    }
    let mut found: Vec<TensorEntry> = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let Object::Unicode(name) = name else {
            return Err(PthError::NoTable);
        };
        // `state_dict()` gives its table an attribute, which candle's reader puts among the entries.
        if name == "_metadata" && matches!(value, Object::Dict(_)) {
            continue;
        }
        found.push(tensor(name, value, storages)?);
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

/// Reads one tensor's description: `_rebuild_tensor_v2(storage, offset, size, stride, ...)`.
fn tensor(name: String, value: Object, storages: &mut Storages) -> Result<TensorEntry, PthError> {
    let wrong = |problem: &str| PthError::Tensor {
        tensor: shown(&name),
        problem: problem.to_owned(),
    };
    let is_not = || wrong("it is no tensor as PyTorch saves one");
    let (mut function, mut arguments) = reduce(value).ok_or_else(is_not)?;
    if is_global(&function, "torch._utils", "_rebuild_parameter") {
        let inner = arguments.into_iter().next().and_then(reduce);
        (function, arguments) = inner.ok_or_else(is_not)?;
    }
    if !is_global(&function, "torch._utils", "_rebuild_tensor_v2") {
        return Err(is_not());
    }
    let mut arguments = arguments.into_iter();
    let (
        Some(Object::PersistentLoad(storage)),
        Some(offset),
        Some(Object::Tuple(size)),
        Some(Object::Tuple(stride)),
    ) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
    )
    else {
        return Err(is_not());
    };
    let (class, key) = storage_of(*storage).ok_or_else(is_not)?;
    let dtype = dtype(&name, &class)?;
    let counts = |values: Vec<Object>| values.into_iter().map(count).collect::<Option<Vec<usize>>>();
    let (Some(offset), Some(shape), Some(stride)) = (count(offset), counts(size), counts(stride)) else {
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
    let storage = storages.find(&name, &key)?;
    if end > storage.bytes {
        let problem = format!(
            "its shape {shape:?} needs {bytes} bytes from byte {offset} on, but its storage has {}",
            storage.bytes
        );
        return Err(wrong(&problem));
    }
    let start = storage.start + offset;
    Ok(TensorEntry {
        name,
        shape,
        dtype,
        bytes,
        start,
        shard: 0,
    })
}

fn reduce(object: Object) -> Option<(Object, Vec<Object>)> {
    match object {
        Object::Reduce { callable, args } => match *args {
            Object::Tuple(arguments) => Some((*callable, arguments)),
            _ => None,
        },
        _ => None,
    }
}

fn is_global(object: &Object, module: &str, class: &str) -> bool {
    matches!(object, Object::Class { module_name, class_name } if module_name == module && class_name == class)
}

fn count(object: Object) -> Option<usize> {
    usize::try_from(object.int_or_long().ok()?).ok()
}

/// Reads `("storage", type, key, device, length)`.
fn storage_of(object: Object) -> Option<(String, String)> {
    let Object::Tuple(parts) = object else { return None };
    let mut parts = parts.into_iter();
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Object::Unicode(kind), Object::Class { class_name, .. }, Object::Unicode(key))
            if kind == "storage" =>
        {
            Some((class_name, key))
        }
        _ => None,
    }
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

/// Tells whether strides are those of rows one behind the other; of dimensions of size 1 the stride means nothing.
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
