//! Linear layers of training, whose products are of factors rounded to `bf16`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::access::{is_cpu_f32, slice, with_slice};
use super::gemm::{Matrix, MatrixMut, multiply};
use super::linear::{Factor, multiplies_bf16, multiply_rounded};

/// How the products of linear layers are computed in training. Weights, sums and what is between layers are
/// `f32` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Products {
    /// Of factors as they are.
    #[default]
    F32,
    /// Of factors rounded to `bf16`, forward and backward. On a CPU alone; elsewhere as [`Products::F32`].
    Bf16,
}

impl Products {
    /// Chooses what is fastest on this machine: `bf16` where the processor multiplies it faster than `f32`.
    #[must_use]
    pub fn fastest() -> Self {
        if multiplies_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Multiplies two matrices into `product`, `[rows, outputs]`: each number is a sum of `depth` products.
    ///
    /// # Shapes
    /// `left`: `[rows, depth]` along, `[depth, rows]` down. `right`: `[outputs, depth]` along,
    /// `[depth, outputs]` down.
    ///
    /// # Panics
    /// When a slice does not have as many numbers as its shape says.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::kernels::{Factor, Products};
    ///
    /// let (rows, weights) = ([1.0, 2.0, 3.0, 4.0], [0.5, 1.0]); // [2, 2], [1, 2]
    /// let mut product = [0.0; 2];
    /// let shape = [2, 2, 1];
    /// Products::fastest().product(Factor::Along(&rows), Factor::Along(&weights), shape, &mut product);
    /// assert_eq!(product, [2.5, 5.5]);
    /// ```
    pub fn product(
        self,
        left: Factor<'_>,
        right: Factor<'_>,
        [rows, depth, outputs]: [usize; 3],
        product: &mut [f32],
    ) {
        assert!(left.numbers() == rows * depth && right.numbers() == outputs * depth);
        assert!(product.len() == rows * outputs);
        if self == Self::Bf16 {
            return multiply_rounded(left, right, [rows, depth, outputs], product);
        }
        let left = match left {
            Factor::Along(values) => Matrix::whole(values, rows, depth),
            Factor::Down(values) => Matrix::whole(values, depth, rows).transposed(),
        };
        let right = match right {
            Factor::Along(values) => Matrix::whole(values, outputs, depth).transposed(),
            Factor::Down(values) => Matrix::whole(values, depth, outputs),
        };
        multiply(&mut MatrixMut::whole(product, rows, outputs), left, right, false);
    }

    /// Multiplies `x` `[N, in]` with the transpose of `weight` `[out, in]`, differentiably: `[N, out]`.
    pub(crate) fn multiply(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self {
            Self::Bf16 if is_cpu_f32(x) => x.contiguous()?.apply_op2(&weight.contiguous()?, RoundedLinear),
            _ => x.matmul(&weight.t()?), // [N, out]
        }
    }
}

/// `y = x wᵀ` of `x` `[N, in]` and `w` `[out, in]`, with both rounded to `bf16`.
struct RoundedLinear;

/// Returns `[N, in, out]`.
fn sizes(x: &Layout, w: &Layout) -> Result<[usize; 3]> {
    match (x.dims(), w.dims()) {
        (&[n, inputs], &[outputs, width]) if width == inputs => Ok([n, inputs, outputs]),
        (x, w) => bail!("a linear layer cannot multiply {x:?} with the transpose of {w:?}"),
    }
}

impl CustomOp2 for RoundedLinear {
    fn name(&self) -> &'static str {
        "rounded-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [n, inputs, outputs] = sizes(lx, lw)?;
        let mut y = vec![0.0; n * outputs]; // [N, out]
        let (x, w) = (Factor::Along(slice(x, lx)?), Factor::Along(slice(w, lw)?));
        multiply_rounded(x, w, [n, inputs, outputs], &mut y);
        Ok((CpuStorage::F32(y), Shape::from((n, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [n, inputs, outputs] = sizes(x.layout(), w.layout())?;
        let product = |left: Factor<'_>, right: Factor<'_>, [rows, depth, columns]: [usize; 3]| {
            let mut product = vec![0.0; rows * columns];
            multiply_rounded(left, right, [rows, depth, columns], &mut product);
            Tensor::from_vec(product, (rows, columns), x.device())
        };
        with_slice(dy, |dy| {
            // Pixels need no gradient.
            let dx = x.track_op().then(|| {
                with_slice(w, |w| {
                    product(Factor::Along(dy), Factor::Down(w), [n, outputs, inputs])
                }) // [N, in]
            });
            let dw = w.track_op().then(|| {
                with_slice(x, |x| {
                    product(Factor::Down(dy), Factor::Down(x), [outputs, n, inputs])
                }) // [out, in]
            });
            Ok((dx.transpose()?, dw.transpose()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use half::bf16;

    use super::*;

    fn rounded(x: &Tensor) -> Tensor {
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f32> = values.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        Tensor::from_vec(values, x.shape(), x.device()).unwrap()
    }

    fn assert_close(found: &Tensor, expected: &Tensor) {
        let distance = (found - expected).unwrap().abs().unwrap();
        let most: f32 = distance
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar()
            .unwrap();
        assert!(most < 1e-4, "{most}");
    }

    #[test]
    fn products_and_gradients_are_those_of_rounded_factors() {
        let device = &Device::Cpu;
        let normal = |shape| Tensor::randn(0.0_f32, 1.0, shape, device).unwrap();
        for (n, inputs, outputs) in [(1, 1, 1), (37, 19, 45), (64, 64, 48), (3, 130, 17)] {
            let (x, w) = (
                Var::from_tensor(&normal((n, inputs))).unwrap(),
                Var::from_tensor(&normal((outputs, inputs))).unwrap(),
            );
            let g = rounded(&normal((n, outputs)));
            let y = Products::Bf16.multiply(&x, &w).unwrap();
            let (x_rounded, w_rounded) = (rounded(&x), rounded(&w));
            assert_close(&y, &x_rounded.matmul(&w_rounded.t().unwrap()).unwrap());
            let gradients = (y * &g).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(gradients.get(&x).unwrap(), &g.matmul(&w_rounded).unwrap());
            assert_close(
                gradients.get(&w).unwrap(),
                &g.t().unwrap().matmul(&x_rounded).unwrap(),
            );
        }
    }

    #[test]
    fn what_is_no_variable_has_no_gradient() {
        let device = &Device::Cpu;
        let x = Tensor::ones((2, 3), candle_core::DType::F32, device).unwrap();
        let w = Var::from_tensor(&Tensor::ones((4, 3), candle_core::DType::F32, device).unwrap()).unwrap();
        let y = Products::Bf16.multiply(&x, &w).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_none() && gradients.get(&w).is_some());
    }

    #[test]
    fn shapes_that_do_not_go_together_are_refused() {
        let ones = |shape| Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = Products::Bf16.multiply(&ones((2, 3)), &ones((4, 2))).unwrap_err();
        assert!(error.to_string().contains("[2, 3]"), "{error}");
    }
}
