//! Explains an answer: where the decoder's cross-attention looked, token by token.
//!
//! The answer is read again in one teacher-forced pass, whose cross-attention is the reference
//! implementation. The logits of the pass are computed from the very weights that it returns.

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
/// L decoder layers, H heads, T tokens read, S encoder rows of the sample: its pictures in their order, each
/// a class row and then its patches, and then its text, as
/// [`SampleSegments::all`](crate::SampleSegments::all) lists them.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::cross_attention;
    use crate::batch::{EncoderBatch, EncoderSample};
    use crate::image::ProcessedImage;
    use crate::layers::graph::Graph;
    use crate::layers::host::Host;
    use crate::parts::Parts;
    use crate::testing::tiny_config;

    const TOKENS: [u32; 4] = [0, 44, 5, 80];

    fn parts<F: Form>() -> Parts<F> {
        let config = tiny_config();
        let tensors = crate::init::initialise(&config, 4, &candle_core::Device::Cpu).unwrap();
        let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
        let read = |name: &str| Ok(tensors[name].clone());
        let weights = crate::layers::Weights::new(&config, crate::kernels::WeightType::F32, read);
        Parts::load(&config, &weights).unwrap()
    }

    /// Softmax of the scaled products of one query and all keys, head by head: loops over plain numbers.
    #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    fn by_hand(queries: &Tensor, keys_values: &Tensor, heads: usize, scale: f32) -> Vec<f32> {
        let queries: Vec<Vec<f32>> = queries.to_vec2().unwrap();
        let keys: Vec<Vec<f32>> = keys_values.to_vec2().unwrap();
        let size = queries[0].len() / heads;
        let mut all = Vec::new();
        for head in 0..heads {
            let columns = head * size..(head + 1) * size;
            for query in &queries {
                let dot = |key: &Vec<f32>| {
                    let products = query[columns.clone()].iter().zip(&key[columns.clone()]);
                    products.map(|(q, k)| f64::from(q * k)).sum::<f64>() * f64::from(scale)
                };
                let scores: Vec<f64> = keys.iter().map(|key| dot(key).exp()).collect();
                let total: f64 = scores.iter().sum();
                all.extend(scores.iter().map(|score| (score / total) as f32));
            }
        }
        all // [H, T, S]
    }

    fn check<F: crate::encoder::EncoderForm>() {
        let (config, parts) = (tiny_config(), parts::<F>());
        let value = |i: usize| ((i * 7) % 29) as f32 / 14.5 - 1.0;
        let picture = ProcessedImage::from_pixels((0..config.image_values()).map(value).collect());
        let sample = EncoderSample {
            images: &[picture],
            tokens: &[7, 8, 1],
        };
        let batch = EncoderBatch::new(&config, &[sample]).unwrap();
        let encoded = parts.encode(&batch, false, None).unwrap();
        let decoder = parts.decoder().unwrap();
        let mut target = TargetBatch::default();
        target.push(0, &TOKENS);
        // The activations of the pass that training runs, whose attention is another implementation.
        let mut expected = Vec::new();
        let mut attend = |input: &CrossInput| {
            let heads = input.scoring.heads;
            expected.push(by_hand(
                input.queries,
                input.keys_values,
                heads,
                input.scoring.scale,
            ));
            cross_attention(input.queries, input.keys_values, input.plan, input.scoring)
        };
        let observe = &mut |_, _: &Tensor| Ok(());
        decoder
            .forward_with(&encoded, &target, observe, &mut attend)
            .unwrap();
        let explanation = decoder.explain(&encoded, 0, &TOKENS).unwrap();
        let found: Vec<f32> = explanation
            .cross_attention
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(found.len(), expected.concat().len());
        let differ = found.iter().zip(expected.concat()).map(|(a, b)| (a - b).abs());
        assert!(differ.fold(0.0, f32::max) < 1e-5);
        let spread = found.iter().fold(0.0f32, |most, weight| most.max(*weight));
        assert!(spread > 1.5 / 20.0, "the weights differ: {spread}");
    }

    #[test]
    fn the_weights_are_those_that_plain_loops_find_from_the_activations() {
        check::<Host>();
        check::<Graph>();
    }
}
