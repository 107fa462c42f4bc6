//! Attention on a CUDA device by the variable-length kernels of `candle-flash-attn`, in f16 and bf16.
//!
//! Rows are gathered into the order of the plan's blocks, so that each block is one sequence of the kernel,
//! and put back afterwards. The kernel aligns a causal mask to the last query and the last key, as the plan
//! does.

use candle_core::{DType, Device, Result, Tensor};

use super::reference::rows;
use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::{AttentionPlan, Block};

/// Says whether the kernels take these queries: on CUDA, half precision, heads of at most 256 and a multiple
/// of 8.
pub(crate) fn takes(q: &Tensor, heads: usize) -> bool {
    let half = matches!(q.dtype(), DType::F16 | DType::BF16);
    let head = q.dims().last().copied().unwrap_or(0) / heads.max(1);
    matches!(q.device(), Device::Cuda(_)) && half && head.is_multiple_of(8) && (8..=256).contains(&head)
}

/// Attends from `q` `[Nq, D]` to `k` and `v` `[Nk, D]`; rows that no block names come out as zeros. `[Nq, D]`
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    plan: &AttentionPlan,
    scoring: &ScoreRule,
) -> Result<Tensor> {
    let (n, d) = q.dims2()?;
    let heads = scoring.heads;
    let device = q.device();
    let mut home = vec![0u32; n];
    let mut next = 1; // row 0 of the outputs is the zero row
    let mut outputs = vec![Tensor::zeros((1, d), q.dtype(), device)?];
    // One launch for the blocks with a causal mask, one for those without.
    for causal in [false, true] {
        let blocks: Vec<&Block> = plan
            .blocks
            .iter()
            .filter(|block| block.causal == causal)
            .collect();
        if blocks.is_empty() {
            continue;
        }
        let (queries, query_ends) = gather(&blocks, |block| &block.queries, n)?;
        let (keys, key_ends) = gather(&blocks, |block| &block.keys, k.dim(0)?)?;
        for row in &queries {
            home[*row as usize] = next;
            next += 1;
        }
        let longest_query = blocks.iter().map(|block| block.query_rows()).max().unwrap_or(0);
        let longest_key = blocks.iter().map(|block| block.key_rows()).max().unwrap_or(0);
        let heads_of = |x: &Tensor, index: &[u32]| {
            let x = x.contiguous()?.index_select(&Tensor::new(index, device)?, 0)?; // [L, D]
            x.reshape((index.len(), heads, d / heads)) // [L, H, Dh]
        };
        let attended = candle_flash_attn::flash_attn_varlen(
            &heads_of(q, &queries)?,
            &heads_of(k, &keys)?,
            &heads_of(v, &keys)?,
            &Tensor::new(query_ends, device)?,
            &Tensor::new(key_ends, device)?,
            longest_query,
            longest_key,
            scoring.scale,
            causal,
        )?; // [L, H, Dh]
        outputs.push(attended.reshape((queries.len(), d))?); // [L, D]
    }
    Tensor::cat(&outputs, 0)?.index_select(&Tensor::new(home, device)?, 0) // [Nq, D]
}

type Ranges = Vec<std::ops::Range<usize>>;

/// Lists the blocks' rows one after another, and where each block ends, starting with 0.
fn gather(
    blocks: &[&Block],
    ranges: impl Fn(&Block) -> &Ranges,
    total: usize,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut all, mut ends) = (Vec::new(), vec![0u32]);
    for block in blocks {
        all.extend(rows(ranges(block), total)?);
        ends.push(u32::try_from(all.len()).map_err(candle_core::Error::wrap)?);
    }
    Ok((all, ends))
}
