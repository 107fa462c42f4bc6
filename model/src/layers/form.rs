//! The two forms of a model's layers.
//!
//! | form | weights | runs on | for |
//! |---|---|---|---|
//! | [`Host`](super::host::Host) | packed for the kernels | slices of a CPU's memory, in f32 | inference |
//! | [`Graph`](super::graph::Graph) | tensors, which may be variables | any device and element type | training, GPUs |
//!
//! Stacks of layers are generic over the form, so that names of weights are listed once and a
//! layer of one form cannot meet one of the other.

use std::fmt::Debug;

use candle_core::{Result, Tensor};

use super::Weights;

/// A form: the linear layers and the norms that a model is assembled from.
pub(crate) trait Form: Debug + Sized + 'static {
    /// A linear layer.
    type Linear: LinearLayer;
    /// A norm with weights for each expert.
    type Norm: NormLayer;
    /// The element type of keys and values, where there is a choice.
    type CacheType: Copy + Debug + Default;
}

/// Multiplies rows `[N, in]` with a weight `[out, in]`, and adds a bias `[out]` where there is one.
pub(crate) trait LinearLayer: Debug + Sized {
    /// Stacks one or several weights of the same input width, `PREFIX.weight`, into one layer, with the
    /// biases beside them, `PREFIX.bias`. A kernel of a convolution without overlap is a matrix too: its last
    /// dimensions are joined.
    fn load(weights: &Weights, names: &[String]) -> Result<Self>;

    /// Returns the width of the rows that it takes.
    fn inputs(&self) -> Result<usize>;

    /// Takes `[N, in]` and returns `[N, out]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// Normalises rows and scales them, each expert with its own scale: by their root mean square, or, where
/// there is a bias to add, by mean and deviation.
pub(crate) trait NormLayer: Debug + Sized {
    /// Loads scales by their names, `PREFIX.weight`, and the biases beside them, `PREFIX.bias`, where there
    /// are any.
    fn load(weights: &Weights, names: &[String], eps: f64) -> Result<Self>;

    /// Takes `[N, D]`, of which the first `split` rows belong to the first expert.
    fn forward(&self, x: &Tensor, split: usize) -> Result<Tensor>;
}
