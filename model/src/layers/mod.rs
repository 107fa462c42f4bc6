//! The layers that encoder and decoder are assembled from.

pub(crate) mod attention;
pub(crate) mod feed_forward;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod positions;

use candle_core::{Result, Tensor};
use std::collections::HashMap;

/// The weights by name, and what to make of them.
pub(crate) struct Weights<'a> {
    pub(crate) tensors: &'a HashMap<String, Tensor>,
    /// Packs linear layers for inference on the CPU; packed layers have no gradient.
    pub(crate) packed: bool,
}

impl Weights<'_> {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
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

    pub(crate) fn get(&self, name: &str) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("weight '{name}' is missing"),
        }
    }
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
