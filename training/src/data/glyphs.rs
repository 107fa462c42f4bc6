//! Reads pictographs out of fonts, as SVG documents.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::DrawSettings;
use skrifa::outline::pen::SvgPen;
use skrifa::{FontRef, MetadataProvider};

use super::DataError;
use super::packages::file_names;

/// Largest font that is unpacked, in bytes.
const MAX_FONT_BYTES: u64 = 64 << 20;
/// Bytes of the header of a WOFF file, and of an entry of its table directory.
const WOFF_HEADER: usize = 44;
const WOFF_ENTRY: usize = 20;

/// Fonts that together draw one set.
pub(super) struct Glyphs {
    fonts: Vec<Vec<u8>>,
}

impl Glyphs {
    /// Opens a TrueType font.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let font = fs::read(path).map_err(DataError::file("read", path))?;
        check(&font, path)?;
        Ok(Self { fonts: vec![font] })
    }

    /// Opens the WOFF files of a folder whose names end as given: a web font comes in pieces.
    pub(super) fn open_pieces(folder: &Path, ending: &str) -> Result<Self, DataError> {
        let mut fonts = Vec::new();
        for name in file_names(folder)? {
            if name.ends_with(ending) {
                let path = folder.join(name);
                let bytes = fs::read(&path).map_err(DataError::file("read", &path))?;
                let font =
                    unpack_woff(&bytes).ok_or_else(|| unexpected(&path, "a WOFF font", "no such file"))?;
                check(&font, &path)?;
                fonts.push(font);
            }
        }
        if fonts.is_empty() {
            return Err(unexpected(
                folder,
                &format!("files that end with '{ending}'"),
                "none",
            ));
        }
        Ok(Self { fonts })
    }

    /// Writes the glyph of a character as an SVG document in black, or nothing where no font has it.
    pub(super) fn document(&self, character: char) -> Option<String> {
        self.fonts.iter().find_map(|font| outline(font, character))
    }
}

fn check(font: &[u8], path: &Path) -> Result<(), DataError> {
    FontRef::new(font)
        .map(|_| ())
        .map_err(|error| unexpected(path, "a font", &error.to_string()))
}

fn unexpected(path: &Path, expected: &str, found: &str) -> DataError {
    DataError::Unexpected {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

fn outline(font: &[u8], character: char) -> Option<String> {
    let font = FontRef::new(font).ok()?;
    let glyph = font.charmap().map(character)?;
    let bounds = font
        .glyph_metrics(Size::unscaled(), LocationRef::default())
        .bounds(glyph)?;
    let (width, height) = (bounds.x_max - bounds.x_min, bounds.y_max - bounds.y_min);
    if !(width > 0.0 && height > 0.0) {
        return None;
    }
    let mut pen = SvgPen::new();
    let outline = font.outline_glyphs().get(glyph)?;
    let settings = DrawSettings::unhinted(Size::unscaled(), LocationRef::default());
    outline.draw(settings, &mut pen).ok()?;
    // Fonts count upwards, SVG downwards. A little room stays around the glyph.
    let room = width.max(height) * 0.04;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{} {} {} {}\"><path transform=\"scale(1 -1)\" d=\"{pen}\"/></svg>",
        bounds.x_min - room,
        -bounds.y_max - room,
        width + 2.0 * room,
        height + 2.0 * room,
    ))
}

/// Unpacks a WOFF file to the font that it holds.
///
/// Source: W3C, WOFF File Format 1.0.
pub(super) fn unpack_woff(bytes: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let short = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    if bytes.get(..4)? != b"wOFF" || u64::from(word(16)?) > MAX_FONT_BYTES {
        return None;
    }
    let (flavor, tables) = (word(4)?, short(12)?);
    let power = tables.checked_ilog2()?;
    let search_range = 16_u16.checked_shl(power)?;
    let mut font = flavor.to_be_bytes().to_vec();
    for value in [
        tables,
        search_range,
        u16::try_from(power).ok()?,
        tables.checked_mul(16)?.checked_sub(search_range)?,
    ] {
        font.extend_from_slice(&value.to_be_bytes());
    }
    let mut place = 12 + 16 * usize::from(tables);
    let mut body = Vec::new();
    for table in 0..usize::from(tables) {
        let entry = WOFF_HEADER + table * WOFF_ENTRY;
        let (offset, packed, length) = (word(entry + 4)?, word(entry + 8)?, word(entry + 12)?);
        let start = usize::try_from(offset).ok()?;
        let data = bytes.get(start..start.checked_add(usize::try_from(packed).ok()?)?)?;
        let mut table = Vec::new();
        if packed < length {
            ZlibDecoder::new(data)
                .take(u64::from(length))
                .read_to_end(&mut table)
                .ok()?;
        } else {
            table.extend_from_slice(data);
        }
        if table.len() != usize::try_from(length).ok()? || (place + table.len()) as u64 > MAX_FONT_BYTES {
            return None;
        }
        font.extend_from_slice(bytes.get(entry..entry + 4)?);
        for value in [word(entry + 16)?, u32::try_from(place).ok()?, length] {
            font.extend_from_slice(&value.to_be_bytes());
        }
        table.resize(table.len().next_multiple_of(4), 0);
        place += table.len();
        body.extend_from_slice(&table);
    }
    font.extend_from_slice(&body);
    Some(font)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    fn table(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    fn shorts(values: &[i32]) -> Vec<u8> {
        let bytes = values
            .iter()
            .flat_map(|value| i16::try_from(*value).unwrap().to_be_bytes());
        bytes.collect()
    }

    /// The tables of a font whose only glyph, a rectangle of 800 by 700 units, draws `character`.
    fn tables(character: char) -> Vec<(&'static [u8; 4], Vec<u8>)> {
        let point = u32::from(character).to_be_bytes();
        let group = [&point[..], &point, &1_u32.to_be_bytes()].concat();
        let cmap = table(&[
            &shorts(&[0, 1, 3, 10, 0, 12]),
            &shorts(&[12, 0, 0, 28, 0, 0, 0, 1]),
            &group,
        ]);
        // One contour of four points on the curve, each a word further in x, then in y.
        let glyph = table(&[
            &shorts(&[1, 100, 0, 900, 700, 3, 0]),
            &[1; 4],
            &shorts(&[100, 800, 0, -800, 0, 0, 700, 0]),
        ]);
        let length = u32::try_from(glyph.len()).unwrap();
        let head = table(&[
            &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5f, 0x0f, 0x3c, 0xf5],
            &shorts(&[0, 1000]),
            &[0; 16],
            &shorts(&[100, 0, 900, 700, 0, 8, 2, 1, 0]),
        ]);
        let hhea = table(&[
            &[0, 1, 0, 0],
            &shorts(&[800, -200, 0, 1000]),
            &[0; 22],
            &shorts(&[2]),
        ]);
        let maxp = table(&[&[0, 1, 0, 0], &shorts(&[2]), &[0; 26]]);
        let loca = [0, 0, length].map(u32::to_be_bytes).concat();
        vec![
            (b"cmap", cmap),
            (b"glyf", glyph),
            (b"head", head),
            (b"hhea", hhea),
            (b"hmtx", shorts(&[1000, 0, 1000, 100])),
            (b"loca", loca),
            (b"maxp", maxp),
        ]
    }

    /// Makes a WOFF file of one glyph; every table is packed where that makes it shorter.
    pub(in super::super) fn woff(character: char) -> Vec<u8> {
        let tables = tables(character);
        let mut entries = Vec::new();
        let mut body = Vec::new();
        let start = WOFF_HEADER + WOFF_ENTRY * tables.len();
        for (tag, table) in &tables {
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            zlib.write_all(table).unwrap();
            let packed = zlib.finish().unwrap();
            let stored = if packed.len() < table.len() {
                &packed
            } else {
                table
            };
            entries.extend_from_slice(*tag);
            for number in [start + body.len(), stored.len(), table.len(), 0] {
                entries.extend(u32::try_from(number).unwrap().to_be_bytes());
            }
            body.extend_from_slice(stored);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut file = b"wOFF\0\x01\0\0".to_vec();
        file.extend(u32::try_from(start + body.len()).unwrap().to_be_bytes());
        file.extend(u16::try_from(tables.len()).unwrap().to_be_bytes());
        file.resize(WOFF_HEADER, 0);
        [file, entries, body].concat()
    }

    /// Makes a TrueType font of one glyph.
    pub(in super::super) fn font(character: char) -> Vec<u8> {
        unpack_woff(&woff(character)).unwrap()
    }

    #[test]
    fn a_glyph_becomes_a_document_with_room_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let (ttf, piece) = (folder.path().join("a.ttf"), folder.path().join("a-400.woff"));
        fs::write(&ttf, font('🐈')).unwrap();
        fs::write(&piece, woff('🐈')).unwrap();
        for glyphs in [
            Glyphs::open(&ttf),
            Glyphs::open_pieces(folder.path(), "-400.woff"),
        ] {
            let glyphs = glyphs.unwrap();
            let document = glyphs.document('🐈').unwrap();
            assert!(document.contains(r#"viewBox="68 -732 864 764""#), "{document}");
            assert!(document.contains("scale(1 -1)"), "{document}");
            assert_eq!(glyphs.document('a'), None);
            let picture = super::super::raster::render_svg(&document, 48, "test").unwrap();
            assert_eq!(picture.get_pixel(24, 24).0, [0, 0, 0, 255]);
        }
    }

    #[test]
    fn what_is_no_font_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("piece-400.woff");
        let mut cut = woff('a');
        cut.truncate(200);
        for bytes in [&b"no font"[..], &cut] {
            fs::write(&path, bytes).unwrap();
            let error = Glyphs::open_pieces(folder.path(), "-400.woff")
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains("expected a WOFF font"), "{error}");
            let error = Glyphs::open(&path).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("expected a font"), "{error}");
        }
        let error = Glyphs::open_pieces(folder.path(), ".ttf")
            .map(|_| ())
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("files that end with '.ttf', found none"),
            "{error}"
        );
    }
}
