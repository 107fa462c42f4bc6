//! The projection of encoded rows to the keys and values of a decoder's cross-attention, layer after layer.

mod graph;
mod host;

use std::fmt::Debug;

use super::encoded::{Encoded, EncodingTargets};
use crate::decoder::{Decoder, DecoderForm};
use crate::encoder::EncoderForm;
use crate::error::ForwardError;
use crate::output::EncoderOutput;

/// How a form projects to cross-attention.
pub(crate) trait CrossForm: EncoderForm + DecoderForm {
    /// A projection under way.
    type Cross: Debug;

    /// Begins for the memories of some samples, and the image prefixes of some that have pictures.
    fn start(output: EncoderOutput, targets: &EncodingTargets) -> Self::Cross;

    /// Projects a slice of about `rows` rows for a layer; tells whether all layers are done.
    fn project(cross: &mut Self::Cross, decoder: &Decoder<Self>, rows: usize) -> Result<bool, ForwardError>;

    /// Returns the rows with the memories and the prefixes.
    fn finish(cross: Self::Cross) -> Result<Encoded, ForwardError>;
}
