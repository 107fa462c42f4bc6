//! Times candle-transformers' T5 on the cases of `multiway bench`, and prints the same line:
//!
//! ```text
//! candle-peer decode --checkpoint DIR --dtype q8_0 --threads 2 --batch 1 --source-length 64 --new-tokens 64 --repeats 3
//! ```
//!
//! `candle-peer quantise --checkpoint DIR` writes the weights that `--dtype q8_0` takes, `q8_0.gguf`, beside
//! the others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::{quantized_t5, t5};
use candle_transformers::quantized_var_builder;
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Random ids are below this, and not below [`FIRST_ID`], as `multiway bench` makes them.
const ID_LIMIT: u64 = 32_000;
const FIRST_ID: u64 = 5;
const WEIGHTS: &str = "model.safetensors";
const QUANTISED: &str = "q8_0.gguf";
const START: u32 = 0;
const END: usize = 1;
const WARM_TOKENS: usize = 4;

#[derive(Parser)]
struct Args {
    verb: Verb,
    #[arg(long)]
    checkpoint: PathBuf,
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[arg(long, default_value_t = 64)]
    source_length: usize,
    #[arg(long, default_value_t = 64)]
    new_tokens: usize,
    #[arg(long, default_value_t = 1)]
    beams: usize,
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    show_tokens: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Verb {
    Encode,
    Decode,
    Quantise,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Dtype {
    F32,
    #[value(name = "q8_0")]
    Q8_0,
}

/// T5 with weights of either kind.
enum Model {
    Full(t5::T5ForConditionalGeneration),
    Quantised(quantized_t5::T5ForConditionalGeneration),
}

impl Model {
    fn load(args: &Args) -> Result<Self> {
        let config = std::fs::read(args.checkpoint.join("config.json"))?;
        if args.dtype == Dtype::F32 {
            let weights = args.checkpoint.join(WEIGHTS);
            // SAFETY: nobody writes to the file while it is mapped.
            let vb = unsafe { VarBuilder::from_mmaped_safetensors(&[weights], DType::F32, &Device::Cpu)? };
            let config = serde_json::from_slice(&config)?;
            return Ok(Model::Full(t5::T5ForConditionalGeneration::load(vb, &config)?));
        }
        let file = args.checkpoint.join(QUANTISED);
        let vb = quantized_var_builder::VarBuilder::from_gguf(file, &Device::Cpu)?;
        let config = serde_json::from_slice(&config)?;
        Ok(Model::Quantised(quantized_t5::T5ForConditionalGeneration::load(
            vb, &config,
        )?))
    }

    fn encode(&mut self, ids: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Model::Full(model) => model.encode(ids)?,
            Model::Quantised(model) => model.encode(ids)?,
        })
    }

    /// Returns the logits of the next token, `[B, V]`.
    fn decode(&mut self, ids: &Tensor, encoded: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Model::Full(model) => model.decode(ids, encoded)?,
            Model::Quantised(model) => model.decode(ids, encoded)?,
        })
    }

    fn clear(&mut self) {
        match self {
            Model::Full(model) => model.clear_kv_cache(),
            Model::Quantised(model) => model.clear_kv_cache(),
        }
    }

    /// Writes the likeliest token of each answer, again and again.
    fn write(&mut self, encoded: &Tensor, batch: usize, new_tokens: usize) -> Result<Vec<Vec<u32>>> {
        self.clear();
        let mut last = vec![START; batch];
        let mut answers = vec![Vec::with_capacity(new_tokens); batch];
        for _ in 0..new_tokens {
            let ids = Tensor::new(last.as_slice(), &Device::Cpu)?.unsqueeze(1)?; // [B, 1]
            let logits = self
                .decode(&ids, encoded)?
                .to_dtype(DType::F32)?
                .to_vec2::<f32>()?; // [B][V]
            for ((row, last), answer) in logits.iter().zip(&mut last).zip(&mut answers) {
                *last = likeliest(row);
                answer.push(*last);
            }
        }
        Ok(answers)
    }
}

/// Finds the highest logit but that of the closing token.
fn likeliest(row: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (id, logit) in row.iter().enumerate() {
        if *logit > best.0 && id != END {
            best = (*logit, id as u32);
        }
    }
    best.1
}

/// Writes a checkpoint's matrices in blocks of 8 bits, and all else as it is.
fn quantise(weights: &Path, out: &Path) -> Result<()> {
    let tensors = safetensors::load(weights, &Device::Cpu)?;
    let quantised = tensors.iter().map(|(name, tensor)| {
        let blocks = tensor.rank() == 2 && tensor.dim(1)? % GgmlDType::Q8_0.block_size() == 0;
        let kind = if blocks { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        Ok((name.as_str(), QTensor::quantize(tensor, kind)?))
    });
    let quantised = quantised.collect::<Result<Vec<_>>>()?;
    let tensors: Vec<_> = quantised.iter().map(|(name, tensor)| (*name, tensor)).collect();
    // Under another name until it is whole.
    let part = out.with_extension("part");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
    gguf_file::write(&mut file, &[], &tensors)?;
    drop(file);
    Ok(std::fs::rename(part, out)?)
}

/// Makes the prompts that `multiway bench` makes of the same seed.
fn prompts(args: &Args) -> Result<Tensor> {
    let mut state = args.seed;
    let mut id = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (FIRST_ID + (mixed ^ (mixed >> 31)) % (ID_LIMIT - FIRST_ID)) as u32
    };
    let ids: Vec<u32> = (0..args.batch * args.source_length).map(|_| id()).collect();
    Ok(Tensor::from_vec(
        ids,
        (args.batch, args.source_length),
        &Device::Cpu,
    )?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Reads the most memory that this process has had, in 10^6 bytes.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kilobytes * 0.010_24).round() / 10.0)
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.verb == Verb::Quantise {
        return quantise(&args.checkpoint.join(WEIGHTS), &args.checkpoint.join(QUANTISED));
    }
    ensure!(args.beams == 1, "candle-transformers has no beam search");
    ensure!(args.repeats > 0 && args.batch > 0 && args.source_length > 0 && args.new_tokens > 0);
    // Before anything starts the pool that candle computes on.
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", args.threads.to_string()) };
    let mut model = Model::load(&args).context("cannot load the checkpoint")?;
    let ids = prompts(&args)?;
    let encoded = model.encode(&ids)?;
    let new_tokens = if args.verb == Verb::Decode {
        args.new_tokens
    } else {
        0
    };
    model.write(&encoded, args.batch, new_tokens.min(WARM_TOKENS))?;
    let (mut encode_times, mut decode_times, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.repeats {
        let start = Instant::now();
        let encoded = model.encode(&ids)?;
        encode_times.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        tokens = model.write(&encoded, args.batch, new_tokens)?;
        decode_times.push(start.elapsed().as_secs_f64());
    }
    let decodes = args.verb == Verb::Decode;
    let rate = (args.batch * new_tokens) as f64 / median(decode_times);
    let dtype = args
        .dtype
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    let model = args
        .checkpoint
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let mut line = json!({
        "engine": "candle-transformers", "dtype": dtype, "model": model, "threads": args.threads, "batch": args.batch,
        "src": args.source_length, "pictures": 0, "beam": decodes.then_some(1), "new_tokens": decodes.then_some(new_tokens),
        "encode_ms": median(encode_times) * 1e3, "decode_tokens_per_s": decodes.then_some(rate), "rss_mb": peak_memory_mb(),
    });
    if args.show_tokens {
        line["tokens"] = json!(tokens);
    }
    println!("{line}");
    Ok(())
}
