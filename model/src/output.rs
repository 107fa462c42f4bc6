//! The encoder's output.

use candle_core::{DType, Result, Tensor};

use crate::batch::Segments;
use crate::error::ForwardError;
use crate::layers::copy_rows;
use crate::prefix::ImagePrefix;

/// The encoder's output for a batch.
#[derive(Clone, Debug)]
pub struct EncoderOutput {
    /// The rows, `[N, D]`, vision first; behind them those of the batch's image prefixes, `[N + R, D]`
    /// together.
    pub hidden: Tensor,
    /// Which rows belong to which sample.
    pub segments: Segments,
    /// Keys and values of each layer, `[N, 2D]`, where the encoder itself writes behind them or they were to
    /// be kept; else none.
    pub(crate) keys_values: Vec<Tensor>,
    /// The batch's image prefixes, in the order of their rows.
    pub(crate) prefixes: Vec<ImagePrefix>,
}

impl EncoderOutput {
    /// Returns the same rows seen as some of their samples alone, in the order given.
    ///
    /// # Panics
    /// Where a sample does not exist.
    #[must_use]
    pub fn select(&self, samples: &[usize]) -> Self {
        let own = samples
            .iter()
            .map(|sample| self.segments.samples[*sample].clone());
        Self {
            hidden: self.hidden.clone(),
            segments: Segments {
                samples: own.collect(),
                ..self.segments
            },
            keys_values: self.keys_values.clone(),
            prefixes: self.prefixes.clone(),
        }
    }

    /// Computes the cosine distance of each text row of a sample to each patch of its pictures, for a
    /// [`TransportPlan`](crate::TransportPlan) between them.
    ///
    /// # Shapes
    /// `[n, m]` in f32 for n text rows and the m patches of all pictures in their order, class rows left out.
    ///
    /// # Errors
    /// [`ForwardError::NoSample`] and [`ForwardError::NothingToAlign`] where there is no such sample, or it
    /// has no text or no patches.
    ///
    /// Source: `cost_matrix_cosine` of UNITER's and ViLT's code; Chen et al. 2020 (arXiv 1909.11740), section
    /// 3.2.
    pub fn text_patch_distances(&self, sample: usize) -> std::result::Result<Tensor, ForwardError> {
        let samples = self.segments.samples.len();
        let segments = self.segments.samples.get(sample);
        let segments = segments.ok_or(ForwardError::NoSample { sample, samples })?;
        let patches = segments.images.iter().map(|image| image.start + 1..image.end);
        let patches: Vec<_> = patches.filter(|rows| !rows.is_empty()).collect();
        if segments.text.is_empty() || patches.is_empty() {
            let missing = if patches.is_empty() { "image" } else { "text" };
            return Err(ForwardError::NothingToAlign { sample, missing });
        }
        let text = unit_rows(&copy_rows(&self.hidden, std::slice::from_ref(&segments.text))?)?; // [n, D]
        let patches = unit_rows(&copy_rows(&self.hidden, &patches)?)?; // [m, D]
        Ok((1.0 - text.matmul(&patches.t()?)?)?) // [n, m]
    }

    /// Returns the rows that the batch had of its own, `[N, D]`; none where all were known.
    pub(crate) fn packed(&self) -> Result<Option<Tensor>> {
        match self.segments.rows() {
            0 => Ok(None),
            rows => self.hidden.narrow(0, 0, rows).map(Some),
        }
    }

    /// Copies what belongs to a sample's pictures; `cross` projects final rows `[R, D]` for each decoder
    /// layer, `[R, 2D]`.
    pub(crate) fn image_prefix(
        &self,
        sample: usize,
        cross: impl FnOnce(&Tensor) -> Result<Vec<Tensor>>,
    ) -> std::result::Result<ImagePrefix, ForwardError> {
        let refuse = |problem| Err(ForwardError::Prefix { sample, problem });
        let Some(segments) = self.segments.samples.get(sample) else {
            return refuse("does not exist");
        };
        let Some(rows) = segments.image_rows() else {
            return refuse("has no images");
        };
        let start = rows.start;
        if let Some(known) = self.known(start) {
            return Ok(known.clone());
        }
        if self.keys_values.is_empty() {
            return refuse("was encoded without keeping keys and values: use Model::encode_keeping");
        }
        let rows = [rows];
        let own = |x: &Tensor| Ok(copy_rows(x, &rows)?.detach());
        let hidden = own(&self.hidden)?; // [R, D]
        let images = segments
            .images
            .iter()
            .map(|image| image.start - start..image.end - start)
            .collect();
        let layers = self.keys_values.iter().map(own).collect::<Result<_>>()?;
        let cross = cross(&hidden)?.iter().map(Tensor::detach).collect();
        Ok(ImagePrefix::new(images, layers, hidden, cross))
    }

    /// Returns the image prefix whose first row is `row`.
    fn known(&self, row: usize) -> Option<&ImagePrefix> {
        let mut start = self.segments.rows();
        self.prefixes.iter().find(|prefix| {
            let found = start == row;
            start += prefix.rows();
            found
        })
    }
}

/// Scales rows to unit length, in f32; a row of zeros stays one.
fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let length = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-5)?; // [rows, 1]
    x.broadcast_div(&length)
}
