//! What a file is that is not a picture of the kinds that are read.
//!
//! People name a file by the picture that they expect, and get an AVIF, a page that says "not found", or a
//! pointer in place of a large file. The message says which, and what to do.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::ImageError;

/// What a file is, and what to do about it.
type Kind = (&'static str, Option<&'static str>);

const BY_MAGICK: Option<&str> =
    Some("convert it to PNG first, e.g. with ImageMagick (`magick INPUT out.png`)");
const UNPACK: Option<&str> = Some("unpack it first");
const TAKE_A_FRAME: Option<&str> = Some("take a frame out of it (`ffmpeg -i in.mp4 -frames:v 1 out.png`)");
const FETCH_AGAIN: Option<&str> =
    Some("a server may have sent it in place of the picture: fetch it again, from the picture's own address");
const DECODE_TEXT: Option<&str> = Some("decode it first (`base64 -d`)");

const AVIF: Kind = (
    "an AVIF file",
    Some("convert it to PNG first (`avifdec in.avif out.png`)"),
);
const HEIC: Kind = (
    "a HEIC file",
    Some("convert it to PNG first (`heif-convert in.heic out.png`)"),
);
const HEIF: Kind = (
    "a HEIF file",
    Some("convert it to PNG first (`heif-convert in.heif out.png`)"),
);
const JPEG_2000: Kind = (
    "a JPEG 2000 file",
    Some("convert it to PNG first (`opj_decompress -i in.jp2 -o out.png`)"),
);
const JPEG_XL: Kind = (
    "a JPEG XL file",
    Some("convert it to PNG first (`djxl in.jxl out.png`)"),
);
const TIFF: Kind = ("a TIFF file", BY_MAGICK);
const BIG_TIFF: Kind = ("a BigTIFF file", BY_MAGICK);
const ICON: Kind = ("an icon file", BY_MAGICK);
const VIDEO: Kind = ("a video", TAKE_A_FRAME);
const SVG: Kind = (
    "an SVG drawing",
    Some("render it to PNG first (`rsvg-convert in.svg -o out.png`)"),
);
const WEB_PAGE: Kind = ("a web page", FETCH_AGAIN);
const XML: Kind = ("an XML document", FETCH_AGAIN);
const JSON: Kind = ("a JSON document", FETCH_AGAIN);
const LFS_POINTER: Kind = (
    "a Git LFS pointer, in place of the file that it stands for,",
    Some("fetch the file itself with `git lfs pull`"),
);
const BASE64: Kind = ("a picture written as base64 text", DECODE_TEXT);

/// Beginnings of binary files: where, which bytes, and of what.
const BINARY: [(usize, &[u8], Kind); 28] = [
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", BIG_TIFF),
    (0, b"MM\0+", BIG_TIFF),
    (0, b"II\xbc\x01", ("a JPEG XR file", BY_MAGICK)),
    (0, b"\0\0\0\x0cjP  ", JPEG_2000),
    (0, b"\xff\x4f\xff\x51", JPEG_2000), // the codestream alone
    (0, b"\xff\x0a", JPEG_XL),
    (0, b"\0\0\0\x0cJXL ", JPEG_XL),
    (0, b"\0\0\x01\0", ICON),
    (0, b"\0\0\x02\0", ICON),
    (0, b"8BPS", ("a Photoshop file (PSD)", BY_MAGICK)),
    (0, b"gimp xcf", ("a GIMP file (XCF)", BY_MAGICK)),
    (0, b"DDS ", ("a DDS texture", BY_MAGICK)),
    (0, b"v/1\x01", ("an OpenEXR file", BY_MAGICK)),
    (0, b"#?RADIANCE", ("a Radiance HDR file", BY_MAGICK)),
    (0, b"qoif", ("a QOI file", BY_MAGICK)),
    (0, b"farbfeld", ("a farbfeld file", BY_MAGICK)),
    (0, b"\x8aMNG", ("an MNG animation", BY_MAGICK)),
    (
        0,
        b"%PDF",
        (
            "a PDF document",
            Some("render a page of it to PNG first (`pdftoppm -png in.pdf out`)"),
        ),
    ),
    (0, b"%!PS", ("a PostScript document", BY_MAGICK)),
    (0, b"\x1f\x8b", ("a file packed by gzip", UNPACK)),
    (0, b"PK\x03\x04", ("a ZIP archive", UNPACK)),
    (128, b"DICM", ("a DICOM file", BY_MAGICK)),
    (0, b"\x1aE\xdf\xa3", VIDEO), // Matroska and WebM
    (8, b"AVI ", VIDEO),
    (8, b"WAVE", ("a sound file", None)),
    (0, b"OggS", ("a sound or video file", None)),
];

/// Brands of files in boxes (ISO/IEC 14496-12), which say what is in them. Some only say how it is laid out:
/// these come last.
const BRANDS: [(&[&[u8; 4]], Kind); 6] = [
    (&[b"avif", b"avis", b"avio"], AVIF),
    (
        &[
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
        ],
        HEIC,
    ),
    (&[b"jp2 ", b"jpx ", b"jpm ", b"jph "], JPEG_2000),
    (&[b"crx "], ("a Canon raw file (CR3)", BY_MAGICK)),
    (&[b"M4A ", b"M4B "], ("a sound file", None)),
    (&[b"mif1", b"mif2", b"mif3", b"msf1", b"miaf"], HEIF),
];

/// How many bytes of a file tell whether it is a text, and of what kind.
const TEXT_START: usize = 4096;

/// Refuses a file with what it looks like.
pub(super) fn refusal(file: &[u8]) -> ImageError {
    let kind = in_boxes(file).or_else(|| binary(file)).or_else(|| text(file));
    let (found, advice) = match kind {
        Some((name, advice)) => (name.to_owned(), advice),
        None => {
            let first: Vec<String> = file.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            (
                format!("a file that begins with the bytes {}", first.join(" ")),
                None,
            )
        }
    };
    ImageError::UnknownFormat { found, advice }
}

fn binary(file: &[u8]) -> Option<Kind> {
    if !file.is_empty() && file.iter().all(|&byte| byte == 0) {
        let lost = "a download or a copy broke off before its contents came: fetch it again";
        return Some(("a file of nothing but zero bytes", Some(lost)));
    }
    let known = BINARY
        .iter()
        .find(|(at, start, _)| file.get(*at..).is_some_and(|rest| rest.starts_with(start)));
    known.map(|(_, _, kind)| *kind)
}

/// Reads the brands of a file in boxes: the major one says most, and where it says only how the file is laid
/// out, those that it is compatible with say what is in it.
///
/// Source: ISO/IEC 14496-12, section 4.3: a box of type `ftyp` with the major brand, a version, and
/// compatible brands.
fn in_boxes(file: &[u8]) -> Option<Kind> {
    let (size, rest) = file.split_first_chunk::<4>()?;
    let rest = rest.strip_prefix(b"ftyp")?;
    let length = usize::try_from(u32::from_be_bytes(*size)).ok()?.saturating_sub(8);
    let rest = rest.get(..length).unwrap_or(rest);
    let (major, rest) = rest.split_first_chunk::<4>()?;
    let compatible = rest.get(4..).unwrap_or_default().as_chunks::<4>().0;
    let brands = || std::iter::once(major).chain(compatible);
    let (layout, contents) = BRANDS.split_last()?;
    let told = brands().find_map(|brand| contents.iter().find(|(names, _)| names.contains(&brand)));
    let told = told.or_else(|| brands().any(|brand| layout.0.contains(&brand)).then_some(layout));
    Some(told.map_or(VIDEO, |(_, kind)| *kind))
}

/// Tells whether a file is a text, as far as its beginning goes.
pub(super) fn is_text(file: &[u8]) -> bool {
    beginning(file).is_some()
}

fn text(file: &[u8]) -> Option<Kind> {
    let start = beginning(file)?;
    let start = start.trim_start();
    if start.starts_with("version https://git-lfs.github.com/spec/") {
        return Some(LFS_POINTER);
    }
    if ["iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR"]
        .iter()
        .any(|signature| start.starts_with(signature))
    {
        return Some(BASE64);
    }
    let start = start.to_ascii_lowercase();
    if matches!(start.as_bytes(), [b'<', b'a'..=b'z' | b'!' | b'?', ..]) {
        return Some(markup(&start));
    }
    if start.starts_with("data:image/") {
        return Some(("a data URL, which holds a picture as text,", DECODE_TEXT));
    }
    if start.starts_with(['{', '[']) && is_json(file) {
        return Some(JSON);
    }
    if start.starts_with('p')
        && matches!(start.as_bytes(), [_, b'1'..=b'7', space, ..] if space.is_ascii_whitespace())
    {
        return Some(("a PNM picture", BY_MAGICK));
    }
    Some(("a text file", None))
}

/// Says what a text in angle brackets is, in lower case.
fn markup(start: &str) -> Kind {
    if start.contains("<svg") || start.contains("<!doctype svg") {
        // A page may hold drawings, but not in front of its own beginning.
        return match start.find("<html").or_else(|| start.find("<!doctype html")) {
            Some(page) if start.find("<svg").is_none_or(|drawing| page < drawing) => WEB_PAGE,
            _ => SVG,
        };
    }
    let is_page = ["<!doctype html", "<html", "<head", "<body", "<script", "<title"]
        .iter()
        .any(|tag| start.contains(tag));
    if is_page { WEB_PAGE } else { XML }
}

fn is_json(file: &[u8]) -> bool {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    serde_json::from_slice::<IgnoredAny>(file).is_ok()
}

/// Decodes the beginning of a text in UTF-8, UTF-16, or mostly in ASCII; nothing, if it is none.
fn beginning(file: &[u8]) -> Option<Cow<'_, str>> {
    let start = file.get(..TEXT_START).unwrap_or(file);
    let text = match start {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest)?,
        _ => utf8(start)?,
    };
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    (!text.is_empty() && !text.contains(is_control)).then_some(text)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Cow<'_, str> {
    let units: Vec<u16> = bytes.as_chunks().0.iter().map(|bytes| unit(*bytes)).collect();
    String::from_utf16_lossy(&units).into()
}

fn utf8(bytes: &[u8]) -> Option<Cow<'_, str>> {
    match str::from_utf8(bytes) {
        Ok(text) => Some(text.into()),
        // The last character may be cut.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy)
        }
        // An encoding of one byte a character, of a language that is mostly written in ASCII.
        Err(_) => {
            let letters = bytes.iter().filter(|byte| byte.is_ascii()).count();
            (letters * 4 >= bytes.len() * 3).then(|| bytes.iter().map(|&byte| char::from(byte)).collect())
        }
    }
}
