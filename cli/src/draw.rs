//! Drawing boxes, points and polygons with their labels on a picture.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use multiway::image::Rgb8Picture;
use multiway::task::parse::LocatedObject;
use multiway::{Answer, ImageProcessor};
use tiny_skia::{FillRule, IntSize, PathBuilder, Pixmap, PixmapPaint, Rect, Stroke, Transform};

use super::failure::{Failure, Outcome};
use super::font::{WHITE, paint, plate, spelled};

/// The colors of objects, in turn: those that are told apart with every kind of color vision.
///
/// Source: Okabe and Ito 2008, Color Universal Design.
const COLORS: [[u8; 3]; 6] = [
    [213, 94, 0],
    [0, 114, 178],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
];

/// Reads a picture file upright, as it was given.
pub(crate) fn original(processor: &ImageProcessor, path: &Path) -> Outcome<Rgb8Picture> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read the picture '{}' to draw on it", path.display()))
        .map_err(Failure::Input)?;
    processor.decode(&bytes).map_err(Failure::input)
}

/// Draws the objects of an answer on a picture, and writes it as PNG.
pub(crate) fn draw(picture: &Rgb8Picture, answer: &Answer, path: &Path) -> Outcome {
    let png = drawn(picture, &objects(answer)).map_err(Failure::Runtime)?;
    std::fs::write(path, png)
        .with_context(|| format!("cannot write '{}'", path.display()))
        .map_err(Failure::Runtime)
}

fn objects(answer: &Answer) -> Vec<&LocatedObject> {
    match answer {
        Answer::Located { objects, .. } => objects.iter().collect(),
        Answer::Grounded { grounded, .. } => {
            grounded.phrases.iter().flat_map(|phrase| &phrase.boxes).collect()
        }
        _ => Vec::new(),
    }
}

fn drawn(picture: &Rgb8Picture, objects: &[&LocatedObject]) -> anyhow::Result<Vec<u8>> {
    let rgba = picture
        .pixels
        .chunks_exact(3)
        .flat_map(|pixel| pixel.iter().copied().chain([255]))
        .collect();
    let size = IntSize::from_wh(picture.width, picture.height);
    let pixmap = size.and_then(|size| Pixmap::from_vec(rgba, size));
    let mut pixmap = pixmap.ok_or_else(|| anyhow!("the picture is too large to draw on"))?;
    let found = objects.iter().filter(|object| object.problem.is_none());
    for (object, color) in found.zip(COLORS.iter().cycle()) {
        outline(&mut pixmap, object, *color);
        label(&mut pixmap, object, *color);
    }
    Ok(pixmap.encode_png()?)
}

/// Returns how many pixels of the picture a thin line is wide.
fn line_width(pixmap: &Pixmap) -> u16 {
    u16::try_from(pixmap.width().min(pixmap.height()) / 200)
        .unwrap_or(u16::MAX)
        .clamp(1, 16)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "pixels of a picture are exact in 32 bits"
)]
fn points(object: &LocatedObject) -> Vec<(f32, f32)> {
    let pairs = object.pixels.chunks_exact(2);
    pairs
        .filter_map(|pair| Some((*pair.first()? as f32, *pair.last()? as f32)))
        .collect()
}

fn outline(pixmap: &mut Pixmap, object: &LocatedObject, color: [u8; 3]) {
    let width = f32::from(line_width(pixmap)) * 2.0;
    let points = points(object);
    let mut path = PathBuilder::new();
    match points.as_slice() {
        [(x, y)] => path.push_circle(*x, *y, width * 2.0),
        [(left, top), (right, bottom)] => {
            if let Some(rect) = Rect::from_ltrb(*left, *top, *right, *bottom) {
                path.push_rect(rect);
            }
        }
        [(x, y), rest @ ..] => {
            path.move_to(*x, *y);
            rest.iter().for_each(|(x, y)| path.line_to(*x, *y));
            path.close();
        }
        [] => {}
    }
    let Some(path) = path.finish() else { return };
    if points.len() == 1 {
        pixmap.fill_path(
            &path,
            &paint(color),
            FillRule::Winding,
            Transform::identity(),
            None,
        );
    } else {
        let stroke = Stroke {
            width,
            ..Stroke::default()
        };
        pixmap.stroke_path(&path, &paint(color), &stroke, Transform::identity(), None);
    }
}

/// Draws the label in white on the object's color, above its first point or, where there is no room, below
/// it.
fn label(pixmap: &mut Pixmap, object: &LocatedObject, color: [u8; 3]) {
    let points = points(object);
    let Some((x, y)) = points.first() else { return };
    let text = spelled(&object.label);
    let scale = line_width(pixmap);
    let Some(plate) = plate(&text, WHITE, color) else {
        return;
    };
    let size = |length: u32| f32::from(u16::try_from(length).unwrap_or(u16::MAX)) * f32::from(scale);
    let (width, height) = (size(plate.width()), size(plate.height()));
    let room = f32::from(u16::try_from(pixmap.width()).unwrap_or(u16::MAX)) - width;
    let left = x.min(room).max(0.0).round();
    let top = if *y >= height { *y - height } else { *y }.round();
    let place = Transform::from_scale(f32::from(scale), f32::from(scale)).post_translate(left, top);
    pixmap.draw_pixmap(0, 0, plate.as_ref(), &PixmapPaint::default(), place, None);
}

#[cfg(test)]
mod tests {
    use multiway::prompt::LocationDialect;
    use multiway::task::parse::{Form, PictureView, parse_locations};

    use super::*;

    #[test]
    fn a_box_and_its_label_change_the_pixels_at_their_place_alone() {
        let picture = Rgb8Picture {
            width: 100,
            height: 80,
            pixels: vec![128; 100 * 80 * 3],
        };
        let text = "cat<loc_500><loc_500><loc_900><loc_900>broken<loc_1>";
        let view = PictureView::whole(100, 80);
        let objects = parse_locations(text, Form::Box, LocationDialect::Florence2, &view);
        let drawn = drawn(&picture, &objects.iter().collect::<Vec<_>>()).unwrap();
        let drawn = Pixmap::decode_png(&drawn).unwrap();
        let changed = |x: u32, y: u32| drawn.pixel(x, y).unwrap().red() != 128;
        assert!(changed(50, 60) && changed(90, 60) && changed(70, 72));
        assert!(changed(52, 34), "the label is above the box");
        assert!(!changed(10, 10) && !changed(70, 60) && !changed(97, 77));
    }
}
