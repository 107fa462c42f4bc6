//! The layers that encoder and decoder are assembled from.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod feed_forward;
pub(crate) mod form;
pub(crate) mod fused;
pub(crate) mod graph;
pub(crate) mod host;
pub(crate) mod positions;
pub(crate) mod scratch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::config::ModelConfig;
use crate::kernels::{PackedLinear, Products, WeightType};
use embedding::{Embedding, StoredTable};

/// Reads a weight by the name that its file has for it.
type Read<'a> = dyn Fn(&str) -> Result<Tensor> + 'a;

/// Borrows a weight that the file holds packed, by the name that the file has for it.
type ReadPacked<'a> = dyn Fn(&str) -> Result<PackedLinear> + 'a;

/// Finds a table that can stay in its file, by the name that the file has for it; none where it has to be
/// read whole.
type FindTable<'a> = dyn Fn(&str) -> Option<StoredTable> + 'a;

/// The weights by name, read on demand.
pub(crate) struct Weights<'a> {
    /// The name of each in the file.
    names: HashMap<String, String>,
    read: Box<Read<'a>>,
    /// Those that were read and stay as they are: several layers may share one.
    shared: RefCell<HashMap<String, Tensor>>,
    /// The type in which linear layers are packed, where they are.
    weight_type: WeightType,
    /// How layers that are not packed multiply in training, where they belong to it.
    products: Option<Products>,
    /// Where the file holds linear layers packed.
    packed: Option<Box<ReadPacked<'a>>>,
    /// Where tables stay in the file.
    tables: Option<Box<FindTable<'a>>>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(
        config: &ModelConfig,
        weight_type: WeightType,
        read: impl Fn(&str) -> Result<Tensor> + 'a,
    ) -> Self {
        let all = config.weights().into_iter();
        Self {
            names: all.map(|weight| (weight.name, weight.stored)).collect(),
            read: Box::new(read),
            shared: RefCell::default(),
            weight_type,
            products: None,
            packed: None,
            tables: None,
        }
    }

    /// Says how layers that are not packed multiply in training, where they belong to it.
    pub(crate) fn with_products(self, products: Option<Products>) -> Self {
        Self { products, ..self }
    }

    /// Takes the weights of linear layers from a file that holds them packed.
    pub(crate) fn with_packed(self, packed: impl Fn(&str) -> Result<PackedLinear> + 'a) -> Self {
        Self {
            packed: Some(Box::new(packed)),
            ..self
        }
    }

    /// Leaves tables in their file.
    pub(crate) fn with_tables(self, tables: impl Fn(&str) -> Option<StoredTable> + 'a) -> Self {
        Self {
            tables: Some(Box::new(tables)),
            ..self
        }
    }

    /// Borrows the weights of a linear layer that the file holds packed, stacked; none where it does not.
    pub(crate) fn packed(&self, names: &[String]) -> Result<Option<PackedLinear>> {
        let Some(packed) = &self.packed else {
            return Ok(None);
        };
        let parts = names.iter().map(|name| packed(self.stored(name)?));
        PackedLinear::joined(&parts.collect::<Result<Vec<_>>>()?).map(Some)
    }

    /// Returns the name of a weight in the file.
    fn stored(&self, name: &str) -> Result<&str> {
        match self.names.get(name) {
            Some(stored) => Ok(stored),
            None => candle_core::bail!("weight '{name}' is missing"),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Names the biases beside weights `PREFIX.weight`; none where the first has none.
    pub(crate) fn biases(&self, names: &[String]) -> Vec<String> {
        let bias = |name: &String| format!("{}.bias", name.strip_suffix(".weight").unwrap_or(name));
        let biases: Vec<_> = names.iter().map(bias).collect();
        if biases.first().is_some_and(|first| self.has(first)) {
            biases
        } else {
            Vec::new()
        }
    }

    /// Reads a weight that stays as it is, once for all layers that share it.
    pub(crate) fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = self.read(name)?;
        self.shared.borrow_mut().insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    /// Opens a table that stays in its file, or reads it.
    pub(crate) fn table(&self, name: &str) -> Result<Embedding> {
        let stored = self.stored(name)?;
        match self.tables.as_ref().and_then(|tables| tables(stored)) {
            Some(table) => Ok(Embedding::Stored(table)),
            None => self.get(name).map(Embedding::Tensor),
        }
    }

    /// Reads a weight that is converted to another form.
    pub(crate) fn read(&self, name: &str) -> Result<Tensor> {
        if let Some(tensor) = self.shared.borrow().get(name) {
            return Ok(tensor.clone());
        }
        (self.read)(self.stored(name)?)
    }
}

/// Copies the rows of some ranges, one after another, into memory of their own, so that the rest of `x` can
/// go.
pub(crate) fn copy_rows(x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    let parts = ranges.iter().map(|range| x.narrow(0, range.start, range.len()));
    match parts.collect::<Result<Vec<_>>>()?.as_slice() {
        // A contiguous view counts as contiguous, and `copy` would clone all that it is a view of.
        [only] => only.force_contiguous(),
        parts => Tensor::cat(parts, 0),
    }
}

/// Lists the experts with the rows of each, of `count` rows whose first `split` belong to the first: as
/// [`by_expert`] does, but for rows that are numbered.
pub(crate) fn of_experts<T>(
    experts: &[T],
    count: usize,
    split: usize,
) -> impl Iterator<Item = (&T, Range<usize>)> {
    let split = if experts.len() < 2 { count } else { split };
    let rows = [0..split, split..count];
    experts.iter().zip(rows).filter(|(_, rows)| !rows.is_empty())
}

/// Applies one function to the first `split` rows and another to the rest: vision and language experts.
///
/// Activations are expert-major, so that an expert is one `narrow`, and a batch of one modality costs none.
pub(crate) fn by_expert<T>(
    x: &Tensor,
    split: usize,
    experts: &[T],
    f: impl Fn(&T, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let n = x.dim(0)?;
    match experts {
        [only] => f(only, x),
        [vision, _] if split == n => f(vision, x),
        [_, language] if split == 0 => f(language, x),
        [vision, language] => {
            let vision = f(vision, &x.narrow(0, 0, split)?)?;
            let language = f(language, &x.narrow(0, split, n - split)?)?;
            Tensor::cat(&[vision, language], 0)
        }
        _ => candle_core::bail!("expected one or two experts, found {}", experts.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Storage;

    #[test]
    fn rows_of_their_own_keep_no_others_in_memory() {
        let x = crate::testing::random(&[10, 6], 1);
        let whole: Vec<Vec<f32>> = x.to_vec2().unwrap();
        for (view, from) in [(x.clone(), 0), (x.narrow(1, 2, 4).unwrap(), 2)] {
            for ranges in [vec![3..5], vec![1..2, 7..10]] {
                let own = copy_rows(&view, &ranges).unwrap();
                let width = view.dim(1).unwrap();
                let rows = ranges.iter().flat_map(Clone::clone);
                let expected: Vec<Vec<f32>> =
                    rows.map(|row| whole[row][from..from + width].to_vec()).collect();
                assert_eq!(own.to_vec2::<f32>().unwrap(), expected);
                let (storage, _) = own.storage_and_layout();
                let Storage::Cpu(storage) = &*storage else {
                    panic!("on the CPU")
                };
                assert_eq!(storage.as_slice::<f32>().unwrap().len(), own.elem_count());
            }
        }
    }
}
