//! The scratch buffers of a layer.

/// Buffers that keep their size from layer to layer and from step to step, so that warm ones need no
/// allocation.
#[derive(Debug, Default)]
pub(crate) struct LayerScratch {
    /// Normed rows, `[n, D]`.
    pub(crate) normed: Vec<f32>,
    /// Queries, keys and values, `[n, 3 H Dh]`; queries alone, `[n, H Dh]`; gate and up, `[n, 2F]`.
    pub(crate) wide: Vec<f32>,
    /// Attended rows, `[n, H Dh]`, or the rows between the projections of a feed-forward network, `[n, F]`.
    pub(crate) hidden: Vec<f32>,
    /// The rows that a block adds to the residual stream, `[n, D]`.
    pub(crate) added: Vec<f32>,
}
