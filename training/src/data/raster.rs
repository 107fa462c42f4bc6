//! Turns drawings into pixels: RGBA, one byte each, straight alpha, row-major.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::imageops::{self, FilterType};
use image::{ImageBuffer, ImageReader, Limits, Rgba, RgbaImage};
use resvg::{tiny_skia, usvg};

use super::DataError;

/// Side of a prepared picture, in pixels.
pub const PICTURE_SIDE: usize = 96;
/// Bytes of a prepared picture: RGBA, one byte each, straight alpha, row-major.
pub const PICTURE_BYTES: usize = PICTURE_SIDE * PICTURE_SIDE * 4;

/// Largest side of a bitmap that is decoded: what packages hold is far smaller.
const MAX_SIDE: u32 = 4096;

/// Renders an SVG document on a transparent square of `side` pixels: as large as fits, centred, proportions
/// kept.
///
/// References to other files are not followed. `drawing` names the document in errors.
pub(super) fn render_svg(svg: &str, side: u32, drawing: &str) -> Result<RgbaImage, DataError> {
    let failed = |reason: String| DataError::Vector {
        drawing: drawing.to_owned(),
        reason,
    };
    let options = usvg::Options {
        image_href_resolver: usvg::ImageHrefResolver {
            resolve_data: usvg::ImageHrefResolver::default_data_resolver(),
            resolve_string: Box::new(|_, _| None),
        },
        fontdb: Arc::default(),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let mut canvas = tiny_skia::Pixmap::new(side, side)
        .ok_or_else(|| failed(format!("a canvas of side {side} cannot be made")))?;
    let (size, side) = (tree.size(), canvas.width() as f32);
    let scale = side / size.width().max(size.height());
    let (left, top) = (
        (side - size.width() * scale) / 2.0,
        (side - size.height() * scale) / 2.0,
    );
    let place = tiny_skia::Transform::from_row(scale, 0.0, 0.0, scale, left, top);
    resvg::render(&tree, place, &mut canvas.as_mut());
    let (width, height) = (canvas.width(), canvas.height());
    RgbaImage::from_raw(width, height, straight(&canvas))
        .ok_or_else(|| failed("the canvas lost pixels".to_owned()))
}

/// Returns the pixels of a canvas: RGBA bytes, straight alpha, row-major.
pub(crate) fn straight(canvas: &tiny_skia::Pixmap) -> Vec<u8> {
    let pixels = canvas.pixels().iter().map(|pixel| pixel.demultiply());
    pixels
        .flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue(), pixel.alpha()])
        .collect()
}

/// Decodes a PNG or WebP file and resamples it to a transparent square of `side` pixels, proportions kept,
/// centred.
pub(super) fn decode_bitmap(bytes: &[u8], side: u32, path: &Path) -> Result<RgbaImage, DataError> {
    Ok(fit(&decode(bytes, path)?, side))
}

/// Reads a bitmap file as RGBA bytes of a square of the prepared size, proportions kept, centred.
pub(crate) fn fitted_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::file("read", path))?;
    let side = u32::try_from(PICTURE_SIDE).unwrap_or(u32::MAX);
    Ok(decode_bitmap(&bytes, side, path)?.into_raw())
}

/// Decodes a picture and resamples it to fill a square of `side` pixels, whatever its proportions: as the
/// model sees a picture.
pub(super) fn fill_square(bytes: &[u8], side: u32, path: &Path) -> Result<RgbaImage, DataError> {
    let bitmap = decode(bytes, path)?;
    Ok(imageops::resize(&bitmap, side, side, FilterType::CatmullRom))
}

/// Decodes a picture.
pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<RgbaImage, DataError> {
    let failed = |source| DataError::Bitmap {
        path: path.to_owned(),
        source,
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(DataError::file("read", path))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    Ok(reader.decode().map_err(failed)?.into_rgba8())
}

/// Makes an opaque grey picture from rows of brightness between 0 and 1, and resamples it to `side` pixels.
///
/// Missing values are black.
pub(super) fn grey_square(brightness: &[f32], rows: u32, side: u32) -> RgbaImage {
    let grey = RgbaImage::from_fn(rows, rows, |x, y| {
        let value = brightness.get((y * rows + x) as usize).copied().unwrap_or(0.0);
        let value = to_byte(value);
        Rgba([value, value, value, u8::MAX])
    });
    fit(&grey, side)
}

/// Resamples a picture to fit a transparent square, in premultiplied colour so that hidden colours never
/// bleed in.
fn fit(picture: &RgbaImage, side: u32) -> RgbaImage {
    let (width, height) = picture.dimensions();
    if width == side && height == side {
        return picture.clone();
    }
    let premultiplied = ImageBuffer::from_fn(width, height, |x, y| {
        let [red, green, blue, alpha] = picture.get_pixel(x, y).0.map(|value| f32::from(value) / 255.0);
        Rgba([red * alpha, green * alpha, blue * alpha, alpha])
    });
    let longest = width.max(height).max(1);
    let scaled = |length: u32| (length * side / longest).clamp(1, side);
    let (width, height) = (scaled(width), scaled(height));
    let resized = imageops::resize(&premultiplied, width, height, FilterType::CatmullRom);
    let mut canvas = RgbaImage::new(side, side);
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    for (x, y, pixel) in resized.enumerate_pixels() {
        let [red, green, blue, alpha] = pixel.0;
        let straight = |value: f32| if alpha > 0.0 { to_byte(value / alpha) } else { 0 };
        canvas.put_pixel(
            left + x,
            top + y,
            Rgba([straight(red), straight(green), straight(blue), to_byte(alpha)]),
        );
    }
    canvas
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of a byte first"
)]
fn to_byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(size: &str, body: &str) -> String {
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size}\">{body}</svg>")
    }

    #[test]
    fn a_wide_drawing_is_centred_between_transparent_bands() {
        let document = svg(
            "20 10",
            r##"<rect width="20" height="10" fill="#0080ff" fill-opacity="0.5"/>"##,
        );
        let picture = render_svg(&document, 40, "test").unwrap();
        assert_eq!(picture.get_pixel(20, 9).0[3], 0);
        assert_eq!(picture.get_pixel(20, 31).0[3], 0);
        let [red, green, blue, alpha] = picture.get_pixel(20, 20).0;
        assert!((127..=128).contains(&alpha), "{alpha}");
        // Straight colour, up to the rounding of premultiplied bytes.
        assert!(
            red == 0 && green.abs_diff(0x80) <= 1 && blue == 0xff,
            "{red} {green} {blue}"
        );
    }

    #[test]
    fn a_drawing_cannot_read_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret.png");
        RgbaImage::from_pixel(8, 8, Rgba([255, 0, 0, 255]))
            .save(&file)
            .unwrap();
        let document = svg(
            "8 8",
            &format!(r#"<image href="{}" width="8" height="8"/>"#, file.display()),
        );
        let picture = render_svg(&document, 8, "test").unwrap();
        assert!(picture.pixels().all(|pixel| pixel.0[3] == 0));
    }

    #[test]
    fn what_is_not_a_drawing_is_refused_by_name() {
        let empty = r#"<svg xmlns="http://www.w3.org/2000/svg" width="0" height="0"/>"#;
        for document in ["", "<svg", "<html/>", empty] {
            let error = render_svg(document, 8, "noto:cat").unwrap_err().to_string();
            assert!(
                error.starts_with("noto:cat: cannot render the drawing: "),
                "{error}"
            );
        }
        for bytes in [&b""[..], b"not a picture", b"\x89PNG\r\n\x1a\n\0\0"] {
            let error = decode_bitmap(bytes, 8, Path::new("cat.png"))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("cat.png: cannot decode the picture: "),
                "{error}"
            );
        }
    }

    #[test]
    fn hidden_colours_do_not_bleed_into_edges() {
        // Transparent red beside opaque blue: resampling straight colours would paint a purple edge.
        let picture = RgbaImage::from_fn(8, 8, |x, _| {
            Rgba(if x < 4 { [255, 0, 0, 0] } else { [0, 0, 255, 255] })
        });
        let resampled = fit(&picture, 12);
        assert!(resampled.pixels().all(|pixel| pixel.0[0] == 0));
        assert!(
            resampled.pixels().any(|pixel| (1..255).contains(&pixel.0[3])),
            "the edge is soft"
        );
    }

    #[test]
    fn a_tall_bitmap_keeps_its_proportions() {
        let resampled = fit(&RgbaImage::from_pixel(4, 8, Rgba([9, 9, 9, 255])), 16);
        let opaque = |x| resampled.get_pixel(x, 8).0[3] == 255;
        assert!(!opaque(3) && opaque(4) && opaque(11) && !opaque(12));
    }

    #[test]
    fn brightness_becomes_opaque_grey_and_what_is_missing_black() {
        let picture = grey_square(&[1.0, 0.5], 2, 2);
        let pixels: Vec<[u8; 4]> = picture.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(
            pixels,
            [[255; 4], [128, 128, 128, 255], [0, 0, 0, 255], [0, 0, 0, 255]]
        );
    }
}
