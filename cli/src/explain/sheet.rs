//! A sheet of tiles: one for each word, with heat over the pictures and the word below.

use anyhow::anyhow;
use multiway::image::Rgb8Picture;
use tiny_skia::{Color, Pixmap, PixmapPaint, Transform};

use super::super::font::{GLYPH, WHITE, plate, spelled};
use super::heat::{Heat, Visible, color, fitted, heated};

/// The side of a picture on the sheet, in pixels.
const SIDE: u32 = 192;
/// The space between tiles.
const GAP: u32 = 16;
/// The space between the pictures of a tile.
const SEAM: u32 = 4;
const MARGIN: u32 = 24;
/// How many pictures are side by side.
const ACROSS: usize = 6;
/// How many tiles a section has at most.
pub(super) const MAX_TILES: usize = 60;

const INK: [u8; 3] = [26, 26, 26];
const PALE: [u8; 3] = [96, 96, 96];

/// A picture that heat is drawn over.
pub(super) struct ShownPicture {
    pub(super) picture: Rgb8Picture,
    pub(super) visible: Visible,
}

/// A word with its heat.
pub(super) struct Tile {
    pub(super) word: String,
    pub(super) lines: Vec<String>,
    /// A value for each patch of each picture that is shown.
    pub(super) pictures: Vec<Vec<f32>>,
}

/// Tiles under a heading.
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) lines: Vec<String>,
    pub(super) tiles: Vec<Tile>,
}

/// What is drawn.
pub(super) struct Sheet {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// How many patches a picture has along a side.
    pub(super) grid: usize,
    pub(super) pictures: Vec<ShownPicture>,
    pub(super) sections: Vec<Section>,
}

/// What stands somewhere on the sheet.
enum Item {
    Text(Pixmap, u16),
    Picture(Rgb8Picture),
}

/// Items with their places, on their way down the sheet.
struct Layout {
    width: u32,
    y: u32,
    items: Vec<(u32, u32, Item)>,
}

impl Sheet {
    /// Draws the sheet, as the bytes of a PNG file.
    pub(super) fn to_png(&self) -> anyhow::Result<Vec<u8>> {
        let mut layout = Layout {
            width: self.width(),
            y: MARGIN,
            items: Vec::new(),
        };
        let fitted = |shown: &ShownPicture| fitted(&shown.picture, SIDE);
        let pictures: Vec<Rgb8Picture> = self.pictures.iter().map(fitted).collect();
        self.head(&pictures, &mut layout);
        for section in &self.sections {
            self.section(section, &pictures, &mut layout);
        }
        layout.to_png()
    }

    /// Returns the width of a tile.
    fn tile_width(&self) -> u32 {
        let pictures = u32::try_from(self.pictures.len().max(1)).unwrap_or(1);
        pictures * (SIDE + SEAM) - SEAM
    }

    /// Counts the tiles of a row: as many as there are, in a sheet that has room for the legend.
    fn columns(&self) -> usize {
        let pictures = self.pictures.len().max(1);
        let tiles = self.sections.iter().map(|section| section.tiles.len()).max();
        let most = (ACROSS / pictures).max(1);
        tiles.unwrap_or_default().clamp(most.div_ceil(2) + 1, most.max(2))
    }

    fn width(&self) -> u32 {
        let columns = u32::try_from(self.columns()).unwrap_or(1);
        2 * MARGIN + columns * (self.tile_width() + GAP) - GAP
    }

    /// Lays out the title, the pictures as they are, and the legend beside them.
    fn head(&self, pictures: &[Rgb8Picture], layout: &mut Layout) {
        layout.wrapped(&self.title, 2, INK);
        layout.y += GAP / 2;
        let top = layout.y;
        for (picture, x) in pictures.iter().zip(self.places(MARGIN)) {
            layout.picture(x, top, picture.clone());
        }
        let x = MARGIN + self.tile_width() + GAP;
        layout.items.push((x, top, Item::Picture(bar())));
        let y = top + GAP + 4;
        layout.text(x, y, 1, "0", PALE);
        let most = "the most in the tile";
        layout.text((x + SIDE).saturating_sub(text_width(most, 1)), y, 1, most, PALE);
        let room = layout.width.saturating_sub(x + MARGIN);
        let mut y = y + GAP + 8;
        for line in self.lines.iter().flat_map(|line| wrap(line, room, 1)) {
            layout.text(x, y, 1, &line, INK);
            y += 14;
        }
        layout.y = y.max(top + SIDE) + GAP;
    }

    /// Lists the left sides of the pictures of a tile.
    fn places(&self, left: u32) -> impl Iterator<Item = u32> {
        (0_u32..).map(move |index| left + index * (SIDE + SEAM))
    }

    fn section(&self, section: &Section, pictures: &[Rgb8Picture], layout: &mut Layout) {
        layout.y += GAP / 2;
        layout.wrapped(&section.heading, 2, INK);
        for line in &section.lines {
            layout.wrapped(line, 1, PALE);
        }
        layout.y += GAP / 2;
        let tiles: Vec<(usize, &Tile)> = section.tiles.iter().enumerate().take(MAX_TILES).collect();
        for row in tiles.chunks(self.columns()) {
            let (top, mut bottom) = (layout.y, layout.y);
            for ((index, tile), column) in row.iter().zip(0_u32..) {
                layout.y = top;
                let left = MARGIN + column * (self.tile_width() + GAP);
                self.tile(*index, tile, pictures, left, layout);
                bottom = bottom.max(layout.y);
            }
            layout.y = bottom + GAP;
        }
    }

    fn tile(&self, index: usize, tile: &Tile, pictures: &[Rgb8Picture], left: u32, layout: &mut Layout) {
        let most = tile.pictures.iter().flatten().copied().fold(0.0, f32::max);
        let shown = pictures.iter().zip(&self.pictures).zip(&tile.pictures);
        for (((picture, shown), patches), x) in shown.zip(self.places(left)) {
            let grid = self.grid;
            let heat = Heat { grid, patches, most };
            layout.picture(x, layout.y, heated(picture, shown.visible, heat));
        }
        layout.y += SIDE + 4;
        let word = spelled(&format!("{} {}", index + 1, tile.word));
        // A long word is written small, and a very long one on two lines.
        let scale = if text_width(&word, 2) <= self.tile_width() {
            2
        } else {
            1
        };
        for line in cut(&word, self.tile_width(), scale) {
            layout.text(left, layout.y, scale, &line, INK);
            layout.y += line_height(scale);
        }
        for line in &tile.lines {
            layout.text(left, layout.y, 1, line, PALE);
            layout.y += line_height(1);
        }
    }
}

impl Layout {
    /// Puts a picture into the middle of a square of a tile.
    fn picture(&mut self, x: u32, y: u32, picture: Rgb8Picture) {
        let middle = |length: u32| SIDE.saturating_sub(length) / 2;
        let (x, y) = (x + middle(picture.width), y + middle(picture.height));
        self.items.push((x, y, Item::Picture(picture)));
    }

    fn text(&mut self, x: u32, y: u32, scale: u16, text: &str, ink: [u8; 3]) {
        if let Some(plate) = plate(&spelled(text), ink, WHITE) {
            self.items.push((x, y, Item::Text(plate, scale)));
        }
    }

    /// Writes lines over the whole width.
    fn wrapped(&mut self, text: &str, scale: u16, ink: [u8; 3]) {
        for line in wrap(&spelled(text), self.width - 2 * MARGIN, scale) {
            self.text(MARGIN, self.y, scale, &line, ink);
            self.y += line_height(scale);
        }
    }

    fn to_png(&self) -> anyhow::Result<Vec<u8>> {
        let pixmap = Pixmap::new(self.width, self.y + MARGIN - GAP);
        let mut pixmap = pixmap.ok_or_else(|| anyhow!("the explanation is too large to draw"))?;
        pixmap.fill(Color::WHITE);
        for (x, y, item) in &self.items {
            match item {
                Item::Text(plate, scale) => write(&mut pixmap, *x, *y, plate, *scale),
                Item::Picture(picture) => paste(&mut pixmap, *x, *y, picture),
            }
        }
        Ok(pixmap.encode_png()?)
    }
}

fn write(pixmap: &mut Pixmap, x: u32, y: u32, plate: &Pixmap, scale: u16) {
    let scale = f32::from(scale);
    let place = |value: u32| f32::from(u16::try_from(value).unwrap_or(u16::MAX));
    let place = Transform::from_scale(scale, scale).post_translate(place(x), place(y));
    pixmap.draw_pixmap(0, 0, plate.as_ref(), &PixmapPaint::default(), place, None);
}

/// Copies a picture; what is outside of the sheet is left out.
fn paste(pixmap: &mut Pixmap, x: u32, y: u32, picture: &Rgb8Picture) {
    let (width, left) = (pixmap.width() as usize, x as usize);
    let rows = picture.pixels.chunks_exact(picture.width.max(1) as usize * 3);
    let sheet = pixmap.data_mut().chunks_exact_mut(width * 4).skip(y as usize);
    for (to, from) in sheet.zip(rows) {
        for (to, from) in to.chunks_exact_mut(4).skip(left).zip(from.chunks_exact(3)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
    }
}

/// Draws the scale of colors.
fn bar() -> Rgb8Picture {
    let row: Vec<u8> = (0..SIDE)
        .flat_map(|x| color(x as f32 / (SIDE - 1) as f32))
        .collect();
    Rgb8Picture {
        width: SIDE,
        height: GAP,
        pixels: row.repeat(GAP as usize),
    }
}

fn line_height(scale: u16) -> u32 {
    u32::from(scale * (GLYPH + 3))
}

fn text_width(text: &str, scale: u16) -> u32 {
    let glyphs = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    glyphs.saturating_mul(u32::from(scale * GLYPH)) + 2 * u32::from(scale)
}

/// Counts the characters that fit into a width.
fn characters(width: u32, scale: u16) -> usize {
    let scale = u32::from(scale);
    (width.saturating_sub(2 * scale) / (scale * u32::from(GLYPH))).max(1) as usize
}

/// Breaks a text at its spaces, and a word that is longer than a line anywhere.
fn wrap(text: &str, width: u32, scale: u16) -> Vec<String> {
    let room = characters(width, scale);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        for part in word.chars().collect::<Vec<_>>().chunks(room) {
            let part: String = part.iter().collect();
            match lines.last_mut() {
                Some(line) if line.chars().count() + part.chars().count() < room => {
                    line.push(' ');
                    line.push_str(&part);
                }
                _ => lines.push(part),
            }
        }
    }
    lines
}

/// Breaks a word into two lines at most, and ends what does not fit in dots.
fn cut(word: &str, width: u32, scale: u16) -> Vec<String> {
    let room = characters(width, scale);
    let characters: Vec<char> = word.chars().collect();
    let mut lines: Vec<String> = characters
        .chunks(room)
        .map(|line| line.iter().collect())
        .collect();
    if lines.len() > 2 {
        lines.truncate(2);
        if let Some(last) = lines.last_mut() {
            *last = last
                .chars()
                .take(room.saturating_sub(3))
                .chain("...".chars())
                .collect();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(pictures: usize, words: &[&str]) -> Sheet {
        let shown = |_| ShownPicture {
            picture: Rgb8Picture {
                width: 20,
                height: 10,
                pixels: vec![128; 600],
            },
            visible: [0.0, 0.0, 1.0, 1.0],
        };
        let tile = |word: &&str| Tile {
            word: (*word).to_owned(),
            lines: vec!["image 50%".to_owned()],
            pictures: vec![vec![0.0, 0.1, 0.2, 0.3]; pictures],
        };
        Sheet {
            title: "a title".to_owned(),
            lines: vec!["a line".to_owned()],
            grid: 2,
            pictures: (0..pictures).map(shown).collect(),
            sections: vec![Section {
                heading: "words".to_owned(),
                lines: Vec::new(),
                tiles: words.iter().map(tile).collect(),
            }],
        }
    }

    fn drawn(sheet: &Sheet) -> Pixmap {
        Pixmap::decode_png(&sheet.to_png().unwrap()).unwrap()
    }

    #[test]
    fn tiles_are_wrapped_into_rows() {
        let few = drawn(&sheet(1, &["a", "b"]));
        let six = drawn(&sheet(1, &["a"; 6]));
        let seven = drawn(&sheet(1, &["a"; 7]));
        assert!(few.width() < six.width() && few.height() == six.height());
        assert_eq!(seven.width(), six.width());
        assert!(seven.height() >= six.height() + SIDE);
        let most = drawn(&sheet(1, &["a"; MAX_TILES]));
        assert_eq!(drawn(&sheet(1, &["a"; MAX_TILES + 20])).height(), most.height());
    }

    #[test]
    fn pictures_of_a_prompt_are_side_by_side_in_each_tile() {
        let one = sheet(1, &["a"; 3]);
        let two = sheet(2, &["a"; 3]);
        assert_eq!(two.tile_width(), 2 * one.tile_width() + SEAM);
        assert!(drawn(&two).width() > 2 * two.tile_width());
        assert!(drawn(&sheet(4, &["a"; 3])).width() >= 4 * SIDE);
    }

    #[test]
    fn hot_patches_are_lighter_than_cold_ones_and_the_sheet_is_white_around() {
        let sheet = sheet(1, &["a"]);
        let drawn = drawn(&sheet);
        let bottom = drawn.height() - MARGIN - line_height(1) - line_height(2) - 4 - SIDE / 2;
        let light = |x: u32, y: u32| drawn.pixel(x, y).unwrap().green();
        // The picture is twice as wide as it is high.
        let (cold, hot) = (
            light(MARGIN + 10, bottom - 30),
            light(MARGIN + SIDE - 10, bottom + 30),
        );
        assert!(cold < 80 && hot > 150, "{cold} and {hot}");
        assert_eq!(light(2, 2), 255);
    }

    #[test]
    fn long_words_are_broken_and_cut() {
        assert_eq!(wrap("one two three", 8 * 8 + 2, 1), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4 * 8 + 2, 1), ["abcd", "efgh", "ij"]);
        assert_eq!(cut("abcdefghijkl", 5 * 8 + 2, 1), ["abcde", "fg..."]);
        assert!(drawn(&sheet(1, &["[U+732B]"; 1])).width() > 0);
        let long = "x".repeat(5000);
        assert!(sheet(1, &[&long]).to_png().is_ok());
    }
}
