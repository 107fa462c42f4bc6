//! Every kernel against the definition, to the last bit.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;

/// Numbers of mixed sizes and signs, whose sums round at nearly every step.
#[expect(clippy::cast_possible_truncation, reason = "test values are f32")]
fn numbers(count: usize, seed: u64) -> Vec<f32> {
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

/// The definition in the module's documentation, as written.
fn defined(x: &[f32], weight: &[f32], rows: usize, outputs: usize, inputs: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        for output in 0..outputs {
            let mut acc = 0.0_f32;
            for k in 0..inputs {
                acc = x[row * inputs + k].mul_add(weight[output * inputs + k], acc);
            }
            y.push(acc);
        }
    }
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(rows: usize, outputs: usize, inputs: usize) {
    let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
    let expected = defined(&x, &weight, rows, outputs, inputs);
    let mut linear = PackedLinear::new(&weight, outputs, inputs).unwrap();
    for isa in Isa::available() {
        linear.isa = isa;
        // A value that is never right shows what was not written.
        let mut y = vec![f32::NAN; rows * outputs];
        linear.forward(&x, rows, &mut y).unwrap();
        assert!(
            bits(&y) == bits(&expected),
            "{isa:?}: [{rows}, {inputs}] to {outputs}"
        );
    }
}

#[test]
fn every_instruction_set_gives_the_defined_bits_for_every_tile() {
    for rows in 0..=27 {
        for outputs in [0, 1, 15, 16, 17, 33, 64, 100, 130, 145] {
            check(rows, outputs, 19);
        }
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
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| {
        check(1, 4_099, 260);
        check(199, 83, 70);
        check(2, 900, 601);
    });
}

#[test]
fn a_row_is_the_same_bits_alone_and_in_any_batch() {
    let (rows, outputs, inputs) = (230, 72, 150);
    let (x, weight) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 4));
    let linear = PackedLinear::new(&weight, outputs, inputs).unwrap();
    let mut together = vec![0.0; rows * outputs];
    linear.forward(&x, rows, &mut together).unwrap();
    for (row, expected) in x.chunks(inputs).zip(together.chunks(outputs)) {
        let mut alone = vec![0.0; outputs];
        linear.forward(row, 1, &mut alone).unwrap();
        assert_eq!(bits(&alone), bits(expected));
    }
}

/// Shows that the tests above can fail: another order of summation does change the bits.
#[test]
fn summing_in_two_halves_gives_other_bits() {
    let inputs = 256;
    let (x, weight) = (numbers(inputs, 5), numbers(64 * inputs, 6));
    let whole = defined(&x, &weight, 1, 64, inputs);
    let halves: Vec<f32> = weight
        .chunks(inputs)
        .map(|w| {
            let (low, high) = (
                defined(&x[..128], &w[..128], 1, 1, 128),
                defined(&x[128..], &w[128..], 1, 1, 128),
            );
            low[0] + high[0]
        })
        .collect();
    assert_ne!(bits(&whole), bits(&halves));
}

#[test]
fn tensors_of_any_rank_and_layout_can_be_multiplied() {
    let x = Tensor::from_vec(numbers(2 * 3 * 5, 7), (2, 3, 5), &Device::Cpu).unwrap();
    let weight = Tensor::from_vec(numbers(4 * 5, 8), (4, 5), &Device::Cpu).unwrap();
    let linear = PackedLinear::from_tensor(&weight).unwrap();
    let y = linear.apply(&x).unwrap();
    assert_eq!(y.dims(), [2, 3, 4]);
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = defined(&values(&x), &values(&weight), 6, 4, 5);
    assert_eq!(bits(&values(&y)), bits(&expected));
    let middle = linear.apply(&x.narrow(1, 1, 2).unwrap()).unwrap(); // [2, 2, 4]
    assert_eq!(bits(&values(&middle)), bits(&values(&y.narrow(1, 1, 2).unwrap())));
}

#[test]
fn a_half_precision_weight_is_packed_as_single_precision() {
    let weight = Tensor::from_vec(numbers(4 * 5, 9), (4, 5), &Device::Cpu)
        .unwrap()
        .to_dtype(DType::BF16)
        .unwrap();
    let linear = PackedLinear::from_tensor(&weight).unwrap();
    let single = PackedLinear::from_tensor(&weight.to_dtype(DType::F32).unwrap()).unwrap();
    assert_eq!(bits(&linear.panels), bits(&single.panels));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let message = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let short = PackedLinear::new(&[1.0; 5], 2, 3).unwrap_err();
    assert_eq!(
        message(short),
        "a linear weight of [2, 3] needs as many values, found 5"
    );
    let linear = PackedLinear::new(&[1.0; 6], 2, 3).unwrap();
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
}

proptest! {
    #[test]
    fn any_shape_gives_the_defined_bits(rows in 0_usize..40, outputs in 0_usize..300, inputs in 0_usize..70) {
        check(rows, outputs, inputs);
    }
}
