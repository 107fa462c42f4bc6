//! Writes words into pictures.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use resvg::tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Rect, Transform};

use super::compose::{Frame, Scene};
use crate::data::split::rank;
use crate::data::{FontRecord, PreparedData, Segment, Split, straight};
use crate::random::{below, between, chance};

/// Shortest and longest word that is written, in letters: longer ones cannot be read in a small picture.
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=9;
/// One word in this many is kept for the test, and one for validation.
const KEPT_ONE_IN: u64 = 10;
/// Least width of a letter, as a share of the picture's.
const WIDTH: f32 = 0.09;
/// How often a place beside the things is sought.
const TRIES: usize = 20;
/// Least difference of brightness between letters and what is behind them, of 1.
const CONTRAST: f32 = 0.35;

/// Which words and fonts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterSplit {
    /// What training writes.
    Train,
    /// Other words, in the same fonts.
    Validation,
    /// Other words, in other fonts.
    Test,
}

/// Words, and fonts to write them in.
#[derive(Debug, Clone)]
pub struct Letters {
    fonts: Vec<FontRecord>,
    words: Vec<String>,
}

impl Letters {
    /// Takes the fonts of prepared data, and the words of its texts that these can write; none where there
    /// are no fonts or no words.
    #[must_use]
    pub fn of(data: &PreparedData, split: LetterSplit) -> Option<Self> {
        let of_fonts = if split == LetterSplit::Test {
            Split::Test
        } else {
            Split::Train
        };
        let fonts = data.fonts().iter().filter(|font| font.split == of_fonts);
        let fonts: Vec<FontRecord> = fonts.cloned().collect();
        let words = data.texts().iter().flat_map(|record| words(&record.text));
        let words: BTreeSet<String> = words
            .filter(|word| LENGTHS.contains(&word.chars().count()) && split_of(word) == split)
            .filter(|word| fonts.iter().all(|font| can_write(font, word)))
            .collect();
        (!fonts.is_empty() && !words.is_empty()).then(|| Self {
            fonts,
            words: words.into_iter().collect(),
        })
    }

    /// Draws something to write: a word in small or capital letters, or a number.
    pub(super) fn draw_text(&self, rng: &mut ChaCha8Rng) -> String {
        if chance(rng, 0.2) {
            let digits = 1 + below(rng, 5);
            return (0..digits).map(|_| char::from(b'0' + digit(rng))).collect();
        }
        let word = self.words.get(below(rng, self.words.len())).cloned();
        let word = word.unwrap_or_default();
        match below(rng, 4) {
            0 => word.to_uppercase(),
            1 => capitalised(&word),
            _ => word,
        }
    }

    /// Writes a text on a scene of `side` pixels, in any font, size and colour, a little turned and beside
    /// the things. Returns what can be read there, in capitals where the font has no small letters; nothing
    /// where the font cannot write it, or there is no place for it.
    pub(super) fn write(
        &self,
        text: &str,
        scene: &mut Scene,
        side: usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<String> {
        let font = self.fonts.get(below(rng, self.fonts.len()))?;
        let path = outline(font, text)?;
        let bounds = path.bounds();
        let whole = side as f32;
        // The longer, the wider, but no letter higher than a half of the picture.
        let least = (WIDTH * text.chars().count() as f32).clamp(0.4, 0.9);
        let width = between(rng, least, 0.95) * whole;
        let scale = (width / bounds.width()).min(0.5 * whole / bounds.height());
        let turned = between(rng, -8.0, 8.0);
        let scaled = Transform::from_scale(scale, -scale).post_rotate(turned);
        let seen = path.clone().transform(scaled)?.bounds();
        let room = [whole - seen.width(), whole - seen.height()];
        if room.iter().any(|room| *room < 0.0) {
            return None;
        }
        let [x, y] = (0..TRIES).find_map(|_| {
            let [x, y] = room.map(|room| between(rng, 0.0, room));
            let frame = Frame {
                left: x / whole,
                top: y / whole,
                right: (x + seen.width()) / whole,
                bottom: (y + seen.height()) / whole,
            };
            let is_free = !scene.things.iter().any(|thing| frame.touches(&thing.frame));
            is_free.then_some([x, y])
        })?;
        let place = scaled.post_translate(x - seen.left(), y - seen.top());
        let under = Rect::from_xywh(x, y, seen.width(), seen.height())?;
        let colour = colour_on(brightness(&scene.pixels, side, under), rng);
        let pixels = fill(&path, place, colour, side)?;
        blend(&pixels, &mut scene.pixels, side);
        Some(as_drawn(font, text))
    }
}

/// Cuts a text into words of letters, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphabetic());
    words.map(str::to_lowercase)
}

/// Writes letters as capitals that a font draws as capitals.
fn as_drawn(font: &FontRecord, text: &str) -> String {
    let drawn = |letter: char| {
        let capital = letter.to_uppercase().next().unwrap_or(letter);
        let outline = |letter| font.glyphs.get(&letter).map(|glyph| &glyph.outline);
        if outline(letter) == outline(capital) {
            capital
        } else {
            letter
        }
    };
    text.chars().map(drawn).collect()
}

/// Assigns a word to a split, by its letters alone.
fn split_of(word: &str) -> LetterSplit {
    match rank(word) % KEPT_ONE_IN {
        0 => LetterSplit::Test,
        1 => LetterSplit::Validation,
        _ => LetterSplit::Train,
    }
}

fn can_write(font: &FontRecord, word: &str) -> bool {
    let written = word
        .chars()
        .chain(word.to_uppercase().chars().collect::<Vec<_>>());
    let mut written = written.map(|letter| font.glyphs.get(&letter));
    written.all(|glyph| glyph.is_some_and(|glyph| !glyph.outline.is_empty()))
}

fn digit(rng: &mut ChaCha8Rng) -> u8 {
    u8::try_from(below(rng, 10)).unwrap_or(0)
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

/// Sets a text in a font of size 1, `y` upwards; none where it is empty.
fn outline(font: &FontRecord, text: &str) -> Option<Path> {
    let mut path = PathBuilder::new();
    let mut at = 0.0;
    for letter in text.chars() {
        let glyph = font.glyphs.get(&letter)?;
        for segment in &glyph.outline {
            match *segment {
                Segment::Move([x, y]) => path.move_to(at + x, y),
                Segment::Line([x, y]) => path.line_to(at + x, y),
                Segment::Quad([cx, cy, x, y]) => path.quad_to(at + cx, cy, at + x, y),
                Segment::Cubic([ax, ay, bx, by, x, y]) => {
                    path.cubic_to(at + ax, ay, at + bx, by, at + x, y);
                }
                Segment::Close => path.close(),
            }
        }
        at += glyph.advance;
    }
    let path = path.finish()?;
    let bounds = path.bounds();
    (bounds.width() > 0.0 && bounds.height() > 0.0).then_some(path)
}

/// Draws a colour that differs from a brightness.
fn colour_on(under: f32, rng: &mut ChaCha8Rng) -> [f32; 3] {
    loop {
        let grey = chance(rng, 0.5).then(|| between(rng, 0.0, 1.0));
        let colour = [(); 3].map(|()| grey.unwrap_or_else(|| between(rng, 0.0, 1.0)));
        if (luminance(colour) - under).abs() >= CONTRAST {
            return colour;
        }
    }
}

fn luminance([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// The mean brightness of a part of a picture.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pixels inside the picture"
)]
fn brightness(planes: &[f32], side: usize, part: Rect) -> f32 {
    let plane = side * side;
    let (columns, rows) = (
        part.left() as usize..side.min(part.right() as usize + 1),
        part.top() as usize..side.min(part.bottom() as usize + 1),
    );
    let (mut sum, mut count) = (0.0, 0.0);
    for row in rows {
        for column in columns.clone() {
            let at = row * side + column;
            let colour = [0, 1, 2].map(|channel| planes.get(channel * plane + at).copied().unwrap_or(0.0));
            sum += luminance(colour);
            count += 1.0;
        }
    }
    if count > 0.0 { sum / count } else { 0.5 }
}

/// Fills an outline: RGBA, straight alpha, row-major.
fn fill(path: &Path, place: Transform, [red, green, blue]: [f32; 3], side: usize) -> Option<Vec<u8>> {
    let side = u32::try_from(side).ok()?;
    let mut canvas = Pixmap::new(side, side)?;
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba(red, green, blue, 1.0)?);
    paint.anti_alias = true;
    canvas.fill_path(path, &paint, FillRule::Winding, place, None);
    Some(straight(&canvas))
}

fn blend(rgba: &[u8], planes: &mut [f32], side: usize) {
    let plane = side * side;
    for (at, [red, green, blue, alpha]) in rgba.as_chunks::<4>().0.iter().enumerate() {
        let alpha = f32::from(*alpha) / 255.0;
        for (channel, value) in [red, green, blue].into_iter().enumerate() {
            if let Some(under) = planes.get_mut(channel * plane + at) {
                *under += alpha * (f32::from(*value) / 255.0 - *under);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::compose::Thing;
    use super::*;
    use crate::data::Glyph;
    use crate::random::fork;

    /// A font whose letters are blocks.
    fn blocks() -> FontRecord {
        let outline = vec![
            Segment::Move([0.1, 0.0]),
            Segment::Line([0.5, 0.0]),
            Segment::Line([0.5, 0.7]),
            Segment::Line([0.1, 0.7]),
            Segment::Close,
        ];
        let glyph = |letter| {
            (
                letter,
                Glyph {
                    advance: 0.6,
                    outline: outline.clone(),
                },
            )
        };
        FontRecord {
            font: "blocks".to_owned(),
            split: Split::Train,
            glyphs: ('0'..='z').map(glyph).collect(),
        }
    }

    pub(in super::super) fn letters() -> Letters {
        Letters {
            fonts: vec![blocks()],
            words: vec!["stop".to_owned(), "café".to_owned()],
        }
    }

    fn empty(side: usize, grey: f32) -> Scene {
        Scene {
            pixels: vec![grey; 3 * side * side],
            things: Vec::new(),
        }
    }

    #[test]
    fn a_font_without_small_letters_writes_capitals() {
        let mut font = blocks();
        assert_eq!(as_drawn(&font, "Stop42"), "STOP42");
        for letter in 'a'..='z' {
            let small = font.glyphs.get_mut(&letter).unwrap();
            small.outline.push(Segment::Move([0.0, 0.0]));
        }
        assert_eq!(as_drawn(&font, "Stop42"), "Stop42");
    }

    #[test]
    fn letters_stand_beside_things() {
        let wall = |bottom| {
            let mut walled = empty(96, 0.0);
            walled.things.push(Thing {
                name: "wall".to_owned(),
                frame: Frame {
                    left: 0.0,
                    top: 0.0,
                    right: 1.0,
                    bottom,
                },
            });
            let written = letters().write("stop", &mut walled, 96, &mut fork(2, &[]));
            (written, walled.pixels)
        };
        let (written, pixels) = wall(0.4);
        assert!(written.is_some() && pixels[..96 * 38].iter().all(|value| *value <= 0.0));
        assert!(wall(1.0).0.is_none());
    }

    #[test]
    fn letters_stand_out_from_what_is_behind_them() {
        let letters = letters();
        for seed in 0..50 {
            let mut rng = fork(seed, &[1]);
            let grey = between(&mut rng, 0.0, 1.0);
            let mut scene = empty(96, grey);
            letters.write("stop", &mut scene, 96, &mut rng).unwrap();
            let plane = 96 * 96;
            let differ = (0..plane)
                .filter(|at| {
                    let colour = [0, 1, 2].map(|channel: usize| scene.pixels[channel * plane + at]);
                    (luminance(colour) - grey).abs() > CONTRAST - 0.02
                })
                .count();
            // Four blocks cover two thirds of a line that is at least a half of the picture wide.
            assert!(differ > plane / 40, "{seed}: {differ}");
            assert!(differ < plane / 2, "{seed}: {differ}");
        }
    }

    #[test]
    fn what_a_font_cannot_write_is_not_written() {
        let before = empty(32, 0.5);
        let mut scene = before.clone();
        let letters = letters();
        assert!(letters.write("café", &mut scene, 32, &mut fork(1, &[])).is_none());
        assert!(letters.write("", &mut scene, 32, &mut fork(1, &[])).is_none());
        assert_eq!(scene, before);
        assert!(can_write(&blocks(), "stop") && !can_write(&blocks(), "café"));
    }

    #[test]
    fn words_are_parted_by_their_letters() {
        let found: Vec<String> = words("A red bus, No. 12: crème-brûlée").collect();
        assert!(
            found.contains(&"red".to_owned()) && found.contains(&"crème".to_owned()),
            "{found:?}"
        );
        let many: Vec<String> = (0..2000u32).map(|n| format!("word{n}")).collect();
        for (split, share) in [
            (LetterSplit::Test, 0.1),
            (LetterSplit::Validation, 0.1),
            (LetterSplit::Train, 0.8),
        ] {
            let count = many.iter().filter(|word| split_of(word) == split).count() as f32;
            assert!((count / 2000.0 - share).abs() < 0.03, "{split:?}: {count}");
        }
    }

    #[test]
    fn texts_are_words_in_any_case_and_numbers() {
        let letters = letters();
        let mut rng = fork(3, &[]);
        let texts: BTreeSet<String> = (0..300).map(|_| letters.draw_text(&mut rng)).collect();
        for expected in ["stop", "Stop", "STOP"] {
            assert!(texts.contains(expected), "{texts:?}");
        }
        assert!(texts.iter().any(|text| text.chars().all(|c| c.is_ascii_digit())));
    }
}
