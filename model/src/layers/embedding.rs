//! Tables of which tokens name rows.

use std::fmt;
use std::io;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::kernels::access::with_slice;

/// Bytes with positioned reads.
pub(crate) trait ReadAt: Send + Sync {
    /// Fills `out` with the bytes from `start` on.
    ///
    /// # Errors
    /// Where they end before, or cannot be read.
    fn read_at(&self, start: u64, out: &mut [u8]) -> io::Result<()>;
}

/// A table `[V, D]` of which a token names a row.
#[derive(Debug)]
pub(crate) enum Embedding {
    Tensor(Tensor),
    Stored(StoredTable),
}

/// A table of `f32` numbers, lowest byte first, that stays in its file: rows take memory only where they are
/// looked up.
///
/// Rows are read and not mapped: read-ahead would map the neighbours of each row that is touched, and soon
/// the whole table.
pub(crate) struct StoredTable {
    file: Arc<dyn ReadAt>,
    /// Where the first row begins.
    start: u64,
    /// How many rows there are, V.
    count: usize,
    /// How many numbers a row has, D.
    width: usize,
}

impl fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, width, .. } = self;
        write!(f, "StoredTable [{count}, {width}]")
    }
}

impl StoredTable {
    /// Views a file from `start` on as `[count, width]`.
    pub(crate) fn new(file: Arc<dyn ReadAt>, start: u64, count: usize, width: usize) -> Self {
        Self {
            file,
            start,
            count,
            width,
        }
    }

    /// Appends rows times `scale`.
    fn append(&self, tokens: impl Iterator<Item = u32>, scale: f32, out: &mut Vec<f32>) -> Result<()> {
        let width = self.width * size_of::<f32>();
        for token in tokens {
            if token as usize >= self.count {
                return no_row(token);
            }
            let before = out.len();
            out.resize(before + self.width, 0.0);
            let row = out.get_mut(before..).unwrap_or_default();
            let start = self.start + u64::from(token) * width as u64;
            if let Err(error) = self.file.read_at(start, bytemuck::cast_slice_mut(row)) {
                bail!("reading the embedding of token {token}: {error}");
            }
            for value in row {
                *value = f32::from_bits(u32::from_le(value.to_bits())) * scale;
            }
        }
        Ok(())
    }
}

impl Embedding {
    /// Counts the rows, V.
    pub(crate) fn count(&self) -> Result<usize> {
        match self {
            Self::Tensor(table) => table.dim(0),
            Self::Stored(table) => Ok(table.count),
        }
    }

    /// Counts the numbers of a row, D.
    pub(crate) fn width(&self) -> Result<usize> {
        match self {
            Self::Tensor(table) => table.dim(1),
            Self::Stored(table) => Ok(table.width),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Tensor(table) => table.device(),
            Self::Stored(_) => &Device::Cpu,
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Tensor(table) => table.dtype(),
            Self::Stored(_) => DType::F32,
        }
    }

    /// Looks up the rows of some tokens, `[N, D]`.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Result<Tensor> {
        match self {
            Self::Tensor(table) => {
                let tokens = Tensor::from_slice(tokens, tokens.len(), table.device())?; // [N]
                table.index_select(&tokens, 0) // [N, D]
            }
            Self::Stored(table) => {
                let mut rows = Vec::with_capacity(tokens.len() * table.width); // [N, D]
                table.append(tokens.iter().copied(), 1.0, &mut rows)?;
                Tensor::from_vec(rows, (tokens.len(), table.width), &Device::Cpu)
            }
        }
    }

    /// Appends the rows of some tokens, `[N, D]`, times `scale`.
    pub(crate) fn append(
        &self,
        tokens: impl Iterator<Item = u32>,
        scale: f32,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        match self {
            Self::Tensor(table) => {
                let width = table.dim(1)?;
                with_slice(table, |table| append(table, width, tokens, scale, out))
            }
            Self::Stored(table) => table.append(tokens, scale, out),
        }
    }
}

fn append(
    table: &[f32],
    width: usize,
    tokens: impl Iterator<Item = u32>,
    scale: f32,
    out: &mut Vec<f32>,
) -> Result<()> {
    for token in tokens {
        let start = token as usize * width;
        match table.get(start..start + width) {
            Some(row) => out.extend(row.iter().map(|value| value * scale)),
            None => return no_row(token),
        }
    }
    Ok(())
}

fn no_row(token: u32) -> Result<()> {
    bail!("token {token} has no row")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of numbers, behind four other bytes.
    struct File(Vec<f32>);

    impl ReadAt for File {
        fn read_at(&self, start: u64, out: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(start).unwrap() - 4;
            let bytes: Vec<u8> = self.0.iter().flat_map(|x| x.to_le_bytes()).collect();
            match bytes.get(start..start + out.len()) {
                Some(found) => out.copy_from_slice(found),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            Ok(())
        }
    }

    fn stored(numbers: &[f32], [count, width]: [usize; 2]) -> Embedding {
        Embedding::Stored(StoredTable::new(
            Arc::new(File(numbers.to_vec())),
            4,
            count,
            width,
        ))
    }

    #[test]
    fn a_stored_table_gives_the_rows_of_a_tensor() {
        let table = crate::testing::random(&[7, 5], 3);
        let numbers: Vec<f32> = table.flatten_all().unwrap().to_vec1().unwrap();
        let tables = [stored(&numbers, [7, 5]), Embedding::Tensor(table)];
        let tokens = [6, 0, 3, 3];
        for table in tables {
            assert_eq!((table.count().unwrap(), table.width().unwrap()), (7, 5));
            let expected: Vec<f32> = tokens
                .iter()
                .flat_map(|token| &numbers[*token as usize * 5..][..5])
                .copied()
                .collect();
            let rows = table.rows(&tokens).unwrap();
            assert_eq!(rows.dims(), [4, 5]);
            assert_eq!(rows.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
            let mut doubled = vec![1.0];
            table.append(tokens.into_iter(), 2.0, &mut doubled).unwrap();
            let expected: Vec<f32> = std::iter::once(1.0)
                .chain(expected.iter().map(|x| x * 2.0))
                .collect();
            assert_eq!(doubled, expected);
            assert!(table.rows(&[7]).is_err());
            assert!(table.append([u32::MAX].into_iter(), 1.0, &mut doubled).is_err());
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        let short = stored(&[0.0; 6], [3, 3]);
        assert!(short.rows(&[0, 1]).is_ok());
        let error = short.rows(&[1, 2]).unwrap_err().to_string();
        assert!(error.contains("reading the embedding of token 2"), "{error}");
    }
}
