//! Fonts that words are written in: the outlines of letters, digits and signs of Latin scripts.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, MetadataProvider};

use super::glyphs::unpack_woff;
use super::packages::Packages;
use super::{DataError, Split};

/// The fonts, each a package of its own: upright and slanted hands, with and without serifs, of one width,
/// for headlines, from pens and typewriters. Those of the test are seen in no training.
const FONTS: [(&str, Split); 24] = [
    ("roboto", Split::Train),
    ("open-sans", Split::Train),
    ("lora", Split::Train),
    ("merriweather", Split::Train),
    ("playfair-display", Split::Train),
    ("oswald", Split::Train),
    ("pacifico", Split::Train),
    ("caveat", Split::Train),
    ("dancing-script", Split::Train),
    ("indie-flower", Split::Train),
    ("comic-neue", Split::Train),
    ("courier-prime", Split::Train),
    ("inconsolata", Split::Train),
    ("raleway", Split::Train),
    ("bebas-neue", Split::Train),
    ("lobster", Split::Train),
    ("permanent-marker", Split::Train),
    ("special-elite", Split::Train),
    ("abril-fatface", Split::Train),
    ("zilla-slab", Split::Train),
    ("nunito", Split::Test),
    ("crimson-text", Split::Test),
    ("patrick-hand", Split::Test),
    ("ubuntu", Split::Test),
];

/// Characters that are taken: visible ASCII, and the letters of Latin-1.
fn characters() -> impl Iterator<Item = char> {
    ('!'..='~').chain('\u{c0}'..='\u{ff}')
}

/// A font: the outlines of its characters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FontRecord {
    /// Its name.
    pub font: String,
    /// Whether training or the test writes in it.
    pub split: Split,
    /// The characters that it has.
    pub glyphs: BTreeMap<char, Glyph>,
}

/// A character of a font, in units of the font's size.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Glyph {
    /// How far the next character stands.
    pub advance: f32,
    /// Its outline, `y` upwards from the line that letters stand on.
    pub outline: Vec<Segment>,
}

/// A piece of an outline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Segment {
    /// Begins a contour.
    #[serde(rename = "M")]
    Move([f32; 2]),
    /// A line to a point.
    #[serde(rename = "L")]
    Line([f32; 2]),
    /// A quadratic curve by one control point.
    #[serde(rename = "Q")]
    Quad([f32; 4]),
    /// A cubic curve by two control points.
    #[serde(rename = "C")]
    Cubic([f32; 6]),
    /// Ends a contour.
    #[serde(rename = "Z")]
    Close,
}

/// Collects an outline, scaled.
struct Recorder {
    scale: f32,
    outline: Vec<Segment>,
}

impl Recorder {
    /// Scales numbers; a ten-thousandth of a font's size is not seen.
    fn scaled<const N: usize>(&self, numbers: [f32; N]) -> [f32; N] {
        numbers.map(|number| (number * self.scale * 1e4).round() / 1e4)
    }
}

impl OutlinePen for Recorder {
    fn move_to(&mut self, x: f32, y: f32) {
        self.outline.push(Segment::Move(self.scaled([x, y])));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.outline.push(Segment::Line(self.scaled([x, y])));
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        self.outline.push(Segment::Quad(self.scaled([cx, cy, x, y])));
    }

    fn curve_to(&mut self, ax: f32, ay: f32, bx: f32, by: f32, x: f32, y: f32) {
        self.outline
            .push(Segment::Cubic(self.scaled([ax, ay, bx, by, x, y])));
    }

    fn close(&mut self) {
        self.outline.push(Segment::Close);
    }
}

/// Reads the outlines of the fonts.
pub(super) fn read_fonts(packages: Packages<'_>) -> Result<Vec<FontRecord>, DataError> {
    let read = |(name, split): (&'static str, Split)| {
        let file = format!("files/{name}-latin-400-normal.woff");
        let path = packages.folder(name)?.join(file);
        let bytes = fs::read(&path).map_err(DataError::file("read", &path))?;
        let glyphs = unpack_woff(&bytes).and_then(|font| glyphs(&font));
        Ok(FontRecord {
            font: name.to_owned(),
            split,
            glyphs: glyphs.ok_or_else(|| DataError::Unexpected {
                path,
                expected: "a WOFF font of Latin letters".to_owned(),
                found: "a file that is no such font".to_owned(),
            })?,
        })
    };
    FONTS.into_iter().map(read).collect()
}

/// Records the characters of a font; none where it is no font, or has no letters.
fn glyphs(font: &[u8]) -> Option<BTreeMap<char, Glyph>> {
    let font = FontRef::new(font).ok()?;
    let (size, location) = (Size::unscaled(), LocationRef::default());
    let scale = 1.0 / f32::from(font.metrics(size, location).units_per_em.max(1));
    let metrics = font.glyph_metrics(size, location);
    let mut glyphs = BTreeMap::new();
    for character in characters() {
        let Some(glyph) = font.charmap().map(character) else {
            continue;
        };
        let mut recorder = Recorder {
            scale,
            outline: Vec::new(),
        };
        let settings = DrawSettings::unhinted(size, location);
        font.outline_glyphs()
            .get(glyph)?
            .draw(settings, &mut recorder)
            .ok()?;
        let [advance] = recorder.scaled([metrics.advance_width(glyph)?]);
        let outline = recorder.outline;
        glyphs.insert(character, Glyph { advance, outline });
    }
    (!glyphs.is_empty()).then_some(glyphs)
}

/// The packages of the fonts.
#[cfg(test)]
pub(super) fn font_packages() -> impl Iterator<Item = &'static str> {
    FONTS.into_iter().map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::super::glyphs::tests::woff;
    use super::*;

    #[test]
    fn outlines_are_in_units_of_the_size() {
        let font = unpack_woff(&woff('A')).unwrap();
        let glyphs = glyphs(&font).unwrap();
        // A rectangle of 800 by 700 units from (100, 0) on, of a font of 1,000 units.
        let points: Vec<[f32; 2]> = glyphs[&'A']
            .outline
            .iter()
            .filter_map(|segment| match segment {
                Segment::Move(point) | Segment::Line(point) => Some(*point),
                _ => None,
            })
            .collect();
        assert_eq!(glyphs.len(), 1);
        assert!(
            points.contains(&[0.1, 0.0]) && points.contains(&[0.9, 0.7]),
            "{points:?}"
        );
        assert!((glyphs[&'A'].advance - 1.0).abs() < 1e-6);
    }

    #[test]
    fn records_are_read_as_they_are_written() {
        let record = FontRecord {
            font: "plain".to_owned(),
            split: Split::Test,
            glyphs: glyphs(&unpack_woff(&woff('b')).unwrap()).unwrap(),
        };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<FontRecord>(&line).unwrap(), record);
        assert!(
            line.contains("{\"M\":[0.1,0.0]}") && line.contains("\"Z\""),
            "{line}"
        );
    }

    #[test]
    fn what_is_no_font_is_refused() {
        assert!(glyphs(b"no font").is_none());
        assert!(glyphs(&unpack_woff(&woff('\u{1f600}')).unwrap()).is_none());
    }
}
