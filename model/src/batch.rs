//! What the encoder is given: samples packed into rows, vision first.

mod builder;

use crate::attention::AttentionPlan;
use crate::config::{AttentionPattern, ModelConfig};
use crate::error::ForwardError;
use crate::image::ProcessedImage;
use crate::prefix::ImagePrefix;
pub use builder::EncoderBatchBuilder;
pub(crate) use builder::check_shareable;
use std::ops::Range;

/// One sample: its pictures and its text.
#[derive(Clone, Copy, Debug)]
pub struct EncoderSample<'a> {
    /// The pictures, in the order in which the prompt names them.
    pub images: &'a [ProcessedImage],
    /// The token ids, the closing `</s>` included.
    pub tokens: &'a [u32],
}

/// A patch that the encoder is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its place in the picture, row by row from the top left.
    pub index: usize,
    /// Whether the mask token stands in for its pixels.
    pub masked: bool,
}

/// A picture, some of whose patches may be masked or left out, as training does.
#[derive(Clone, Copy, Debug)]
pub struct PatchedImage<'a> {
    /// Normalised pixels, `[3, S, S]`.
    pub pixels: &'a [f32],
    /// The patches to encode; patches not listed are not seen at all.
    pub patches: &'a [Patch],
}

/// Says which packed rows belong to which sample.
///
/// Rows are expert-major: all vision rows of all samples, then all text rows, N in all. A picture's rows are its class
/// row and then its patches. Samples about the same pictures may name the same rows, and behind the N rows stand those
/// that an [`ImagePrefix`] knows already: the encoder attends to them and does not compute them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// The rows of each sample, in the order of the batch.
    pub samples: Vec<SampleSegments>,
    /// How many of the packed rows are vision rows.
    pub vision_rows: usize,
    /// How many of the packed rows are text rows.
    pub text_rows: usize,
    /// How many rows of image prefixes stand behind the packed rows, R.
    pub prefix_rows: usize,
}

/// The packed rows of one sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleSegments {
    /// One range per picture.
    pub images: Vec<Range<usize>>,
    /// The text's rows; empty where there is no text.
    pub text: Range<usize>,
}

impl SampleSegments {
    /// Lists the sample's ranges: pictures, then text.
    #[must_use]
    pub fn all(&self) -> Vec<Range<usize>> {
        let mut ranges = self.images.clone();
        if !self.text.is_empty() {
            ranges.push(self.text.clone());
        }
        ranges
    }

    /// Counts the sample's rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.all().iter().map(ExactSizeIterator::len).sum()
    }

    /// Returns the rows of all its pictures, which lie together; none where it has no pictures.
    pub(crate) fn image_rows(&self) -> Option<Range<usize>> {
        Some(self.images.first()?.start..self.images.last()?.end)
    }
}

impl Segments {
    /// Counts the packed rows that the encoder computes, N, without those of image prefixes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.vision_rows + self.text_rows
    }

    /// Lays out which rows see which under a pattern; each packed row asks once, however many samples have it.
    pub(crate) fn plan(&self, pattern: AttentionPattern) -> AttentionPlan {
        let mut plan = AttentionPlan::default();
        let mut asked = 0;
        for sample in &self.samples {
            let (images, text) = (sample.images.clone(), vec![sample.text.clone()]);
            if pattern == AttentionPattern::Joint {
                plan.push(sample.all(), sample.all(), false);
                continue;
            }
            // Pictures stand in the order of the samples: those of an earlier sample before `asked`, known ones behind.
            if images
                .first()
                .is_some_and(|image| (asked..self.vision_rows).contains(&image.start))
            {
                asked = images.last().map_or(asked, |image| image.end);
                plan.push(images.clone(), images, false);
            }
            plan.push(text, sample.all(), pattern == AttentionPattern::Causal);
        }
        plan
    }
}

/// Samples laid out for the encoder.
#[derive(Clone, Debug, Default)]
pub struct EncoderBatch {
    /// Pixels of the patches that are not masked, `[patches, 3 * p * p]`.
    pub(crate) pixels: Vec<f32>,
    /// For each vision row where it comes from: 0 the class token, 1 the mask token, 2 + i patch i of `pixels`.
    pub(crate) sources: Vec<u32>,
    /// For each vision row its position: 0 the class row, 1 + i the i-th patch.
    pub(crate) positions: Vec<u32>,
    /// For each vision row which picture of its sample it belongs to.
    pub(crate) image_indices: Vec<u32>,
    /// The token of each text row.
    pub(crate) tokens: Vec<u32>,
    /// The position of each text row.
    pub(crate) token_positions: Vec<u32>,
    pub(crate) segments: Segments,
    /// What is known of pictures already, in the order in which their rows stand behind the packed ones.
    pub(crate) prefixes: Vec<ImagePrefix>,
}

impl EncoderBatch {
    /// Packs whole pictures and texts.
    ///
    /// # Errors
    /// [`ForwardError`] where a sample is empty, too long, or has too many or foreign pictures.
    pub fn new(config: &ModelConfig, samples: &[EncoderSample]) -> Result<Self, ForwardError> {
        let mut batch = Self::builder(config);
        for sample in samples {
            batch.push(*sample)?;
        }
        Ok(batch.build())
    }

    /// Packs pictures of which some patches are masked or left out.
    ///
    /// # Errors
    /// As [`EncoderBatch::new`]; a patch outside the picture counts as a foreign picture.
    pub fn with_patches(
        config: &ModelConfig,
        samples: &[(Vec<PatchedImage>, &[u32])],
    ) -> Result<Self, ForwardError> {
        let mut batch = Self::builder(config);
        for (images, tokens) in samples {
            batch.push_patched(images, tokens)?;
        }
        Ok(batch.build())
    }

    /// Starts a batch whose samples may share the rows of their pictures, or take them from image prefixes.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::testing::tiny_config;
    /// use multiway_model::{EncoderBatch, EncoderSample, ProcessedImage};
    ///
    /// # fn main() -> Result<(), multiway_model::ForwardError> {
    /// let config = tiny_config(); // pictures of 16 patches
    /// let picture = [ProcessedImage::from_pixels(vec![0.0; 3 * 16 * 16])];
    /// let mut batch = EncoderBatch::builder(&config);
    /// let first = batch.push(EncoderSample { images: &picture, tokens: &[5, 6, 1] })?;
    /// batch.push_shared(first, &[7, 1])?;
    /// assert_eq!(batch.build().segments().vision_rows, 17);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn builder(config: &ModelConfig) -> EncoderBatchBuilder<'_> {
        EncoderBatchBuilder::new(config)
    }

    /// Tells which rows belong to which sample.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }
}
