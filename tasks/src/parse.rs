//! Parsers of answers: pure functions from a model's text to typed values, and the writers that they undo.

mod grounded;
mod labels;
mod locations;
mod number;
mod number_words;
mod table;
mod view;

pub use grounded::{GroundedAnswer, GroundedPhrase, parse_grounded};
pub use labels::{LabelsAnswer, parse_labels};
pub use locations::{EncodeError, Form, LocatedObject, parse_locations, write_locations};
pub use number::{NumberAnswer, parse_number};
pub use table::{TableAnswer, parse_table};
pub use view::PictureView;
