//! Pictures as the encoder takes them: decoded, upright, on white, squashed to a square, normalised.
//!
//! [`ImageProcessor::process`] does, in this order:
//!
//! 1. find the format by the file's content: PNG, JPEG, WebP, GIF (its first frame) or BMP;
//! 2. check the sizes that the file claims, before memory is taken for them;
//! 3. decode; a truncated file is an error, never half a picture;
//! 4. turn it upright as its EXIF orientation says;
//! 5. composite it on white, if it has transparency, and convert it to 8-bit RGB. This comes before resizing,
//!    so that the hidden colours of transparent pixels do not bleed into visible ones. Colour profiles are
//!    not applied;
//! 6. squash it to `S` x `S`, whatever its proportions, by antialiased bicubic interpolation in 8-bit fixed
//!    point; for the few models that were trained so, keep its proportions and take the square in the middle;
//! 7. normalise it to `(x / 255 - mean) / std`, channel by channel.
//!
//! The result is to the bit that of Pillow's `resize((S, S), BICUBIC)` (up to version 12), on which models of
//! this kind are trained elsewhere; `tests/fixtures/images` holds the proof, for every format. So JPEG is
//! decoded by libjpeg, as Pillow does, and four inks become RGB by Pillow's formula. It needs the feature
//! `jpeg`, which builds C.
//!
//! Source: Pillow's `src/libImaging/Resample.c` for the resizing.

mod container;
mod decode;
mod error;
#[cfg(feature = "jpeg")]
mod jpeg;
mod limits;
mod resize;
#[cfg(test)]
mod tests;
mod unread;

use std::{
    fs::{File, FileType},
    io::Read,
    path::Path,
    sync::Arc,
};

use crate::config::ModelConfig;
pub use error::ImageError;
pub use limits::ImageLimits;
use limits::{CHANNELS, check_size};

/// A picture as the encoder takes it; cheap to clone.
#[derive(Clone, Debug)]
pub struct ProcessedImage {
    pixels: Arc<[f32]>, // [3, S, S]
    original_size: (u32, u32),
    visible: [f64; 4],
}

impl ProcessedImage {
    /// Wraps pixels that are normalised already, `[3, S, S]`; their own size counts as the original one.
    #[must_use]
    pub fn from_pixels(pixels: Vec<f32>) -> Self {
        let side = u32::try_from((pixels.len() / CHANNELS).isqrt()).unwrap_or(u32::MAX);
        Self {
            pixels: pixels.into(),
            original_size: (side, side),
            visible: [0.0, 0.0, f64::from(side), f64::from(side)],
        }
    }

    /// Returns the normalised pixels, `[3, S, S]`: red plane, green plane, blue plane.
    #[must_use]
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// Returns the width and height of the upright picture before it was resized, in pixels.
    #[must_use]
    pub fn original_size(&self) -> (u32, u32) {
        self.original_size
    }

    /// Returns the part of the upright picture that the encoder sees, in its pixels before it was resized:
    /// left, top, right, bottom. It is the whole picture, unless it was cropped.
    #[must_use]
    pub fn visible(&self) -> [f64; 4] {
        self.visible
    }
}

/// A picture as it was given, but upright and on white.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8Picture {
    /// The width in pixels.
    pub width: u32,
    /// The height in pixels.
    pub height: u32,
    /// Rows from the top, each pixel red, green, blue.
    pub pixels: Vec<u8>,
}

/// Prepares pictures for one model. Holds no state, and can be shared between threads.
///
/// # Examples
/// ```
/// use multiway_model::{ImageProcessor, testing::tiny_config};
///
/// # fn main() -> Result<(), multiway_model::ImageError> {
/// let config = tiny_config();
/// let processor = ImageProcessor::new(&config);
/// let picture = processor.process_rgb8(2, 1, &[255, 0, 0, 0, 0, 255])?; // a red and a blue pixel
/// assert_eq!(picture.pixels().len(), config.image_values());
/// assert!(processor.process(b"not a picture").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    side: usize,
    crops: bool,
    mean: [f32; CHANNELS],
    std: [f32; CHANNELS],
    limits: ImageLimits,
}

impl ImageProcessor {
    /// Prepares pictures as a model's configuration says, within the default limits; those of a model that
    /// takes none have no pixels.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let vision = config.vision.as_ref();
        Self {
            side: vision.map_or(0, |vision| vision.image_size),
            crops: vision.is_some_and(|vision| vision.crops),
            mean: vision.map_or([0.0; CHANNELS], |vision| vision.image_mean),
            std: vision.map_or([1.0; CHANNELS], |vision| vision.image_std),
            limits: ImageLimits::default(),
        }
    }

    /// Sets how large a picture file may be.
    #[must_use]
    pub fn with_limits(mut self, max_bytes: u64, max_pixels: u64) -> Self {
        self.limits = ImageLimits {
            max_bytes,
            max_pixels,
        };
        self
    }

    /// Sets whether the square in the middle of a picture is taken, instead of squashing all of it.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::{ImageProcessor, testing::tiny_config};
    ///
    /// # fn main() -> Result<(), multiway_model::ImageError> {
    /// let mut row = [0; 3 * 4 * 2]; // four columns, of which the outer two are white
    /// row.chunks_mut(3).enumerate().filter(|(i, _)| [0, 3].contains(&(i % 4))).for_each(|(_, pixel)| pixel.fill(255));
    /// let cropped = ImageProcessor::new(&tiny_config()).with_crop(true).process_rgb8(4, 2, &row)?;
    /// let squashed = ImageProcessor::new(&tiny_config()).with_crop(false).process_rgb8(4, 2, &row)?;
    /// assert!(cropped.pixels()[0] < squashed.pixels()[0]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_crop(mut self, crops: bool) -> Self {
        self.crops = crops;
        self
    }

    /// Returns how large a picture file may be.
    #[must_use]
    pub fn limits(&self) -> ImageLimits {
        self.limits
    }

    /// Prepares a picture given as the bytes of a file.
    ///
    /// # Errors
    /// [`ImageError`] where the bytes are not a picture that can be read, are damaged or truncated, or exceed
    /// the limits.
    pub fn process(&self, file: &[u8]) -> Result<ProcessedImage, ImageError> {
        let picture = decode::decode(file, &self.limits)?;
        Ok(self.fit(picture.width(), picture.height(), picture.as_raw()))
    }

    /// Decodes a picture given as the bytes of a file, and leaves it at its size.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn decode(&self, file: &[u8]) -> Result<Rgb8Picture, ImageError> {
        let picture = decode::decode(file, &self.limits)?;
        Ok(Rgb8Picture {
            width: picture.width(),
            height: picture.height(),
            pixels: picture.into_raw(),
        })
    }

    /// Reads a picture file and prepares it; no more of it is read than the limit allows.
    ///
    /// A pipe is read to its end, as long as that takes.
    ///
    /// # Errors
    /// [`ImageError::File`] names the file and says what is wrong with it.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<ProcessedImage, ImageError> {
        let path = path.as_ref();
        self.read(path)
            .and_then(|file| self.process(&file))
            .map_err(|error| ImageError::File {
                path: path.display().to_string(),
                source: Box::new(error),
            })
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let limit = self.limits.max_bytes;
        let metadata = std::fs::metadata(path)?;
        if let Some(found) = without_bytes(metadata.file_type()) {
            return Err(ImageError::NotAFile { found });
        }
        if metadata.len() > limit {
            return Err(ImageError::FileTooLarge {
                found: metadata.len(),
                limit,
            });
        }
        let mut file = Vec::new();
        // One byte more than allowed shows, to `process`, that the file has grown since it was measured, or
        // that it is a pipe, which has no length, of too many bytes.
        File::open(path)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut file)?;
        Ok(file)
    }

    /// Prepares a picture given as its pixels: rows from the top, each pixel red, green, blue.
    ///
    /// # Errors
    /// [`ImageError::NoPixels`] where a side is zero, [`ImageError::PixelBytes`] where `rgb` has another
    /// length, and [`ImageError::TooManyPixels`] above the limit.
    pub fn process_rgb8(&self, width: u32, height: u32, rgb: &[u8]) -> Result<ProcessedImage, ImageError> {
        check_size(width, height, &self.limits)?;
        let expected = u64::from(width) * u64::from(height) * CHANNELS as u64;
        if expected != rgb.len() as u64 {
            return Err(ImageError::PixelBytes {
                width,
                height,
                expected,
                found: rgb.len(),
            });
        }
        Ok(self.fit(width, height, rgb))
    }

    fn fit(&self, width: u32, height: u32, rgb: &[u8]) -> ProcessedImage {
        let fit = if self.crops { resize::crop } else { resize::squash };
        let square = fit(width as usize, height as usize, rgb, self.side); // [S, S, 3]
        ProcessedImage {
            pixels: self.normalise(&square).into(),
            original_size: (width, height),
            visible: if self.crops {
                resize::visible(width as usize, height as usize, self.side)
            } else {
                [0.0, 0.0, f64::from(width), f64::from(height)]
            },
        }
    }

    /// Normalises and puts channels first: `[S, S, 3]` bytes to `[3, S, S]`.
    fn normalise(&self, square: &[u8]) -> Vec<f32> {
        let mut pixels = Vec::with_capacity(square.len());
        for (channel, (mean, std)) in self.mean.iter().zip(self.std).enumerate() {
            let value = |x: &u8| (f32::from(*x) / 255.0 - mean) / std;
            pixels.extend(square.iter().skip(channel).step_by(CHANNELS).map(value));
        }
        pixels // [3, S, S]
    }
}

/// Names what a path leads to, if it is nothing that a picture can be read from; pipes are something.
fn without_bytes(kind: FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_socket() {
            return Some("a socket");
        }
        if kind.is_block_device() {
            return Some("a disk");
        }
    }
    kind.is_dir().then_some("a folder")
}
