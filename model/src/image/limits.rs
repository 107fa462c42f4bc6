//! What all decoders share: limits on sizes, names of formats, and arithmetic of channels.

use image::ImageFormat;

use super::error::ImageError;

/// Channels of a pixel: red, green, blue.
pub(super) const CHANNELS: usize = 3;

/// Says how large a picture file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLimits {
    /// The largest file, in bytes.
    pub max_bytes: u64,
    /// The most pixels, width times height. Decoding takes up to about 16 bytes of memory for each.
    pub max_pixels: u64,
}

impl Default for ImageLimits {
    /// Allows 64 MiB and 8192 x 8192 pixels.
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 64 << 20,
        }
    }
}

/// Checks a size against the limit on pixels.
pub(super) fn check_size(width: u32, height: u32, limits: &ImageLimits) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels {
            width,
            height,
            limit: limits.max_pixels,
        });
    }
    Ok(())
}

/// Names a format that is read.
pub(super) const fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        _ => "BMP",
    }
}

/// Multiplies two values of which 255 stands for one, to the nearest: at most the smaller of the two.
pub(super) fn scaled(a: u8, b: u8) -> u8 {
    let product = (u16::from(a) * u16::from(b) + 127) / 255;
    u8::try_from(product).unwrap_or(u8::MAX)
}
