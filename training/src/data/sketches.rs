//! Sketches: drawings as the strokes of a pen.

use std::path::Path;

use multiway_data::Record;
use resvg::tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path as Outline, PathBuilder, Pixmap, Stroke, Transform,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DataError;
use super::packages::read_records;
use super::raster::straight;

/// Largest coordinate of a sketch: its longer side spans 0 to this.
const EXTENT: f32 = 255.0;

/// A sketch: strokes one after the other, each the places that the pen passed, from the top left, 0 to 255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sketch(pub Vec<(Vec<f32>, Vec<f32>)>);

/// How a sketch is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pen {
    /// Width of the line, as a share of the sketch's longer side.
    pub width: f32,
    /// Red, green and blue.
    pub colour: [u8; 3],
}

impl Pen {
    /// A black felt pen.
    pub const FELT: Self = Self {
        width: 0.03,
        colour: [0, 0, 0],
    };
}

impl Sketch {
    /// Draws it on a transparent square: RGBA, straight alpha, row-major. A side of zero draws nothing.
    ///
    /// # Shapes
    ///
    /// `side * side * 4` bytes
    #[must_use]
    pub fn draw(&self, pen: Pen, side: usize) -> Vec<u8> {
        let canvas = u32::try_from(side).ok().and_then(|side| Pixmap::new(side, side));
        let Some(mut canvas) = canvas else {
            return Vec::new();
        };
        let mut paint = Paint::default();
        let [red, green, blue] = pen.colour;
        paint.set_color(Color::from_rgba8(red, green, blue, u8::MAX));
        paint.anti_alias = true;
        let stroke = Stroke {
            width: pen.width * EXTENT,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        // The pen's width stays inside the square.
        let room = pen.width * EXTENT / 2.0 + 2.0;
        let extent = |values: f32, more: &[f32]| more.iter().copied().fold(values, f32::max);
        let width = self.0.iter().fold(0.0, |width, (xs, _)| extent(width, xs));
        let height = self.0.iter().fold(0.0, |height, (_, ys)| extent(height, ys));
        let scale = side as f32 / (EXTENT + 2.0 * room);
        let centred = |length: f32| scale * (room + (EXTENT - length) / 2.0);
        let place = Transform::from_row(scale, 0.0, 0.0, scale, centred(width), centred(height));
        for (xs, ys) in &self.0 {
            match (xs.as_slice(), ys.as_slice()) {
                ([x], [y]) => {
                    if let Some(dot) = PathBuilder::from_circle(*x, *y, stroke.width / 2.0) {
                        canvas.fill_path(&dot, &paint, FillRule::Winding, place, None);
                    }
                }
                _ => {
                    if let Some(line) = line(xs, ys) {
                        canvas.stroke_path(&line, &paint, &stroke, place, None);
                    }
                }
            }
        }
        straight(&canvas)
    }
}

fn line(xs: &[f32], ys: &[f32]) -> Option<Outline> {
    let mut line = PathBuilder::new();
    for (at, (x, y)) in xs.iter().zip(ys).enumerate() {
        if at == 0 {
            line.move_to(*x, *y);
        } else {
            line.line_to(*x, *y);
        }
    }
    line.finish()
}

/// A sketch of the data set.
#[derive(Debug)]
pub(super) struct Sketched {
    /// What the player was asked to draw.
    pub(super) word: String,
    /// Whether it is of the training part, and the game guessed it.
    pub(super) is_usable: bool,
    /// The strokes.
    pub(super) strokes: Sketch,
}

/// Reads a file of sketches: `word`, `split`, `recognized` and `strokes` of each.
pub(super) fn read_sketches(path: &Path) -> Result<Vec<Sketched>, DataError> {
    let sketched = |record: &Record| {
        let strokes = record.value("strokes").cloned().unwrap_or_default();
        Ok(Sketched {
            word: record.text("word").unwrap_or_default(),
            is_usable: record.text("split").as_deref() == Some("train")
                && record.value("recognized") == Some(&Value::Bool(true)),
            strokes: serde_json::from_value(strokes).map_err(|_| DataError::Unexpected {
                path: path.to_owned(),
                expected: "strokes as lists of coordinates".to_owned(),
                found: format!("none in {}", record.id()),
            })?,
        })
    };
    read_records(path)?.iter().map(sketched).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strokes_and_dots_leave_ink_where_they_are() {
        let sketch: Sketch = serde_json::from_str("[[[0,255],[0,0]],[[128],[128]]]").unwrap();
        let pen = Pen {
            width: 0.1,
            colour: [200, 0, 0],
        };
        let side = 64;
        let pixels = sketch.draw(pen, side);
        let at = |x: usize, y: usize| pixels[(y * side + x) * 4..][..4].to_vec();
        // The sketch is half as high as wide, so that it stands in the middle.
        assert_eq!(at(32, 18), [200, 0, 0, 255]);
        assert_eq!(at(32, 46), [200, 0, 0, 255]);
        assert_eq!(at(32, 32)[3], 0);
        assert_eq!(at(2, 60)[3], 0);
        assert!(sketch.draw(pen, 0).is_empty());
    }

    #[test]
    fn a_line_that_is_no_sketch_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sketches.ndjson");
        let lines = "{\"word\": \"cat\", \"split\": \"train\", \"recognized\": true, \"strokes\": [[[1], [2]]]}\n{}\n";
        std::fs::write(&path, lines).unwrap();
        let error = read_sketches(&path).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("expected strokes as lists of coordinates") && error.contains("#2"),
            "{error}"
        );
    }
}
