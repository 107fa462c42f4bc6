//! What the encoder is given: samples packed into rows, vision first.

use crate::attention::AttentionPlan;
use crate::config::{AttentionPattern, ModelConfig};
use crate::error::ForwardError;
use crate::image::ProcessedImage;
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
/// Rows are expert-major: all vision rows of all samples, then all text rows. A picture's rows are its class
/// row and then its patches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// The rows of each sample, in the order of the batch.
    pub samples: Vec<SampleSegments>,
    /// How many of the packed rows are vision rows.
    pub vision_rows: usize,
    /// How many of the packed rows are text rows.
    pub text_rows: usize,
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
}

impl Segments {
    /// Counts all packed rows, N.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.vision_rows + self.text_rows
    }

    /// Lays out which rows see which under a pattern.
    pub(crate) fn plan(&self, pattern: AttentionPattern) -> AttentionPlan {
        let mut plan = AttentionPlan::default();
        for sample in &self.samples {
            let (images, text) = (sample.images.clone(), vec![sample.text.clone()]);
            match pattern {
                AttentionPattern::Joint => plan.push(sample.all(), sample.all(), false),
                AttentionPattern::ImagePrefix | AttentionPattern::Causal => {
                    plan.push(images.clone(), images, false);
                    plan.push(text, sample.all(), pattern == AttentionPattern::Causal);
                }
            }
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
}

impl EncoderBatch {
    /// Packs whole pictures and texts.
    ///
    /// # Errors
    /// [`ForwardError`] where a sample is empty, too long, or has too many or foreign pictures.
    pub fn new(config: &ModelConfig, samples: &[EncoderSample]) -> Result<Self, ForwardError> {
        let every: Vec<Patch> = (0..config.patches())
            .map(|index| Patch { index, masked: false })
            .collect();
        let mut batch = Self::default();
        for sample in samples {
            let images: Vec<PatchedImage> = sample
                .images
                .iter()
                .map(|image| PatchedImage {
                    pixels: image.pixels(),
                    patches: &every,
                })
                .collect();
            batch.push(config, &images, sample.tokens)?;
        }
        batch.finish();
        Ok(batch)
    }

    /// Packs pictures of which some patches are masked or left out.
    ///
    /// # Errors
    /// As [`EncoderBatch::new`]; a patch outside the picture counts as a foreign picture.
    pub fn with_patches(
        config: &ModelConfig,
        samples: &[(Vec<PatchedImage>, &[u32])],
    ) -> Result<Self, ForwardError> {
        let mut batch = Self::default();
        for (images, tokens) in samples {
            batch.push(config, images, tokens)?;
        }
        batch.finish();
        Ok(batch)
    }

    /// Tells which rows belong to which sample.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    fn push(
        &mut self,
        config: &ModelConfig,
        images: &[PatchedImage],
        tokens: &[u32],
    ) -> Result<(), ForwardError> {
        let sample = self.segments.samples.len();
        check(config, sample, images, tokens)?;
        let mut ranges = Vec::with_capacity(images.len());
        for (image_index, image) in (0..).zip(images) {
            let start = self.sources.len();
            self.push_vision_row(0, 0, image_index);
            for patch in image.patches {
                let position = index(patch.index + 1);
                let source = if patch.masked {
                    1
                } else {
                    self.push_pixels(config, image.pixels, patch.index)
                };
                self.push_vision_row(source, position, image_index);
            }
            ranges.push(start..self.sources.len());
        }
        // Text ranges start at zero until `finish` knows how many vision rows there are.
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.token_positions.extend((0..tokens.len()).map(index));
        self.segments.samples.push(SampleSegments {
            images: ranges,
            text: start..self.tokens.len(),
        });
        Ok(())
    }

    fn push_vision_row(&mut self, source: u32, position: u32, image: u32) {
        self.sources.push(source);
        self.positions.push(position);
        self.image_indices.push(image);
    }

    /// Copies the pixels of one patch, channel by channel, and returns where its embedding will be found.
    fn push_pixels(&mut self, config: &ModelConfig, pixels: &[f32], patch: usize) -> u32 {
        let (size, side) = (config.image_size, config.patch_size);
        let (top, left) = (patch / config.grid() * side, patch % config.grid() * side);
        let row = self.pixels.len() / config.patch_values();
        for channel in 0..3 {
            for y in top..top + side {
                let start = (channel * size + y) * size + left;
                self.pixels.extend_from_slice(&pixels[start..start + side]);
            }
        }
        index(row + 2)
    }

    fn finish(&mut self) {
        let vision = self.sources.len();
        for sample in &mut self.segments.samples {
            sample.text = sample.text.start + vision..sample.text.end + vision;
        }
        self.segments.vision_rows = vision;
        self.segments.text_rows = self.tokens.len();
    }
}

/// Narrows a row number; batches are bounded far below 2^32 rows by what was checked before.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn check(
    config: &ModelConfig,
    sample: usize,
    images: &[PatchedImage],
    tokens: &[u32],
) -> Result<(), ForwardError> {
    if images.is_empty() && tokens.is_empty() {
        return Err(ForwardError::EmptySample { sample });
    }
    if tokens.len() > config.max_text_length {
        let (found, limit) = (tokens.len(), config.max_text_length);
        return Err(ForwardError::TextTooLong { sample, found, limit });
    }
    if images.len() > config.max_images {
        let (found, limit) = (images.len(), config.max_images);
        return Err(ForwardError::TooManyImages { sample, found, limit });
    }
    if let Some(&found) = tokens.iter().find(|t| **t as usize >= config.vocab_size) {
        return Err(ForwardError::TokenId {
            found,
            limit: config.vocab_size,
        });
    }
    let expected = 3 * config.image_size * config.image_size;
    for (i, image) in images.iter().enumerate() {
        let outside = image.patches.iter().any(|p| p.index >= config.patches());
        if image.pixels.len() != expected || outside {
            return Err(ForwardError::ImageSize {
                sample,
                image: i,
                found: image.pixels.len(),
                expected,
            });
        }
    }
    Ok(())
}
