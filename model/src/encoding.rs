//! Encoding in slices, so that other work can go on in between.

mod cross;

use crate::batch::{EncoderBatch, check_shareable};
use crate::encoder::Pass;
use crate::error::ForwardError;
use crate::memory::PromptMemory;
use crate::model::Model;
use crate::output::EncoderOutput;
use crate::prefix::ImagePrefix;
use cross::Cross;

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

impl Model {
    /// Computes what decoding needs of each encoded sample, once a request: cross-attention keys and values, or where the
    /// encoder itself writes, the prompt's own keys and values.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails.
    pub fn prompt_memory(&self, encoded: &EncoderOutput) -> Result<Vec<PromptMemory>, ForwardError> {
        if self.config().writing_mask().is_some() {
            return self.encoder().prompt_memory(encoded);
        }
        let all: Vec<usize> = (0..encoded.segments.samples.len()).collect();
        let mut cross = Cross::new(encoded.clone(), &all, &[]);
        while !cross.advance(Some(self.decoder()?), usize::MAX)? {}
        Ok(cross.finish()?.1)
    }

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

    /// Does the next slice of an encoding: `rows` rows of one part of one layer, or 64 where these attend and `rows` is less.
    /// Gives the result with the last slice.
    ///
    /// On a CPU in f32 the cost of a slice is bounded by its rows, in attention by them and the rows that they see; not so what is
    /// copied of pictures that are kept or known. Elsewhere a slice is a layer of all rows.
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
                let output = self.encoder().advance(pass, &encoding.batch, rows, None)?;
                if let Some(output) = output {
                    let Wanted { memories, prefixes } = &encoding.wanted;
                    let memories = if self.config().writing_mask().is_some() {
                        &[]
                    } else {
                        memories.as_slice()
                    };
                    let cross = Cross::new(output, memories, prefixes);
                    encoding.state = State::Cross(Box::new(cross));
                }
                Ok(None)
            }
            State::Cross(cross) => {
                if !cross.advance(self.decoder_if_any(), rows)? {
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

    fn finish(&self, cross: Cross, wanted: &Wanted) -> Result<Encoded, ForwardError> {
        let (output, mut memories, prefixes) = cross.finish()?;
        if self.config().writing_mask().is_some() {
            memories = self.prompt_memory(&output.select(&wanted.memories))?;
        }
        Ok(Encoded {
            output,
            memories,
            prefixes,
        })
    }
}
