//! The training loop: data-parallel over threads, resumable to the bit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{Device, Var};
use multiway_model::{Checkpoint, DType, Model, ModelConfig, Tensor, initialise};
use rayon::prelude::*;

pub use crate::error::TrainError;
use crate::examples::ExampleSource;
use crate::log::{EventLog, LossLog, plot_losses};
use crate::objective::{Example, FeatureHeads, LossWeights, PARTS, Teachers, losses};
use crate::optimizer::{AdamW, AdamWConfig, OptimizerError, decays_by_default};
use crate::recipe::{Optimizer, Stage};
use crate::schedule::WarmupCosine;
use crate::state::{Progress, TrainingState};
use crate::workers::{PANICKED, Workers, pool};

/// Validation examples that are scored together.
const VALIDATION_BATCH: usize = 64;

/// The settings of a run of one stage.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Where states, the losses and their curves are kept.
    pub run: PathBuf,
    /// What is asked, and how the optimiser steps.
    pub stage: Stage,
    /// Worker threads; the results depend on their number.
    pub workers: usize,
    /// Where the weights start, if the run has no state yet: the folder of an earlier run, or a checkpoint.
    pub start: Option<PathBuf>,
}

impl TrainOptions {
    /// Describes what must stay the same when a run is resumed.
    fn settings(&self, config: &ModelConfig) -> String {
        let settings = serde_json::json!({
            "stage": self.stage,
            "workers": self.workers,
            "model": serde_json::from_str::<serde_json::Value>(&config.to_json()).unwrap_or_default(),
        });
        settings.to_string()
    }
}

/// Told after each step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean losses in the order of [`PARTS`], where they were asked.
    pub losses: [Option<f64>; PARTS.len()],
    /// The last loss of text on the validation split, where there was a look at it.
    pub validation: Option<f64>,
    /// Examples a second, of this step.
    pub examples_per_second: f64,
}

/// The columns of the losses' file: the parts of the loss, and these.
const FURTHER_COLUMNS: [&str; 3] = ["validation", "gradient_norm", "learning_rate"];

/// A run: variables, optimiser and where it stands.
struct Run {
    vars: Vec<(String, Var)>,
    frozen: Vec<bool>,
    model: Model,
    heads: Option<FeatureHeads>,
    optimizer: AdamW,
    step: u64,
    /// The best loss on the validation split, and how many looks ago it was.
    best: Option<(f64, u64)>,
}

/// Trains until the last step, until the validation split shows no more progress, or until `stop` is set;
/// then a state is saved and the run can go on later.
///
/// Returns the steps done.
///
/// # Errors
///
/// Fails where data, settings or the folder cannot be used, or a loss is no number; what was saved before
/// stays.
pub fn train(
    options: &TrainOptions,
    config: &ModelConfig,
    source: &ExampleSource,
    seed: u64,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(StepReport),
) -> Result<u64, TrainError> {
    let stage = &options.stage;
    source.check(stage)?;
    let mut run = open(options, config, seed)?;
    let csv = options.run.join("losses.csv");
    let columns: Vec<&str> = PARTS.into_iter().chain(FURTHER_COLUMNS).collect();
    let mut log = LossLog::resume(&csv, &columns, run.step)?;
    let mut events = EventLog::create(&options.run, &columns, run.step)?;
    let schedule = WarmupCosine {
        peak: stage.learning_rate,
        floor: stage.learning_rate * 0.02,
        warmup_steps: stage.warmup_steps(),
        decay_steps: decay_steps(stage),
        total_steps: stage.steps,
    };
    let workers = Workers::start(options.workers).map_err(worker_failure)?;
    let all = pool(options.workers).map_err(worker_failure)?;
    let started_at = run.step;
    let (mut validation, mut skipped) = (None, 0);
    while run.step < stage.steps && !stop.load(Ordering::Relaxed) && !is_spent(&run, stage) {
        let begin = Instant::now();
        let rate = schedule.learning_rate(run.step);
        let (gradients, losses) = gradients(&run, options, source, &workers)?;
        let shares = vec![1.0; gradients.len()];
        let Run {
            vars,
            frozen,
            optimizer,
            ..
        } = &mut run;
        let stepped = all.install(|| optimizer.step(vars, frozen, &gradients, &shares, rate));
        let norm = passed_over(stepped, &mut skipped, stage.skip_not_finite)?;
        run.step += 1;
        let examples_per_second = stage.batch as f64 / begin.elapsed().as_secs_f64();
        let looks = stage.validate_every > 0 && run.step.is_multiple_of(stage.validate_every);
        let looked = if looks { validate(&mut run, source)? } else { None };
        validation = looked.or(validation);
        let row: Vec<Option<f64>> = losses
            .into_iter()
            .chain([looked, norm.map(f64::from), Some(rate)])
            .collect();
        log.append(run.step, &row)?;
        events.append(run.step, &row)?;
        if run.step.is_multiple_of(stage.save_every) {
            save(&run, options, config, seed)?;
        }
        progress(StepReport {
            step: run.step,
            steps: stage.steps,
            losses,
            validation,
            examples_per_second,
        });
    }
    if run.step > started_at {
        save(&run, options, config, seed)?;
    }
    drop(log);
    if run.step > 0 {
        plot_losses(&csv, &options.run.join("losses.svg"))?;
    }
    Ok(run.step)
}

/// Passes over a step whose gradient is not finite, up to so many in a row: a batch may be broken, and
/// weights and moments are unchanged. Counts them in `skipped`.
fn passed_over(
    stepped: Result<f32, OptimizerError>,
    skipped: &mut u64,
    limit: u64,
) -> Result<Option<f32>, OptimizerError> {
    match stepped {
        Err(error @ OptimizerError::NotFinite { .. }) if *skipped < limit => {
            *skipped += 1;
            tracing::warn!("{error}: passed over, {skipped} of {limit} in a row");
            Ok(None)
        }
        stepped => {
            *skipped = 0;
            stepped.map(Some)
        }
    }
}

/// What a stage takes.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    /// Numbers that are trained.
    pub parameters: usize,
    /// Bytes of weights, gradients, moments and averages; activations come on top.
    pub bytes: usize,
    /// Examples a second, of a few steps that were tried.
    pub examples_per_second: f64,
    /// How long all steps take.
    pub duration: Duration,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.duration.as_secs().div_ceil(60);
        write!(
            f,
            "{:.1} million parameters, {:.2} GB of states, {:.0} examples/s, {} h {:02} min",
            self.parameters as f64 / 1e6,
            self.bytes as f64 / 1e9,
            self.examples_per_second,
            minutes / 60,
            minutes % 60,
        )
    }
}

/// Steps that are tried for an estimate, after a first one.
const TRIED_STEPS: u64 = 3;

/// Tries a few steps of a stage, and says what all of it would take. Nothing is written.
///
/// # Errors
///
/// Fails where a step cannot be made.
pub fn estimate(
    options: &TrainOptions,
    config: &ModelConfig,
    source: &ExampleSource,
    seed: u64,
) -> Result<Estimate, TrainError> {
    let stage = &options.stage;
    let run = fresh(options, config, seed)?;
    let workers = Workers::start(options.workers).map_err(worker_failure)?;
    let mut begin = Instant::now();
    for step in 0..=TRIED_STEPS {
        // The first step fills the memory that the others find filled.
        if step == 1 {
            begin = Instant::now();
        }
        gradients(&run, options, source, &workers)?;
    }
    let a_step = begin.elapsed().div_f64(TRIED_STEPS as f64);
    let trained = run.vars.iter().zip(&run.frozen).filter(|(_, frozen)| !**frozen);
    let all: usize = run.vars.iter().map(|(_, var)| var.elem_count()).sum();
    Ok(Estimate {
        parameters: trained.map(|((_, var), _)| var.elem_count()).sum(),
        // Weights, two moments, the average, the step's gradient, and a gradient a worker.
        bytes: all * size_of::<f32>() * (5 + options.workers),
        examples_per_second: stage.batch as f64 / a_step.as_secs_f64(),
        duration: a_step.mul_f64(stage.steps as f64),
    })
}

/// Counts the steps at the end over which the learning rate falls.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the steps, checked to be between 0 and 1"
)]
fn decay_steps(stage: &Stage) -> u64 {
    (stage.decay * stage.steps as f64).round() as u64
}

/// Tells whether the validation split has shown no progress for as long as the stage waits.
fn is_spent(run: &Run, stage: &Stage) -> bool {
    stage.patience > 0 && run.best.is_some_and(|(_, looks)| looks >= stage.patience)
}

/// Looks at the validation split with the averaged weights: the mean loss of its text, and notes whether it
/// is the best.
fn validate(run: &mut Run, source: &ExampleSource) -> Result<Option<f64>, TrainError> {
    let examples = source.validation()?;
    if examples.is_empty() {
        return Ok(None);
    }
    let averaged: HashMap<String, Tensor> = run.optimizer.averages()?;
    let model = Model::from_tensors(run.model.config(), &averaged)?;
    let weights = LossWeights {
        smoothing: 0.0,
        ..LossWeights::default()
    };
    let chunks: Vec<&[Example]> = examples.chunks(VALIDATION_BATCH).collect();
    let losses: Vec<Option<f64>> = chunks
        .par_iter()
        .map(|chunk| {
            let losses = losses(&model, Teachers::default(), chunk, &weights)?;
            Ok(losses.parts[0].map(|loss| f64::from(loss) * chunk.len() as f64))
        })
        .collect::<Result<_, TrainError>>()?;
    let sum: f64 = losses.into_iter().flatten().sum();
    let loss = sum / examples.len() as f64;
    run.best = match run.best {
        Some((best, looks)) if best <= loss => Some((best, looks + 1)),
        _ => Some((loss, 0)),
    };
    Ok(Some(loss))
}

/// Makes the parameters: those of the model, then those of the heads that training alone has.
fn variables(config: &ModelConfig, seed: u64) -> Result<Vec<(String, Var)>, TrainError> {
    let mut fresh = initialise(config, seed, &Device::Cpu)?;
    if config.vision.is_some() {
        // From zero: the model's rows are long before it is trained, and so would be the guesses.
        for (name, shape) in FeatureHeads::shapes(config.hidden_size) {
            fresh.push((name, Tensor::zeros(shape, DType::F32, &Device::Cpu)?));
        }
    }
    let vars = fresh
        .into_iter()
        .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
    Ok(vars.collect::<candle_core::Result<_>>()?)
}

/// Makes a run that has not begun.
fn fresh(options: &TrainOptions, config: &ModelConfig, seed: u64) -> Result<Run, TrainError> {
    let stage = &options.stage;
    let vars = variables(config, seed)?;
    let tensors: HashMap<String, Tensor> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect();
    let settings = AdamWConfig {
        muon_momentum: (stage.optimizer == Optimizer::Muon).then_some(0.95),
        products: stage.products.here(),
        ..averaging(stage.average_decay)
    };
    Ok(Run {
        frozen: vars.iter().map(|(name, _)| stage.is_frozen(name)).collect(),
        model: Model::for_training(config, &tensors, stage.products.here())?,
        heads: FeatureHeads::of_tensors(&tensors),
        optimizer: AdamW::new(settings, &vars, decays_by_default)?,
        vars,
        step: 0,
        best: None,
    })
}

/// Makes a run where it stands: from its last state, from the weights that it is to start with, or fresh.
fn open(options: &TrainOptions, config: &ModelConfig, seed: u64) -> Result<Run, TrainError> {
    let folder = &options.run;
    std::fs::create_dir_all(folder).map_err(|source| TrainError::File {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    let mut run = fresh(options, config, seed)?;
    if let Some(state) = TrainingState::load_latest(folder)? {
        let (expected, found) = (options.settings(config), state.progress().settings.clone());
        if found != expected {
            return Err(TrainError::Settings {
                folder: folder.clone(),
                expected,
                found,
            });
        }
        state.restore(&run.vars, &mut run.optimizer)?;
        run.step = state.progress().step;
        run.best = state
            .progress()
            .best
            .map(|(bits, looks)| (f64::from_bits(bits), looks));
    } else if let Some(start) = &options.start {
        load_start(start, config, &run.vars)?;
        // The average begins with these weights, too.
        run.optimizer = AdamW::new(*run.optimizer.config(), &run.vars, decays_by_default)?;
    }
    Ok(run)
}

/// The optimiser's settings, of which a run's states have to keep the moving average.
fn averaging(decay: f32) -> AdamWConfig {
    AdamWConfig {
        average_decay: Some(decay),
        ..AdamWConfig::default()
    }
}

/// Puts the weights of an earlier run or of a checkpoint into variables. A checkpoint has no heads for the
/// teacher's features: they stay as they are.
fn load_start(start: &Path, config: &ModelConfig, vars: &[(String, Var)]) -> Result<(), TrainError> {
    if !start.join("config.json").exists() {
        return load_average(start, vars);
    }
    let checkpoint = Checkpoint::open(start)?;
    if checkpoint.config().tensors() != config.tensors() {
        return Err(TrainError::OtherModel {
            folder: start.to_owned(),
        });
    }
    for (name, var) in vars
        .iter()
        .filter(|(name, _)| !name.starts_with(FeatureHeads::PREFIX))
    {
        var.set(&checkpoint.load_tensor(name, &Device::Cpu, DType::F32)?)?;
    }
    Ok(())
}

/// Puts the averaged weights of a run into variables.
fn load_average(run: &Path, vars: &[(String, Var)]) -> Result<(), TrainError> {
    let state = TrainingState::load_latest(run)?.ok_or_else(|| TrainError::NoState {
        folder: run.to_owned(),
    })?;
    let mut optimizer = AdamW::new(averaging(0.5), vars, decays_by_default)?;
    state.restore(vars, &mut optimizer)?;
    optimizer.write_average(vars)?;
    Ok(())
}

fn save(run: &Run, options: &TrainOptions, config: &ModelConfig, seed: u64) -> Result<(), TrainError> {
    let progress = Progress {
        step: run.step,
        seed,
        // Examples are drawn from the seed and the step alone: no generator or position has to be kept.
        generators: BTreeMap::new(),
        data_position: BTreeMap::new(),
        best: run.best.map(|(loss, looks)| (loss.to_bits(), looks)),
        settings: options.settings(config),
    };
    TrainingState::capture(progress, &run.vars, &run.optimizer)?.save(&options.run)?;
    Ok(())
}

fn worker_failure(reason: String) -> TrainError {
    TrainError::Worker { reason }
}

/// Makes a model of the averaged weights; no gradient flows to it.
fn averaged_model(run: &Run, stage: &Stage) -> Result<Model, TrainError> {
    let averaged = run.optimizer.averages()?;
    let products = stage.products.here();
    Ok(Model::for_training(run.model.config(), &averaged, products)?)
}

type WorkerResult = Result<(GradStore, [Option<f32>; PARTS.len()]), TrainError>;

fn gradients(
    run: &Run,
    options: &TrainOptions,
    source: &ExampleSource,
    workers: &Workers,
) -> Result<(Vec<GradStore>, [Option<f64>; PARTS.len()]), TrainError> {
    let stage = &options.stage;
    let size = stage.batch.div_ceil(workers.count());
    let averaged = match stage.loss.soft > 0.0 {
        true => Some(averaged_model(run, stage)?),
        false => None,
    };
    // The average is no teacher before it has learnt something.
    let risen = (run.step as f32 / stage.warmup_steps().max(1) as f32).min(1.0);
    let teachers = Teachers {
        heads: run.heads.as_ref(),
        averaged: averaged.as_ref().map(|model| (model, risen)),
    };
    let work = |worker: u64| -> WorkerResult {
        let examples = source.batch(stage, run.step, worker, size)?;
        let losses = losses(&run.model, teachers, &examples, &stage.loss)?;
        Ok((losses.total.backward()?, losses.parts))
    };
    let results = workers.each(0..workers.count() as u64, work);
    let mut stores = Vec::with_capacity(results.len());
    let mut sums = [(0.0, 0u32); PARTS.len()];
    for result in results {
        let (store, parts) = result.unwrap_or_else(|| Err(worker_failure(PANICKED.to_owned())))?;
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
        .filter(|(name, _)| !name.starts_with(FeatureHeads::PREFIX))
        .map(|(name, var)| Ok((name.clone(), var.as_tensor().to_dtype(DType::BF16)?)));
    let tensors: HashMap<String, Tensor> = tensors.collect::<candle_core::Result<_>>()?;
    Checkpoint::save(out, config, &tensors, files)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_not_finite_are_passed_over_a_few_times_in_a_row() {
        let broken = || {
            Err(OptimizerError::NotFinite {
                name: "weight".to_owned(),
                step: 7,
            })
        };
        let mut skipped = 0;
        for _ in 0..2 {
            assert!(passed_over(broken(), &mut skipped, 2).unwrap().is_none());
        }
        assert!(passed_over(Ok(1.5), &mut skipped, 2).unwrap().is_some());
        // A good step begins the count anew.
        for _ in 0..2 {
            assert!(passed_over(broken(), &mut skipped, 2).unwrap().is_none());
        }
        let error = passed_over(broken(), &mut skipped, 2).unwrap_err();
        assert!(error.to_string().contains("'weight'"), "{error}");
        assert!(passed_over(broken(), &mut 0, 0).is_err());
    }
}
