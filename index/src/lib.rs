//! Indexes of vectors: one memory-mapped file, built in a stream, searched exactly or approximately.
//!
//! An index holds vectors of unit length in f16 or int8 and an entry beside each: a path or the id of a
//! record, and a text if there is one. Opening it reads a header, however many vectors there are; a search
//! reads the vectors; only the entries of what was found are read.
//!
//! ```
//! use multiway_index::{ElementType, IndexBuilder, IndexEntry, IndexSpec, SearchOptions, VectorIndex};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("animals.index");
//! let mut builder = IndexBuilder::open(&path, IndexSpec::new("model", 2, ElementType::F16))?;
//! for (name, vector) in [("cat", [1.0, 0.0]), ("dog", [0.0, 1.0])] {
//!     builder.push(&IndexEntry::new(name), &vector)?;
//! }
//! builder.finish()?;
//!
//! let index = VectorIndex::open(&path)?;
//! let found = index.search(&[[0.6, 0.8]], SearchOptions::new(1))?;
//! assert_eq!(index.entry(found[0][0].position)?.key, "dog");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `file`, `layout`, `entry`, `element` | the file: sections, their places, entries, and vectors as they are stored |
//! | `builder`, `journal`, `write` | building: what is finished is in a journal, and the file appears whole |
//! | `search`, `top` | exact search, and the best of what was seen |
//! | `lists` | approximate search: vectors in lists by the nearest of some centroids |

mod builder;
mod element;
mod entry;
mod error;
mod file;
mod journal;
mod layout;
mod lists;
mod place;
mod search;
mod top;
mod write;

pub use builder::{BuildReport, IndexBuilder, IndexSpec};
pub use element::ElementType;
pub use entry::IndexEntry;
pub use error::IndexError;
pub use file::VectorIndex;
pub use search::{SearchOptions, combine};
pub use top::IndexMatch;
