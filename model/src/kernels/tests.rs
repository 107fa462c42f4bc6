//! Every differentiable kernel against the same formula composed of candle's own operations.

use candle_core::{D, Var};

use super::*;
use crate::layers::graph::{composed_layer_norm, composed_rms_norm};
use crate::testing::{assert_close, random};

/// Compares value and gradients of two functions of the same variables under a random output gradient.
fn compare(variables: &[&Var], fast: impl Fn() -> Tensor, slow: impl Fn() -> Tensor) {
    let (fast, slow) = (fast(), slow());
    assert_close("value", &fast, &slow, 1e-5);
    let weight = random(fast.dims(), 99);
    let gradient = |y: &Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
    let (fast, slow) = (gradient(&fast), gradient(&slow));
    for (i, variable) in variables.iter().enumerate() {
        let (got, want) = (fast.get(variable).unwrap(), slow.get(variable).unwrap());
        assert_close(&format!("gradient {i}"), got, want, 1e-4);
    }
}

fn variable(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&random(shape, seed)).unwrap()
}

#[test]
fn rms_norm_equals_the_composed_form() {
    for (n, d, experts, split) in [(7, 24, 2, 3), (5, 33, 1, 0), (4, 16, 2, 0), (4, 16, 2, 4)] {
        let (x, w) = (variable(&[n, d], 1), variable(&[experts, d], 2));
        compare(
            &[&x, &w],
            || x.apply_op2(&w, norm::RmsNorm { eps: 1e-6, split }).unwrap(),
            || composed_rms_norm(&x, &w, split, 1e-6).unwrap(),
        );
    }
}

/// Rows that are few and rows that are shared out over threads.
const SIZES: [(usize, usize); 3] = [(7, 24), (5, 33), (130, 200)];

#[test]
fn layer_norm_equals_the_composed_form_on_any_number_of_threads() {
    for (n, d) in SIZES {
        for (experts, split) in [(1, 0), (2, 3), (2, 0), (2, n)] {
            let x = (random(&[n, d], 1) + 3.0).unwrap();
            let (w, b) = (random(&[experts, d], 2), random(&[experts, d], 3));
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (rows, scale, shift) = (flat(&x), flat(&w), flat(&b));
            let weights = norm::NormWeights {
                scale: &scale,
                shift: Some(&shift),
                width: d,
                eps: 1e-5,
            };
            let slow = composed_layer_norm(&x, &w, &b, split, 1e-5).unwrap();
            for threads in 1..4 {
                let pool = Arc::new(Pool::new(threads));
                let mut fast = vec![f32::NAN; n * d];
                pool.install(|| norm::normalise(&rows, &weights, split, &mut fast));
                let fast = Tensor::from_vec(fast, (n, d), x.device()).unwrap();
                assert_close("value", &fast, &slow, 2e-5);
            }
        }
    }
}

#[test]
fn work_that_is_shared_out_over_threads_gives_the_same_bits() {
    for (n, d) in SIZES {
        let (x, w) = (random(&[n, 2 * d], 1), random(&[2, 2 * d], 2));
        let run = |threads| {
            let pool = Arc::new(Pool::new(threads));
            let all = pool.install(|| {
                [
                    x.apply_op2_no_bwd(
                        &w,
                        &norm::RmsNorm {
                            eps: 1e-6,
                            split: n / 2,
                        },
                    ),
                    x.apply_op1_no_bwd(&gated::GatedGelu),
                    x.apply_op1_no_bwd(&gated::GeluErf),
                ]
            });
            all.map(|y| y.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let one = run(1);
        assert!((2..5).all(|threads| run(threads) == one));
    }
}

#[test]
fn gelu_equals_candles() {
    let x = (random(&[50, 60], 3) * 4.0).unwrap();
    let fast = x.apply_op1_no_bwd(&gated::GeluErf).unwrap();
    assert_close("value", &fast, &x.gelu_erf().unwrap(), 1e-6);
}

#[test]
fn gated_gelu_equals_the_composed_form() {
    let x = variable(&[5, 38], 3);
    compare(
        &[&x],
        || x.apply_op1(gated::GatedGelu).unwrap(),
        || (x.narrow(1, 0, 19).unwrap().gelu().unwrap() * x.narrow(1, 19, 19).unwrap()).unwrap(),
    );
}

#[test]
fn rotary_turns_pairs_and_keeps_the_rest() {
    let table = Arc::new(rotary::RotaryTable::new(9, 8, 100.0));
    let positions = Arc::new(vec![0, 3, 8]);
    let x = variable(&[3, 40], 4);
    let fast = || {
        let (table, positions) = (Arc::clone(&table), Arc::clone(&positions));
        x.apply_op1(rotary::Rotary {
            table,
            positions,
            columns: 32,
            inverse: false,
        })
        .unwrap()
    };
    let slow = || {
        let (table, positions) = (Arc::clone(&table), Arc::clone(&positions));
        rotary::Rotary {
            table,
            positions,
            columns: 32,
            inverse: false,
        }
        .composed(&x)
        .unwrap()
    };
    compare(&[&x], fast, slow);
}

#[test]
fn cross_entropy_equals_the_composed_form_with_and_without_smoothing() {
    let x = variable(&[4, 37], 5);
    let (targets, weights) = (vec![0, 36, 5, 5], vec![1.0, 0.5, 0.0, 2.0]);
    for smoothing in [0.0, 0.1] {
        let slow = || {
            let log = candle_nn::ops::log_softmax(&x, D::Minus1).unwrap();
            let index = Tensor::new(targets.clone(), x.device())
                .unwrap()
                .unsqueeze(1)
                .unwrap();
            let at = log.gather(&index, 1).unwrap().squeeze(1).unwrap(); // [N]
            let spread = log.mean(1).unwrap();
            let mixed = ((at * f64::from(1.0 - smoothing)).unwrap()
                + (spread * f64::from(smoothing)).unwrap())
            .unwrap();
            let weights = Tensor::new(weights.clone(), x.device()).unwrap();
            (mixed * weights).unwrap().sum_all().unwrap().neg().unwrap()
        };
        compare(
            &[&x],
            || cross_entropy(&x, targets.clone(), weights.clone(), smoothing).unwrap(),
            slow,
        );
    }
}

#[test]
fn soft_targets_equal_the_composed_form() {
    let x = variable(&[4, 37], 5);
    let teacher = (random(&[4, 37], 9) * 3.0).unwrap();
    let (targets, weights) = (vec![0, 36, 5, 5], vec![1.0, 0.5, 0.0, 2.0]);
    for share in [0.0, 0.4, 1.0] {
        let slow = || {
            let log = candle_nn::ops::log_softmax(&x, D::Minus1).unwrap();
            let soft = candle_nn::ops::softmax(&teacher, D::Minus1).unwrap();
            let soft = (soft * &log).unwrap().sum(1).unwrap(); // [N]
            let hard = Tensor::new(weights.clone(), x.device()).unwrap();
            let soft = (soft * hard).unwrap().sum_all().unwrap().neg().unwrap();
            let hard = cross_entropy(&x, targets.clone(), weights.clone(), 0.1).unwrap();
            ((hard * f64::from(1.0 - share)).unwrap() + (soft * f64::from(share)).unwrap()).unwrap()
        };
        let fast = || {
            let teacher = Some((&teacher, share));
            distilled_cross_entropy(&x, targets.clone(), weights.clone(), 0.1, teacher).unwrap()
        };
        compare(&[&x], fast, slow);
    }
    let other = random(&[4, 36], 9);
    let refused = distilled_cross_entropy(&x, targets, weights, 0.0, Some((&other, 0.5)));
    assert!(refused.unwrap_err().to_string().contains("144 of the teacher"));
}

#[test]
fn cross_entropy_refuses_targets_outside_the_vocabulary() {
    let x = random(&[2, 3], 6);
    let message = cross_entropy(&x, vec![0, 3], vec![1.0, 1.0], 0.0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("target 3 is not below 3"), "{message}");
}
