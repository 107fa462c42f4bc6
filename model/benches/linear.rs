//! Times `PackedLinear` against candle's matrix product of the same shape: `cargo bench -p multiway-model --bench linear`.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use candle_core::{Device, Result, Tensor};
use multiway_model::kernels::PackedLinear;

/// Rows, inputs, outputs: decoding one and a few sequences, encoding one picture and many, a vocabulary.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 256, 256),
    (1, 256, 1536),
    (1, 768, 256),
    (1, 256, 5400),
    (4, 256, 1536),
    (8, 256, 5400),
    (65, 256, 1536),
    (65, 768, 256),
    (1000, 256, 512),
    (1000, 768, 256),
];

fn main() -> Result<()> {
    println!(
        "{:>5} {:>5} {:>5}  {:>10} {:>9} {:>10}  {:>5}",
        "rows", "in", "out", "packed us", "GFLOP/s", "candle us", "ratio"
    );
    for (rows, inputs, outputs) in SHAPES {
        let x = Tensor::randn(0_f32, 1.0, (rows, inputs), &Device::Cpu)?; // [rows, in]
        let weight = Tensor::randn(0_f32, 1.0, (outputs, inputs), &Device::Cpu)?; // [out, in]
        let linear = PackedLinear::from_tensor(&weight)?;
        let transposed = weight.t()?; // [in, out]
        let (packed, candle) = compare(|| linear.apply(&x), || x.matmul(&transposed))?;
        let flops = 2.0 * rows as f64 * inputs as f64 * outputs as f64;
        println!(
            "{rows:>5} {inputs:>5} {outputs:>5}  {:>10.1} {:>9.1} {:>10.1}  {:.2}",
            packed * 1e6,
            flops / packed / 1e9,
            candle * 1e6,
            candle / packed
        );
    }
    Ok(())
}

/// Times two functions in turn, and returns the seconds of the fastest round of each.
fn compare(first: impl Fn() -> Result<Tensor>, second: impl Fn() -> Result<Tensor>) -> Result<(f64, f64)> {
    let (mut best_first, mut best_second) = (f64::INFINITY, f64::INFINITY);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(800) {
        best_first = best_first.min(round(&first)?);
        best_second = best_second.min(round(&second)?);
    }
    Ok((best_first, best_second))
}

fn round(f: impl Fn() -> Result<Tensor>) -> Result<f64> {
    const CALLS: u32 = 10;
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(f()?);
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(CALLS))
}
