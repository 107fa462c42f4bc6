//! The training loop: data-parallel over threads, resumable to the bit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Device, Var};
use multiway_model::{Checkpoint, DType, Model, ModelConfig, Tensor, initialise};

pub use crate::error::TrainError;
use crate::examples::{ExampleSource, QUESTION_SHARE, Stage};
use crate::log::{LossLog, plot_losses};
use crate::objective::{LossWeights, losses};
use crate::optimizer::{AdamW, AdamWConfig, decays_by_default};
use crate::schedule::WarmupCosine;
use crate::state::{Progress, TrainingState};

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Where states, the loss and its curve are kept.
    pub run: PathBuf,
    /// What is asked.
    pub stage: Stage,
    /// Steps of the whole run.
    pub steps: u64,
    /// Examples a step, over all workers.
    pub batch: usize,
    /// Worker threads; the results depend on their number.
    pub workers: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Whether hidden matrices are stepped by Muon rather than by AdamW.
    pub muon: bool,
    /// Steps between two saved states.
    pub save_every: u64,
    /// Where the weights start, if the run has no state yet: the folder of an earlier run.
    pub start: Option<PathBuf>,
}

impl TrainOptions {
    /// Describes what must stay the same when a run is resumed.
    fn settings(&self, config: &ModelConfig, question_share: usize) -> String {
        let Self {
            stage,
            steps,
            batch,
            workers,
            learning_rate,
            muon,
            ..
        } = self;
        let share = match question_share {
            QUESTION_SHARE => String::new(),
            share => format!(" questions {share}"),
        };
        let optimizer = if *muon { " muon" } else { "" };
        format!(
            "{stage:?} steps {steps} batch {batch} workers {workers}{optimizer} rate {learning_rate}{share} {}",
            config.to_json()
        )
    }
}

/// Told after each step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean losses of text, visual codes and retrieval, where they were asked.
    pub losses: [Option<f64>; 3],
    /// Examples a second, of this step.
    pub examples_per_second: f64,
}

const COLUMNS: [&str; 5] = ["text", "visual", "retrieval", "gradient_norm", "learning_rate"];

/// A run: variables, optimiser and where it stands.
struct Run {
    vars: Vec<(String, Var)>,
    model: Model,
    optimizer: AdamW,
    step: u64,
}

/// Trains until the last step, or until `stop` is set; then a state is saved and the run can go on later.
///
/// Returns the steps done.
///
/// # Errors
///
/// Fails where data, settings or the folder cannot be used; what was saved before stays.
pub fn train(
    options: &TrainOptions,
    config: &ModelConfig,
    source: &ExampleSource,
    seed: u64,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(StepReport),
) -> Result<u64, TrainError> {
    let mut run = open(options, config, source.question_share(), seed)?;
    let csv = options.run.join("losses.csv");
    let mut log = LossLog::resume(&csv, &COLUMNS, run.step)?;
    let schedule = WarmupCosine {
        peak: options.learning_rate,
        floor: options.learning_rate * 0.02,
        warmup_steps: (options.steps / 20).min(500),
        total_steps: options.steps,
    };
    let pools = pools(options.workers)?;
    let all = rayon::ThreadPoolBuilder::new()
        .num_threads(options.workers.max(1))
        .build();
    let all = all.map_err(|error| TrainError::Worker {
        reason: error.to_string(),
    })?;
    let started_at = run.step;
    while run.step < options.steps && !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let rate = schedule.learning_rate(run.step);
        let (gradients, losses) = gradients(&run, options, source, &pools)?;
        let shares = vec![1.0; gradients.len()];
        let Run { vars, optimizer, .. } = &mut run;
        let norm = all.install(|| optimizer.step(vars, &gradients, &shares, rate))?;
        run.step += 1;
        let [text, visual, retrieval] = losses;
        log.append(
            run.step,
            &[text, visual, retrieval, Some(f64::from(norm)), Some(rate)],
        )?;
        if run.step.is_multiple_of(options.save_every) {
            save(&run, options, config, source, seed)?;
        }
        let examples_per_second = options.batch as f64 / begin.elapsed().as_secs_f64();
        progress(StepReport {
            step: run.step,
            steps: options.steps,
            losses,
            examples_per_second,
        });
    }
    if run.step > started_at {
        save(&run, options, config, source, seed)?;
    }
    drop(log);
    if run.step > 0 {
        plot_losses(&csv, &options.run.join("losses.svg"))?;
    }
    Ok(run.step)
}

fn variables(config: &ModelConfig, seed: u64) -> Result<Vec<(String, Var)>, TrainError> {
    let fresh = initialise(config, seed, &Device::Cpu)?;
    let vars = fresh
        .into_iter()
        .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
    Ok(vars.collect::<candle_core::Result<_>>()?)
}

fn open(
    options: &TrainOptions,
    config: &ModelConfig,
    question_share: usize,
    seed: u64,
) -> Result<Run, TrainError> {
    let run = &options.run;
    std::fs::create_dir_all(run).map_err(|source| TrainError::File {
        action: "create",
        path: run.clone(),
        source,
    })?;
    let vars = variables(config, seed)?;
    let tensors = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect();
    let model = Model::from_tensors(config, &tensors)?;
    let settings = AdamWConfig {
        muon_momentum: options.muon.then_some(0.95),
        ..averaging()
    };
    let mut step = 0;
    let state = TrainingState::load_latest(run)?;
    if state.is_none()
        && let Some(start) = &options.start
    {
        load_average(start, &vars)?;
    }
    let mut optimizer = AdamW::new(settings, &vars, decays_by_default)?;
    if let Some(state) = state {
        let (expected, found) = (
            options.settings(config, question_share),
            state.progress().settings.clone(),
        );
        if found != expected {
            return Err(TrainError::Settings {
                folder: run.clone(),
                expected,
                found,
            });
        }
        state.restore(&vars, &mut optimizer)?;
        step = state.progress().step;
    }
    Ok(Run {
        vars,
        model,
        optimizer,
        step,
    })
}

/// The optimiser's settings, of which a run's states have to keep the moving average.
fn averaging() -> AdamWConfig {
    AdamWConfig {
        average_decay: Some(0.998),
        ..AdamWConfig::default()
    }
}

/// Puts the averaged weights of a run into variables.
fn load_average(run: &Path, vars: &[(String, Var)]) -> Result<(), TrainError> {
    let state = TrainingState::load_latest(run)?.ok_or_else(|| TrainError::NoState {
        folder: run.to_owned(),
    })?;
    let mut optimizer = AdamW::new(averaging(), vars, decays_by_default)?;
    state.restore(vars, &mut optimizer)?;
    optimizer.write_average(vars)?;
    Ok(())
}

fn save(
    run: &Run,
    options: &TrainOptions,
    config: &ModelConfig,
    source: &ExampleSource,
    seed: u64,
) -> Result<(), TrainError> {
    let progress = Progress {
        step: run.step,
        seed,
        // Examples are drawn from the seed and the step alone: no generator or position has to be kept.
        generators: BTreeMap::new(),
        data_position: BTreeMap::new(),
        settings: options.settings(config, source.question_share()),
    };
    TrainingState::capture(progress, &run.vars, &run.optimizer)?.save(&options.run)?;
    Ok(())
}

/// One pool of one thread a worker: kernels that split their work stay on their worker's thread.
fn pools(workers: usize) -> Result<Vec<rayon::ThreadPool>, TrainError> {
    let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pools: Result<Vec<_>, _> = (0..workers.max(1)).map(pool).collect();
    pools.map_err(|error| TrainError::Worker {
        reason: error.to_string(),
    })
}

type WorkerResult = Result<(GradStore, [Option<f32>; 3]), TrainError>;

fn gradients(
    run: &Run,
    options: &TrainOptions,
    source: &ExampleSource,
    pools: &[rayon::ThreadPool],
) -> Result<(Vec<GradStore>, [Option<f64>; 3]), TrainError> {
    let size = options.batch.div_ceil(pools.len());
    let work = |worker: u64| -> WorkerResult {
        let examples = source.batch(options.stage, run.step, worker, size)?;
        let losses = losses(&run.model, &examples, &LossWeights::default())?;
        let parts = [losses.text, losses.visual, losses.retrieval];
        Ok((losses.total.backward()?, parts))
    };
    let results: Vec<WorkerResult> = std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0u64..)
            .zip(pools)
            .map(|(worker, pool)| scope.spawn(move || pool.install(|| work(worker))))
            .collect();
        let failed = || TrainError::Worker {
            reason: "it panicked".to_owned(),
        };
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|_| Err(failed())))
            .collect()
    });
    let mut stores = Vec::with_capacity(results.len());
    let mut sums = [(0.0, 0u32); 3];
    for result in results {
        let (store, parts) = result?;
        stores.push(store);
        for ((sum, count), part) in sums.iter_mut().zip(parts) {
            if let Some(part) = part {
                *sum += f64::from(part);
                *count += 1;
            }
        }
    }
    Ok((
        stores,
        sums.map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))),
    ))
}

/// Writes the averaged weights of a run as a checkpoint in bf16, with tokenizer files and a card beside them.
///
/// # Errors
///
/// Fails where the run has no state or the folder cannot be written.
pub fn export(
    run: &Path,
    config: &ModelConfig,
    files: &[(&str, &[u8])],
    out: &Path,
) -> Result<(), TrainError> {
    let vars = variables(config, 0)?;
    load_average(run, &vars)?;
    let tensors = vars
        .iter()
        .map(|(name, var)| Ok((name.clone(), var.as_tensor().to_dtype(DType::BF16)?)));
    let tensors: HashMap<String, Tensor> = tensors.collect::<candle_core::Result<_>>()?;
    Checkpoint::save(out, config, &tensors, files)?;
    Ok(())
}
