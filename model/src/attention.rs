//! Attention over packed rows: one interface, several implementations.
//!
//! Rows of many samples lie in one `[N, D]` tensor; an [`AttentionPlan`] says which rows see which. The
//! implementations are chosen by device and number type:
//!
//! | implementation | where | differentiable |
//! |---|---|---|
//! | `reference` | anywhere | yes: composed of candle's operations; the specification |
//! | `cpu` | f32 on a CPU | yes: ragged, no padding, no copies of the projections |
//! | `flash` | f16 and bf16 on CUDA, with the feature `flash-attn` | no |

pub(crate) mod cpu;
#[cfg(feature = "flash-attn")]
pub(crate) mod flash;
pub(crate) mod reference;

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::kernels::access::is_cpu_f32;
use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::AttentionPlan;

/// Attends within one fused projection `[N, 3D]` (query, key, value), giving `[N, D]`.
pub(crate) fn self_attention(qkv: &Tensor, plan: &Arc<AttentionPlan>, scoring: &ScoreRule) -> Result<Tensor> {
    if is_cpu_f32(qkv) {
        return qkv.contiguous()?.apply_op1(cpu::SelfAttention {
            plan: Arc::clone(plan),
            scoring: scoring.clone(),
        });
    }
    let d = qkv.dim(1)? / 3;
    let (q, k, v) = (
        qkv.narrow(1, 0, d)?,
        qkv.narrow(1, d, d)?,
        qkv.narrow(1, 2 * d, d)?,
    ); // each [N, D]
    composed(&q, &k, &v, plan, scoring)
}

/// Attends from queries `[Nq, D]` to fused keys and values `[Nk, 2D]`, giving `[Nq, D]`.
pub(crate) fn cross_attention(
    q: &Tensor,
    kv: &Tensor,
    plan: &Arc<AttentionPlan>,
    scoring: &ScoreRule,
) -> Result<Tensor> {
    if is_cpu_f32(q) && is_cpu_f32(kv) {
        let operation = cpu::CrossAttention {
            plan: Arc::clone(plan),
            scoring: scoring.clone(),
        };
        return q.contiguous()?.apply_op2(&kv.contiguous()?, operation);
    }
    let d = kv.dim(1)? / 2;
    composed(q, &kv.narrow(1, 0, d)?, &kv.narrow(1, d, d)?, plan, scoring)
}

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, plan: &AttentionPlan, scoring: &ScoreRule) -> Result<Tensor> {
    #[cfg(feature = "flash-attn")]
    if scoring.bias.is_none() && flash::takes(q, scoring.heads) {
        return flash::attend(q, k, v, plan, scoring);
    }
    reference::attend(q, k, v, plan, scoring)
}

#[cfg(test)]
mod tests;
