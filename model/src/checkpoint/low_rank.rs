//! A weight and its low-rank change, in one operation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::kernels::access::{slice, with_slice};
use crate::kernels::{Factor, Products};

/// Changes a weight by the product of two factors: `W + scale * B A`, differentiably, on the CPU in F32.
///
/// # Shapes
/// `weight` and the result `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]`.
///
/// # Errors
/// Where the shapes do not go together.
pub fn compose(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    let scale = scale as f32;
    let (weight, a, b) = (weight.contiguous()?, a.contiguous()?, b.contiguous()?);
    weight.apply_op3(&a, &b, LowRank { scale }) // [out, in]
}

/// `W + scale * B A` of `W` `[out, in]`, `A` `[rank, in]` and `B` `[out, rank]`.
///
/// As operations of the tensor library the sum and its gradient would pass through memory several times.
struct LowRank {
    scale: f32,
}

/// Returns `[out, in, rank]`.
fn sizes(weight: &Layout, a: &Layout, b: &Layout) -> Result<[usize; 3]> {
    match (weight.dims(), a.dims(), b.dims()) {
        (&[outputs, inputs], &[rank, wide], &[high, other])
            if wide == inputs && high == outputs && other == rank =>
        {
            Ok([outputs, inputs, rank])
        }
        (weight, a, b) => bail!("factors {b:?} and {a:?} cannot change a weight {weight:?}"),
    }
}

impl CustomOp3 for LowRank {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        lw: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [outputs, inputs, rank] = sizes(lw, la, lb)?;
        let (weight, a, b) = (slice(weight, lw)?, slice(a, la)?, slice(b, lb)?);
        let mut sum = vec![0.0; outputs * inputs]; // [out, in]
        let (left, right) = (Factor::Along(b), Factor::Down(a));
        Products::F32.product(left, right, [outputs, rank, inputs], &mut sum);
        for (sum, weight) in sum.iter_mut().zip(weight) {
            *sum = *weight + self.scale * *sum;
        }
        Ok((CpuStorage::F32(sum), Shape::from((outputs, inputs))))
    }

    fn bwd(
        &self,
        weight: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [outputs, inputs, rank] = sizes(weight.layout(), a.layout(), b.layout())?;
        let product = |left: Factor<'_>, right: Factor<'_>, [rows, depth, columns]: [usize; 3]| {
            let mut product = vec![0.0; rows * columns];
            Products::F32.product(left, right, [rows, depth, columns], &mut product);
            product.iter_mut().for_each(|value| *value *= self.scale);
            Tensor::from_vec(product, (rows, columns), gradient.device())
        };
        with_slice(gradient, |dy| {
            let da = with_slice(b, |b| {
                product(Factor::Down(b), Factor::Down(dy), [rank, outputs, inputs])
            })?; // [rank, in]
            let db = with_slice(a, |a| {
                product(Factor::Along(dy), Factor::Along(a), [outputs, inputs, rank])
            })?; // [out, rank]
            let dw = weight.track_op().then(|| gradient.clone()); // [out, in]
            Ok((dw, Some(da), Some(db)))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    #[test]
    fn the_sum_and_its_gradients_are_those_of_plain_operations() {
        let device = &Device::Cpu;
        let normal = |shape| Tensor::randn(0.0_f32, 1.0, shape, device).unwrap();
        let (w, g) = (normal((7, 5)), normal((7, 5)));
        let [a, b] = [normal((3, 5)), normal((7, 3))].map(|factor| Var::from_tensor(&factor).unwrap());
        let plain = (&w + (b.matmul(&a).unwrap() * 0.5).unwrap()).unwrap();
        let fused = compose(&w, &a, &b, 0.5).unwrap();
        let gradients = |y: &Tensor| (y * &g).unwrap().sum_all().unwrap().backward().unwrap();
        let (expected, found) = (gradients(&plain), gradients(&fused));
        let close = |x: &Tensor, y: &Tensor| {
            let distance = (x - y).unwrap().abs().unwrap().flatten_all().unwrap();
            assert!(distance.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        };
        close(&plain, &fused);
        for var in [&a, &b] {
            close(expected.get(var).unwrap(), found.get(var).unwrap());
        }
    }

    #[test]
    fn factors_of_other_shapes_are_refused() {
        let zeros = |shape| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let error = compose(&zeros((7, 5)), &zeros((3, 4)), &zeros((7, 3)), 1.0).unwrap_err();
        assert!(error.to_string().contains("[3, 4]"), "{error}");
    }
}
