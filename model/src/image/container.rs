//! What a picture file says of itself, looked at before any decoder is.
//!
//! Decoders are lenient where this crate is not: a JPEG that breaks off is decoded to its end in grey, and a WebP frame
//! may be far larger than the picture that it belongs to. Both show in the outer structure of the file.

use image::ImageFormat;

use super::{ImageError, ImageLimits, decode};

/// Beginnings of files that people take for pictures, or that are pictures of kinds that are not read.
const NOT_READ: [(usize, &[u8], &str); 14] = [
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftypavis", "an AVIF file"),
    (4, b"ftyphei", "a HEIC file"),
    (4, b"ftypmif1", "a HEIC file"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (0, b"\0\0\x01\0", "an icon file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML document"),
    (0, b"<!DOCTYPE", "a web page"),
];

/// Finds the format by the first bytes.
pub(super) fn format(file: &[u8]) -> Result<ImageFormat, ImageError> {
    match image::guess_format(file) {
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp),
        ) => Ok(format),
        _ => Err(ImageError::UnknownFormat {
            found: looks_like(file),
        }),
    }
}

fn looks_like(file: &[u8]) -> String {
    let known = NOT_READ
        .iter()
        .find(|(at, start, _)| file.get(*at..).is_some_and(|rest| rest.starts_with(start)));
    match known {
        Some((_, _, name)) => (*name).to_owned(),
        None => {
            let first: Vec<String> = file.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("a file that begins with the bytes {}", first.join(" "))
        }
    }
}

/// Checks what the decoders do not.
pub(super) fn check(file: &[u8], format: ImageFormat, limits: &ImageLimits) -> Result<(), ImageError> {
    let complete = match format {
        ImageFormat::Jpeg => has_end_of_jpeg(file),
        ImageFormat::WebP => {
            let (chunks, complete) = riff_chunks(file);
            for chunk in chunks {
                check_webp_frames(chunk, limits)?;
            }
            complete
        }
        ImageFormat::Png => {
            png_size(file).map_or(Ok(()), |(width, height)| {
                decode::check_size(width, height, limits)
            })?;
            true
        }
        _ => true,
    };
    if complete {
        Ok(())
    } else {
        Err(ImageError::Truncated {
            format: decode::name(format),
        })
    }
}

/// Reads the size in a PNG's first chunk. The decoder has limits of its own, which do not say what they are.
///
/// Source: PNG specification, third edition, section 11.2.1.
fn png_size(file: &[u8]) -> Option<(u32, u32)> {
    let (width, rest) = file.get(16..)?.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*width),
        u32::from_be_bytes(*rest.first_chunk::<4>()?),
    ))
}

/// Walks a JPEG's segments and scans to its end-of-image marker.
///
/// Source: ITU-T T.81, sections B.1.1 (markers) and B.1.1.5 (entropy-coded data).
fn has_end_of_jpeg(file: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut rest = file.get(2..).unwrap_or_default(); // behind the start of image
    loop {
        // Bytes before a marker are a scan's data: there 0xff is followed by 0x00, or by a restart marker.
        let Some(at) = rest.iter().position(|&byte| byte == 0xff) else {
            return false;
        };
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some((&marker, behind)) = rest.split_first() else {
            return false;
        };
        match marker {
            END => return true,
            0xff => {}                                  // a fill byte: look at it again
            0x00 | 0x01 | 0xd0..=0xd8 => rest = behind, // data, or a marker without a segment
            _ => {
                let Some((length, _)) = behind.split_first_chunk::<2>() else {
                    return false;
                };
                let Some(next) = behind.get(usize::from(u16::from_be_bytes(*length)).max(2)..) else {
                    return false;
                };
                rest = next;
            }
        }
    }
}

/// A chunk of a RIFF file: its name and its bytes, as far as they are there.
type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// Lists the chunks of a RIFF file, and says whether the file is as long as it says.
///
/// Source: RFC 9649 (WebP), sections 2.3 and 2.4.
fn riff_chunks(file: &[u8]) -> (impl Iterator<Item = Chunk<'_>>, bool) {
    let claimed = file
        .get(4..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|size| u32::from_le_bytes(*size));
    let body = file.get(8..).unwrap_or_default(); // "WEBP" and the chunks
    let complete = claimed.is_some_and(|claimed| u64::from(claimed) <= body.len() as u64);
    (chunks(body.get(4..).unwrap_or_default()), complete)
}

fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_first_chunk::<4>()?;
        let (size, behind) = behind.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*size))
            .unwrap_or(usize::MAX)
            .min(behind.len());
        let (bytes, behind) = behind.split_at(size);
        rest = behind.get(size % 2..).unwrap_or_default(); // padded to an even size
        Some((name, bytes))
    })
}

/// Checks the sizes that the frames inside a chunk claim, which need not be that of the whole picture.
fn check_webp_frames((name, bytes): Chunk<'_>, limits: &ImageLimits) -> Result<(), ImageError> {
    let size = match name {
        b"VP8 " => lossy_size(bytes),
        b"VP8L" => lossless_size(bytes),
        b"ANMF" => {
            // Sixteen bytes of place and time, then the frame's own chunks.
            for (name, bytes) in chunks(bytes.get(16..).unwrap_or_default()) {
                if name != b"ANMF" {
                    check_webp_frames((name, bytes), limits)?;
                }
            }
            None
        }
        _ => None,
    };
    match size {
        Some((width, height)) if width > 0 && height > 0 => decode::check_size(width, height, limits),
        _ => Ok(()),
    }
}

/// Source: RFC 6386, section 9.1: three bytes of frame tag, three of start code, then width and height.
fn lossy_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let [width_low, width_high, height_low, height_high] = *bytes.get(6..)?.first_chunk::<4>()?;
    let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Some((size(width_low, width_high), size(height_low, height_high)))
}

/// Source: RFC 9649, section 3.4: a signature byte, then 14 bits each of width - 1 and height - 1.
fn lossless_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = u32::from_le_bytes(*bytes.get(1..)?.first_chunk::<4>()?);
    Some(((header & 0x3fff) + 1, ((header >> 14) & 0x3fff) + 1))
}
