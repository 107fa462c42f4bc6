//! Draws a sheet of augmented pictures, to look at: `contact_sheet PREPARED_FOLDER SHEET.png [SEED]`.
//!
//! Each row is one picture: plain first, then augmented otherwise each time.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use image::{Rgb, RgbImage};
use multiway_training::augment::Augmentation;
use multiway_training::data::PreparedData;
use multiway_training::random::{below, fork};

const SIZE: u32 = 64;
const COLUMNS: u32 = 14;
const ROWS: u32 = 12;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(
        arguments
            .next()
            .context("usage: contact_sheet PREPARED_FOLDER SHEET.png [SEED]")?,
    );
    let sheet_path = PathBuf::from(arguments.next().context("the sheet's path is missing")?);
    let seed = arguments
        .next()
        .map_or(Ok(1), |seed| seed.parse())
        .context("the seed is no number")?;

    let data = PreparedData::open(&folder)?;
    let mut sheet = RgbImage::from_pixel(COLUMNS * (SIZE + 2), ROWS * (SIZE + 2), Rgb([90, 90, 90]));
    let plain = Augmentation::plain(SIZE as usize);
    let training = Augmentation::training(SIZE as usize);
    let start = Instant::now();
    for row in 0..ROWS {
        let picture = below(&mut fork(seed, &[u64::from(row)]), data.pictures().len());
        let rgba = data.rgba(picture).context("a picture has no pixels")?;
        for column in 0..COLUMNS {
            let augmentation = if column == 0 { &plain } else { &training };
            let mut rng = fork(seed, &[u64::from(row), u64::from(column)]);
            let augmented = augmentation.apply(rgba, &mut rng)?;
            paste(
                &mut sheet,
                &augmented.pixels,
                column * (SIZE + 2) + 1,
                row * (SIZE + 2) + 1,
            );
        }
    }
    eprintln!("{:?} a picture", start.elapsed() / (ROWS * COLUMNS));
    sheet
        .save(&sheet_path)
        .with_context(|| format!("cannot write {}", sheet_path.display()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "values are between 0 and 255"
)]
fn paste(sheet: &mut RgbImage, pixels: &[f32], left: u32, top: u32) {
    let plane = (SIZE * SIZE) as usize;
    for (index, (x, y)) in (0..SIZE * SIZE)
        .map(|index| (index % SIZE, index / SIZE))
        .enumerate()
    {
        let value = |channel: usize| (pixels[channel * plane + index] * 255.0).round() as u8;
        sheet.put_pixel(left + x, top + y, Rgb([value(0), value(1), value(2)]));
    }
}
