//! Encoding in slices, so that other work can go on in between.

mod cross;
mod encoded;

use crate::batch::EncoderBatch;
use crate::error::ForwardError;
use crate::memory::PromptMemory;
use crate::output::EncoderOutput;
use crate::parts::Parts;
pub(crate) use cross::CrossForm;
pub use encoded::{Encoded, EncodingTargets};

/// A batch on its way through the encoder of a form, and the projections to cross-attention.
#[derive(Debug)]
pub(crate) enum Progress<F: CrossForm> {
    /// In the encoder; no pass where all rows are known.
    Layers(Option<F::Pass>),
    /// At the projections to the decoder's cross-attention.
    Cross(F::Cross),
    Done,
}

impl<F: CrossForm> Parts<F> {
    /// Begins to encode a batch.
    pub(crate) fn begin(
        &self,
        batch: &EncoderBatch,
        targets: &EncodingTargets,
    ) -> Result<Progress<F>, ForwardError> {
        if !targets.memories.is_empty() && self.writer.is_none() {
            return Err(ForwardError::NoHead("text"));
        }
        let memories = self.writes_through_encoder() && !targets.memories.is_empty();
        let keep = memories || !targets.prefixes.is_empty();
        Ok(Progress::Layers(self.encoder.begin(batch, keep)?))
    }

    /// Does the next slice, of about `rows` rows; returns the result with the last.
    pub(crate) fn advance(
        &self,
        progress: &mut Progress<F>,
        batch: &EncoderBatch,
        targets: &EncodingTargets,
        rows: usize,
    ) -> Result<Option<Encoded>, ForwardError> {
        match progress {
            Progress::Layers(pass) => {
                if let Some(output) = self.encoder.advance(pass, batch, rows, None)? {
                    *progress = Progress::Cross(F::start(output, &self.cross_targets(targets)));
                }
                Ok(None)
            }
            Progress::Cross(cross) => {
                if !self.project(cross, targets, rows)? {
                    return Ok(None);
                }
                match std::mem::replace(progress, Progress::Done) {
                    Progress::Cross(cross) => self.finish(cross, targets).map(Some),
                    Progress::Layers(_) | Progress::Done => Ok(None),
                }
            }
            Progress::Done => Err(ForwardError::EncodingDone),
        }
    }

    /// Computes the prompt memory of each encoded sample.
    pub(crate) fn prompt_memory(&self, encoded: &EncoderOutput) -> Result<Vec<PromptMemory>, ForwardError> {
        if self.writes_through_encoder() {
            return self.encoder.prompt_memory(encoded);
        }
        self.decoder()?;
        let targets = EncodingTargets {
            memories: (0..encoded.segments.samples.len()).collect(),
            prefixes: Vec::new(),
        };
        let mut cross = F::start(encoded.clone(), &targets);
        while !self.project(&mut cross, &targets, usize::MAX)? {}
        Ok(F::finish(cross)?.memories)
    }

    /// Returns the targets that need projections: memories of a model that writes through its encoder need
    /// none.
    fn cross_targets(&self, targets: &EncodingTargets) -> EncodingTargets {
        EncodingTargets {
            memories: match self.writes_through_encoder() {
                true => Vec::new(),
                false => targets.memories.clone(),
            },
            prefixes: targets.prefixes.clone(),
        }
    }

    /// Projects a slice where there is anything to project; tells whether all is done.
    fn project(
        &self,
        cross: &mut F::Cross,
        targets: &EncodingTargets,
        rows: usize,
    ) -> Result<bool, ForwardError> {
        let is_empty = targets.memories.is_empty() && targets.prefixes.is_empty();
        match self.decoder_if_any().filter(|_| !is_empty) {
            Some(decoder) => F::project(cross, decoder, rows),
            None => Ok(true),
        }
    }

    fn finish(&self, cross: F::Cross, targets: &EncodingTargets) -> Result<Encoded, ForwardError> {
        let mut encoded = F::finish(cross)?;
        if self.writes_through_encoder() && !targets.memories.is_empty() {
            let output = encoded.output.select(&targets.memories);
            encoded.memories = self.encoder.prompt_memory(&output)?;
        }
        Ok(encoded)
    }
}
