//! Explains an answer: where the decoder's cross-attention looked, token by token.
//!
//! The answer is read again in one teacher-forced pass, whose cross-attention is the reference implementation.
//! The logits of the pass are computed from the very weights that it returns.

use candle_core::{Result, Tensor};

use crate::attention::reference;
use crate::batch::TargetBatch;
use crate::decoder::{CrossInput, Decoder};
use crate::error::ForwardError;
use crate::layers::form::Form;
use crate::output::EncoderOutput;

/// The cross-attention of a decoder that reads a given text, and the logits that followed from it.
///
/// # Shapes
/// L decoder layers, H heads, T tokens read, S encoder rows of the sample: its pictures in their order, each a
/// class row and then its patches, and then its text, as [`SampleSegments::all`](crate::SampleSegments::all)
/// lists them.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Attention weights in f32, `[L, H, T, S]`; each row sums to 1.
    pub cross_attention: Tensor,
    /// The logits of the token after each, `[T, V]`.
    pub logits: Tensor,
}

impl<F: Form> Decoder<F> {
    /// Reads the decoder's input tokens for one sample, the start token first.
    pub(crate) fn explain(
        &self,
        encoded: &EncoderOutput,
        sample: usize,
        tokens: &[u32],
    ) -> std::result::Result<Explanation, ForwardError> {
        let mut target = TargetBatch::default();
        target.push(sample, tokens);
        let mut layers = Vec::with_capacity(self.layers());
        let mut attend = |input: &CrossInput| attend(input, &mut layers);
        let hidden = self.forward_with(encoded, &target, &mut |_, _| Ok(()), &mut attend)?; // [T, D]
        Ok(Explanation {
            cross_attention: Tensor::stack(&layers, 0)?, // [L, H, T, S]
            logits: self.logits(&hidden)?,               // [T, V]
        })
    }
}

/// Attends from the rows of one target, and adds the weights `[H, T, S]` of the layer to `layers`.
fn attend(input: &CrossInput, layers: &mut Vec<Tensor>) -> Result<Tensor> {
    let d = input.keys_values.dim(1)? / 2;
    let keys = input.keys_values.narrow(1, 0, d)?; // [S, H Dh]
    let values = input.keys_values.narrow(1, d, d)?; // [S, H Dh]
    let mut keep = |weights: &Tensor| layers.push(weights.detach());
    reference::attend_observed(
        input.queries,
        &keys,
        &values,
        input.plan,
        input.scoring,
        &mut keep,
    )
}
