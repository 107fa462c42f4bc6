//! Packs samples one by one, and says where the rows of their pictures come from.

use std::ops::Range;

use super::segments::{SampleSegments, Segments};
use super::{EncoderBatch, EncoderSample, Patch, PatchedImage};
use crate::config::{AttentionPattern, ModelConfig};
use crate::error::ForwardError;
use crate::prefix::ImagePrefix;

/// Makes an [`EncoderBatch`] of samples whose pictures are fresh, those of an earlier sample, or known
/// already.
///
/// A sample that is refused leaves the batch as it was.
#[derive(Debug)]
pub struct EncoderBatchBuilder<'a> {
    config: &'a ModelConfig,
    /// Every patch of a picture, none masked.
    every: Vec<Patch>,
    batch: EncoderBatch,
    samples: Vec<SampleRows>,
    /// How many rows the batch's prefixes have.
    prefix_rows: usize,
}

/// The rows of a sample while it is not known how many rows there will be.
#[derive(Debug)]
struct SampleRows {
    images: Images,
    /// Counted from the first text row.
    text: Range<usize>,
}

/// The rows of a sample's pictures, one range each.
#[derive(Clone, Debug)]
enum Images {
    /// Counted from the first vision row.
    Packed(Vec<Range<usize>>),
    /// Counted from the first row of all prefixes.
    Known(Vec<Range<usize>>),
}

impl Images {
    fn len(&self) -> usize {
        let (Self::Packed(ranges) | Self::Known(ranges)) = self;
        ranges.len()
    }
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
}

impl<'a> EncoderBatchBuilder<'a> {
    fn new(config: &'a ModelConfig) -> Self {
        let every = (0..config.patches()).map(|index| Patch { index, masked: false });
        Self {
            config,
            every: every.collect(),
            batch: EncoderBatch::default(),
            samples: Vec::new(),
            prefix_rows: 0,
        }
    }

    /// Adds a sample with whole pictures of its own, and returns its number.
    ///
    /// # Errors
    /// [`ForwardError`] where the sample is empty, too long, or has too many or foreign pictures.
    pub fn push(&mut self, sample: EncoderSample) -> Result<usize, ForwardError> {
        let every = std::mem::take(&mut self.every);
        let whole = sample.images.iter().map(|image| PatchedImage {
            pixels: image.pixels(),
            patches: &every,
        });
        let number = self.push_patched(&whole.collect::<Vec<_>>(), sample.tokens);
        self.every = every;
        number
    }

    /// Adds a sample with pictures of which some patches are masked or left out, and returns its number.
    ///
    /// # Errors
    /// As [`EncoderBatchBuilder::push`]; a patch outside the picture counts as a foreign picture.
    pub fn push_patched(&mut self, images: &[PatchedImage], tokens: &[u32]) -> Result<usize, ForwardError> {
        let sample = self.samples.len();
        check(self.config, sample, images.len(), tokens)?;
        check_images(self.config, sample, images)?;
        let mut ranges = Vec::with_capacity(images.len());
        for (image_index, image) in (0..).zip(images) {
            let start = self.batch.sources.len();
            self.push_image(image, image_index);
            ranges.push(start..self.batch.sources.len());
        }
        Ok(self.push_rows(Images::Packed(ranges), tokens))
    }

    /// Adds a sample about the pictures of an earlier one, whose rows the two then share, and returns its
    /// number.
    ///
    /// # Errors
    /// [`ForwardError::NotShareable`] where the model's attention pattern is not `ImagePrefix`,
    /// [`ForwardError::Prefix`] where there is no such sample; otherwise as [`EncoderBatchBuilder::push`].
    pub fn push_shared(&mut self, earlier: usize, tokens: &[u32]) -> Result<usize, ForwardError> {
        let sample = self.samples.len();
        check_shareable(self.config, sample)?;
        let Some(rows) = self.samples.get(earlier) else {
            let problem = "shares the images of a sample that does not stand before it";
            return Err(ForwardError::Prefix { sample, problem });
        };
        let images = rows.images.clone();
        check(self.config, sample, images.len(), tokens)?;
        Ok(self.push_rows(images, tokens))
    }

    /// Adds a sample about pictures that were encoded before, and returns its number.
    ///
    /// # Errors
    /// [`ForwardError::NotShareable`] where the model's attention pattern is not `ImagePrefix`,
    /// [`ForwardError::ForeignPrefix`] where another model encoded them; otherwise as
    /// [`EncoderBatchBuilder::push`].
    pub fn push_known(&mut self, prefix: &ImagePrefix, tokens: &[u32]) -> Result<usize, ForwardError> {
        let sample = self.samples.len();
        check_shareable(self.config, sample)?;
        prefix.check(self.config, sample)?;
        check(self.config, sample, prefix.images().len(), tokens)?;
        let start = self.place(prefix);
        let ranges = prefix.images().iter().map(|image| shifted(image, start));
        Ok(self.push_rows(Images::Known(ranges.collect()), tokens))
    }

    /// Finishes the batch.
    #[must_use]
    pub fn build(self) -> EncoderBatch {
        let mut batch = self.batch;
        let (vision_rows, text_rows) = (batch.sources.len(), batch.tokens.len());
        let samples = self.samples.into_iter().map(|rows| SampleSegments {
            images: match rows.images {
                Images::Packed(ranges) => ranges,
                Images::Known(ranges) => ranges
                    .iter()
                    .map(|range| shifted(range, vision_rows + text_rows))
                    .collect(),
            },
            text: shifted(&rows.text, vision_rows),
        });
        batch.segments = Segments {
            samples: samples.collect(),
            vision_rows,
            text_rows,
            prefix_rows: self.prefix_rows,
        };
        batch
    }

    fn push_rows(&mut self, images: Images, tokens: &[u32]) -> usize {
        let start = self.batch.tokens.len();
        self.batch.tokens.extend_from_slice(tokens);
        self.batch.token_positions.extend((0..tokens.len()).map(index));
        self.samples.push(SampleRows {
            images,
            text: start..self.batch.tokens.len(),
        });
        self.samples.len() - 1
    }

    /// Returns where the rows of a prefix start among those of all prefixes; one that was placed before stays
    /// there.
    fn place(&mut self, prefix: &ImagePrefix) -> usize {
        let mut start = 0;
        for placed in &self.batch.prefixes {
            if placed.is_same(prefix) {
                return start;
            }
            start += placed.rows();
        }
        self.batch.prefixes.push(prefix.clone());
        self.prefix_rows += prefix.rows();
        start
    }

    fn push_image(&mut self, image: &PatchedImage, image_index: u32) {
        self.push_vision_row(0, 0, image_index);
        for patch in image.patches {
            let position = index(patch.index + 1);
            let source = if patch.masked {
                1
            } else {
                self.push_pixels(image.pixels, patch.index)
            };
            self.push_vision_row(source, position, image_index);
        }
    }

    fn push_vision_row(&mut self, source: u32, position: u32, image: u32) {
        self.batch.sources.push(source);
        self.batch.positions.push(position);
        self.batch.image_indices.push(image);
    }

    /// Copies the pixels of one patch, channel by channel, and returns where its embedding will be found.
    fn push_pixels(&mut self, pixels: &[f32], patch: usize) -> u32 {
        let (vision, packed) = (self.config.vision.as_ref(), &mut self.batch.pixels);
        let Some(vision) = vision else {
            return 0;
        };
        let (size, side, grid) = (vision.image_size, vision.patch_size, vision.grid());
        let (top, left) = (patch / grid * side, patch % grid * side);
        let row = packed.len() / (3 * side * side);
        for channel in 0..3 {
            for y in top..top + side {
                let start = (channel * size + y) * size + left;
                packed.extend_from_slice(&pixels[start..start + side]);
            }
        }
        index(row + 2)
    }
}

fn shifted(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// Narrows a row number; batches are bounded far below 2^32 rows by what was checked before.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Checks that the encoder's state of pictures does not depend on the text beside them.
pub(crate) fn check_shareable(config: &ModelConfig, sample: usize) -> Result<(), ForwardError> {
    match config.attention_pattern {
        AttentionPattern::ImagePrefix => Ok(()),
        pattern => Err(ForwardError::NotShareable { sample, pattern }),
    }
}

/// Checks the limits of a sample.
fn check(config: &ModelConfig, sample: usize, images: usize, tokens: &[u32]) -> Result<(), ForwardError> {
    if images == 0 && tokens.is_empty() {
        return Err(ForwardError::EmptySample { sample });
    }
    if tokens.len() > config.max_text_length {
        let (found, limit) = (tokens.len(), config.max_text_length);
        return Err(ForwardError::TextTooLong { sample, found, limit });
    }
    if images > config.max_images() {
        let (found, limit) = (images, config.max_images());
        return Err(ForwardError::TooManyImages { sample, found, limit });
    }
    if let Some(&found) = tokens.iter().find(|t| **t as usize >= config.vocab_size) {
        return Err(ForwardError::TokenId {
            found,
            limit: config.vocab_size,
        });
    }
    Ok(())
}

/// Checks the pixels and patches of a sample's pictures.
fn check_images(config: &ModelConfig, sample: usize, images: &[PatchedImage]) -> Result<(), ForwardError> {
    let expected = config.image_values();
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
