//! How long drawing a token takes, from the logits of 32,000 tokens.
//!
//! `cargo bench -p multiway-runtime --bench sampling` prints the microseconds of a draw for each kind of
//! sampling: from logits that are peaked, as a trained model's are, and from logits that are nearly flat.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::time::Instant;

use multiway_runtime::SamplingParams;
use multiway_runtime::testing::Draws;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const VOCABULARY: usize = 32_000;
const DRAWS: usize = 60;

/// Makes logits whose spread is `scale` times that of a normal distribution.
fn logits(random: &mut ChaCha8Rng, scale: f32) -> Vec<f32> {
    let mut uniform = || (random.next_u32() >> 8) as f32 / (1 << 24) as f32;
    (0..VOCABULARY)
        .map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * scale)
        .collect()
}

fn kinds() -> Vec<(&'static str, SamplingParams)> {
    let drawn = SamplingParams {
        temperature: 0.8,
        seed: Some(7),
        ..SamplingParams::default()
    };
    let of = |change: fn(&mut SamplingParams)| {
        let mut params = drawn.clone();
        change(&mut params);
        params
    };
    vec![
        ("greedy", of(|p| p.temperature = 0.0)),
        ("temperature", of(|_| {})),
        ("top_k 50", of(|p| p.top_k = Some(50))),
        ("top_p 0.9", of(|p| p.top_p = 0.9)),
        ("min_p 0.05", of(|p| p.min_p = 0.05)),
        ("typical_p 0.9", of(|p| p.typical_p = 0.9)),
    ]
}

/// Returns the median of the microseconds of a draw.
fn measure(params: &SamplingParams, logits: &[Vec<f32>]) -> f64 {
    let mut draws = Draws::new(params);
    let mut times: Vec<f64> = (0..DRAWS)
        .map(|step| {
            let start = Instant::now();
            std::hint::black_box(draws.draw(&logits[step % logits.len()], step).unwrap());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut make = |scale| (0..8).map(|_| logits(&mut random, scale)).collect::<Vec<_>>();
    let (peaked, flat) = (make(4.0), make(0.5));
    println!("sampling        peaked us   flat us");
    for (name, params) in kinds() {
        let (peaked, flat) = (measure(&params, &peaked), measure(&params, &flat));
        println!("{name:<14} {peaked:>10.1} {flat:>9.1}");
    }
}
