//! The parts of a model in one form.

use candle_core::{Result, Tensor};

use crate::batch::EncoderBatch;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::encoder::{Encoder, EncoderForm, WritingStep};
use crate::encoding::CrossForm;
use crate::error::ForwardError;
use crate::heads::Heads;
use crate::hook::Observe;
use crate::layers::Weights;
use crate::layers::form::{Form, LinearLayer};
use crate::memory::KvCache;
use crate::output::EncoderOutput;
use crate::prefix::ImagePrefix;
use crate::step::DecoderBatch;

/// The part that writes text.
#[derive(Debug)]
pub(crate) enum Writer<F: Form> {
    /// A decoder that attends to the encoder's rows.
    Decoder(Box<Decoder<F>>),
    /// The encoder itself, word by word at a mask of this id.
    Encoder(u32),
}

/// An encoder, a writer and heads.
#[derive(Debug)]
pub(crate) struct Parts<F: Form> {
    pub(crate) encoder: Encoder<F>,
    /// None where the model writes no text.
    pub(crate) writer: Option<Writer<F>>,
    pub(crate) heads: Heads<F>,
}

impl<F: Form> Parts<F> {
    pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let writer = match (&config.decoder, config.writing_mask()) {
            (Some(layers), _) => Some(Writer::Decoder(Box::new(Decoder::load(config, layers, weights)?))),
            (None, Some(mask)) => Some(Writer::Encoder(mask)),
            (None, None) => None,
        };
        Ok(Self {
            encoder: Encoder::load(config, weights)?,
            writer,
            heads: Heads::load(config, weights)?,
        })
    }

    pub(crate) fn decoder(&self) -> std::result::Result<&Decoder<F>, ForwardError> {
        self.decoder_if_any().ok_or(ForwardError::NoHead("text"))
    }

    pub(crate) fn decoder_if_any(&self) -> Option<&Decoder<F>> {
        match &self.writer {
            Some(Writer::Decoder(decoder)) => Some(decoder),
            Some(Writer::Encoder(_)) | None => None,
        }
    }

    /// Tells whether text is written through the encoder.
    pub(crate) fn writes_through_encoder(&self) -> bool {
        matches!(self.writer, Some(Writer::Encoder(_)))
    }

    /// Encodes a batch; `keep` says that the keys and values of every layer are kept, as they are wherever
    /// the encoder writes.
    pub(crate) fn encode(
        &self,
        batch: &EncoderBatch,
        keep: bool,
        observe: Option<Observe>,
    ) -> std::result::Result<EncoderOutput, ForwardError>
    where
        F: EncoderForm,
    {
        self.encoder
            .forward(batch, keep || self.writes_through_encoder(), observe)
    }

    /// Counts the layers that keep keys and values of written text, and tells how wide these are.
    pub(crate) fn cache_layers(&self) -> std::result::Result<(usize, usize), ForwardError> {
        match &self.writer {
            Some(Writer::Decoder(decoder)) => Ok((decoder.layers(), decoder.inner_size)),
            Some(Writer::Encoder(_)) => Ok((self.encoder.layers(), self.encoder.inner_size())),
            None => Err(ForwardError::NoHead("text")),
        }
    }

    /// Copies what a later prompt about a sample's pictures needs of them.
    pub(crate) fn image_prefix(
        &self,
        encoded: &EncoderOutput,
        sample: usize,
    ) -> std::result::Result<ImagePrefix, ForwardError> {
        encoded.image_prefix(sample, |hidden| match self.decoder_if_any() {
            Some(decoder) => decoder.cross_keys_values(hidden),
            None => Ok(Vec::new()),
        })
    }

    /// Scores the words that rows `[N, D]` stand for, `[N, V]`.
    pub(crate) fn words(&self, rows: &Tensor) -> std::result::Result<Tensor, ForwardError> {
        Ok(self.heads.words()?.forward(rows)?)
    }
}

impl<F: CrossForm> Parts<F> {
    /// Advances each row's sequence by one token, and writes the logits of the next, `[B * V]`.
    pub(crate) fn step(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        match &self.writer {
            Some(Writer::Decoder(decoder)) => F::step(decoder, batch, cache, logits),
            Some(Writer::Encoder(mask)) => {
                let step = WritingStep { batch, mask: *mask };
                F::write(&self.encoder, self.heads.words()?, &step, cache, logits)
            }
            None => Err(ForwardError::NoHead("text")),
        }
    }
}
