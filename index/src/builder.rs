//! Building an index: in a stream, going on where a build was killed, and again where little has changed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use sha2::{Digest, Sha256};

use crate::element::{ElementType, MAX_WIDTH, normalized};
use crate::entry::IndexEntry;
use crate::error::IndexError;
use crate::file::{Meta, VectorIndex};
use crate::journal::{Journal, Record, Records};
use crate::layout::MAX_COUNT;
use crate::lists::{Lists, Rows};
use crate::place;
use crate::write::{Stored, write};

/// Says what an index is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSpec {
    fingerprint: String,
    width: usize,
    element: ElementType,
    root: Option<String>,
    is_approximate: bool,
}

impl IndexSpec {
    /// Describes an index of vectors of `width` numbers, made by the model of that fingerprint.
    pub fn new(fingerprint: impl Into<String>, width: usize, element: ElementType) -> Self {
        Self {
            fingerprint: fingerprint.into(),
            width,
            element,
            root: None,
            is_approximate: false,
        }
    }

    /// Names the folder that keys are relative to. If it is absolute, index and folder can be moved together.
    #[must_use]
    pub fn with_root(self, root: impl Into<String>) -> Self {
        Self {
            root: Some(root.into()),
            ..self
        }
    }

    /// Adds lists for approximate search, or leaves them out.
    #[must_use]
    pub fn approximate(self, is_approximate: bool) -> Self {
        Self {
            is_approximate,
            ..self
        }
    }

    /// Names what decides whether vectors that are finished can be used: not the lists, which are made at the
    /// end.
    fn id(&self) -> [u8; 32] {
        let Self {
            fingerprint,
            width,
            element,
            root,
            ..
        } = self;
        Sha256::digest(format!("{:?}", (fingerprint, width, element.name(), root))).into()
    }
}

/// Says what a build did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildReport {
    /// The vectors of the index.
    pub vectors: usize,
    /// Those of them that were known from the index that was there, or from a build that was killed.
    pub reused: usize,
    /// The vectors of the index that was there whose keys are gone.
    pub removed: usize,
}

/// Where a vector is stored.
#[derive(Debug, Clone, Copy)]
enum Source {
    Journal(Record),
    Previous(usize),
}

/// The start of the digest of an entry or a key: it stands for it in sets that would be large otherwise.
type Name = [u8; 16];

fn name(bytes: &[u8]) -> Name {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut name = Name::default();
    name.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    name
}

/// Builds an index in a stream.
///
/// What is pushed is in a journal beside the index (`NAME.journal`) at once: of a build that is killed, or
/// dropped before [`finish`](Self::finish), the next one reuses everything. The index appears whole at the
/// end, and has the same bytes as if the build had not been killed. Memory holds about 60 bytes a vector,
/// whatever its width.
#[derive(Debug)]
pub struct IndexBuilder {
    path: PathBuf,
    spec: IndexSpec,
    journal: Journal,
    previous: Option<VectorIndex>,
    known: HashMap<Name, Source>,
    order: Vec<Source>,
    reused: usize,
}

impl IndexBuilder {
    /// Starts to build the index `path`, or goes on.
    ///
    /// An index that is there already is replaced at the end, and its vectors are reused if it is of the same
    /// model, width, element type and folder, or of a folder that is no longer there.
    ///
    /// # Errors
    ///
    /// When the width is not from 1 to 65536, when there is a file that is no usable index, when the journal
    /// cannot be written, or when another program builds the same index.
    pub fn open(path: impl AsRef<Path>, spec: IndexSpec) -> Result<Self, IndexError> {
        let path = path.as_ref();
        if !(1..=MAX_WIDTH).contains(&spec.width) {
            return Err(IndexError::Limit {
                limit: format!("vectors of 1 to {MAX_WIDTH} numbers"),
                found: format!("a width of {}", spec.width),
            });
        }
        let mut known = HashMap::new();
        let previous = previous(path, &spec)?;
        if let Some(index) = &previous {
            for position in 0..index.len() {
                known.insert(name(index.entry_bytes(position)?), Source::Previous(position));
            }
        }
        let stride = spec.element.stride(spec.width);
        let journal = Journal::open(path, &spec.id(), stride, &mut |entry, record| {
            known.insert(name(entry), Source::Journal(record));
        })?;
        Ok(Self {
            path: path.to_owned(),
            spec,
            journal,
            previous,
            known,
            order: Vec::new(),
            reused: 0,
        })
    }

    /// Tells whether the vector of an entry is known: every field must be the same.
    pub fn knows(&self, entry: &IndexEntry) -> bool {
        let bytes = entry.encode();
        bytes.is_ok_and(|bytes| self.known.contains_key(&name(&bytes)))
    }

    /// Adds an entry whose vector is known; tells whether it is.
    ///
    /// # Errors
    ///
    /// When the entry is too long, or the index is full.
    pub fn reuse(&mut self, entry: &IndexEntry) -> Result<bool, IndexError> {
        self.check_room()?;
        let source = self.known.get(&name(&entry.encode()?)).copied();
        self.order.extend(source);
        self.reused += usize::from(source.is_some());
        Ok(source.is_some())
    }

    /// Adds an entry and its vector, which is scaled to unit length.
    ///
    /// # Errors
    ///
    /// When the vector has another width than the index, a number that is not finite, or no direction; when
    /// the entry is too long; when the index is full, or the journal cannot be written.
    pub fn push(&mut self, entry: &IndexEntry, vector: &[f32]) -> Result<(), IndexError> {
        self.check_room()?;
        let (row, scale) = self.spec.element.quantize(&normalized(vector, self.spec.width)?);
        let record = self.journal.append(&entry.encode()?, &row, scale)?;
        self.order.push(Source::Journal(record));
        Ok(())
    }

    /// Counts the vectors that were added.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Tells whether no vector was added.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn check_room(&self) -> Result<(), IndexError> {
        if self.order.len() < MAX_COUNT {
            return Ok(());
        }
        Err(IndexError::Limit {
            limit: format!("at most {MAX_COUNT} vectors"),
            found: "one more".to_owned(),
        })
    }

    /// Writes the index and removes the journal. An index of nothing is not written.
    ///
    /// # Errors
    ///
    /// When the index cannot be written; what is finished is then still in the journal.
    pub fn finish(self) -> Result<BuildReport, IndexError> {
        if self.order.is_empty() {
            self.journal.remove()?;
            return Ok(BuildReport::default());
        }
        let Self {
            path,
            spec,
            journal,
            previous,
            order,
            reused,
            ..
        } = self;
        let root = spec.root.as_deref();
        let meta = Meta {
            from_index: root.and_then(|root| place::way(&path, Path::new(root))),
            fingerprint: spec.fingerprint,
            root: spec.root,
        };
        let parts = Parts {
            records: journal.map()?,
            previous,
            order,
        };
        let lists = if spec.is_approximate {
            let threads = available_parallelism().map_or(1, usize::from);
            Lists::of(&parts, spec.element, spec.width, threads)
        } else {
            Lists::default()
        };
        write(&path, &meta, (spec.width, spec.element), &parts, &lists)?;
        let report = BuildReport {
            vectors: parts.order.len(),
            reused,
            removed: parts.removed(),
        };
        drop(parts);
        journal.remove()?;
        Ok(report)
    }
}

/// Opens the index that is there already, if its vectors can be reused.
///
/// A file that is no index is an error: it may be somebody's picture.
fn previous(path: &Path, spec: &IndexSpec) -> Result<Option<VectorIndex>, IndexError> {
    if !path.exists() {
        return Ok(None);
    }
    let index = VectorIndex::open(path)?;
    // A folder that is no longer where it was may be this one: what each file is decides.
    let is_of_root =
        index.root() == spec.root.as_deref() || index.root().is_some_and(|root| !Path::new(root).is_dir());
    let is_usable = is_of_root
        && index.check_model(&spec.fingerprint).is_ok()
        && (index.width(), index.element()) == (spec.width, spec.element);
    if !is_usable {
        return Ok(None);
    }
    index.verify()?;
    Ok(Some(index))
}

/// The vectors of an index that is written, wherever they are.
#[derive(Debug)]
struct Parts {
    records: Records,
    previous: Option<VectorIndex>,
    order: Vec<Source>,
}

impl Parts {
    /// Counts the vectors of the index that was there whose keys are gone.
    fn removed(&self) -> usize {
        let Some(previous) = &self.previous else {
            return 0;
        };
        let key = |entry: &[u8]| {
            IndexEntry::decode(entry)
                .map(|entry| name(entry.key.as_bytes()))
                .ok()
        };
        let kept: HashSet<Name> = (0..self.order.len())
            .filter_map(|position| key(self.entry(position)))
            .collect();
        (0..previous.len())
            .filter_map(|position| key(previous.entry_bytes(position).ok()?))
            .filter(|key| !kept.contains(key))
            .count()
    }
}

impl Rows for Parts {
    fn count(&self) -> usize {
        self.order.len()
    }

    fn row(&self, position: usize) -> (&[u8], f32) {
        match (self.order.get(position), &self.previous) {
            (Some(Source::Journal(record)), _) => self.records.row(*record),
            (Some(Source::Previous(position)), Some(index)) => {
                (index.rows(*position..position + 1), index.scale(*position))
            }
            _ => (&[], 0.0),
        }
    }
}

impl Stored for Parts {
    fn entry(&self, position: usize) -> &[u8] {
        match (self.order.get(position), &self.previous) {
            (Some(Source::Journal(record)), _) => self.records.entry(*record),
            (Some(Source::Previous(position)), Some(index)) => {
                index.entry_bytes(*position).unwrap_or_default()
            }
            _ => &[],
        }
    }
}
