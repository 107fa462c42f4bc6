//! From the bytes of a file to upright RGB pixels.

use std::{
    error::Error,
    io::{self, Cursor},
    iter::successors,
    panic,
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage,
    codecs::bmp::BmpDecoder,
    error::{ParameterError, ParameterErrorKind},
};

#[cfg(feature = "jpeg")]
use super::jpeg;
use super::limits::{ImageLimits, check_size, name, scaled};
use super::{ImageError, container};

/// The most bytes that a decoder may have allocated for a pixel: 16-bit RGBA.
const DECODED_BYTES: u64 = 8;

/// Decodes a file into 8-bit RGB pixels, turned upright and composited on white.
pub(super) fn decode(file: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    if file.len() as u64 > limits.max_bytes {
        return Err(ImageError::FileTooLarge {
            found: file.len() as u64,
            limit: limits.max_bytes,
        });
    }
    let format = container::format(file)?;
    container::check(file, format, limits)?;
    // The decoders are other people's code on hostile bytes. They are meant never to panic; where one does,
    // that is this picture's error and not the end of the program.
    match panic::catch_unwind(|| decode_format(file, format, limits)) {
        Ok(result) => Ok(on_white(result?)),
        Err(_) => Err(ImageError::Damaged {
            format: name(format),
            problem: "its decoder gave up".to_owned(),
        }),
    }
}

fn decode_format(file: &[u8], format: ImageFormat, limits: &ImageLimits) -> Result<DynamicImage, ImageError> {
    let fail = |error| decoding_error(error, format);
    if format == ImageFormat::Jpeg {
        #[cfg(feature = "jpeg")]
        return jpeg::decode(file, limits);
        #[cfg(not(feature = "jpeg"))]
        return Err(ImageError::MissingFeature {
            format: name(format),
            feature: "jpeg",
        });
    }
    if format == ImageFormat::Bmp && !file.starts_with(container::BMP) {
        let decoder = BmpDecoder::new_without_file_header(Cursor::new(file)).map_err(fail)?;
        return pixels(decoder, format, limits);
    }
    let file = match format {
        ImageFormat::WebP => container::without_idle_flags(file),
        _ => file.into(),
    };
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(decoder_limits(limits));
    pixels(reader.into_decoder().map_err(fail)?, format, limits)
}

fn decoder_limits(limits: &ImageLimits) -> Limits {
    let mut decoder_limits = Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.max_pixels.saturating_mul(DECODED_BYTES));
    decoder_limits
}

fn pixels(
    mut decoder: impl ImageDecoder,
    format: ImageFormat,
    limits: &ImageLimits,
) -> Result<DynamicImage, ImageError> {
    let fail = |error| decoding_error(error, format);
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    if decoder.total_bytes() > limits.max_pixels.saturating_mul(DECODED_BYTES) {
        return Err(ImageError::TooMuchMemory { format: name(format) });
    }
    let orientation = decoder.orientation().map_err(fail)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(fail)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn decoding_error(error: image::ImageError, format: ImageFormat) -> ImageError {
    let format = name(format);
    if causes(&error).any(is_end_of_file) {
        return ImageError::Truncated { format };
    }
    // The outermost error only repeats the format.
    let problem = causes(&error)
        .nth(1)
        .map_or_else(|| error.to_string(), ToString::to_string);
    if problem == "Unexpected End of File" {
        return ImageError::Truncated { format }; // GIF: its decoder has no kind of error for it
    }
    match error {
        image::ImageError::Parameter(error) if is_end_of_frames(&error) => ImageError::NoFrames { format },
        image::ImageError::Limits(_) => ImageError::TooMuchMemory { format },
        image::ImageError::Unsupported(_) => ImageError::Unsupported { format, problem },
        _ => ImageError::Damaged { format, problem },
    }
}

fn is_end_of_frames(error: &ParameterError) -> bool {
    matches!(error.kind(), ParameterErrorKind::NoMoreData)
}

/// Lists an error, its cause, the cause's cause and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| Error::source(*error))
}

fn is_end_of_file(error: &(dyn Error + 'static)) -> bool {
    let error = match error.downcast_ref::<image::ImageError>() {
        Some(image::ImageError::IoError(error)) => Some(error), // which `source` leaves out
        _ => error.downcast_ref::<io::Error>(),
    };
    error.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Converts to 8-bit RGB, on white where the picture has transparency.
fn on_white(picture: DynamicImage) -> RgbImage {
    if picture.color().has_alpha() {
        composite(&picture.into_rgba8())
    } else {
        picture.into_rgb8()
    }
}

fn composite(picture: &RgbaImage) -> RgbImage {
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    for (target, source) in rgb.pixels_mut().zip(picture.pixels()) {
        let [colour @ .., alpha] = source.0;
        target.0 = colour.map(|value| over_white(value, alpha));
    }
    rgb
}

/// Mixes a channel with white: `(value * alpha + 255 * (255 - alpha)) / 255`, to the nearest.
fn over_white(value: u8, alpha: u8) -> u8 {
    255 - scaled(255 - value, alpha)
}
