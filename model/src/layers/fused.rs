//! The two halves of a layer as one differentiable operation each, for training on a CPU.
//!
//! ```text
//! attention:     y = x + out(inner(attend(qkv(norm(x)))))
//! feed-forward:  y = x + down(inner(gelu(gate h) * up h)),  h = norm(x)
//! ```
//!
//! Composed of candle's operations, a layer makes twenty tensors and as many gradients, each of which is
//! filled with zeros, added to and copied. Here what the gradient needs is kept, and what is cheap is
//! computed again: the normed rows, and the gated ones. The inner norms are those of Sub-LN, where a layer
//! has them. The composed form in `graph` is the specification.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::graph::{GraphLinear, GraphNorm};
use super::of_experts;
use crate::attention::cpu::{attend_rows, attention_gradient};
use crate::kernels::access::{is_cpu_f32, slice, with_slice};
use crate::kernels::bias::ScoreRule;
use crate::kernels::gated::{gated_gelu, gated_gelu_gradient};
use crate::kernels::norm::{NormWeights, normalise, rms_gradient};
use crate::kernels::plan::AttentionPlan;
use crate::kernels::{Factor, Products};

/// How a half of a layer norms and multiplies rows `[N, D]`, the first `split` of the first expert.
#[derive(Clone, Copy)]
struct Normed {
    split: usize,
    eps: f32,
    products: Products,
    /// Whether there is an inner norm.
    has_inner: bool,
}

/// The sizes of an operation.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    width: usize,
    /// Experts of the matrices.
    experts: usize,
    /// Numbers of an expert's matrices.
    numbers: usize,
}

impl Sizes {
    /// Reads `x` `[N, D]`, the norm's scales `[E, D]`, and the matrices of the experts, `[E, numbers]`.
    fn of(x: &Layout, scales: &Layout, weights: &Layout) -> Result<Self> {
        match (x.dims(), scales.dims(), weights.dims()) {
            (&[rows, width], &[1..=4, of], &[experts @ 1..=2, numbers]) if of == width => Ok(Self {
                rows,
                width,
                experts,
                numbers,
            }),
            (x, scales, weights) => bail!("a layer of rows {x:?}, scales {scales:?} and weights {weights:?}"),
        }
    }

    /// Lists the experts' rows, each with where the expert's matrices are.
    fn parts(self, split: usize) -> impl Iterator<Item = Part> {
        static EXPERTS: [usize; 2] = [0, 1];
        of_experts(&EXPERTS[..self.experts], self.rows, split).map(move |(expert, rows)| Part {
            rows: rows.len(),
            first: rows.start,
            weights: expert * self.numbers,
        })
    }
}

/// The rows of one expert.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    rows: usize,
    /// Where its matrices begin.
    weights: usize,
}

impl Part {
    /// Takes its rows of a matrix whose rows are `width` long.
    fn of<'a>(&self, values: &'a [f32], width: usize) -> &'a [f32] {
        &values[self.first * width..(self.first + self.rows) * width]
    }

    fn of_mut<'a>(&self, values: &'a mut [f32], width: usize) -> &'a mut [f32] {
        &mut values[self.first * width..(self.first + self.rows) * width]
    }
}

impl Normed {
    /// Normalises rows.
    fn rows(&self, x: &[f32], scale: &[f32], width: usize) -> Vec<f32> {
        let mut h = vec![0.0; x.len()]; // [N, D]
        let weights = NormWeights {
            scale,
            shift: None,
            width,
            eps: self.eps,
        };
        normalise(x, &weights, self.split, &mut h);
        h
    }

    /// Normalises rows by the inner norm, where there is one.
    fn inner<'a>(&self, x: Cow<'a, [f32]>, scale: &[f32], width: usize) -> Cow<'a, [f32]> {
        if self.has_inner {
            Cow::Owned(self.rows(&x, scale, width))
        } else {
            x
        }
    }

    /// Takes the gradient of normed rows back to the rows, and writes that of the scales.
    fn gradient(&self, x: &[f32], scale: &[f32], dh: &[f32], dscale: &mut [f32], width: usize) -> Vec<f32> {
        let mut dx = vec![0.0; x.len()]; // [N, D]
        rms_gradient(x, scale, dh, &mut dx, dscale, width, self.split, self.eps);
        dx
    }

    /// As [`gradient`](Self::gradient), of the inner norm, where there is one.
    fn inner_gradient(
        &self,
        x: &[f32],
        scale: &[f32],
        dh: Vec<f32>,
        dscale: &mut [f32],
        width: usize,
    ) -> Vec<f32> {
        if self.has_inner {
            self.gradient(x, scale, &dh, dscale, width)
        } else {
            dh
        }
    }
}

/// Multiplies as `products` say, into a vector of its own.
fn product(products: Products, left: Factor<'_>, right: Factor<'_>, shape: [usize; 3]) -> Vec<f32> {
    let mut made = vec![0.0; shape[0] * shape[2]];
    products.product(left, right, shape, &mut made);
    made
}

fn add(y: &mut [f32], added: &[f32]) {
    y.iter_mut().zip(added).for_each(|(y, added)| *y += added);
}

/// What a half of a layer computes with.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    x: &'a [f32],
    scales: &'a [f32],
    weights: &'a [f32],
}

/// A half of a layer: what it makes of its inputs, and the gradients of these.
trait Half: Send + Sync + 'static {
    const NAME: &'static str;

    /// Computes the rows `[N, D]`, and keeps what the gradients need.
    fn forward(&self, sizes: Sizes, inputs: Inputs<'_>) -> Result<Vec<f32>>;

    /// Returns the gradients of `x`, of the scales and of the weights, for that of the rows.
    fn gradients(&self, sizes: Sizes, inputs: Inputs<'_>, dy: &[f32]) -> Result<[Vec<f32>; 3]>;
}

/// A half of a layer as an operation.
struct Fused<H>(H);

impl<H: Half> CustomOp3 for Fused<H> {
    fn name(&self) -> &'static str {
        H::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        scales: &CpuStorage,
        ls: &Layout,
        weights: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = Inputs {
            x: slice(x, lx)?,
            scales: slice(scales, ls)?,
            weights: slice(weights, lw)?,
        };
        let y = self.0.forward(Sizes::of(lx, ls, lw)?, inputs)?; // [N, D]
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scales: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::of(x.layout(), scales.layout(), weights.layout())?;
        let [dx, dscales, dw] = with_slice(x, |x| {
            with_slice(scales, |scales| {
                with_slice(weights, |weights| {
                    let inputs = Inputs { x, scales, weights };
                    with_slice(dy, |dy| self.0.gradients(sizes, inputs, dy))
                })
            })
        })?;
        let like = |gradient: Vec<f32>, of: &Tensor| Tensor::from_vec(gradient, of.shape(), of.device());
        Ok((
            Some(like(dx, x)?),
            Some(like(dscales, scales)?),
            Some(like(dw, weights)?),
        ))
    }
}

/// The feed-forward half: each expert has gate and up, `[2F, D]`, down, `[D, F]`, and the scales of the inner
/// norm, `[F]`, where there is one.
struct FusedFeedForward {
    normed: Normed,
    /// What the gates and ups came to, `[N, 2F]`.
    wide: OnceLock<Vec<f32>>,
}

impl FusedFeedForward {
    /// Returns the inner width, F.
    fn inner(&self, sizes: Sizes) -> usize {
        sizes.numbers / (3 * sizes.width + usize::from(self.normed.has_inner)).max(1)
    }

    /// Splits an expert's weights into gate and up, down, and the inner scales.
    fn split<'a>(&self, sizes: Sizes, part: Part, weights: &'a [f32]) -> [&'a [f32]; 3] {
        let matrix = self.inner(sizes) * sizes.width;
        let own = &weights[part.weights..part.weights + sizes.numbers];
        let (gate_up, rest) = own.split_at(2 * matrix);
        let (down, scales) = rest.split_at(matrix);
        [gate_up, down, scales]
    }
}

impl Half for FusedFeedForward {
    const NAME: &'static str = "fused-feed-forward";

    fn forward(&self, sizes: Sizes, inputs: Inputs<'_>) -> Result<Vec<f32>> {
        let Inputs { x, scales, weights } = inputs;
        let (width, products) = (sizes.width, self.normed.products);
        let h = self.normed.rows(x, scales, width);
        let mut y = x.to_vec(); // [N, D]
        let inner = self.inner(sizes);
        let mut wide = Vec::with_capacity(sizes.rows * 2 * inner); // [N, 2F]
        for part in sizes.parts(self.normed.split) {
            let [gate_up, down, scale] = self.split(sizes, part, weights);
            let (n, h) = (part.rows, part.of(&h, width));
            let own = product(
                products,
                Factor::Along(h),
                Factor::Along(gate_up),
                [n, width, 2 * inner],
            );
            let mut hidden = vec![0.0; n * inner]; // [n, F]
            gated_gelu(&own, &mut hidden, inner);
            let hidden = self.normed.inner(Cow::Owned(hidden), scale, inner);
            let out = product(
                products,
                Factor::Along(&hidden),
                Factor::Along(down),
                [n, inner, width],
            );
            add(part.of_mut(&mut y, width), &out);
            wide.extend_from_slice(&own);
        }
        // Computed once; a second time it would be the same.
        self.wide.get_or_init(|| wide);
        Ok(y)
    }

    fn gradients(&self, sizes: Sizes, inputs: Inputs<'_>, dy: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Inputs { x, scales, weights } = inputs;
        let Some(wide) = self.wide.get() else {
            bail!("a feed-forward network that was not computed has no gradient")
        };
        let (width, products) = (sizes.width, self.normed.products);
        let h = self.normed.rows(x, scales, width);
        let (mut dh, mut dw, inner) = (vec![0.0; x.len()], vec![0.0; weights.len()], self.inner(sizes));
        for part in sizes.parts(self.normed.split) {
            let [gate_up, down, scale] = self.split(sizes, part, weights);
            let (h, dy, wide) = (part.of(&h, width), part.of(dy, width), part.of(wide, 2 * inner));
            let n = part.rows;
            let mut hidden = vec![0.0; n * inner]; // [n, F]
            gated_gelu(wide, &mut hidden, inner);
            let own = &mut dw[part.weights..part.weights + sizes.numbers];
            let (dgate_up, rest) = own.split_at_mut(2 * inner * width);
            let (ddown, dscale) = rest.split_at_mut(inner * width);
            let normed = self.normed.inner(Cow::Borrowed(&hidden), scale, inner);
            products.product(Factor::Down(dy), Factor::Down(&normed), [width, n, inner], ddown);
            let dnormed = product(products, Factor::Along(dy), Factor::Down(down), [n, width, inner]);
            let dhidden = self.normed.inner_gradient(&hidden, scale, dnormed, dscale, inner);
            let mut dwide = vec![0.0; n * 2 * inner]; // [n, 2F]
            gated_gelu_gradient(wide, &dhidden, &mut dwide, inner);
            products.product(
                Factor::Down(&dwide),
                Factor::Down(h),
                [2 * inner, n, width],
                dgate_up,
            );
            let dh = part.of_mut(&mut dh, width);
            products.product(
                Factor::Along(&dwide),
                Factor::Down(gate_up),
                [n, 2 * inner, width],
                dh,
            );
        }
        let mut dscales = vec![0.0; scales.len()]; // [E, D]
        let mut dx = self.normed.gradient(x, scales, &dh, &mut dscales, width);
        add(&mut dx, dy);
        Ok([dx, dscales, dw])
    }
}

/// The attention half: each expert's matrices are queries, keys and values, `[3D, D]`, then out, `[D, D]`;
/// the scales are those of the norm, and of the inner norm where there is one, `[E or 2E, D]`.
struct FusedAttention {
    normed: Normed,
    plan: Arc<AttentionPlan>,
    scoring: ScoreRule,
    /// The queries, keys and values, `[N, 3D]`, and the attended rows, `[N, D]`.
    kept: OnceLock<[Vec<f32>; 2]>,
}

impl FusedAttention {
    /// Splits an expert's matrices into queries, keys and values, and out.
    fn matrices(sizes: Sizes, part: Part, weights: &[f32]) -> (&[f32], &[f32]) {
        weights[part.weights..part.weights + sizes.numbers].split_at(3 * sizes.width * sizes.width)
    }

    /// Splits scales into those of the norm and of the inner norm.
    fn scales<'a>(&self, scales: &'a [f32]) -> [&'a [f32]; 2] {
        let (first, inner) = scales.split_at(scales.len() / if self.normed.has_inner { 2 } else { 1 });
        [first, inner]
    }
}

impl Half for FusedAttention {
    const NAME: &'static str = "fused-attention";

    fn forward(&self, sizes: Sizes, inputs: Inputs<'_>) -> Result<Vec<f32>> {
        let Inputs { x, scales, weights } = inputs;
        let (d, products) = (sizes.width, self.normed.products);
        let [scale, inner_scale] = self.scales(scales);
        let h = self.normed.rows(x, scale, d);
        let mut qkv = vec![0.0; 3 * x.len()]; // [N, 3D]
        for part in sizes.parts(self.normed.split) {
            let (own, _) = Self::matrices(sizes, part, weights);
            let (left, right) = (Factor::Along(part.of(&h, d)), Factor::Along(own));
            products.product(left, right, [part.rows, d, 3 * d], part.of_mut(&mut qkv, 3 * d));
        }
        let attended = attend_rows(&qkv, &self.plan, (sizes.rows, d), &self.scoring)?; // [N, D]
        let normed = self.normed.inner(Cow::Borrowed(&attended), inner_scale, d); // [N, D]
        let mut y = x.to_vec(); // [N, D]
        for part in sizes.parts(self.normed.split) {
            let (_, out) = Self::matrices(sizes, part, weights);
            let left = Factor::Along(part.of(&normed, d));
            let added = product(products, left, Factor::Along(out), [part.rows, d, d]);
            add(part.of_mut(&mut y, d), &added);
        }
        drop(normed);
        // Computed once; a second time it would be the same.
        self.kept.get_or_init(|| [qkv, attended]);
        Ok(y)
    }

    fn gradients(&self, sizes: Sizes, inputs: Inputs<'_>, dy: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Inputs { x, scales, weights } = inputs;
        let [scale, inner_scale] = self.scales(scales);
        let Some([qkv, attended]) = self.kept.get() else {
            bail!("attention that was not computed has no gradient")
        };
        let (d, products) = (sizes.width, self.normed.products);
        let normed = self.normed.inner(Cow::Borrowed(attended), inner_scale, d); // [N, D]
        let (mut dnormed, mut dw) = (vec![0.0; x.len()], vec![0.0; weights.len()]); // [N, D], [E, 4DD]
        for part in sizes.parts(self.normed.split) {
            let (_, out) = Self::matrices(sizes, part, weights);
            let (n, dy) = (part.rows, part.of(dy, d));
            let own = &mut dw[part.weights..part.weights + sizes.numbers];
            let (_, dout) = own.split_at_mut(3 * d * d);
            let normed = part.of(&normed, d);
            products.product(Factor::Down(dy), Factor::Down(normed), [d, n, d], dout);
            let dnormed = part.of_mut(&mut dnormed, d);
            products.product(Factor::Along(dy), Factor::Down(out), [n, d, d], dnormed);
        }
        let mut dscales = vec![0.0; scales.len()]; // [E or 2E, D]
        let (dscale, dinner) = dscales.split_at_mut(scale.len());
        let dattended = self
            .normed
            .inner_gradient(attended, inner_scale, dnormed, dinner, d);
        let dqkv = attention_gradient(qkv, &dattended, &self.plan, d, &self.scoring)?; // [N, 3D]
        let h = self.normed.rows(x, scale, d);
        let mut dh = dattended; // Every row of it is written anew.
        for part in sizes.parts(self.normed.split) {
            let (qkv, _) = Self::matrices(sizes, part, weights);
            let (n, dqkv) = (part.rows, part.of(&dqkv, 3 * d));
            let own = &mut dw[part.weights..part.weights + sizes.numbers];
            let (own, _) = own.split_at_mut(3 * d * d);
            products.product(
                Factor::Down(dqkv),
                Factor::Down(part.of(&h, d)),
                [3 * d, n, d],
                own,
            );
            let dh = part.of_mut(&mut dh, d);
            products.product(Factor::Along(dqkv), Factor::Down(qkv), [n, 3 * d, d], dh);
        }
        let mut dx = self.normed.gradient(x, scale, &dh, dscale, d);
        add(&mut dx, dy);
        Ok([dx, dscales, dw])
    }
}

/// Says how rows are normed and multiplied, where all of it can be fused: linear layers without biases that
/// belong to training, and an RMSNorm.
fn fusible(
    x: &Tensor,
    norms: &[&GraphNorm],
    split: usize,
    has_inner: bool,
    linears: &[&GraphLinear],
) -> Option<Normed> {
    let products = linears.first()?.products?;
    let are_plain = linears.iter().all(|linear| linear.biases.is_empty())
        && norms.iter().all(|norm| norm.biases.is_empty());
    if !is_cpu_f32(x) || !are_plain {
        return None;
    }
    let norm = norms.first()?;
    #[expect(clippy::cast_possible_truncation, reason = "the kernel computes in f32")]
    let eps = norm.eps as f32;
    Some(Normed {
        split,
        eps,
        products,
        has_inner,
    })
}

/// The weights of an expert: its linear layers, and the inner norm that is its own.
pub(crate) struct ExpertLayers<'a> {
    pub(crate) linears: Vec<&'a GraphLinear>,
    pub(crate) inner: Option<&'a GraphNorm>,
}

/// Puts the weights of experts side by side, `[E, numbers]`.
fn flattened(experts: &[ExpertLayers<'_>]) -> Result<Tensor> {
    let mut numbers = Vec::new();
    for expert in experts {
        let weights = expert.linears.iter().flat_map(|linear| &linear.weights);
        let scales = expert.inner.into_iter().flat_map(|norm| &norm.scales);
        for weight in weights.chain(scales) {
            numbers.push(weight.flatten_all()?);
        }
    }
    Tensor::cat(&numbers, 0)?.reshape((experts.len(), ())) // [E, numbers]
}

fn linears<'a>(experts: &[ExpertLayers<'a>]) -> Vec<&'a GraphLinear> {
    experts
        .iter()
        .flat_map(|expert| &expert.linears)
        .copied()
        .collect()
}

/// Adds attention to rows `x` `[N, D]`, as one operation where it can be: projections `qkv` `[3D, D]` and
/// `out` `[D, D]`, of each expert.
pub(crate) fn attention(
    x: &Tensor,
    norm: &GraphNorm,
    inner: Option<&GraphNorm>,
    split: usize,
    experts: &[ExpertLayers<'_>],
    (plan, scoring): (&Arc<AttentionPlan>, &ScoreRule),
) -> Option<Result<Tensor>> {
    let norms: Vec<&GraphNorm> = std::iter::once(norm).chain(inner).collect();
    let normed = fusible(x, &norms, split, inner.is_some(), &linears(experts))?;
    let width = x.dim(1).ok()?;
    let is_square = |expert: &ExpertLayers<'_>| {
        let outputs = expert.linears.iter().map(|linear| linear.outputs());
        outputs.eq([Some(3 * width), Some(width)])
    };
    let same_experts = |norm: &&GraphNorm| norm.scales.len() == norms[0].scales.len();
    if !experts.iter().all(is_square) || !norms.iter().all(same_experts) {
        return None;
    }
    let operation = FusedAttention {
        normed,
        plan: Arc::clone(plan),
        scoring: scoring.clone(),
        kept: OnceLock::new(),
    };
    Some(apply(x, &norms, experts, operation))
}

/// Adds a gated feed-forward network to rows `x` `[N, D]`, as one operation where it can be: `input`
/// `[2F, D]` and `down` `[D, F]`, of each expert, with an inner norm or without.
pub(crate) fn feed_forward(
    x: &Tensor,
    norm: &GraphNorm,
    split: usize,
    experts: &[ExpertLayers<'_>],
) -> Option<Result<Tensor>> {
    let inner: Vec<&GraphNorm> = experts.iter().filter_map(|expert| expert.inner).collect();
    let norms: Vec<&GraphNorm> = std::iter::once(norm).chain(inner.iter().copied()).collect();
    let has_inner = inner.len() == experts.len();
    let normed = fusible(x, &norms, split, has_inner, &linears(experts))?;
    // All experts have an inner norm of one row of scales, or none has any.
    if !(has_inner || inner.is_empty()) || inner.iter().any(|norm| norm.scales.len() != 1) {
        return None;
    }
    let operation = FusedFeedForward {
        normed,
        wide: OnceLock::new(),
    };
    Some(apply(x, &[norm], experts, operation))
}

fn apply(x: &Tensor, norms: &[&GraphNorm], experts: &[ExpertLayers<'_>], half: impl Half) -> Result<Tensor> {
    let scales = norms.iter().map(|norm| norm.stacked());
    let scales = match scales.collect::<Result<Vec<_>>>()?.as_slice() {
        [only] => only.clone(),      // [E, D]
        all => Tensor::cat(all, 0)?, // [2E, D]
    };
    x.contiguous()?
        .apply_op3(&scales, &flattened(experts)?, Fused(half))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Var};

    use super::*;
    use crate::batch::{EncoderBatch, EncoderSample};
    use crate::config::ModelConfig;
    use crate::image::ProcessedImage;
    use crate::init::initialise;
    use crate::model::Model;
    use crate::testing::{random, tiny_config};

    /// Differentiates a sum over the encoder's rows: the rows, and the gradient of each variable.
    fn gradients(
        config: &ModelConfig,
        vars: &[(String, Var)],
        products: Option<Products>,
        samples: &[EncoderSample<'_>],
    ) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
        let tensors: HashMap<String, Tensor> = vars
            .iter()
            .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
            .collect();
        let model = match products {
            Some(products) => Model::for_training(config, &tensors, products),
            None => Model::from_tensors(config, &tensors),
        };
        let batch = EncoderBatch::new(config, samples).unwrap();
        let hidden = model.unwrap().encode(&batch).unwrap().hidden; // [N, D]
        let weighed = (&hidden * random(hidden.dims(), 4)).unwrap();
        let store = weighed.sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all = vars.iter().map(|(_, var)| store.get(var).map(flat));
        (flat(&hidden), all.collect())
    }

    fn assert_near(what: &str, found: &[f32], expected: &[f32], share: f32) {
        let size = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        for (found, expected) in found.iter().zip(expected) {
            let far = (found - expected).abs();
            assert!(far <= share * size + 1e-6, "{what}: {found}, expected {expected}");
        }
        assert_eq!(found.len(), expected.len(), "{what}");
    }

    #[test]
    fn a_fused_layer_is_the_composed_one_with_its_gradients() {
        let pixels: Vec<f32> = (0..3 * 16 * 16u16)
            .map(|i| f32::from(i % 23) / 23.0 - 0.5)
            .collect();
        let (pictures, words) = ([ProcessedImage::from_pixels(pixels)], [4, 5, 6, 1]);
        let both = EncoderSample {
            images: &pictures,
            tokens: &words,
        };
        let text = EncoderSample {
            images: &[],
            tokens: &words,
        };
        let mut doubled = tiny_config();
        doubled.shared_attention = false;
        let mut plain = tiny_config();
        plain.encoder.sub_norm = false;
        for config in [tiny_config(), doubled, plain] {
            let vars: Vec<(String, Var)> = initialise(&config, 3, &Device::Cpu)
                .unwrap()
                .into_iter()
                .enumerate()
                .map(|(at, (name, tensor))| {
                    // Scales that differ: those of ones would hide which is which.
                    let noise = (random(tensor.dims(), at as u64) * 0.2).unwrap();
                    (name, Var::from_tensor(&(tensor + noise).unwrap()).unwrap())
                })
                .collect();
            for samples in [vec![both, text], vec![text], vec![both]] {
                let expected = gradients(&config, &vars, None, &samples);
                for (products, share) in [(Products::F32, 1e-4), (Products::Bf16, 0.06)] {
                    let found = gradients(&config, &vars, Some(products), &samples);
                    assert_near("rows", &found.0, &expected.0, share);
                    for (((name, _), found), expected) in vars.iter().zip(&found.1).zip(&expected.1) {
                        match (found, expected) {
                            (Some(found), Some(expected)) => assert_near(name, found, expected, share),
                            // What took no part has no gradient, or zeros of one.
                            (one, other) => {
                                let mut numbers = one.iter().chain(other).flatten();
                                assert!(numbers.all(|number| *number == 0.0), "{name}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_gradient_is_the_slope_of_the_fused_layer() {
        let config = tiny_config();
        let vars: Vec<(String, Var)> = initialise(&config, 5, &Device::Cpu)
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
            .collect();
        let words = [7, 8, 9, 10, 1];
        let samples = [EncoderSample {
            images: &[],
            tokens: &words,
        }];
        let (_, slopes) = gradients(&config, &vars, Some(Products::F32), &samples);
        let value = || {
            let (rows, _) = gradients(&config, &vars, Some(Products::F32), &samples);
            let weights = random(&[words.len(), config.hidden_size], 4);
            let weights: Vec<f32> = weights.flatten_all().unwrap().to_vec1().unwrap();
            rows.iter()
                .zip(&weights)
                .map(|(x, w)| f64::from(x * w))
                .sum::<f64>()
        };
        let mut checked = 0;
        for ((name, var), slope) in vars.iter().zip(&slopes) {
            let Some(slope) = slope.as_ref().filter(|_| name.contains("layers.0")) else {
                continue;
            };
            // Where the slope is steepest, rounding tells least.
            let steepest = |a: &usize, b: &usize| slope[*a].abs().total_cmp(&slope[*b].abs());
            let at = (0..slope.len()).max_by(steepest).unwrap();
            // The other expert took no part.
            if slope[at] == 0.0 {
                continue;
            }
            checked += 1;
            let before = var.as_tensor().copy().unwrap();
            let moved = |step: f32| {
                let mut values: Vec<f32> = before.flatten_all().unwrap().to_vec1().unwrap();
                values[at] += step;
                var.set(&Tensor::from_vec(values, before.shape(), &Device::Cpu).unwrap())
                    .unwrap();
                value()
            };
            let step = 1e-2;
            let found = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            var.set(&before).unwrap();
            let slope = f64::from(slope[at]);
            assert!(
                (found - slope).abs() < 3e-2 * slope.abs(),
                "{name}: {found}, expected {slope}"
            );
        }
        assert!(checked >= 8, "{checked} variables");
    }
}
