//! Every kernel against the definition, to the last bit.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;

/// Numbers of mixed sizes and signs, whose sums round at nearly every step.
#[expect(clippy::cast_possible_truncation, reason = "test values are f32")]
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let unit = f64::from((state >> 40) as u32) / f64::from(1 << 24) - 0.5;
            unit as f32 * [1.0, 0.01, 30.0][(state % 3) as usize]
        })
        .collect()
}

/// The definitions in the modules' documentation, as written.
fn specified(
    weights: WeightType,
    x: &[f32],
    weight: &[f32],
    [rows, outputs, inputs]: [usize; 3],
) -> Vec<f32> {
    let definition = match weights {
        WeightType::F32 => single::specified,
        WeightType::Bf16 => bfloat::specified,
        WeightType::Int8 => int8::specified,
    };
    definition(x, weight, rows, outputs, inputs)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(rows: usize, outputs: usize, inputs: usize) {
    let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
    for weights in WeightType::ALL {
        let expected = specified(weights, &x, &weight, [rows, outputs, inputs]);
        let mut linear = PackedLinear::new(&weight, outputs, inputs, weights).unwrap();
        for kernel in weights.kernels() {
            linear.kernel = kernel;
            // A value that is never right shows what was not written.
            let mut y = vec![f32::NAN; rows * outputs];
            linear.forward(&x, rows, &mut y).unwrap();
            assert!(
                bits(&y) == bits(&expected),
                "{weights}, {kernel:?}: [{rows}, {inputs}] to {outputs}"
            );
        }
    }
}

/// Applies a layer whose weights are 16 or 8 bits, with every kernel, and gives the one result.
fn forward(linear: &mut PackedLinear, x: &[f32], rows: usize) -> Vec<f32> {
    let mut results = linear.weights().kernels().map(|kernel| {
        linear.kernel = kernel;
        let mut y = vec![f32::NAN; rows * linear.outputs()];
        linear.forward(x, rows, &mut y).unwrap();
        y
    });
    let first = results.next().unwrap();
    for other in results {
        let same = first
            .iter()
            .zip(&other)
            .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
        assert!(same, "kernels differ: {first:?} and {other:?}");
    }
    first
}

/// What the tests below run on: the matrix unit is emulated where a machine has all that the kernel needs but
/// the unit.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
#[test]
fn the_matrix_unit_is_tested_wherever_there_is_avx512() {
    let names: Vec<_> = WeightType::Int8.kernels().map(|kernel| kernel.name).collect();
    assert_eq!(names.contains(&"amx"), names.contains(&"avx512vnni"), "{names:?}");
}

#[test]
fn every_instruction_set_gives_the_defined_bits_for_every_tile() {
    for rows in 0..=27 {
        for outputs in [0, 1, 15, 16, 17, 33, 64, 100, 130, 145] {
            check(rows, outputs, 19);
        }
    }
    // Several tiles of a block, and several blocks.
    for rows in (28..150).chain([193, 205, 241]) {
        check(rows, 49, 3);
    }
}

#[test]
fn every_instruction_set_gives_the_defined_bits_for_odd_depths() {
    for inputs in [0, 1, 2, 7, 16, 129, 513] {
        check(1, 150, inputs);
        check(14, 40, inputs);
    }
}

#[test]
fn work_shared_out_over_threads_gives_the_defined_bits() {
    let work = || {
        check(1, 4_099, 260);
        check(199, 83, 70);
        check(2, 900, 601);
        check(130, 420, 260);
    };
    std::sync::Arc::new(crate::kernels::Pool::new(3)).install(work);
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    rayon.install(work);
}

#[test]
fn a_row_is_the_same_bits_alone_and_in_any_batch() {
    let (rows, outputs, inputs) = (230, 72, 150);
    let (x, weight) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 4));
    for weights in WeightType::ALL {
        let linear = PackedLinear::new(&weight, outputs, inputs, weights).unwrap();
        let mut together = vec![0.0; rows * outputs];
        linear.forward(&x, rows, &mut together).unwrap();
        for (row, expected) in x.chunks(inputs).zip(together.chunks(outputs)) {
            let mut alone = vec![0.0; outputs];
            linear.forward(row, 1, &mut alone).unwrap();
            assert_eq!(bits(&alone), bits(expected), "{weights}");
        }
    }
}

/// Shows that the tests above can fail: another order of summation does change the bits.
#[test]
fn summing_in_two_halves_gives_other_bits() {
    let inputs = 256;
    let (x, weight) = (numbers(inputs, 5), numbers(64 * inputs, 6));
    let whole = single::specified(&x, &weight, 1, 64, inputs);
    let halves: Vec<f32> = weight
        .chunks(inputs)
        .map(|w| {
            let (low, high) = (
                single::specified(&x[..128], &w[..128], 1, 1, 128),
                single::specified(&x[128..], &w[128..], 1, 1, 128),
            );
            low[0] + high[0]
        })
        .collect();
    assert_ne!(bits(&whole), bits(&halves));
}

/// A sum of products that all but cancel is the smallest that there can be, and not taken as zero.
#[test]
fn every_instruction_set_gives_the_smallest_sum() {
    let unit = 2.0_f32.powi(-56);
    let step = |bits: i32| unit * (1.0 + 2.0_f32.powi(bits));
    let (x, w) = ([step(-7), step(-6)], [step(-7), -unit]);
    let mut linear = PackedLinear::new(&w, 1, 2, WeightType::Bf16).unwrap();
    for kernel in WeightType::Bf16.kernels() {
        linear.kernel = kernel;
        let mut y = [f32::NAN];
        linear.forward(&x, 1, &mut y).unwrap();
        assert_eq!(y.map(f32::to_bits), [f32::MIN_POSITIVE.to_bits()], "{kernel:?}");
    }
}

#[test]
fn tensors_of_any_rank_and_layout_can_be_multiplied() {
    let x = Tensor::from_vec(numbers(2 * 3 * 5, 7), (2, 3, 5), &Device::Cpu).unwrap();
    let weight = Tensor::from_vec(numbers(4 * 5, 8), (4, 5), &Device::Cpu).unwrap();
    let linear = PackedLinear::from_tensor(&weight, WeightType::F32).unwrap();
    let y = linear.apply(&x).unwrap();
    assert_eq!(y.dims(), [2, 3, 4]);
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = single::specified(&values(&x), &values(&weight), 6, 4, 5);
    assert_eq!(bits(&values(&y)), bits(&expected));
    let middle = linear.apply(&x.narrow(1, 1, 2).unwrap()).unwrap(); // [2, 2, 4]
    assert_eq!(bits(&values(&middle)), bits(&values(&y.narrow(1, 1, 2).unwrap())));
}

#[test]
fn a_half_precision_tensor_is_packed_as_its_values_in_single_precision() {
    let tensor = Tensor::from_vec(numbers(4 * 5, 9), (4, 5), &Device::Cpu)
        .unwrap()
        .to_dtype(DType::BF16)
        .unwrap();
    let words = |linear: PackedLinear| linear.panels.iter().flat_map(|line| line.0).collect::<Vec<_>>();
    for weights in WeightType::ALL {
        let half = PackedLinear::from_tensor(&tensor, weights).unwrap();
        let single = PackedLinear::from_tensor(&tensor.to_dtype(DType::F32).unwrap(), weights).unwrap();
        assert_eq!(words(half), words(single), "{weights}");
    }
}

#[test]
fn stacked_weights_are_one_layer_whose_outputs_follow_each_other() {
    let parts = [(5, 10), (16, 11), (12, 12)];
    let values = parts.map(|(outputs, seed)| numbers(outputs * 9, seed));
    let tensors: Vec<_> = std::iter::zip(&parts, &values)
        .map(|((outputs, _), values)| Tensor::from_slice(values, (*outputs, 9), &Device::Cpu).unwrap())
        .collect();
    let x = numbers(9, 13);
    for weights in WeightType::ALL {
        let mut stacked = PackedLinear::stacked(&tensors, weights).unwrap();
        let expected = specified(weights, &x, &values.concat(), [1, 33, 9]);
        assert_eq!(bits(&forward(&mut stacked, &x, 1)), bits(&expected), "{weights}");
    }
}

#[test]
fn narrow_weights_take_a_half_and_a_quarter_of_the_bytes() {
    let weight = vec![1.0; 768 * 96];
    let bytes = WeightType::ALL.map(|kind| PackedLinear::new(&weight, 96, 768, kind).unwrap().bytes());
    assert_eq!(bytes, [768 * 96 * 4, 768 * 96 * 2, 768 * 96 + 96 * 8]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let message = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let short = PackedLinear::new(&[1.0; 5], 2, 3, WeightType::F32).unwrap_err();
    assert_eq!(
        message(short),
        "a linear weight of [2, 3] needs as many values, found 5"
    );
    let linear = PackedLinear::new(&[1.0; 6], 2, 3, WeightType::F32).unwrap();
    let x = linear.forward(&[0.0; 4], 1, &mut [0.0; 2]).unwrap_err();
    assert_eq!(
        message(x),
        "a linear layer of 3 inputs needs x [1, 3], found 4 values"
    );
    let y = linear.forward(&[0.0; 3], 1, &mut [0.0; 3]).unwrap_err();
    assert_eq!(
        message(y),
        "a linear layer of 2 outputs needs y [1, 2], found 3 values"
    );
    let wide = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        message(linear.apply(&wide).unwrap_err()),
        "a linear layer of 3 inputs cannot read a tensor of [2, 4]"
    );
    let double = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    assert!(message(linear.apply(&double).unwrap_err()).contains("F64"));
    let deep = PackedLinear::new(&vec![1.0; 65_537], 1, 65_537, WeightType::Int8).unwrap_err();
    assert_eq!(
        message(deep),
        "a linear layer of 65537 inputs is too wide for int8 weights: expected at most 65536"
    );
}

/// The widest layer of the largest numbers, of the same signs and of alternating ones.
#[test]
fn sums_of_8_bit_products_neither_overflow_nor_saturate() {
    let inputs = int8::MAX_INPUTS;
    let ones = vec![1.0_f32; inputs];
    let alternating: Vec<f32> = (0..inputs).map(|k| if k % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let negative = vec![-1.0_f32; inputs];
    let weight = [ones.as_slice(), &negative, &alternating].concat();
    let mut linear = PackedLinear::new(&weight, 3, inputs, WeightType::Int8).unwrap();
    for (x, signs) in [
        (&ones, [1, -1, 0]),
        (&negative, [-1, 1, 0]),
        (&alternating, [0, 0, 1]),
    ] {
        let sum = 127 * 127 * i32::try_from(inputs).unwrap();
        let scale = 1.0_f32 / 127.0;
        let expected = signs.map(|sign| (sign * sum) as f32 * scale * scale);
        assert_eq!(bits(&forward(&mut linear, x, 1)), bits(&expected));
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nan_and_leaves_others_alone() {
    let (rows, outputs, inputs) = (3, 20, 70);
    let weight = numbers(outputs * inputs, 14);
    let mut linear = PackedLinear::new(&weight, outputs, inputs, WeightType::Int8).unwrap();
    let x = numbers(rows * inputs, 15);
    let clean = forward(&mut linear, &x, rows);
    for strange in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = x.clone();
        x[inputs + 33] = strange;
        let y = forward(&mut linear, &x, rows);
        assert!(y[outputs..2 * outputs].iter().all(|y| y.is_nan()), "{strange}");
        assert_eq!(bits(&y[..outputs]), bits(&clean[..outputs]));
        assert_eq!(bits(&y[2 * outputs..]), bits(&clean[2 * outputs..]));
    }
}

#[test]
fn a_weight_that_is_not_finite_spoils_its_own_output_alone() {
    let (outputs, inputs) = (20, 70);
    let (x, mut weight) = (numbers(inputs, 16), numbers(outputs * inputs, 17));
    weight[3 * inputs + 5] = f32::INFINITY;
    let mut linear = PackedLinear::new(&weight, outputs, inputs, WeightType::Int8).unwrap();
    let nan: Vec<bool> = forward(&mut linear, &x, 1).iter().map(|y| y.is_nan()).collect();
    assert_eq!(nan, (0..outputs).map(|output| output == 3).collect::<Vec<_>>());
}

#[test]
fn rows_of_zeros_and_of_numbers_too_small_to_scale_give_zeros() {
    let (outputs, inputs) = (20, 70);
    let weight = numbers(outputs * inputs, 18);
    let mut linear = PackedLinear::new(&weight, outputs, inputs, WeightType::Int8).unwrap();
    for tiny in [0.0, -0.0, f32::from_bits(1), 126.0 * f32::MIN_POSITIVE] {
        assert_eq!(
            bits(&forward(&mut linear, &vec![tiny; inputs], 1)),
            vec![0; outputs]
        );
    }
    let y = forward(&mut linear, &vec![127.0 * f32::MIN_POSITIVE; inputs], 1);
    assert!(y.iter().all(|y| y.abs() > 0.0));
}

/// Numbers as they are in a network: about normal, by the sum of twelve uniform ones.
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let tensor = crate::testing::random(&[count, 12], seed);
    tensor.sum(1).unwrap().to_vec1().unwrap()
}

#[test]
fn every_result_of_8_bits_is_within_the_stated_bound() {
    let (rows, outputs, inputs) = (5, 30, 300);
    let (x, weight) = (numbers(rows * inputs, 19), numbers(outputs * inputs, 20));
    let mut linear = PackedLinear::new(&weight, outputs, inputs, WeightType::Int8).unwrap();
    let y = forward(&mut linear, &x, rows);
    let scales = |all: &[f32]| -> Vec<f64> {
        all.chunks(inputs)
            .map(|row| f64::from(int8::quantized(row).0))
            .collect()
    };
    let (scales_x, scales_w) = (scales(&x), scales(&weight));
    for (row, x) in x.chunks(inputs).enumerate() {
        for (output, w) in weight.chunks(inputs).enumerate() {
            let (sx, sw) = (scales_x[row], scales_w[output]);
            let pairs = || x.iter().zip(w).map(|(x, w)| (f64::from(*x), f64::from(*w)));
            let exact: f64 = pairs().map(|(x, w)| x * w).sum();
            let bound: f64 = pairs()
                .map(|(x, w)| (x.abs() * sw + w.abs() * sx + sx * sw / 2.0) / 2.0)
                .sum();
            let error = (f64::from(y[row * outputs + output]) - exact).abs();
            assert!(
                error <= bound * 1.0001,
                "[{row}, {output}]: {error} is over {bound}"
            );
        }
    }
}

/// The root of the mean square of the differences, relative to that of the exact results.
fn relative_error(weights: WeightType) -> f64 {
    let (rows, outputs, inputs) = (16, 200, 768);
    let (x, weight) = (normal(rows * inputs, 21), normal(outputs * inputs, 22));
    let linear = PackedLinear::new(&weight, outputs, inputs, weights).unwrap();
    let mut y = vec![0.0; rows * outputs];
    linear.forward(&x, rows, &mut y).unwrap();
    let exact = single::specified(&x, &weight, rows, outputs, inputs);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
    let error = square(&mut y.iter().zip(&exact).map(|(y, e)| y - e));
    (error / square(&mut exact.iter().copied())).sqrt()
}

/// A rounding to `bf16` is uniform within 1/256 of its number, at most: 0.0017 on average over an octave,
/// twice over. A rounding to `q` is uniform within half a scale: of normal numbers whose largest is 3.3
/// deviations away 0.0075, twice over.
#[test]
fn a_layer_of_normal_numbers_loses_a_quarter_of_a_per_cent_in_bf16_and_one_per_cent_in_int8() {
    assert!(relative_error(WeightType::F32) == 0.0);
    let (bf16, int8) = (relative_error(WeightType::Bf16), relative_error(WeightType::Int8));
    assert!((0.0017..0.0030).contains(&bf16), "bf16: {bf16}");
    assert!((0.005..0.014).contains(&int8), "int8: {int8}");
}

proptest! {
    #[test]
    fn any_shape_gives_the_defined_bits(rows in 0_usize..40, outputs in 0_usize..300, inputs in 0_usize..70) {
        check(rows, outputs, inputs);
    }

    #[test]
    fn any_bits_are_quantized_as_defined(row in proptest::collection::vec(proptest::num::f32::ANY, 0..40)) {
        let mut words = vec![0; row.len().div_ceil(4)];
        let found = int8::quantize(&row, &mut words);
        let (scale, values) = int8::quantized(&row);
        prop_assert!(found.to_bits() == scale.to_bits() || found.is_nan() && scale.is_nan());
        let found = words.iter().flat_map(|word| word.to_ne_bytes()).map(|byte| i32::from(byte) - 128);
        prop_assert_eq!(found.take(row.len()).collect::<Vec<_>>(), values);
    }
}

/// Panels are kept in files: whoever changes how they are laid out must give the layout another number, and
/// this test other hashes.
#[test]
fn panels_of_this_layout_are_these_bytes() {
    use sha2::{Digest, Sha256};
    let weight: Vec<f32> = (0..21 * 7).map(|k| ((k * 37) % 101) as f32 / 8.0 - 6.0).collect();
    let hashes = WeightType::ALL.map(|weights| {
        let linear = PackedLinear::new(&weight, 21, 7, weights).unwrap();
        let lines = weights.panel_shape(21, 7)[1];
        assert!(
            weights
                .kernels()
                .all(|kernel| kernel.format.lines(weights.depth(7)) == lines)
        );
        let hash = Sha256::digest(linear.panels());
        hash.iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    assert_eq!(LAYOUT, 2);
    assert_eq!(
        hashes,
        ["1b219026d64c6cf6", "29350ca17b237f60", "fe32378dc25fd6d4"]
    );
}

/// Bytes that are somebody's, from an address of a line on or `shift` bytes behind.
fn shared(bytes: &[u8], shift: usize) -> SharedBytes {
    struct Lines(Vec<Line>);
    impl AsRef<[u8]> for Lines {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    let mut lines = vec![Line([0; PANEL]); bytes.len() / 64 + 2];
    bytemuck::cast_slice_mut(&mut lines)[shift..shift + bytes.len()].copy_from_slice(bytes);
    SharedBytes::new(std::sync::Arc::new(Lines(lines)), shift..shift + bytes.len()).unwrap()
}

#[test]
fn panels_that_somebody_else_has_give_the_same_bits() {
    let (rows, outputs, inputs) = (3, 40, 21);
    let (x, weight) = (numbers(rows * inputs, 5), numbers(outputs * inputs, 6));
    for weights in WeightType::ALL {
        let own = PackedLinear::new(&weight, outputs, inputs, weights).unwrap();
        let mut expected = vec![0.0; rows * outputs];
        own.forward(&x, rows, &mut expected).unwrap();
        for shift in [0, 1, 16] {
            let theirs = shared(own.panels(), shift);
            let linear = PackedLinear::from_panels(theirs, outputs, inputs, weights).unwrap();
            let mut y = vec![f32::NAN; rows * outputs];
            linear.forward(&x, rows, &mut y).unwrap();
            assert_eq!(bits(&y), bits(&expected), "{weights}");
        }
        let short = shared(&own.panels()[64..], 0);
        let error = PackedLinear::from_panels(short, outputs, inputs, weights).unwrap_err();
        assert!(
            error.to_string().contains("a packed weight of [40, 21] needs"),
            "{error}"
        );
    }
    assert!(SharedBytes::new(std::sync::Arc::new([0; 64]), 1..65).is_none());
}

#[test]
fn joined_weights_are_stacked_weights_whatever_their_sizes() {
    let inputs = 13;
    for sizes in [[16, 32, 5], [5, 16, 3], [1, 1, 1], [0, 20, 33]] {
        for weights in WeightType::ALL {
            let outputs = sizes.iter().sum::<usize>();
            let weight = numbers(outputs * inputs, 7);
            let whole = PackedLinear::new(&weight, outputs, inputs, weights).unwrap();
            let mut rest = weight.as_slice();
            let parts = sizes.map(|size| {
                let (own, behind) = rest.split_at(size * inputs);
                rest = behind;
                PackedLinear::new(own, size, inputs, weights).unwrap()
            });
            let joined = PackedLinear::joined(&parts).unwrap();
            assert_eq!((joined.outputs(), joined.inputs()), (outputs, inputs));
            assert_eq!(joined.panels(), whole.panels(), "{weights}: {sizes:?}");
        }
    }
    let part = |inputs, weights| PackedLinear::new(&vec![1.0; inputs], 1, inputs, weights).unwrap();
    let narrow = [part(2, WeightType::F32), part(3, WeightType::F32)];
    assert!(PackedLinear::joined(&narrow).is_err());
    let mixed = [part(2, WeightType::F32), part(2, WeightType::Int8)];
    assert!(PackedLinear::joined(&mixed).is_err());
    assert!(PackedLinear::joined(&[]).is_err());
}
