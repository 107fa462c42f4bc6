//! The features' file: what the network says of each cell of a picture and of the whole, in few numbers.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::network::GRID_SIDE;
use super::{TeacherError, file_error};

/// Numbers that are kept of each cell's features: their first principal components, scaled to unit length.
pub const CELL_NUMBERS: usize = 64;
/// Numbers that are kept of the classifier's features of the whole picture, likewise.
pub const PICTURE_NUMBERS: usize = 256;

const FILE_NAME: &str = "features.bin";
const CELLS: usize = GRID_SIDE * GRID_SIDE;
/// Bytes of a picture: its cells row by row, then the whole.
const STRIDE: usize = CELLS * CELL_NUMBERS + PICTURE_NUMBERS;
/// A component of 1 is stored as this.
const SCALE: f32 = 127.0;

/// The features of prepared pictures, mapped into memory.
#[derive(Debug)]
pub struct Features {
    bytes: Mmap,
}

impl Features {
    /// Opens the features in a folder of prepared pictures.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read, or is not as long as whole pictures need.
    #[expect(
        unsafe_code,
        reason = "a memory map is only as stable as its file; see the safety comment"
    )]
    pub fn open(prepared_dir: &Path) -> Result<Self, TeacherError> {
        let path = prepared_dir.join(FILE_NAME);
        let file = File::open(&path).map_err(file_error("read", &path))?;
        // SAFETY: the file is written under another name and then renamed, never changed in place, so the
        // mapped file keeps its length and bytes; any bytes are valid numbers.
        let bytes = unsafe { Mmap::map(&file) }.map_err(file_error("map", &path))?;
        if bytes.is_empty() || bytes.len() % STRIDE != 0 {
            return Err(TeacherError::Codes {
                path,
                expected: format!("{STRIDE} bytes for each picture"),
                found: format!("{} bytes", bytes.len()),
            });
        }
        Ok(Self { bytes })
    }

    /// Returns how many pictures have features.
    #[must_use]
    pub fn pictures(&self) -> usize {
        self.bytes.len() / STRIDE
    }

    /// Returns a cell's [`CELL_NUMBERS`] features; none outside, and none where they are not known.
    #[must_use]
    pub fn cell(&self, picture: usize, x: usize, y: usize) -> Option<Vec<f32>> {
        if x >= GRID_SIDE || y >= GRID_SIDE {
            return None;
        }
        self.numbers(picture, (y * GRID_SIDE + x) * CELL_NUMBERS, CELL_NUMBERS)
    }

    /// Returns the [`PICTURE_NUMBERS`] features of a whole picture; none beyond the last, and
    /// none where they are not known.
    #[must_use]
    pub fn whole(&self, picture: usize) -> Option<Vec<f32>> {
        self.numbers(picture, CELLS * CELL_NUMBERS, PICTURE_NUMBERS)
    }

    fn numbers(&self, picture: usize, from: usize, count: usize) -> Option<Vec<f32>> {
        let start = picture.checked_mul(STRIDE)?.checked_add(from)?;
        let bytes = self.bytes.get(start..start.checked_add(count)?)?;
        // A picture that nothing is known of holds zeros, which no vector of unit length does.
        bytes.iter().any(|byte| *byte != 0).then_some(())?;
        Some(
            bytes
                .iter()
                .map(|byte| f32::from(byte.cast_signed()) * (1.0 / SCALE))
                .collect(),
        )
    }
}

/// Writes the file, picture after picture.
pub(super) struct Writer {
    folder: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    pub(super) fn create(prepared_dir: &Path) -> Result<Self, TeacherError> {
        let partial = partial(prepared_dir);
        let file = File::create(&partial).map_err(file_error("create", &partial))?;
        Ok(Self {
            folder: prepared_dir.to_owned(),
            file: BufWriter::new(file),
        })
    }

    /// Writes some pictures: the features of all their cells, and of each as a whole.
    pub(super) fn push(&mut self, cells: &[f32], whole: &[f32]) -> Result<(), TeacherError> {
        let pictures = cells
            .chunks_exact(CELLS * CELL_NUMBERS)
            .zip(whole.chunks_exact(PICTURE_NUMBERS));
        for (cells, whole) in pictures {
            let bytes: Vec<u8> = cells.iter().chain(whole).map(|value| to_byte(*value)).collect();
            self.file
                .write_all(&bytes)
                .map_err(file_error("write", &partial(&self.folder)))?;
        }
        Ok(())
    }

    pub(super) fn publish(mut self) -> Result<(), TeacherError> {
        let partial = partial(&self.folder);
        self.file.flush().map_err(file_error("write", &partial))?;
        let path = self.folder.join(FILE_NAME);
        fs::rename(&partial, &path).map_err(file_error("rename into", &path))
    }
}

fn partial(folder: &Path) -> PathBuf {
    folder.join(format!("{FILE_NAME}.partial"))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped to the range of a byte first"
)]
fn to_byte(value: f32) -> u8 {
    ((value * SCALE).round().clamp(-SCALE, SCALE) as i8).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_features_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let cells: Vec<f32> = (0..2 * CELLS * CELL_NUMBERS)
            .map(|at| (at % 201) as f32 / 100.0 - 1.0)
            .collect();
        let whole: Vec<f32> = (0..2 * PICTURE_NUMBERS).map(|at| at as f32 / 512.0).collect();
        let mut writer = Writer::create(folder.path()).unwrap();
        writer.push(&cells, &whole).unwrap();
        writer.publish().unwrap();
        let features = Features::open(folder.path()).unwrap();
        assert_eq!(features.pictures(), 2);
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 0.5 / SCALE + 1e-6,
                    "{found} {expected}"
                );
            }
        };
        let start = (CELLS + GRID_SIDE * 2 + 3) * CELL_NUMBERS;
        near(
            features.cell(1, 3, 2).unwrap(),
            &cells[start..start + CELL_NUMBERS],
        );
        near(features.whole(1).unwrap(), &whole[PICTURE_NUMBERS..]);
        assert!(features.cell(1, GRID_SIDE, 0).is_none() && features.whole(2).is_none());
        fs::write(folder.path().join(FILE_NAME), [0; 100]).unwrap();
        assert!(matches!(
            Features::open(folder.path()),
            Err(TeacherError::Codes { .. })
        ));
    }
}
