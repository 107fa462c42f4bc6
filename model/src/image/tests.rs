//! Pictures against Pillow's, and every way in which a picture can be broken.

use std::{fs, io::Cursor, path::PathBuf};

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::testing::tiny_config;

mod kinds;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/images")
}

/// The input pictures by name, in order.
fn inputs() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(fixtures().join("inputs"))
        .unwrap()
        .map(Result::unwrap);
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 15, "the fixtures are there");
    inputs
}

fn input(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("inputs").join(name)).unwrap()
}

/// A processor whose pixels are the resized bytes divided by 255.
fn plain(side: usize) -> ImageProcessor {
    let mut config = tiny_config();
    let vision = config.vision.as_mut().unwrap();
    (vision.image_size, vision.image_mean, vision.image_std) = (side, [0.0; 3], [1.0; 3]);
    ImageProcessor::new(&config)
}

fn refusal(file: &[u8]) -> String {
    plain(8).process(file).unwrap_err().to_string()
}

/// The largest and the mean difference between a picture and Pillow's, in steps of 1/255.
fn difference(processed: &ProcessedImage, expected: &image::RgbImage) -> (f32, f32) {
    let plane = expected.as_raw().len() / CHANNELS;
    let steps: Vec<f32> = expected
        .as_raw()
        .iter()
        .enumerate()
        .map(|(i, &value)| {
            let found = processed.pixels()[(i % CHANNELS) * plane + i / CHANNELS];
            (found * 255.0 - f32::from(value)).abs()
        })
        .collect();
    (
        steps.iter().copied().fold(0.0, f32::max),
        steps.iter().sum::<f32>() / steps.len() as f32,
    )
}

#[test]
fn every_picture_is_what_pillow_makes_of_it() {
    let (mut cases, mut different) = (0, Vec::new());
    for entry in fs::read_dir(fixtures().join("expected"))
        .unwrap()
        .map(Result::unwrap)
    {
        let case = entry.file_name().into_string().unwrap(); // NAME.EXT.SIDE.png
        let (name, side) = case.strip_suffix(".png").unwrap().rsplit_once('.').unwrap();
        let expected = image::open(entry.path()).unwrap().into_rgb8();
        let processed = plain(side.parse().unwrap()).process(&input(name)).unwrap();
        let (largest, mean) = difference(&processed, &expected);
        if largest > 0.01 || mean > 0.001 {
            different.push(format!("{case}: {largest} of 255 at most, {mean} on average"));
        }
        cases += 1;
    }
    assert!(different.is_empty(), "{different:#?}");
    assert!(cases >= inputs().len(), "each input has an expected picture");
}

#[test]
fn another_filter_would_not_pass_as_pillows() {
    let expected = image::open(fixtures().join("expected/cat.png.64.png")).unwrap();
    let source = image::load_from_memory(&input("cat.png")).unwrap();
    let other = source
        .resize_exact(64, 64, image::imageops::FilterType::Triangle)
        .into_rgb8();
    let processed = plain(64).process_rgb8(64, 64, other.as_raw()).unwrap();
    assert!(difference(&processed, &expected.into_rgb8()).0 > 5.0);
}

#[test]
fn pixels_are_normalised_with_channels_first() {
    let mut config = tiny_config();
    let vision = config.vision.as_mut().unwrap();
    (vision.image_mean, vision.image_std) = ([0.5, 0.25, 0.0], [0.5, 0.25, 2.0]);
    let rgb = [255, 0, 51].repeat(16 * 16);
    let processed = ImageProcessor::new(&config).process_rgb8(16, 16, &rgb).unwrap();
    let (red, rest) = processed.pixels().split_at(256);
    let (green, blue) = rest.split_at(256);
    assert!(red.iter().all(|&x| x.to_bits() == 1.0_f32.to_bits()));
    assert!(green.iter().all(|&x| x.to_bits() == (-1.0_f32).to_bits()));
    assert!(blue.iter().all(|&x| (x - 0.1).abs() < 1e-7));
}

#[test]
fn the_original_size_is_that_of_the_upright_picture() {
    let size = |name: &str| plain(8).process(&input(name)).unwrap().original_size();
    assert_eq!(size("cat.png"), (181, 121));
    assert_eq!(size("upright-when-turned.jpg"), (50, 100));
    assert_eq!(
        ProcessedImage::from_pixels(vec![0.0; 3 * 16 * 16]).original_size(),
        (16, 16)
    );
}

#[test]
fn the_visible_part_is_the_whole_picture_or_the_square_that_was_cropped() {
    let mut processor = plain(64);
    let visible = |processor: &ImageProcessor, width: u32, height: u32| {
        let rgb = vec![0; (width * height * 3) as usize];
        processor.process_rgb8(width, height, &rgb).unwrap().visible()
    };
    let assert_near = |found: [f64; 4], expected: [f64; 4]| {
        let near = found
            .iter()
            .zip(expected)
            .all(|(found, expected)| (found - expected).abs() < 1e-9);
        assert!(near, "expected {expected:?}, found {found:?}");
    };
    assert_near(visible(&processor, 300, 100), [0.0, 0.0, 300.0, 100.0]);
    processor.crops = true;
    assert_near(visible(&processor, 300, 100), [100.0, 0.0, 200.0, 100.0]);
    // 64 x 98 pixels after resizing, of which 17 rows are cut off above: the middle, rounded.
    let (top, bottom) = (17.0 / 98.0 * 200.0, 81.0 / 98.0 * 200.0);
    assert_near(visible(&processor, 130, 200), [0.0, top, 130.0, bottom]);
}

#[test]
fn a_decoded_picture_has_its_own_size() {
    let (_, file) = inputs()
        .into_iter()
        .find(|(name, _)| name.ends_with(".png"))
        .unwrap();
    let (picture, processed) = (
        plain(64).decode(&file).unwrap(),
        plain(64).process(&file).unwrap(),
    );
    assert_eq!((picture.width, picture.height), processed.original_size());
    assert_eq!(
        picture.pixels.len() as u64,
        u64::from(picture.width) * u64::from(picture.height) * 3
    );
    assert!(plain(64).decode(b"no picture").is_err());
}

#[test]
fn hidden_colours_of_transparent_pixels_do_not_show() {
    let mut picture = image::RgbaImage::from_pixel(40, 40, image::Rgba([255, 0, 0, 0]));
    picture.put_pixel(20, 20, image::Rgba([0, 0, 0, 255]));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let processed = plain(10).process(file.get_ref()).unwrap();
    let (red, rest) = processed.pixels().split_at(100);
    assert!(
        red.iter()
            .zip(rest)
            .all(|(red, green)| red.to_bits() == green.to_bits()),
        "grey, without a tint"
    );
}

#[test]
fn a_file_opened_by_path_is_read_by_its_content_not_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really-a-jpeg.png");
    fs::write(&path, input("coffee.jpg")).unwrap();
    let processed = plain(8).open(&path).unwrap();
    assert_eq!(
        processed.pixels(),
        plain(8).process(&input("coffee.jpg")).unwrap().pixels()
    );
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |name: &str| {
        let error = plain(8)
            .with_limits(100, 1000)
            .open(folder.path().join(name))
            .unwrap_err()
            .to_string();
        error.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    fs::write(folder.path().join("large.png"), [0; 101]).unwrap();
    fs::write(folder.path().join("notes.txt"), "hello there").unwrap();
    assert_snapshot!(shown("absent.png"), @"'FOLDER/absent.png': cannot read it: No such file or directory (os error 2)");
    assert_snapshot!(shown("."), @"'FOLDER/.': it is a folder: expected a picture file, as PNG, JPEG, WebP, GIF or BMP");
    assert_snapshot!(shown("large.png"), @"'FOLDER/large.png': the picture file has 101 bytes, more than the limit of 100");
    assert_snapshot!(shown("notes.txt"), @"'FOLDER/notes.txt': a text file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP");
}

#[test]
fn bytes_that_are_no_picture_are_refused_with_what_they_look_like() {
    assert_snapshot!(refusal(b""), @"the picture is empty (0 bytes): expected PNG, JPEG, WebP, GIF or BMP");
    assert_snapshot!(refusal(b"hello there"), @"a text file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP");
    assert_snapshot!(refusal(b"\x89"), @"a file that begins with the bytes 89 is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP");
    assert_snapshot!(refusal(b"II*\0rest of it"), @"a TIFF file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; convert it to PNG first, e.g. with ImageMagick (`magick INPUT out.png`)");
    assert_snapshot!(refusal(b"\0\0\0\x20ftypheic"), @"a HEIC file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; convert it to PNG first (`heif-convert in.heic out.png`)");
    assert_snapshot!(refusal(b"<svg xmlns="), @"an SVG drawing is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; render it to PNG first (`rsvg-convert in.svg -o out.png`)");
    assert_snapshot!(refusal(b"%PDF-1.7"), @"a PDF document is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; render a page of it to PNG first (`pdftoppm -png in.pdf out`)");
}

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// A PNG of a few bytes that claims any size.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [
        &b"IHDR"[..],
        &width.to_be_bytes(),
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    for chunk in [&header[..], b"IDAT\x78\x9c\x03\0\0\0\0\x01", b"IEND"] {
        file.extend((u32::try_from(chunk.len()).unwrap() - 4).to_be_bytes());
        file.extend(chunk);
        file.extend(crc(chunk).to_be_bytes());
    }
    file
}

/// A WebP of one pixel whose only frame claims to be as large as frames can be.
fn webp_with_a_large_frame() -> Vec<u8> {
    let frame = [
        &[0x10, 0, 0, 0x9d, 0x01, 0x2a][..],
        &[0xff, 0x3f, 0xff, 0x3f],
        &[0; 20],
    ]
    .concat();
    let mut body = b"WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0VP8 ".to_vec();
    body.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    body.extend(frame);
    [
        &b"RIFF"[..],
        &u32::try_from(body.len()).unwrap().to_le_bytes(),
        &body,
    ]
    .concat()
}

#[test]
fn pictures_beyond_the_limits_are_refused_before_memory_is_taken() {
    assert_snapshot!(refusal(&png_of_size(30_000, 30_000)), @"the picture has 30000 x 30000 = 900000000 pixels, more than the limit of 67108864: make it smaller first");
    assert_snapshot!(refusal(&png_of_size(0x7fff_ffff, 0x7fff_ffff)), @"the picture has 2147483647 x 2147483647 = 4611686014132420609 pixels, more than the limit of 67108864: make it smaller first");
    assert_snapshot!(refusal(&webp_with_a_large_frame()), @"the picture has 16383 x 16383 = 268402689 pixels, more than the limit of 67108864: make it smaller first");
    let cat = input("cat.png");
    let limited = |bytes, pixels| plain(8).with_limits(bytes, pixels).process(&cat).map(|_| ());
    assert_snapshot!(limited(40_000, 1 << 20).unwrap_err(), @"the picture file has 44148 bytes, more than the limit of 40000");
    assert_snapshot!(limited(1 << 20, 181 * 121 - 1).unwrap_err(), @"the picture has 181 x 121 = 21901 pixels, more than the limit of 21900: make it smaller first");
    limited(cat.len() as u64, 181 * 121).unwrap();
    assert_snapshot!(plain(8).process_rgb8(9000, 9000, &[]).unwrap_err(), @"the picture has 9000 x 9000 = 81000000 pixels, more than the limit of 67108864: make it smaller first");
}

#[test]
fn pictures_without_pixels_and_pixels_without_a_picture_are_refused() {
    assert_snapshot!(refusal(&png_of_size(0, 5)), @"the picture has 0 x 5 pixels: expected at least one");
    let mut gif = input("transparent.gif");
    gif[6..8].fill(0);
    assert_snapshot!(refusal(&gif), @"the picture has 0 x 48 pixels: expected at least one");
    assert_snapshot!(plain(8).process_rgb8(0, 3, &[]).unwrap_err(), @"the picture has 0 x 3 pixels: expected at least one");
    assert_snapshot!(plain(8).process_rgb8(2, 2, &[0; 11]).unwrap_err(), @"a picture of 2 x 2 RGB pixels has 12 bytes, found 11");
}

#[test]
fn damage_is_reported_with_what_the_decoder_says() {
    let mut cat = input("cat.png");
    cat[5000] ^= 0x40;
    assert_snapshot!(refusal(&cat), @"the PNG picture is damaged: CRC error: expected 0xea958e02 have 0xa43a56f4 while decoding ChunkType { type: IDAT, critical: true, private: false, reserved: false, safecopy: false } chunk.");
    let mut coffee = input("coffee.jpg");
    let scan = coffee
        .windows(4)
        .position(|marker| marker == [0xff, 0xc0, 0, 17])
        .unwrap();
    coffee[scan + 1] = 0xc3; // a kind of JPEG that the decoder does not know
    assert_snapshot!(refusal(&coffee), @"the JPEG picture is of a kind that is not read: lossless JPEG (SOF3); convert it to a plain PNG first");
    assert_snapshot!(refusal(&input("coffee.jpg")[..9000]), @"the JPEG picture is truncated: the file ends before the picture does");
    assert_snapshot!(refusal(&input("astronaut.webp")[..3000]), @"the WebP picture is truncated: the file ends before the picture does");
    assert_snapshot!(refusal(&input("cat.png")[..20_000]), @"the PNG picture is truncated: the file ends before the picture does");
    assert_snapshot!(refusal(&input("transparent.gif")[..600]), @"the GIF picture is truncated: the file ends before the picture does");
    assert_snapshot!(refusal(&input("wide.bmp")[..1500]), @"the BMP picture is truncated: the file ends before the picture does");
}

#[test]
fn a_picture_that_makes_its_decoder_panic_is_damaged() {
    let mut file = input("animated-alpha.webp");
    let frame = file.windows(4).position(|name| name == b"ANMF").unwrap();
    file[frame + 14..frame + 20].fill(0); // the frame's place is one pixel, its contents are 40 x 30
    assert_snapshot!(refusal(&file), @"the WebP picture is damaged: its decoder gave up");
}

/// Where to cut a file: everywhere near its ends, and at steps in between.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 100).max(1);
    (0..length).filter(move |cut| *cut < 40 || *cut + 40 > length || cut.is_multiple_of(step))
}

#[test]
fn a_truncated_file_is_an_error_or_the_whole_picture_but_never_half_of_it() {
    let processor = plain(16);
    for (name, file) in inputs() {
        let whole = processor.process(&file).unwrap();
        let mut last_error = 0;
        for cut in cuts(file.len()) {
            match processor.process(&file[..cut]) {
                Ok(picture) => assert!(
                    picture.pixels() == whole.pixels(),
                    "{name} cut at {cut} of {}",
                    file.len()
                ),
                Err(_) => last_error = cut,
            }
        }
        // The first frame of an animation is whole long before the file is.
        assert!(
            last_error * 3 > file.len(),
            "{name}: cut at {last_error} of {} is an error",
            file.len()
        );
    }
}

/// How the formats that are read begin, and a file that begins with none of them.
const SIGNATURES: &[&[u8]] = &[
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"RIFF\x40\0\0\0WEBP",
    b"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_change_to_a_picture_gives_a_picture_or_an_error(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        near_the_start: bool,
        cut: Option<prop::sample::Index>,
    ) {
        let inputs = inputs();
        let (_, mut file) = inputs[which.index(inputs.len())].clone();
        let reach = if near_the_start { file.len().min(200) } else { file.len() };
        for (at, byte) in changes {
            file[at.index(reach)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        // A small limit on pixels keeps changed sizes from making the test slow.
        if let Ok(picture) = plain(8).with_limits(1 << 20, 1 << 20).process(&file) {
            prop_assert!(picture.pixels().iter().all(|x| (0.0..=1.0).contains(x)));
        }
    }

    #[test]
    fn any_bytes_behind_a_signature_give_a_picture_or_an_error(
        signature in prop::sample::select(SIGNATURES),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = plain(8).with_limits(1 << 20, 1 << 20).process(&[signature, &bytes].concat());
    }
}
