//! One reader of data sets, for evaluation and batch work.
//!
//! A [`DataSource`] is a list of files: JSONL, CSV and TSV, WebDataset tars (each also gzipped), Parquet
//! (feature `parquet`, on by default), and folders of pictures. Its [`Records`] come in a stream, in the
//! order of the files and of their rows or in another, all or those of a shard, with memory bounded by the
//! largest record. Rows that cannot be read are counted, named and passed over, up to a limit. Reading goes
//! on from a [`Cursor`].
//!
//! ```
//! use multiway_data::{DataOptions, DataSource};
//!
//! let folder = std::env::temp_dir().join("multiway-data-example");
//! std::fs::create_dir_all(&folder)?;
//! let path = folder.join("questions.jsonl");
//! std::fs::write(&path, "{\"id\": 7, \"question\": {\"text\": \"how many?\"}}\n")?;
//!
//! let source = DataSource::open(&[&path], DataOptions::default())?;
//! let record = source.records(None)?.next().transpose()?;
//! assert_eq!(record.and_then(|record| record.text("question.text")), Some("how many?".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `source`, `file` | the files of a data set |
//! | `reader`, `order`, `records` | their records in order, shards and other orders, and the stream with its cursor |
//! | `record` | a record, its fields and its pictures |
//! | `format`, `row`, `corrupt` | one reader for each format, what it reads, and what it cannot |
//! | `table` | tables of texts, written as Parquet |
//! | `limited` | readers that count, and that stop at a record that is too large |

mod corrupt;
mod error;
mod file;
mod format;
mod limited;
mod order;
mod reader;
mod record;
mod records;
mod row;
mod source;
#[cfg(feature = "parquet")]
mod table;

pub use corrupt::Corrupt;
pub use error::DataError;
pub use file::DataOptions;
pub use record::{Field, Picture, Record};
pub use records::{Cursor, Records};
pub use source::DataSource;
#[cfg(feature = "parquet")]
pub use table::TableWriter;
