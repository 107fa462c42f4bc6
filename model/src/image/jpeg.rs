//! JPEG: what its markers say, and its pixels by libjpeg.
//!
//! libjpeg rounds as Pillow does, and models are sensitive to what they were trained on. But it is lenient: a
//! file that breaks off is decoded to its end in grey. So the markers are read first, and refuse what is not
//! there in full, what is too large, and the kinds of JPEG that libjpeg does not know.

use std::{io, iter, panic};

use image::{DynamicImage, ImageFormat, RgbImage, metadata::Orientation};
use mozjpeg::{ColorSpace, Decompress};

use super::ImageError;
use super::limits::{ImageLimits, check_size, name, scaled};

const NAME: &str = name(ImageFormat::Jpeg);

/// The most scans of a picture. Each is a pass over all of its pixels, which a few bytes can ask for;
/// encoders write about ten.
const MAX_SCANS: usize = 100;

/// The marker of the end of the image. Source for all markers: ITU-T T.81, table B.1.
const END: u8 = 0xd9;

/// Decodes a JPEG into upright RGB pixels.
pub(super) fn decode(file: &[u8], limits: &ImageLimits) -> Result<DynamicImage, ImageError> {
    let outline = Outline::read(file);
    let frame = outline.check(limits)?;
    // libjpeg's errors unwind, without the panic hook, with libjpeg's own words.
    let decoded = panic::catch_unwind(|| pixels(file, frame));
    let decoded = decoded.unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>();
        let said = said.map_or("its decoder gave up", |said| {
            said.trim_start_matches("libjpeg fatal error: ")
        });
        Err(io::Error::other(said.to_owned()))
    });
    let mut picture = decoded
        .map(DynamicImage::ImageRgb8)
        .map_err(|error| ImageError::Damaged {
            format: NAME,
            problem: error.to_string(),
        })?;
    picture.apply_orientation(outline.orientation());
    Ok(picture)
}

/// What a file's markers say of its picture.
#[derive(Default)]
struct Outline<'a> {
    frame: Option<Frame>,
    /// The name of a kind of JPEG that is not read.
    other_kind: Option<&'static str>,
    exif: Option<&'a [u8]>,
    scans: usize,
    /// The components whose mean values (DC) a scan holds.
    scanned: Vec<u8>,
    has_end: bool,
}

/// A frame header.
#[derive(Clone, Debug)]
struct Frame {
    precision: u8,
    width: u16,
    height: u16,
    components: Vec<u8>,
}

impl<'a> Outline<'a> {
    fn read(file: &'a [u8]) -> Self {
        let mut outline = Self::default();
        for (marker, segment) in segments(file) {
            outline.add(marker, segment);
        }
        outline
    }

    fn add(&mut self, marker: u8, segment: &'a [u8]) {
        match marker {
            END => self.has_end = true,
            // Sequential and progressive, each with Huffman or arithmetic coding.
            0xc0..=0xc2 | 0xc9 | 0xca if self.frame.is_none() => self.frame = Frame::read(segment),
            0xc3 => self.other_kind = Some("lossless JPEG (SOF3)"),
            0xcb => self.other_kind = Some("lossless JPEG with arithmetic coding (SOF11)"),
            0xf7 => self.other_kind = Some("JPEG-LS (SOF55)"),
            0xc5..=0xc7 | 0xcd..=0xcf | 0xde => self.other_kind = Some("hierarchical JPEG"),
            0xda => {
                self.scans += 1;
                self.scanned.extend(with_mean_values(segment));
            }
            0xe1 if self.exif.is_none() && self.scans == 0 => self.exif = segment.strip_prefix(b"Exif\0\0"),
            _ => {}
        }
    }

    /// Checks what libjpeg does not.
    fn check(&self, limits: &ImageLimits) -> Result<&Frame, ImageError> {
        let not_read = |problem: String| {
            Err(ImageError::Unsupported {
                format: NAME,
                problem,
            })
        };
        if let Some(kind) = self.other_kind {
            return not_read(kind.to_owned());
        }
        let Some(frame) = &self.frame else {
            return Err(match self.has_end {
                true => ImageError::NoFrames { format: NAME },
                false => ImageError::Truncated { format: NAME },
            });
        };
        if frame.precision != 8 {
            return not_read(format!(
                "JPEG of {} bits a sample, in place of 8",
                frame.precision
            ));
        }
        check_size(frame.width.into(), frame.height.into(), limits)?;
        if !matches!(frame.components.len(), 1 | 3 | 4) {
            let planes = frame.components.len();
            return not_read(format!("JPEG of {planes} colour planes, in place of 1, 3 or 4"));
        }
        if !self.has_end || frame.components.iter().any(|id| !self.scanned.contains(id)) {
            return Err(ImageError::Truncated { format: NAME });
        }
        if self.scans > MAX_SCANS {
            return not_read(format!("JPEG of {} scans, more than {MAX_SCANS}", self.scans));
        }
        Ok(frame)
    }

    fn orientation(&self) -> Orientation {
        let orientation = self.exif.and_then(Orientation::from_exif_chunk);
        orientation.unwrap_or(Orientation::NoTransforms)
    }
}

impl Frame {
    /// Reads a frame header. Source: ITU-T T.81, section B.2.2.
    fn read(segment: &[u8]) -> Option<Self> {
        let (&[precision, high, low, wide, narrow, count], components) = segment.split_first_chunk()?;
        let components = components.as_chunks::<3>().0.iter().map(|[id, ..]| *id);
        Some(Self {
            precision,
            width: u16::from_be_bytes([wide, narrow]),
            height: u16::from_be_bytes([high, low]),
            components: components.take(count.into()).collect(),
        })
    }
}

/// Lists the components of a scan, if it is one that holds their mean values, as all but some of a
/// progressive JPEG are.
///
/// Source: ITU-T T.81, section B.2.3.
fn with_mean_values(segment: &[u8]) -> impl Iterator<Item = u8> {
    let (count, rest) = segment
        .split_first()
        .map_or((0, segment), |(&count, rest)| (count, rest));
    let (components, first) = rest.split_at_checked(2 * usize::from(count)).unwrap_or_default();
    let holds = first.first() == Some(&0);
    let ids = components.as_chunks::<2>().0.iter().map(|[id, _]| *id);
    ids.filter(move |_| holds)
}

/// Lists a JPEG's segments up to its end-of-image marker, each as the second byte of its marker and its
/// bytes.
///
/// Source: ITU-T T.81, sections B.1.1 (markers) and B.1.1.5 (entropy-coded data).
fn segments(file: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = file.get(2..).unwrap_or_default(); // behind the start of image
    iter::from_fn(move || {
        loop {
            // Bytes before a marker are a scan's data: there 0xff is followed by 0x00, or by a restart
            // marker.
            let at = rest.iter().position(|&byte| byte == 0xff)?;
            rest = rest.get(at + 1..)?;
            let (&marker, behind) = rest.split_first()?;
            match marker {
                END => {
                    rest = &[];
                    return Some((marker, rest));
                }
                0xff => {}                                  // a fill byte: look at it again
                0x00 | 0x01 | 0xd0..=0xd8 => rest = behind, // data, or a marker without a segment
                _ => {
                    let length = usize::from(u16::from_be_bytes(*behind.first_chunk()?)).max(2);
                    let (segment, next) = behind.split_at_checked(length)?;
                    rest = next;
                    return Some((marker, segment.get(2..).unwrap_or_default()));
                }
            }
        }
    })
}

fn pixels(file: &[u8], frame: &Frame) -> io::Result<RgbImage> {
    let has_inks = frame.components.len() == 4;
    let header = Decompress::new_mem(file)?;
    let mut lines = match has_inks {
        true => header.to_colorspace(ColorSpace::JCS_CMYK)?,
        false => header.rgb()?,
    };
    let samples = lines.read_scanlines::<u8>()?;
    lines.finish()?;
    let (found, width, height) = (samples.len(), frame.width, frame.height);
    let picture = match has_inks {
        true => rgb_of_inks(width.into(), height.into(), &samples),
        false => RgbImage::from_raw(width.into(), height.into(), samples),
    };
    picture.ok_or_else(|| io::Error::other(format!("{found} bytes of pixels for {width} x {height}")))
}

/// Converts cyan, magenta, yellow and black, stored inverted, to RGB as Pillow does, which takes all of them
/// for stored inverted.
///
/// Source: Pillow, `JpegImagePlugin.py` (raw mode `CMYK;I`) and `cmyk2rgb` in `src/libImaging/Convert.c`.
fn rgb_of_inks(width: u32, height: u32, samples: &[u8]) -> Option<RgbImage> {
    let (inks, rest) = samples.as_chunks::<4>();
    let mut picture = RgbImage::new(width, height);
    if inks.len() != picture.pixels().len() || !rest.is_empty() {
        return None;
    }
    for (pixel, [paper @ .., light]) in picture.pixels_mut().zip(inks) {
        pixel.0 = paper.map(|paper| light - scaled(255 - paper, *light));
    }
    Some(picture)
}
