//! Draws scenes with their questions, to look at: `scene_sheet PREPARED_FOLDER SHEET.png [SEED]`.
//!
//! A scene a cell, two side by side where a question has two pictures; the questions are written beside the
//! sheet, in the order of the cells.

use std::path::PathBuf;

use anyhow::Context;
use image::{Rgb, RgbImage, imageops};
use multiway_training::augment::to_rgb8;
use multiway_training::data::PreparedData;
use multiway_training::examples::TrainingArt;
use multiway_training::random::fork;
use multiway_training::scenes::{SceneKind, ask};

const SIZE: u32 = 96;
const COLUMNS: u32 = 8;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().with_context(|| format!("{what} is missing"));
    let folder = PathBuf::from(next("the folder of prepared data")?);
    let sheet_path = PathBuf::from(next("the sheet's path")?);
    let seed: u64 = arguments
        .next()
        .map_or(Ok(1), |seed| seed.parse())
        .context("the seed is no number")?;
    let data = PreparedData::open(&folder)?;
    let art = TrainingArt::plain(&data);
    let (mut cells, mut questions) = (Vec::new(), String::new());
    for (row, kind) in (0..).zip(SceneKind::ALL) {
        for column in 0..u64::from(COLUMNS / 2) {
            let asked = ask(kind, &art, SIZE as usize, &mut fork(seed, &[row, column]));
            let Some(asked) = asked else { continue };
            questions.push_str(&format!(
                "{} {:?} -> {}\n",
                asked.task, asked.inputs, asked.answer
            ));
            cells.extend(asked.pictures);
        }
    }
    let rows = u32::try_from(cells.len())?.div_ceil(COLUMNS);
    let mut sheet = RgbImage::from_pixel(COLUMNS * (SIZE + 2), rows * (SIZE + 2), Rgb([90, 90, 90]));
    for (at, planes) in (0..).zip(&cells) {
        let picture = RgbImage::from_raw(SIZE, SIZE, to_rgb8(planes)).context("a scene of another size")?;
        let (left, top) = (at % COLUMNS * (SIZE + 2), at / COLUMNS * (SIZE + 2));
        imageops::replace(&mut sheet, &picture, i64::from(left), i64::from(top));
    }
    sheet.save(&sheet_path)?;
    std::fs::write(sheet_path.with_extension("txt"), questions)?;
    Ok(())
}
