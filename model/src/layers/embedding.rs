//! Tables of which tokens name rows.

use crate::kernels::SharedBytes;
use crate::kernels::access::{is_cpu_f32, with_slice};
use candle_core::{DType, Device, Result, Tensor, bail};

/// A table `[V, D]` of which a token names a row.
#[derive(Debug)]
pub(crate) enum Embedding {
    Tensor(Tensor),
    Mapped(MappedTable),
}

/// A table of `f32` numbers in a file that is mapped: only what lies around rows that somebody asked for takes memory.
#[derive(Debug)]
pub(crate) struct MappedTable {
    bytes: SharedBytes,
    /// How many rows there are, V.
    count: usize,
    /// How many numbers a row has, D.
    width: usize,
}

impl MappedTable {
    /// Takes bytes as `[count, width]`; none where they have another length, or are not where `f32` numbers can be.
    pub(crate) fn new(bytes: SharedBytes, count: usize, width: usize) -> Option<Self> {
        let numbers = bytes.numbers()?.len();
        (count.checked_mul(width) == Some(numbers)).then_some(Self { bytes, count, width })
    }

    fn numbers(&self) -> &[f32] {
        self.bytes.numbers().unwrap_or_default()
    }
}

impl Embedding {
    /// Counts the rows, V.
    pub(crate) fn count(&self) -> Result<usize> {
        match self {
            Self::Tensor(table) => table.dim(0),
            Self::Mapped(table) => Ok(table.count),
        }
    }

    /// Counts the numbers of a row, D.
    pub(crate) fn width(&self) -> Result<usize> {
        match self {
            Self::Tensor(table) => table.dim(1),
            Self::Mapped(table) => Ok(table.width),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Tensor(table) => table.device(),
            Self::Mapped(_) => &Device::Cpu,
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Tensor(table) => table.dtype(),
            Self::Mapped(_) => DType::F32,
        }
    }

    /// Tells whether [`Embedding::append`] can read it.
    pub(crate) fn takes_slices(&self) -> bool {
        match self {
            Self::Tensor(table) => is_cpu_f32(table),
            Self::Mapped(_) => true,
        }
    }

    /// Looks up the rows of some tokens, `[N, D]`.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Result<Tensor> {
        match self {
            Self::Tensor(table) => {
                let tokens = Tensor::from_slice(tokens, tokens.len(), table.device())?; // [N]
                table.index_select(&tokens, 0) // [N, D]
            }
            Self::Mapped(table) => {
                let mut rows = Vec::with_capacity(tokens.len() * table.width); // [N, D]
                append(
                    table.numbers(),
                    table.width,
                    tokens.iter().copied(),
                    1.0,
                    &mut rows,
                )?;
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
        let width = self.width()?;
        match self {
            Self::Tensor(table) => with_slice(table, |table| append(table, width, tokens, scale, out)),
            Self::Mapped(table) => append(table.numbers(), width, tokens, scale, out),
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
            None => bail!("token {token} has no row"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Numbers as the bytes of a file.
    struct File(Vec<f32>);

    impl AsRef<[u8]> for File {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    fn mapped(numbers: &[f32], [count, width]: [usize; 2]) -> Option<MappedTable> {
        let bytes = SharedBytes::new(Arc::new(File(numbers.to_vec())), 0..numbers.len() * 4).unwrap();
        MappedTable::new(bytes, count, width)
    }

    #[test]
    fn a_mapped_table_gives_the_rows_of_a_tensor() {
        let table = crate::testing::random(&[7, 5], 3);
        let numbers: Vec<f32> = table.flatten_all().unwrap().to_vec1().unwrap();
        let tables = [
            Embedding::Mapped(mapped(&numbers, [7, 5]).unwrap()),
            Embedding::Tensor(table),
        ];
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
    fn bytes_that_are_no_such_table_are_left_alone() {
        assert!(mapped(&[0.0; 6], [2, 3]).is_some());
        assert!(mapped(&[0.0; 6], [2, 4]).is_none());
        assert!(mapped(&[0.0; 6], [usize::MAX, 3]).is_none());
        let odd = SharedBytes::new(Arc::new(File(vec![0.0; 6])), 1..9).unwrap();
        assert!(MappedTable::new(odd, 1, 2).is_none());
    }
}
