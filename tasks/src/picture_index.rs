//! A folder of pictures as vectors, in one file: made once, searched often.
//!
//! The file is little-endian and ends with the SHA-256 of everything before it:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `MWINDEX` and a line feed |
//! | 4 | version, 2; of version 1 the header lacks `from_index` |
//! | 4 | E, the dimensions of a vector |
//! | 8 | P, the number of pictures |
//! | 8 | J, the length of the JSON that follows |
//! | J | `{"fingerprint", "root", "from_index", "pictures": [{"path", "bytes", "modified_ns"}]}` |
//! | 4 P E | the vectors, f32, one after the other |
//! | 32 | SHA-256 |
//!
//! The folder of the pictures, `root`, is absolute; `from_index` is the way to it from the folder of the
//! index, so that an index and its pictures can be moved together.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use multiway_model::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"MWINDEX\n";
const VERSION: u32 = 2;
/// The first version, which is still read.
const OLDEST_VERSION: u32 = 1;
const PREFIX_BYTES: usize = 32;
const DIGEST_BYTES: usize = 32;
/// The largest file that [`PictureIndex::open`] reads.
const MAX_FILE_BYTES: u64 = 4 << 30;
const MAX_DIMENSIONS: usize = 1 << 16;

/// Says why an index could not be read, written or searched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The file cannot be read.
    #[error("cannot read the index '{path}'")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the index '{path}'")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no index, is damaged, or lies about its contents.
    #[error(
        "'{path}' is not a usable picture index: expected {expected}, found {found}; index the pictures again"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A vector has another length than those of the index.
    #[error("the index holds vectors of {expected} finite numbers, found one {found}")]
    Vector {
        /// The dimensions of the index.
        expected: usize,
        /// What was found.
        found: String,
    },
    /// The index was made with another model.
    #[error(
        "the index was made with another model (fingerprint {expected}) than the one in use ({found}): index the \
         pictures again, or use the checkpoint that made it"
    )]
    OtherModel {
        /// The fingerprint in the index.
        expected: String,
        /// The fingerprint of the model in use.
        found: String,
    },
}

/// Names a picture, and the state of its file when it was indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureEntry {
    /// The path, relative to the indexed folder.
    pub path: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; 0 where the file system does not say.
    pub modified_ns: u64,
}

/// Names a picture that was found, and how near it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PictureMatch {
    /// The path, relative to the indexed folder.
    pub path: String,
    /// The cosine similarity, from -1 to 1.
    pub score: f32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    fingerprint: String,
    root: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from_index: Option<String>,
    pictures: Vec<PictureEntry>,
}

/// Holds the vectors of a folder of pictures.
///
/// ```
/// use multiway_tasks::{PictureEntry, PictureIndex};
///
/// let mut index = PictureIndex::new("pictures", "model", 2);
/// for (path, vector) in [("cat.png", [1.0, 0.0]), ("dog.png", [0.0, 1.0])] {
///     index.push(PictureEntry { path: path.to_owned(), bytes: 10, modified_ns: 0 }, &vector)?;
/// }
/// assert_eq!(index.nearest(&[0.6, 0.8], 1)?[0].path, "dog.png");
/// # Ok::<(), multiway_tasks::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PictureIndex {
    fingerprint: String,
    root: String,
    dimensions: usize,
    pictures: Vec<PictureEntry>,
    vectors: Vec<f32>,
}

impl PictureIndex {
    /// Starts an empty index of the folder `root`, with vectors of `dimensions` numbers made by the model of
    /// that fingerprint.
    pub fn new(root: impl Into<String>, fingerprint: impl Into<String>, dimensions: usize) -> Self {
        Self {
            fingerprint: fingerprint.into(),
            root: root.into(),
            dimensions,
            pictures: Vec::new(),
            vectors: Vec::new(),
        }
    }

    /// Adds a picture.
    ///
    /// # Errors
    ///
    /// When the vector has other dimensions than the index, or a number that is not finite.
    pub fn push(&mut self, picture: PictureEntry, vector: &[f32]) -> Result<(), IndexError> {
        self.check_vector(vector)?;
        self.pictures.push(picture);
        self.vectors.extend_from_slice(vector);
        Ok(())
    }

    /// Returns the folder that was indexed; of an index that was opened, where that folder is now, if it was
    /// moved together with the index.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Returns the dimensions of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Counts the pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Tells whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// Lists the pictures with their vectors.
    pub fn iter(&self) -> impl Iterator<Item = (&PictureEntry, &[f32])> {
        self.pictures
            .iter()
            .zip(self.vectors.chunks_exact(self.dimensions.max(1)))
    }

    /// Checks that the index was made with the model of this fingerprint.
    ///
    /// # Errors
    ///
    /// When it was made with another one: vectors of two models cannot be compared.
    pub fn check_model(&self, fingerprint: &str) -> Result<(), IndexError> {
        if self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(IndexError::OtherModel {
            expected: self.fingerprint.clone(),
            found: fingerprint.to_owned(),
        })
    }

    /// Finds the `count` pictures nearest to a vector of unit length, the nearest first.
    ///
    /// # Errors
    ///
    /// When the vector has other dimensions than the index, or a number that is not finite.
    pub fn nearest(&self, query: &[f32], count: usize) -> Result<Vec<PictureMatch>, IndexError> {
        self.check_vector(query)?;
        let mut matches: Vec<PictureMatch> = self
            .iter()
            .map(|(picture, vector)| PictureMatch {
                path: picture.path.clone(),
                // Of unit vectors it is a cosine; rounding must not make more of it.
                score: dot(query, vector).clamp(-1.0, 1.0),
            })
            .collect();
        matches.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.path.cmp(&b.path)));
        matches.truncate(count);
        Ok(matches)
    }

    /// Reads an index from a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no index, is damaged, or lies about its contents.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        let path = path.as_ref();
        let bytes = read_bounded(path).map_err(|source| IndexError::Read {
            path: path.to_owned(),
            source,
        })?;
        let (mut index, from_index) = Self::read(path, &bytes)?;
        index.follow(path, from_index.as_deref());
        Ok(index)
    }

    /// Finds the pictures beside the index, where they are no longer where they were.
    fn follow(&mut self, path: &Path, from_index: Option<&str>) {
        if let Some(way) = from_index
            && !Path::new(&self.root).is_dir()
            && let Some(folder) = folder_of(path)
            && let Ok(moved) = fs::canonicalize(folder.join(way))
            && moved.is_dir()
            && let Some(moved) = moved.to_str()
        {
            moved.clone_into(&mut self.root);
        }
    }

    /// Reads an index from the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    ///
    /// When the bytes are no index, are damaged, or lie about their contents.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, IndexError> {
        Self::read(path, bytes).map(|(index, _)| index)
    }

    /// Reads an index, and the way from it to its pictures.
    fn read(path: &Path, bytes: &[u8]) -> Result<(Self, Option<String>), IndexError> {
        decode(bytes).map_err(|(expected, found)| IndexError::Broken {
            path: path.to_owned(),
            expected,
            found,
        })
    }

    /// Writes the index to a file. The file is there whole or not at all: it is written beside its place,
    /// then moved.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IndexError> {
        let path = path.as_ref();
        self.to_bytes(way(path, Path::new(&self.root)))
            .and_then(|bytes| write_atomically(path, &bytes))
            .map_err(|source| IndexError::Write {
                path: path.to_owned(),
                source,
            })
    }

    fn to_bytes(&self, from_index: Option<String>) -> io::Result<Vec<u8>> {
        let header = Header {
            fingerprint: self.fingerprint.clone(),
            root: self.root.clone(),
            from_index,
            pictures: self.pictures.clone(),
        };
        let json = serde_json::to_vec(&header)?;
        let dimensions = u32::try_from(self.dimensions).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + json.len() + 4 * self.vectors.len() + DIGEST_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&dimensions.to_le_bytes());
        bytes.extend_from_slice(&(self.pictures.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&json);
        self.vectors
            .iter()
            .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Ok(bytes)
    }

    fn check_vector(&self, vector: &[f32]) -> Result<(), IndexError> {
        let wrong = |found: String| {
            Err(IndexError::Vector {
                expected: self.dimensions,
                found,
            })
        };
        if vector.len() != self.dimensions {
            return wrong(format!("of {}", vector.len()));
        }
        match vector.iter().find(|value| !value.is_finite()) {
            Some(value) => wrong(format!("with {value}")),
            None => Ok(()),
        }
    }
}

/// Finds the folder that a file is in.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    fs::canonicalize(folder).ok()
}

/// Finds the way from the folder of an index to an absolute folder; none where there is none, as between
/// drives.
fn way(index: &Path, root: &Path) -> Option<String> {
    if !root.is_absolute() {
        return None;
    }
    let from = folder_of(index)?;
    let shared = std::iter::zip(from.components(), root.components())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return None;
    }
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(root.components().skip(shared)).collect();
    way.to_str().map(str::to_owned)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "it has {bytes} bytes, and the most it may have is {MAX_FILE_BYTES}"
        )));
    }
    let mut contents = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut contents)?;
    Ok(contents)
}

/// What was expected, and what was found.
type Mismatch = (String, String);

fn mismatch<T>(expected: impl Into<String>, found: impl Into<String>) -> Result<T, Mismatch> {
    Err((expected.into(), found.into()))
}

/// Reads an index, and the way from it to its pictures.
fn decode(bytes: &[u8]) -> Result<(PictureIndex, Option<String>), Mismatch> {
    if !bytes.starts_with(MAGIC) {
        return mismatch(
            "a file that starts with 'MWINDEX'",
            format!("{} bytes that do not", bytes.len()),
        );
    }
    let Some((body, digest)) = bytes
        .split_last_chunk::<DIGEST_BYTES>()
        .filter(|(body, _)| body.len() >= PREFIX_BYTES)
    else {
        return mismatch(
            format!("at least {} bytes", PREFIX_BYTES + DIGEST_BYTES),
            format!("a file cut short at {} bytes", bytes.len()),
        );
    };
    let version = read_u32(body, 8)?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return mismatch(
            format!("version {OLDEST_VERSION} to {VERSION}"),
            format!("version {version}"),
        );
    }
    if Sha256::digest(body).as_slice() != digest {
        return mismatch(
            "contents that match their checksum",
            "damaged or truncated contents",
        );
    }
    let dimensions = read_u32(body, 12)? as usize;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return mismatch(
            format!("vectors of 1 to {MAX_DIMENSIONS} numbers"),
            format!("vectors of {dimensions}"),
        );
    }
    let count = read_size(body, 16)?;
    let json_bytes = read_size(body, 24)?;
    let vector_bytes = count
        .checked_mul(4)
        .and_then(|words| words.checked_mul(dimensions));
    let length = vector_bytes.and_then(|more| more.checked_add(json_bytes)?.checked_add(PREFIX_BYTES));
    if length != Some(body.len()) {
        return mismatch(
            format!("{} bytes of contents", body.len()),
            format!("a heading that promises {count} pictures and {json_bytes} bytes of names"),
        );
    }
    let (names, vectors) = body
        .get(PREFIX_BYTES..)
        .unwrap_or_default()
        .split_at_checked(json_bytes)
        .unwrap_or_default();
    let header: Header =
        serde_json::from_slice(names).map_err(|error| ("names in JSON".to_owned(), error.to_string()))?;
    if header.pictures.len() != count {
        return mismatch(
            format!("{count} names"),
            format!("{} names", header.pictures.len()),
        );
    }
    let vectors: Vec<f32> = vectors
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect();
    if let Some(value) = vectors.iter().find(|value| !value.is_finite()) {
        return mismatch("finite numbers", format!("{value}"));
    }
    let index = PictureIndex {
        fingerprint: header.fingerprint,
        root: header.root,
        dimensions,
        pictures: header.pictures,
        vectors,
    };
    Ok((index, header.from_index))
}

fn read_word<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Mismatch> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    word.copied()
        .ok_or_else(|| (format!("{N} bytes at {at}"), "the end of the file".to_owned()))
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, Mismatch> {
    read_word(bytes, at).map(u32::from_le_bytes)
}

fn read_size(bytes: &[u8], at: usize) -> Result<usize, Mismatch> {
    let size = read_word(bytes, at).map(u64::from_le_bytes)?;
    usize::try_from(size).map_err(|_| ("a size that fits in memory".to_owned(), size.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PictureIndex {
        let mut index = PictureIndex::new("pictures", "abc", 3);
        for (i, vector) in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0]]
            .iter()
            .enumerate()
        {
            let picture = PictureEntry {
                path: format!("{i}.png"),
                bytes: 7,
                modified_ns: 11,
            };
            index.push(picture, vector).unwrap();
        }
        index
    }

    /// Puts a right checksum on contents that are wrong otherwise.
    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let digest = Sha256::digest(&body);
        body.extend_from_slice(&digest);
        body
    }

    fn refusal(bytes: &[u8]) -> String {
        PictureIndex::from_bytes(Path::new("x.index"), bytes)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_index_that_is_saved_and_opened_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pictures.index");
        sample().save(&path).unwrap();
        assert_eq!(PictureIndex::open(&path).unwrap(), sample());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file stays behind"
        );
    }

    #[test]
    fn the_nearest_picture_comes_first_and_ties_are_in_order_of_their_names() {
        let found = sample().nearest(&[0.0, 1.0, 0.0], 2).unwrap();
        assert_eq!(
            found.iter().map(|hit| hit.path.as_str()).collect::<Vec<_>>(),
            ["1.png", "2.png"]
        );
        let tied = sample().nearest(&[0.0, 0.0, 1.0], 9).unwrap();
        assert_eq!(
            tied.iter().map(|hit| hit.path.as_str()).collect::<Vec<_>>(),
            ["0.png", "1.png", "2.png"]
        );
    }

    #[test]
    fn rounding_makes_no_similarity_of_more_than_one() {
        let mut index = PictureIndex::new("pictures", "abc", 2);
        // Unit vectors in f32 whose product with themselves is 1.0000001, and their opposites.
        let long = [0.6_f32.next_up(), 0.8];
        assert!(dot(&long, &long) > 1.0);
        for (path, vector) in [("same.png", long), ("opposite.png", long.map(|x| -x))] {
            let picture = PictureEntry {
                path: path.to_owned(),
                bytes: 7,
                modified_ns: 11,
            };
            index.push(picture, &vector).unwrap();
        }
        let found = index.nearest(&long, 2).unwrap();
        let scores: Vec<u32> = found.iter().map(|hit| hit.score.to_bits()).collect();
        assert_eq!(scores, [1.0_f32.to_bits(), (-1.0_f32).to_bits()]);
    }

    #[test]
    fn an_index_that_is_moved_with_its_pictures_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.join(name));
        fs::create_dir_all(old.join("a/pictures")).unwrap();
        fs::create_dir_all(old.join("b")).unwrap();
        let mut index = sample();
        index.root = old.join("a/pictures").to_str().unwrap().to_owned();
        let name = Path::new("b/pictures.index");
        index.save(old.join(name)).unwrap();
        assert_eq!(PictureIndex::open(old.join(name)).unwrap(), index);
        // The index alone: its pictures are where they were.
        fs::copy(old.join(name), folder.join("copy.index")).unwrap();
        assert_eq!(PictureIndex::open(folder.join("copy.index")).unwrap(), index);
        fs::rename(&old, &new).unwrap();
        let moved = PictureIndex::open(new.join(name)).unwrap();
        assert_eq!(Path::new(moved.root()), new.join("a/pictures"));
        // Where they are nowhere, the index still says where they were.
        fs::remove_dir_all(new.join("a")).unwrap();
        assert_eq!(PictureIndex::open(new.join(name)).unwrap(), index);
    }

    #[test]
    fn an_index_of_the_first_version_is_read() {
        let bytes = sample().to_bytes(None).unwrap();
        let mut body = bytes[..bytes.len() - DIGEST_BYTES].to_vec();
        body[8..12].copy_from_slice(&1_u32.to_le_bytes());
        let read = PictureIndex::from_bytes(Path::new("x.index"), &sealed(body)).unwrap();
        assert_eq!(read, sample());
    }

    #[test]
    fn a_vector_of_other_dimensions_or_not_finite_is_refused() {
        let error = sample().nearest(&[1.0], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the index holds vectors of 3 finite numbers, found one of 1"
        );
        assert!(sample().nearest(&[f32::NAN, 0.0, 0.0], 1).is_err());
    }

    #[test]
    fn an_index_of_another_model_is_refused() {
        assert!(sample().check_model("abc").is_ok());
        assert!(
            sample()
                .check_model("abd")
                .unwrap_err()
                .to_string()
                .contains("index the pictures again")
        );
    }

    #[test]
    fn no_single_damaged_byte_and_no_cut_goes_unnoticed() {
        let bytes = sample().to_bytes(None).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(
                PictureIndex::from_bytes(Path::new("x"), &damaged).is_err(),
                "byte {at}"
            );
            assert!(
                PictureIndex::from_bytes(Path::new("x"), &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_heading_that_lies_is_refused_before_anything_is_allocated() {
        let bytes = sample().to_bytes(None).unwrap();
        let body = &bytes[..bytes.len() - DIGEST_BYTES];
        let patched = |at: usize, word: &[u8]| {
            let mut body = body.to_vec();
            body[at..at + word.len()].copy_from_slice(word);
            refusal(&sealed(body))
        };
        assert!(patched(16, &u64::MAX.to_le_bytes()).contains("a heading that promises"));
        assert!(patched(24, &u64::MAX.to_le_bytes()).contains("a heading that promises"));
        assert!(patched(12, &0u32.to_le_bytes()).contains("vectors of 0"));
        assert!(patched(8, &9u32.to_le_bytes()).contains("version 9"));
        assert!(patched(PREFIX_BYTES, b"[").contains("names in JSON"));
        let last = body.len() - 4;
        assert!(patched(last, &f32::NAN.to_le_bytes()).contains("finite"));
    }

    #[test]
    fn another_file_is_told_from_an_index() {
        insta::assert_snapshot!(refusal(b"\x89PNG"), @"'x.index' is not a usable picture index: expected a file that starts with 'MWINDEX', found 4 bytes that do not; index the pictures again");
        assert!(refusal(b"").contains("0 bytes"));
        let missing = PictureIndex::open("no/such.index").unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the index 'no/such.index'");
    }
}
