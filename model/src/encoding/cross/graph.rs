//! The projection on tensors: all rows of a layer at a time.

use std::ops::Range;

use candle_core::Tensor;

use super::CrossForm;
use crate::decoder::Decoder;
use crate::encoding::encoded::{Encoded, EncodingTargets};
use crate::error::ForwardError;
use crate::layers::copy_rows;
use crate::layers::form::LinearLayer;
use crate::layers::graph::Graph;
use crate::memory::{KvLayers, PromptMemory};
use crate::output::EncoderOutput;
use crate::prefix::with_prefixes;

/// Cross-attention keys and values under way.
#[derive(Debug)]
pub(crate) struct GraphCross {
    output: EncoderOutput,
    memories: Vec<Target>,
    prefixes: Vec<Target>,
    layer: usize,
}

/// The rows of a sample, and their keys and values of the layers that are done.
#[derive(Debug)]
struct Target {
    sample: usize,
    /// Which rows, `[S]`: packed ones, or those of prefixes behind them.
    rows: Vec<Range<usize>>,
    /// `[S, 2D]` each.
    layers: Vec<Tensor>,
}

impl CrossForm for Graph {
    type Cross = GraphCross;

    fn start(output: EncoderOutput, targets: &EncodingTargets) -> GraphCross {
        let samples = &output.segments.samples;
        let of = |sample: usize, rows| Target {
            sample,
            rows,
            layers: Vec::new(),
        };
        let memories = targets.memories.iter();
        let memories = memories.map(|sample| of(*sample, samples[*sample].all()));
        let prefixes = targets.prefixes.iter().map(|sample| {
            let images = samples[*sample].image_rows();
            of(*sample, images.into_iter().collect())
        });
        GraphCross {
            memories: memories.collect(),
            prefixes: prefixes.collect(),
            output,
            layer: 0,
        }
    }

    fn project(cross: &mut GraphCross, decoder: &Decoder<Self>, _: usize) -> Result<bool, ForwardError> {
        let GraphCross {
            output,
            memories,
            prefixes,
            layer,
        } = cross;
        let projection = decoder.cross_projection(*layer)?;
        let own = output.packed()?.map(|rows| projection.forward(&rows)); // [N, 2D]
        let kv = with_prefixes(own.transpose()?, &output.prefixes, |prefix| prefix.cross(*layer))?; // [N + R, 2D]
        for target in memories.iter_mut().chain(prefixes) {
            target.layers.push(copy_rows(&kv, &target.rows)?); // [S, 2D]
        }
        *layer += 1;
        Ok(*layer == decoder.layers())
    }

    fn finish(cross: GraphCross) -> Result<Encoded, ForwardError> {
        let memories = cross.memories.into_iter().map(|target| {
            let rows = target.rows.iter().map(ExactSizeIterator::len).sum();
            PromptMemory::new(KvLayers::Graph(target.layers), rows)
        });
        let memories = memories.collect();
        let prefixes = cross.prefixes.into_iter();
        let prefixes = prefixes.map(|target| cross.output.image_prefix(target.sample, |_| Ok(target.layers)));
        Ok(Encoded {
            memories,
            prefixes: prefixes.collect::<Result<_, _>>()?,
            output: cross.output,
        })
    }
}
