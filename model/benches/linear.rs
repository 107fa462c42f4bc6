//! Times `PackedLinear` in every weight type: `cargo bench -p multiway-model --bench linear`.
//!
//! The shapes are those of T5 v1.1 base: attention, gate and up, down, vocabulary. Where few rows make memory
//! the limit, calls go around more matrices than a cache holds. The types take turns within a round, so that
//! noise hits all alike; what is printed is the median over the rounds.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use candle_core::Result;
use multiway_model::WeightType;
use multiway_model::kernels::{PackedLinear, Pool};

/// Inputs and outputs.
const SHAPES: [(usize, usize); 4] = [(768, 768), (768, 2 * 2048), (2048, 768), (768, 32128)];
const ROWS: [usize; 5] = [1, 4, 8, 32, 256];
/// Up to how many rows the weights are read from memory rather than from a cache.
const COLD_ROWS: usize = 8;
/// Bytes of distinct weights that cold calls go around, above what caches hold.
const COLD_BYTES: usize = 256 << 20;
const ROUNDS: usize = 9;
/// Multiplications and additions of a timed turn, about.
const TURN: usize = 2_000_000_000;

fn main() -> Result<()> {
    let pool = Arc::new(Pool::new(available_parallelism().map_or(1, usize::from)));
    println!("{} threads", pool.threads());
    pool.install(measure)
}

/// Prints a line for each shape, number of rows and weight type.
fn measure() -> Result<()> {
    println!(
        "{:>5} {:>5} {:>5} {:>5}  {:>10} {:>7} {:>9} {:>8}",
        "in", "out", "rows", "type", "us", "GB/s", "GFLOP/s", "speed-up"
    );
    for (inputs, outputs) in SHAPES {
        let cold = WeightType::ALL.map(|weights| matrices(inputs, outputs, weights, COLD_BYTES));
        let [f32, bf16, int8] = cold;
        let all = [f32?, bf16?, int8?];
        for rows in ROWS {
            let times = times(&all, rows)?;
            for (layers, seconds) in all.iter().zip(times) {
                let Some(layer) = layers.first() else { continue };
                let flops = 2.0 * (rows * inputs * outputs) as f64;
                println!(
                    "{inputs:>5} {outputs:>5} {rows:>5} {:>5}  {:>10.1} {:>7.1} {:>9.1} {:>8.2}",
                    layer.weights(),
                    seconds * 1e6,
                    layer.bytes() as f64 / seconds / 1e9,
                    flops / seconds / 1e9,
                    times[0] / seconds,
                );
            }
        }
    }
    Ok(())
}

/// Packs a matrix as often as `bytes` hold it, at least once.
fn matrices(inputs: usize, outputs: usize, weights: WeightType, bytes: usize) -> Result<Vec<PackedLinear>> {
    let values: Vec<f32> = numbers(inputs * outputs);
    let first = PackedLinear::new(&values, outputs, inputs, weights)?;
    Ok(vec![first.clone(); bytes.div_ceil(first.bytes().max(1))])
}

/// Makes numbers between -1 and 1.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Times a call of each type, in seconds: the medians of several rounds after one to warm up.
fn times(all: &[Vec<PackedLinear>; 3], rows: usize) -> Result<[f64; 3]> {
    let mut rounds = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        for (layers, times) in all.iter().zip(&mut rounds) {
            let seconds = turn(layers, rows, round)?;
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    Ok(rounds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    }))
}

/// Times calls one after another, and returns the seconds of one.
fn turn(layers: &[PackedLinear], rows: usize, round: usize) -> Result<f64> {
    let Some(first) = layers.first() else {
        return Ok(f64::NAN);
    };
    let layers = if rows <= COLD_ROWS {
        layers
    } else {
        std::slice::from_ref(first)
    };
    let calls = (TURN / (2 * rows * first.inputs() * first.outputs())).clamp(3, 256);
    let x = numbers(rows * first.inputs()); // [rows, in]
    let mut y = vec![0.0; rows * first.outputs()]; // [rows, out]
    // Each turn goes on where the last ended, so that a cache holds none of what it reads.
    let mut next = layers.iter().cycle().skip(round * calls);
    let start = Instant::now();
    for layer in next.by_ref().take(calls) {
        layer.forward(black_box(&x), rows, &mut y)?;
        black_box(&mut y);
    }
    Ok(start.elapsed().as_secs_f64() / calls as f64)
}
