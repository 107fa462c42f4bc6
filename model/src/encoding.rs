//! Encoding in slices, so that other work can go on in between.

use crate::batch::{EncoderBatch, check_shareable};
use crate::decoder::Decoder;
use crate::encoder::{EncoderOutput, Pass};
use crate::error::ForwardError;
use crate::layers::own_rows;
use crate::memory::{MemoryLayer, PromptMemory};
use crate::model::Model;
use crate::prefix::ImagePrefix;
use candle_core::Tensor;

/// What is to be made of an encoded batch, besides its rows; samples by their places in the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Samples to be answered in text: their [`PromptMemory`].
    pub memories: Vec<usize>,
    /// Samples whose pictures are to be kept: their [`ImagePrefix`].
    pub prefixes: Vec<usize>,
}

/// An encoded batch with what was wanted of it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The rows.
    pub output: EncoderOutput,
    /// Those of [`Wanted::memories`], in the same order.
    pub memories: Vec<PromptMemory>,
    /// Those of [`Wanted::prefixes`], in the same order.
    pub prefixes: Vec<ImagePrefix>,
}

/// An encoding under way, of [`Model::begin_encoding`].
#[derive(Debug)]
pub struct Encoding {
    batch: EncoderBatch,
    wanted: Wanted,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the encoder; no pass where all rows are known.
    Layers(Option<Pass>),
    /// At the projections to the decoder's cross-attention.
    Cross(Box<Cross>),
    Done,
}

/// Cross-attention keys and values, layer after layer.
#[derive(Debug)]
struct Cross {
    output: EncoderOutput,
    /// What of the present layer is done, of the packed rows.
    done: Vec<Tensor>,
    /// For each wanted memory the layers that are done.
    memories: Vec<Vec<MemoryLayer>>,
    /// For each wanted prefix the layers that are done, `[R, 2D]`.
    prefixes: Vec<Vec<Tensor>>,
    layer: usize,
}

impl Model {
    /// Begins to encode a packed batch in slices; the result is the same to the bit as that of [`Model::encode`], with
    /// [`Model::prompt_memory`] and [`Model::image_prefix`].
    ///
    /// # Errors
    /// [`ForwardError`] where the batch is empty, a wanted sample is not there or its pictures cannot be kept, or a tensor
    /// operation fails.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::testing::{random_inference_model, tiny_config};
    /// use multiway_model::{EncoderBatch, EncoderSample, Wanted};
    ///
    /// # fn main() -> Result<(), multiway_model::ForwardError> {
    /// let config = tiny_config();
    /// let model = random_inference_model(&config, 7)?;
    /// let batch = EncoderBatch::new(&config, &[EncoderSample { images: &[], tokens: &[5, 8, 9, 1] }])?;
    /// let wanted = Wanted { memories: vec![0], ..Wanted::default() };
    /// let mut encoding = model.begin_encoding(batch, wanted)?;
    /// let encoded = loop {
    ///     // Two rows of one part of a layer at a time; anything else can be done between two calls.
    ///     if let Some(encoded) = model.advance_encoding(&mut encoding, 2)? {
    ///         break encoded;
    ///     }
    /// };
    /// assert_eq!(encoded.memories[0].length(), 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_encoding(&self, batch: EncoderBatch, wanted: Wanted) -> Result<Encoding, ForwardError> {
        let samples = batch.segments.samples.len();
        for &sample in wanted.memories.iter().chain(&wanted.prefixes) {
            if sample >= samples {
                return Err(ForwardError::NoSample { sample, samples });
            }
        }
        for &sample in &wanted.prefixes {
            check_shareable(self.config(), sample)?;
            if batch.segments.samples[sample].image_rows().is_none() {
                let problem = "has no images";
                return Err(ForwardError::Prefix { sample, problem });
            }
        }
        if !wanted.memories.is_empty() && self.config().writing_mask().is_none() {
            self.decoder()?;
        }
        let keep = !wanted.prefixes.is_empty();
        let pass = self.encoder().begin(&batch, keep)?;
        Ok(Encoding {
            batch,
            wanted,
            state: State::Layers(pass),
        })
    }

    /// Does the next slice of an encoding: `rows` rows of one part of one layer, and 64 for each thread at least of
    /// those that attend. Gives the
    /// result with the last slice.
    ///
    /// On a CPU in f32 the cost of a slice is bounded by its rows, but for the last norm and what is read off the rows
    /// afterwards; elsewhere attention is done for all rows at a time.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails, or the result was taken already.
    pub fn advance_encoding(
        &self,
        encoding: &mut Encoding,
        rows: usize,
    ) -> Result<Option<Encoded>, ForwardError> {
        match &mut encoding.state {
            State::Layers(pass) => {
                let output = self
                    .encoder()
                    .advance(pass, &encoding.batch, rows, &mut |_, _| Ok(()))?;
                if let Some(output) = output {
                    let cross = Box::new(Cross::new(output, &encoding.wanted));
                    encoding.state = State::Cross(cross);
                }
                Ok(None)
            }
            State::Cross(cross) => {
                if !self.advance_cross(cross, &encoding.wanted, rows)? {
                    return Ok(None);
                }
                match std::mem::replace(&mut encoding.state, State::Done) {
                    State::Cross(cross) => self.finish(*cross, &encoding.wanted).map(Some),
                    _ => Ok(None),
                }
            }
            State::Done => Err(ForwardError::EncodingDone),
        }
    }

    /// Projects some rows for a decoder layer; tells whether all layers are done.
    fn advance_cross(&self, cross: &mut Cross, wanted: &Wanted, rows: usize) -> Result<bool, ForwardError> {
        let layers = self.decoder().map_or(0, Decoder::layers);
        let needed = !(wanted.memories.is_empty() && wanted.prefixes.is_empty());
        if !needed || cross.layer >= layers {
            return Ok(true);
        }
        let mut start = 0;
        for part in &cross.done {
            start += part.dim(0)?;
        }
        let own = cross.output.segments.rows();
        let end = start.saturating_add(rows.max(1)).min(own);
        let decoder = self.decoder()?;
        if start < end {
            let part = cross.output.hidden.narrow(0, start, end - start)?; // [n, D]
            cross.done.push(decoder.cross_layer(cross.layer, &part)?); // [n, 2D]
        }
        if end == own {
            cross.finish_layer(wanted)?;
        }
        Ok(cross.layer == layers)
    }

    fn finish(&self, cross: Cross, wanted: &Wanted) -> Result<Encoded, ForwardError> {
        let Cross {
            output,
            memories,
            prefixes,
            ..
        } = cross;
        let memories = if self.config().writing_mask().is_some() {
            self.prompt_memory(&output.select(&wanted.memories))?
        } else {
            let rows = |sample: &usize| output.segments.samples[*sample].rows();
            let finished = memories.into_iter().zip(wanted.memories.iter().map(rows));
            finished
                .map(|(layers, rows)| PromptMemory::new(layers, rows))
                .collect()
        };
        let prefixes = wanted.prefixes.iter().zip(prefixes);
        let prefixes = prefixes.map(|(sample, cross)| ImagePrefix::of(&output, *sample, |_| Ok(cross)));
        Ok(Encoded {
            memories,
            prefixes: prefixes.collect::<Result<_, _>>()?,
            output,
        })
    }
}

impl Cross {
    fn new(output: EncoderOutput, wanted: &Wanted) -> Self {
        Self {
            output,
            done: Vec::new(),
            memories: wanted.memories.iter().map(|_| Vec::new()).collect(),
            prefixes: wanted.prefixes.iter().map(|_| Vec::new()).collect(),
            layer: 0,
        }
    }

    /// Hands a layer's keys and values to those that want them.
    fn finish_layer(&mut self, wanted: &Wanted) -> Result<(), ForwardError> {
        let own = std::mem::take(&mut self.done);
        let known = self.output.prefixes.iter().map(|prefix| prefix.cross(self.layer));
        let known = known
            .map(|kv| Ok(kv?.clone()))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let kv = Tensor::cat(&[own, known].concat(), 0)?; // [N + R, 2D]
        let samples = &self.output.segments.samples;
        for (sample, layers) in wanted.memories.iter().zip(&mut self.memories) {
            let kv = own_rows(&kv, &samples[*sample].all())?; // [S, 2D]
            layers.push(MemoryLayer { kv });
        }
        for (sample, layers) in wanted.prefixes.iter().zip(&mut self.prefixes) {
            if let Some(rows) = samples[*sample].image_rows() {
                layers.push(own_rows(&kv, &[rows])?); // [R, 2D]
            }
        }
        self.layer += 1;
        Ok(())
    }
}
