//! Run-time choice of instruction sets, and the few scalar functions that kernels share.

/// Compiles one function body for AVX-512, AVX2 with FMA, and the baseline, and picks at run time.
///
/// The body is ordinary Rust: the compiler vectorises it for each instruction set.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("fma") {
                    // SAFETY: the instruction sets that the function was compiled for were just detected.
                    #[expect(unsafe_code, reason = "calls a function compiled for a detected instruction set")]
                    return unsafe { avx512($($arg),*) };
                }
                if has!("avx2") && has!("fma") {
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for a detected instruction set")]
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

pub(crate) use multiversion;

/// Prefetches into the second-level cache.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks((64 / size_of::<T>().max(1)).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has SSE, and a prefetch reads nothing.
        #[expect(unsafe_code, reason = "an instruction that has no counterpart in Rust")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Swaps rows and columns: blocks of one, two, four and eight at a time.
#[inline(always)]
pub(crate) fn transpose(block: &mut [[u32; 16]; 16]) {
    swap::<1>(block);
    swap::<2>(block);
    swap::<4>(block);
    swap::<8>(block);
}

#[inline(always)]
fn swap<const S: usize>(block: &mut [[u32; 16]; 16]) {
    for i in 0..16 {
        if i & S == 0 {
            let (a, b) = (block[i], block[i + S]);
            block[i] = std::array::from_fn(|j| if j & S == 0 { a[j] } else { b[j - S] });
            block[i + S] = std::array::from_fn(|j| if j & S == 0 { a[j + S] } else { b[j] });
        }
    }
}

/// Sums products in 16 lanes whose order depends on the length alone.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    for (x, y) in a16.iter().zip(b16) {
        for i in 0..16 {
            lanes[i] = x[i].mul_add(y[i], lanes[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Sums in 16 lanes whose order depends on the length alone.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for chunk in whole {
        for i in 0..16 {
            lanes[i] += chunk[i];
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Computes e^x to within 2 units in the last place for x in -87..88, flushing smaller x to zero.
///
/// Branch-free, so that loops over it vectorise. Method: range reduction by ln 2 in two parts and a degree-6
/// polynomial (Cephes `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // To numbers of this size whole numbers are neighbours: adding it rounds, ties to even, and leaves the
    // whole number in the low bits. A cast of `f32` to `i32` saturates, which compilers do one lane at a
    // time.
    const NEIGHBOURS: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + NEIGHBOURS;
    let n = shifted - NEIGHBOURS;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { y * scale }
}

/// Computes the derivative-friendly pieces of the tanh form of GELU: the value and its derivative.
///
/// Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), with tanh(u) = 2 sigmoid(2u) - 1.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> (f32, f32) {
    const C: f32 = 0.797_884_6;
    const A: f32 = 0.044_715;
    let u = C * x * (A * x).mul_add(x, 1.0);
    let s = 1.0 / (1.0 + exp(-2.0 * u));
    let du = C * (3.0 * A * x).mul_add(x, 1.0);
    (x * s, 2.0f32.mul_add(x * s * (1.0 - s) * du, s))
}

/// Computes the error function to within 1.5e-7.
///
/// Branch-free, so that loops over it vectorise. Method: `x p(x^2)` below 1, and `1 - exp(-q(x))` from there
/// to 4.1, beyond which it is 1 in f32; `p` and `q` interpolate at Chebyshev nodes.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let size = x.abs();
    let square = size * size;
    let mut p = 7.882_497e-5f32;
    p = p.mul_add(square, -8.018_855e-4);
    p = p.mul_add(square, 5.189_312e-3);
    p = p.mul_add(square, -2.685_432_9e-2);
    p = p.mul_add(square, 1.128_359_7e-1);
    p = p.mul_add(square, -3.761_262_7e-1);
    p = p.mul_add(square, std::f32::consts::FRAC_2_SQRT_PI);
    let near = p * size;
    let clamped = size.min(4.1);
    let mut q = 7.884_04e-8f32;
    q = q.mul_add(clamped, -3.380_869e-6);
    q = q.mul_add(clamped, 6.279_243e-5);
    q = q.mul_add(clamped, -6.881_177e-4);
    q = q.mul_add(clamped, 5.071_281e-3);
    q = q.mul_add(clamped, -2.711_025_3e-2);
    q = q.mul_add(clamped, 1.110_656_1e-1);
    q = q.mul_add(clamped, 6.309_478e-1);
    q = q.mul_add(clamped, 1.130_675_6);
    q = q.mul_add(clamped, -4.159_763e-4);
    let far = 1.0 - exp(-q);
    // A number that is none stays none.
    let value = if size >= 1.0 { far } else { near };
    value.copysign(x)
}

/// Computes the exact GELU, x times the normal distribution's integral up to x.
///
/// Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415).
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8700..8800i16 {
            let x = f32::from(i) / 100.0;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!(
                (got - want).abs() <= 3e-7 * want,
                "exp({x}) = {got}, expected {want}"
            );
        }
        assert!(exp(-1000.0) == 0.0 && exp(f32::NEG_INFINITY) == 0.0);
    }

    #[test]
    fn erf_is_accurate_over_its_range() {
        // Values of the error function at 0, 0.1, 0.5, 0.9, 1, 1.5, 2, 3 and 5: Abramowitz and Stegun, table
        // 7.1.
        let known = [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_878),
            (0.9, 0.796_908_212),
            (1.0, 0.842_700_793),
            (1.5, 0.966_105_146),
            (2.0, 0.995_322_265),
            (3.0, 0.999_977_910),
            (5.0, 1.0),
        ];
        for (x, value) in known {
            for sign in [1.0, -1.0] {
                let found = f64::from(erf(sign * x));
                let value: f64 = f64::from(sign) * value;
                assert!((found - value).abs() < 1.5e-7, "erf({x}) = {found}");
            }
        }
        assert!(erf(f32::NAN).is_nan() && gelu_erf(f32::NAN).is_nan());
        let ends = [erf(f32::INFINITY), erf(f32::NEG_INFINITY)];
        assert_eq!(ends.map(f32::to_bits), [1.0_f32, -1.0].map(f32::to_bits));
        // Its slope is that of the normal distribution.
        for i in -400..400i16 {
            let x = f64::from(i) / 100.0;
            let slope = (f64::from(erf(f32::from(i) / 100.0 + 0.01))
                - f64::from(erf(f32::from(i) / 100.0 - 0.01)))
                / 0.02;
            let expected = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp();
            assert!(
                (slope - expected).abs() < 2e-4,
                "erf'({x}) = {slope}, expected {expected}"
            );
        }
    }

    #[test]
    fn gelu_and_its_derivative_follow_the_formula() {
        let tanh_form = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh());
        for i in -80..80i8 {
            let x = f64::from(i) / 10.0;
            let (y, dy) = gelu(f32::from(i) / 10.0);
            let slope = (tanh_form(x + 1e-4) - tanh_form(x - 1e-4)) / 2e-4;
            assert!((f64::from(y) - tanh_form(x)).abs() < 2e-6, "gelu({x})");
            assert!((f64::from(dy) - slope).abs() < 2e-5, "gelu'({x})");
        }
    }
}
