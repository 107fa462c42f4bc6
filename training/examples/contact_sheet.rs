//! Draws a sheet of augmented pictures, to look at: `contact_sheet PREPARED_FOLDER SHEET.png [SEED]`.
//!
//! Each row is one picture: plain first, then augmented otherwise each time.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use image::{Rgb, RgbImage, imageops};
use multiway_training::augment::{Augmentation, to_rgb8};
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
            let picture = RgbImage::from_raw(SIZE, SIZE, to_rgb8(&augmented.pixels))
                .context("a picture of another size")?;
            let (left, top) = (column * (SIZE + 2) + 1, row * (SIZE + 2) + 1);
            imageops::replace(&mut sheet, &picture, i64::from(left), i64::from(top));
        }
    }
    eprintln!("{:?} a picture", start.elapsed() / (ROWS * COLUMNS));
    sheet
        .save(&sheet_path)
        .with_context(|| format!("cannot write {}", sheet_path.display()))
}
