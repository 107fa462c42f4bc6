//! What can go wrong with a picture.

use std::io;

/// Says which formats are read.
pub(super) const FORMATS: &str = "PNG, JPEG, WebP, GIF or BMP";

/// Errors of preparing a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A picture file cannot be used.
    #[error("'{path}': {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A file cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// The path leads to a folder, a socket or a disk.
    #[error("it is {found}: expected a picture file, as {FORMATS}")]
    NotAFile {
        /// What it leads to.
        found: &'static str,
    },
    /// There are no bytes.
    #[error("the picture is empty (0 bytes): expected {FORMATS}")]
    Empty,
    /// The file is too large.
    #[error("the picture file has {found} bytes, more than the limit of {limit}")]
    FileTooLarge {
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes are not those of a picture that can be read.
    #[error(
        "{found} is not a picture that can be read: expected {FORMATS}{}",
        behind(advice)
    )]
    UnknownFormat {
        /// What the bytes look like.
        found: String,
        /// What to do about it, where that is known.
        advice: Option<&'static str>,
    },
    /// The picture has no width or no height.
    #[error("the picture has {width} x {height} pixels: expected at least one")]
    NoPixels {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// The picture has too many pixels.
    #[error(
        "the picture has {width} x {height} = {} pixels, more than the limit of {limit}: make it smaller first",
        u64::from(*width) * u64::from(*height)
    )]
    TooManyPixels {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// Decoding would take more memory than a picture within the limits needs.
    #[error("decoding the {format} picture needs more memory than its size allows")]
    TooMuchMemory {
        /// The format.
        format: &'static str,
    },
    /// The file ends before the picture does.
    #[error("the {format} picture is truncated: the file ends before the picture does")]
    Truncated {
        /// The format.
        format: &'static str,
    },
    /// The file is whole, and holds no picture.
    #[error("the {format} file holds no pixels: behind its header is no frame, or an empty one")]
    NoFrames {
        /// The format.
        format: &'static str,
    },
    /// The file is not as its format says.
    #[error("the {format} picture is damaged: {problem}")]
    Damaged {
        /// The format.
        format: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// The file uses a rare feature of its format.
    #[error("the {format} picture is of a kind that is not read: {problem}; convert it to a plain PNG first")]
    Unsupported {
        /// The format.
        format: &'static str,
        /// The feature.
        problem: String,
    },
    /// The program was built without the decoder of the format.
    #[error(
        "this build reads no {format} pictures: build with the feature `{feature}`, or convert the picture to PNG first"
    )]
    MissingFeature {
        /// The format.
        format: &'static str,
        /// The feature of the crate that turns its decoder on.
        feature: &'static str,
    },
    /// Raw pixels do not match their stated size.
    #[error("a picture of {width} x {height} RGB pixels has {expected} bytes, found {found}")]
    PixelBytes {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// The bytes that it needs.
        expected: u64,
        /// The bytes that were given.
        found: usize,
    },
}

/// Writes advice behind a message.
fn behind(advice: &Option<&'static str>) -> String {
    advice.map(|advice| format!("; {advice}")).unwrap_or_default()
}
