//! The teacher's weights as PyTorch wrote them before 2020: pickles, then the raw numbers.
//!
//! Pickles are read as data by candle's reader, which runs nothing. The file is one certain file, told by its
//! digest.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, Read};
use std::path::Path;

use candle_core::pickle::{Object, Stack};
use sha2::{Digest, Sha256};

use super::TeacherError;

/// Digest of `efficientnet-lite2-9656183e.pth`.
const SHA256: &str = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d";
/// The pickled number that such a file begins with. It is longer than candle's reader takes.
const MAGIC: [u8; 15] = [
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e,
];
/// Largest file that is read at all: the weights have 25 MB.
const MAX_BYTES: u64 = 64 << 20;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Reads every tensor of 32-bit floats in the file.
pub(super) fn read(path: &Path) -> Result<HashMap<String, StoredTensor>, TeacherError> {
    let failed = |source| TeacherError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if digest != SHA256 {
        return Err(TeacherError::OtherWeights {
            path: path.to_owned(),
            expected: SHA256,
            found: digest,
        });
    }
    parse(&bytes).map_err(|source| TeacherError::Weights {
        path: path.to_owned(),
        source,
    })
}

fn parse(bytes: &[u8]) -> candle_core::Result<HashMap<String, StoredTensor>> {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        candle_core::bail!("the file does not begin as PyTorch's old format does");
    };
    let _protocol = read_pickle(&mut rest)?;
    let _system = read_pickle(&mut rest)?;
    let entries = read_pickle(&mut rest)?.dict()?;
    let Object::List(keys) = read_pickle(&mut rest)? else {
        candle_core::bail!("the storages' keys are no list");
    };
    // A module's state also has its version numbers in an entry of their own.
    let tensors = entries
        .into_iter()
        .filter(|(_, value)| matches!(value, Object::Reduce { .. }));
    let declared = tensors.map(|(name, value)| Declared::parse(name, value));
    let declared = declared.collect::<candle_core::Result<Vec<_>>>()?;
    let kinds: BTreeMap<&str, &str> = declared
        .iter()
        .map(|tensor| (tensor.storage.as_str(), tensor.kind.as_str()))
        .collect();
    let mut storages = HashMap::new();
    for key in keys {
        let key = key.unicode()?;
        let kind = kinds.get(key.as_str()).copied().unwrap_or_default();
        storages.insert(key.clone(), read_storage(&mut rest, kind)?);
    }
    let mut tensors = HashMap::new();
    for tensor in declared.iter().filter(|tensor| tensor.kind == "FloatStorage") {
        tensors.insert(tensor.name.clone(), tensor.take_values(&storages)?);
    }
    Ok(tensors)
}

fn read_pickle(reader: &mut impl BufRead) -> candle_core::Result<Object> {
    let mut stack = Stack::empty();
    stack.read_loop(reader)?;
    stack.finalize()
}

/// Reads a storage: a count, then as many numbers. Those that are no floats are passed over.
fn read_storage(rest: &mut &[u8], kind: &str) -> candle_core::Result<Vec<f32>> {
    let size = match kind {
        "FloatStorage" => 4,
        "LongStorage" => 8,
        other => candle_core::bail!("a storage of the kind '{other}' is not expected"),
    };
    let Some((count, after)) = rest.split_first_chunk::<8>() else {
        candle_core::bail!("the file ends before a storage");
    };
    let length = usize::try_from(u64::from_le_bytes(*count))
        .ok()
        .and_then(|count| count.checked_mul(size));
    let Some((numbers, after)) = length.and_then(|length| after.split_at_checked(length)) else {
        candle_core::bail!("the file ends within a storage");
    };
    *rest = after;
    if kind != "FloatStorage" {
        return Ok(Vec::new());
    }
    let (numbers, _) = numbers.as_chunks::<4>();
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// A tensor as the file declares it, before its numbers.
struct Declared {
    name: String,
    kind: String,
    storage: String,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Declared {
    /// Takes a call of `torch._utils._rebuild_tensor_v2` apart.
    fn parse(name: Object, value: Object) -> candle_core::Result<Self> {
        let name = name.unicode()?;
        let (_, arguments) = value.reduce()?;
        let mut arguments = arguments.tuple()?.into_iter();
        let (Some(storage), Some(offset), Some(shape), Some(strides)) = (
            arguments.next(),
            arguments.next(),
            arguments.next(),
            arguments.next(),
        ) else {
            candle_core::bail!("the tensor '{name}' is declared with too few arguments");
        };
        let mut storage = storage.persistent_load()?.tuple()?.into_iter().skip(1);
        let (Some(kind), Some(storage)) = (storage.next(), storage.next()) else {
            candle_core::bail!("the tensor '{name}' names no storage");
        };
        let shape = Vec::<usize>::try_from(shape)?;
        let strides = Vec::<usize>::try_from(strides)?;
        if strides.len() != shape.len() {
            candle_core::bail!("the tensor '{name}' has not a stride for each side");
        }
        let (kind, storage, offset) = (kind.class()?.1, storage.unicode()?, usize::try_from(offset)?);
        Ok(Self {
            name,
            kind,
            storage,
            offset,
            shape,
            strides,
        })
    }

    /// Gathers the tensor's numbers row by row, in whatever order they lie.
    fn take_values(&self, storages: &HashMap<String, Vec<f32>>) -> candle_core::Result<StoredTensor> {
        let too_large =
            || candle_core::Error::Msg(format!("the tensor '{}' is larger than its storage", self.name));
        let storage = storages.get(&self.storage).ok_or_else(too_large)?;
        let mut places = vec![self.offset];
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if places.len().saturating_mul(size) > storage.len() {
                return Err(too_large());
            }
            let along =
                |place: usize| (0..size).map(move |step| place.saturating_add(step.saturating_mul(stride)));
            places = places.into_iter().flat_map(along).collect();
        }
        let values = places
            .into_iter()
            .map(|place| storage.get(place).copied().ok_or_else(too_large));
        Ok(StoredTensor {
            shape: self.shape.clone(),
            values: values.collect::<candle_core::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two storages: "a" is 2 x 3 floats, "b" a part and "t" the transpose of them, "n" a whole number. By
    /// torch.save.
    const SMALL: &[u8] = include_bytes!("../../tests/fixtures/old_format.pth");

    #[test]
    fn tensors_of_floats_are_read_with_their_shapes() {
        let tensors = parse(SMALL).unwrap();
        assert_eq!(tensors.len(), 3);
        assert_eq!(
            tensors["a"],
            StoredTensor {
                shape: vec![2, 3],
                values: vec![0.5, 1.0, -2.0, 3.0, 4.0, 5.0]
            }
        );
        assert_eq!(
            tensors["t"],
            StoredTensor {
                shape: vec![3, 2],
                values: vec![0.5, 3.0, 1.0, 4.0, -2.0, 5.0]
            }
        );
        assert_eq!(
            tensors["b"],
            StoredTensor {
                shape: vec![2],
                values: vec![3.0, 4.0]
            }
        );
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        for length in 0..SMALL.len() {
            assert!(parse(&SMALL[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn another_file_is_told_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.pth");
        fs::write(&path, SMALL).unwrap();
        assert!(matches!(read(&path), Err(TeacherError::OtherWeights { .. })));
        assert!(matches!(
            read(&folder.path().join("none.pth")),
            Err(TeacherError::File { .. })
        ));
    }
}
