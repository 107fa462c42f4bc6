//! The font of what is drawn on pictures: 8 by 8 pixels, for Latin, Greek and Hiragana.

use font8x8::{BASIC_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, UnicodeFonts as _};
use tiny_skia::{Color, Paint, Pixmap, Rect, Transform};

/// The side of a glyph, in its own pixels.
pub(crate) const GLYPH: u16 = 8;

pub(crate) const WHITE: [u8; 3] = [255, 255, 255];

pub(crate) fn paint([red, green, blue]: [u8; 3]) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(red, green, blue, 255));
    paint
}

/// Spells a label with characters that the font has; others are spelled by their code points.
pub(crate) fn spelled(label: &str) -> String {
    let spell = |c: char| match glyph(c) {
        Some(_) => c.to_string(),
        None => format!("[U+{:04X}]", u32::from(c)),
    };
    label.chars().map(spell).collect()
}

fn glyph(c: char) -> Option<[u8; 8]> {
    BASIC_FONTS
        .get(c)
        .filter(|_| !c.is_control())
        .or_else(|| LATIN_FONTS.get(c))
        .or_else(|| GREEK_FONTS.get(c))
        .or_else(|| HIRAGANA_FONTS.get(c))
}

/// Draws a line of text with a border of one pixel around it, one pixel of the picture for each of the font.
pub(crate) fn plate(text: &str, ink: [u8; 3], ground: [u8; 3]) -> Option<Pixmap> {
    let count = u32::try_from(text.chars().count()).ok()?.min(256);
    let side = u32::from(GLYPH);
    let mut plate = Pixmap::new((count * side).max(1) + 2, side + 2)?;
    let [red, green, blue] = ground;
    plate.fill(Color::from_rgba8(red, green, blue, 255));
    let ink = paint(ink);
    for (index, c) in (0_u16..256).zip(text.chars()) {
        for (row, bits) in (0_u16..).zip(glyph(c)?) {
            for column in (0..GLYPH).filter(|column| bits & (1 << column) != 0) {
                let (x, y) = (f32::from(1 + index * GLYPH + column), f32::from(1 + row));
                let dot = Rect::from_xywh(x, y, 1.0, 1.0)?;
                plate.fill_rect(dot, &ink, Transform::identity(), None);
            }
        }
    }
    Some(plate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_font_lacks_is_spelled_by_its_code_point() {
        assert_eq!(spelled("cat é λ"), "cat é λ");
        assert_eq!(spelled("猫"), "[U+732B]");
        assert!(plate(&spelled("قطة"), [0, 0, 0], WHITE).is_some());
    }
}
