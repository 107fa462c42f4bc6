//! Points of a stack of layers whose rows can be observed.

use candle_core::{Result, Tensor};

/// A point of a stack of layers whose rows can be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// The input of the first layer.
    Embedded,
    /// The output of a layer, counted from 0.
    Layer(usize),
    /// The output of the last norm.
    Output,
}

/// Observes the rows of a stack, `[N, D]`, as they are computed.
pub(crate) type Observe<'a> = &'a mut dyn FnMut(HookPoint, &Tensor) -> Result<()>;
