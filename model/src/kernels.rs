//! Kernels for the CPU, faster than candle's general operations.
//!
//! Each kernel is reached through a layer that also has a form composed of candle's own operations, and is
//! tested against it. Kernels that training needs have a backward pass.

pub(crate) mod access;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
pub(crate) mod attend;
pub(crate) mod bias;
pub(crate) mod gated;
pub(crate) mod gemm;
mod linear;
mod loss;
pub(crate) mod norm;
pub(crate) mod plan;
pub(crate) mod pool;
mod products;
mod rank;
pub(crate) mod rotary;
pub(crate) mod rows;
mod scan;
pub(crate) mod simd;
pub(crate) mod tile;
mod weigh;

use std::sync::Arc;

use candle_core::{Result, Tensor};

pub use linear::{Factor, PackedLinear, WeightType};
pub(crate) use linear::{LAYOUT, SharedBytes};
pub use pool::Pool;
pub use products::Products;
pub use rank::{Ranking, rank_rows};
pub use rows::CacheType;
pub use scan::{dequantize_f16, dequantize_int8, dot_rows};
pub use weigh::WeighedRow;

/// Sums `weight * -log softmax(logits)[target]` over the rows of `[N, V]`, a differentiable scalar.
///
/// `smoothing` (0 to 1) is the share of probability that the target gives up to the whole vocabulary.
///
/// # Errors
/// Where `targets` or `weights` do not have N entries, or a target is not below V.
pub fn cross_entropy(
    logits: &Tensor,
    targets: Vec<u32>,
    weights: Vec<f32>,
    smoothing: f32,
) -> Result<Tensor> {
    distilled_cross_entropy(logits, targets, weights, smoothing, None)
}

/// As [`cross_entropy`], with a share of the target distribution (0 to 1) that is what a teacher's logits
/// `[N, V]` say; no gradient flows to the teacher.
///
/// # Errors
/// As [`cross_entropy`], and where the teacher's logits have another shape.
pub fn distilled_cross_entropy(
    logits: &Tensor,
    targets: Vec<u32>,
    weights: Vec<f32>,
    smoothing: f32,
    teacher: Option<(&Tensor, f32)>,
) -> Result<Tensor> {
    let soft = teacher.map(|(logits, share)| -> Result<_> {
        Ok(loss::SoftTargets {
            logits: Arc::new(logits.flatten_all()?.to_vec1()?),
            share,
        })
    });
    let operation = loss::CrossEntropy {
        targets: Arc::new(targets),
        weights: Arc::new(weights),
        smoothing,
        soft: soft.transpose()?,
    };
    logits.contiguous()?.apply_op1(operation)
}

#[cfg(test)]
mod tests;
