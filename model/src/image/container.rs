//! What a picture file says of itself, looked at before any decoder is.
//!
//! Decoders are lenient where this crate is not, and strict where others are not: a WebP frame may be far
//! larger than the picture that it belongs to, and a WebP may announce chunks that are not there. Both show
//! in the outer structure of the file.

use std::borrow::Cow;

use image::ImageFormat;

use super::limits::{ImageLimits, check_size, name};
use super::{ImageError, unread};

/// How a BMP begins, unless its file header was left away.
pub(super) const BMP: &[u8] = b"BM";

/// Finds the format by the first bytes.
pub(super) fn format(file: &[u8]) -> Result<ImageFormat, ImageError> {
    match image::guess_format(file) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => Ok(format),
        // These begin with letters, as a text may.
        Ok(format @ (ImageFormat::Gif | ImageFormat::Bmp)) if !unread::is_text(file) => Ok(format),
        _ if is_bitmap_without_file_header(file) => Ok(ImageFormat::Bmp),
        _ => Err(unread::refusal(file)),
    }
}

/// Recognises the device-independent bitmap that a BMP is behind its file header, and that some programs
/// write alone.
///
/// Source: Microsoft, "Bitmap Header Types": the header's length, two sides, one plane, the bits of a pixel.
fn is_bitmap_without_file_header(file: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = file.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u16::from_le_bytes(*bytes))
    };
    let planes = match (number(0), number(2)) {
        (Some(12), Some(0)) => 8, // sides of two bytes
        (Some(40 | 52 | 56 | 64 | 108 | 124), Some(0)) => 12,
        _ => return false,
    };
    number(planes) == Some(1) && matches!(number(planes + 2), Some(1 | 2 | 4 | 8 | 16 | 24 | 32))
}

/// Checks what the decoders do not.
pub(super) fn check(file: &[u8], format: ImageFormat, limits: &ImageLimits) -> Result<(), ImageError> {
    match format {
        ImageFormat::Png => check_png(file, limits),
        ImageFormat::WebP => check_webp(file, limits),
        ImageFormat::Gif if is_gif_without_pixels(file) == Some(true) => {
            Err(ImageError::NoFrames { format: name(format) })
        }
        _ => Ok(()),
    }
}

fn check_png(file: &[u8], limits: &ImageLimits) -> Result<(), ImageError> {
    if file.get(12..16) == Some(b"CgBI") {
        return Err(ImageError::Unsupported {
            format: name(ImageFormat::Png),
            problem: "Apple's own variant for iOS, with a chunk CgBI \
                      (`pngcrush -revert-iphone-optimizations in.png out.png` reverts it)"
                .to_owned(),
        });
    }
    png_size(file).map_or(Ok(()), |(width, height)| check_size(width, height, limits))
}

/// Tells whether a GIF ends without a frame, or its first frame is empty; nothing, where the file breaks off
/// before that.
///
/// Source: GIF89a specification, sections 18 to 27.
fn is_gif_without_pixels(file: &[u8]) -> Option<bool> {
    const HEADER: usize = 13; // the signature and the logical screen
    let colours = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 6 << (flags & 7), // three bytes each
    };
    let mut rest = file.get(HEADER + colours(*file.get(10)?)..)?;
    loop {
        let (&block, behind) = rest.split_first()?;
        match block {
            b';' => return Some(true),
            b'!' => rest = behind_sub_blocks(behind.get(1..)?)?,
            b',' => {
                let (&[_, _, _, _, wide, width, tall, height, flags], behind) = behind.split_first_chunk()?;
                let data = behind.get(colours(flags) + 1..)?; // behind the size of the first code
                let is_flat = [wide, width] == [0; 2] || [tall, height] == [0; 2];
                return Some(is_flat || data.first() == Some(&0));
            }
            _ => return None,
        }
    }
}

/// Skips the sub-blocks of a GIF's block, each with its length in front, up to the one of no length.
fn behind_sub_blocks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, behind) = rest.split_first()?;
        if length == 0 {
            return Some(behind);
        }
        rest = behind.get(usize::from(length)..)?;
    }
}

fn check_webp(file: &[u8], limits: &ImageLimits) -> Result<(), ImageError> {
    let format = name(ImageFormat::WebP);
    let (chunks, complete) = riff_chunks(file);
    let mut has_frames = false;
    for chunk in chunks {
        has_frames |= matches!(chunk.0, b"VP8 " | b"VP8L" | b"ANMF");
        check_webp_frames(chunk, limits)?;
    }
    match (complete, has_frames) {
        (false, _) => Err(ImageError::Truncated { format }),
        (true, false) => Err(ImageError::NoFrames { format }),
        (true, true) => Ok(()),
    }
}

/// Clears the flags of a WebP's extended header that announce chunks which are not there.
///
/// The decoder would refuse the file for them. Others pass over them, and so do the programs that leave such
/// flags behind where they take a picture's metadata or its transparency away.
///
/// Source: RFC 9649, section 2.7, for the flags.
pub(super) fn without_idle_flags(file: &[u8]) -> Cow<'_, [u8]> {
    const FLAGS: usize = 20; // behind the file's header of twelve bytes and the chunk's of eight
    const ALPHA: u8 = 0x10;
    const EXIF: u8 = 0x08;
    const XMP: u8 = 0x04;
    if file.get(12..16) != Some(b"VP8X") {
        return file.into();
    }
    let has = |name: &[u8; 4]| riff_chunks(file).0.any(|(found, _)| found == name);
    let mut idle = 0;
    if !has(b"EXIF") {
        idle |= EXIF;
    }
    if !has(b"XMP ") {
        idle |= XMP;
    }
    // A lossless frame holds its transparency itself, and so do the frames of an animation.
    if has(b"VP8 ") && !has(b"ALPH") {
        idle |= ALPHA;
    }
    let mut file = Cow::Borrowed(file);
    if file.get(FLAGS).is_some_and(|flags| flags & idle != 0)
        && let Some(flags) = file.to_mut().get_mut(FLAGS)
    {
        *flags &= !idle;
    }
    file
}

/// Reads the size in a PNG's first chunk. The decoder has limits of its own, which do not say what they are.
///
/// Source: PNG specification, third edition, section 11.2.1.
fn png_size(file: &[u8]) -> Option<(u32, u32)> {
    let header = file.get(12..)?.strip_prefix(b"IHDR")?;
    let (width, rest) = header.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*width),
        u32::from_be_bytes(*rest.first_chunk::<4>()?),
    ))
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
        Some((width, height)) if width > 0 && height > 0 => check_size(width, height, limits),
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
