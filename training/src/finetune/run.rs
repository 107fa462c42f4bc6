//! The loop of fine-tuning: data-parallel over threads, resumable to the bit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::backprop::GradStore;
use multiway_model::kernels::Products;
use multiway_model::{Checkpoint, Model};
use sha2::{Digest, Sha256};

use super::error::FinetuneError;
use super::examples::TuningExample;
use super::losses::loss;
use super::method::Method;
use super::variables::{TunedWeights, Variables};
use crate::log::{LossLog, plot_losses};
use crate::objective::Example;
use crate::optimizer::{AdamW, AdamWConfig, decays_by_default};
use crate::random::{fork, shuffle};
use crate::schedule::WarmupCosine;
use crate::state::{Progress, TrainingState};
use crate::workers::{PANICKED, Workers, pool};

/// The columns of the file of losses.
const COLUMNS: [&str; 4] = ["text", "validation", "gradient_norm", "learning_rate"];

/// Validation examples that are scored together.
const VALIDATION_BATCH: usize = 32;

/// The folder of the best weights, beside the states.
const BEST: &str = "best";

/// The first counters of the generators that draw the order of examples, and their answers.
const ORDER: u64 = 2;
const ANSWERS: u64 = 3;

/// The settings of fine-tuning.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    /// Where states, the losses and their curves are kept.
    pub run: PathBuf,
    /// What is trained.
    pub method: Method,
    /// Steps of the whole run.
    pub steps: u64,
    /// Examples of a step.
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps between looks at the validation records.
    pub validate_every: u64,
    /// Looks without progress after which training stops; zero never stops it.
    pub patience: u64,
    /// Everything random comes from it.
    pub seed: u64,
    /// Worker threads; the results depend on their number.
    pub workers: usize,
    /// How linear layers multiply.
    pub products: Products,
    /// What else must stay the same when a run is resumed, by name: the task, the model.
    pub identity: BTreeMap<String, String>,
}

/// Told after each step.
#[derive(Debug, Clone, Copy)]
pub struct TuneReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The mean loss of the step, in nats a token or class.
    pub loss: f64,
    /// The last loss on the validation records, if there are any.
    pub validation: Option<f64>,
    /// Examples a second, of this step.
    pub examples_per_second: f64,
}

/// Tells how a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished {
    /// Steps done.
    pub step: u64,
    /// The lowest loss on the validation records, and the step of the weights that it is of; none without
    /// such records.
    pub best: Option<(f64, u64)>,
    /// The weights of the lowest loss on the validation records, or the last.
    pub weights: TunedWeights,
}

/// A run that was opened: begun, or where it stood.
pub struct Tuning<'a> {
    options: TuneOptions,
    checkpoint: &'a Checkpoint,
    train: &'a [TuningExample],
    validation: &'a [TuningExample],
    variables: Variables,
    optimizer: AdamW,
    workers: Workers,
    /// All workers, for what they do together.
    all: rayon::ThreadPool,
    step: u64,
    /// The best loss on the validation records, and how many looks ago it was.
    best: Option<(f64, u64)>,
    /// The order of the examples in an epoch.
    order: (u64, Vec<usize>),
}

impl std::fmt::Debug for Tuning<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuning")
            .field("options", &self.options)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl<'a> Tuning<'a> {
    /// Opens a run in its folder: where it stands, or at its beginning.
    ///
    /// # Errors
    ///
    /// Fails where the checkpoint is packed, there is nothing to train on, or the run in the folder was begun
    /// with other settings.
    pub fn open(
        options: TuneOptions,
        checkpoint: &'a Checkpoint,
        train: &'a [TuningExample],
        validation: &'a [TuningExample],
    ) -> Result<Self, FinetuneError> {
        if checkpoint.packed().is_some() {
            let model = checkpoint.name().to_owned();
            return Err(FinetuneError::Packed { model });
        }
        if train.is_empty() {
            let validation = validation.len();
            return Err(FinetuneError::NothingToTrainOn { validation });
        }
        std::fs::create_dir_all(&options.run).map_err(|source| FinetuneError::File {
            action: "create",
            path: options.run.clone(),
            source,
        })?;
        let state = TrainingState::load_latest(&options.run)?;
        let settings = settings(&options, train, validation);
        if let Some(state) = &state {
            check_settings(&options.run, &settings, &state.progress().settings)?;
        }
        let variables = Variables::new(checkpoint, options.method, options.products, options.seed)?;
        let optimizer = AdamW::new(optimizer(options.method), &variables.vars, decays_by_default)?;
        let mut tuning = Self {
            workers: Workers::start(options.workers).map_err(worker_failure)?,
            all: pool(options.workers).map_err(worker_failure)?,
            options,
            checkpoint,
            train,
            validation,
            variables,
            optimizer,
            step: 0,
            best: None,
            order: (u64::MAX, Vec::new()),
        };
        if let Some(state) = state {
            state.restore(&tuning.variables.vars, &mut tuning.optimizer)?;
            tuning.step = state.progress().step;
            tuning.best = state
                .progress()
                .best
                .map(|(bits, looks)| (f64::from_bits(bits), looks));
        }
        Ok(tuning)
    }

    /// Returns the steps that are done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Counts the numbers that are trained.
    #[must_use]
    pub fn trained_parameters(&self) -> usize {
        self.variables.trained()
    }

    /// Trains until the last step, until the validation records show no more progress, or until `stop` is
    /// set; then a state is saved and nothing returned, and the run can go on later.
    ///
    /// # Errors
    ///
    /// Fails where a loss is no number or the folder cannot be written; what was saved before stays.
    pub fn train(
        &mut self,
        base_fingerprint: &str,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(TuneReport),
    ) -> Result<Option<Finished>, FinetuneError> {
        let csv = self.options.run.join("losses.csv");
        let mut log;
        let mut validation = None;
        if self.step == 0 {
            log = LossLog::create(&csv, &COLUMNS)?;
            self.best = None;
            validation = self.validate()?;
            log.append(0, &[None, validation, None, None])?;
            self.save()?;
        } else {
            log = LossLog::resume(&csv, &COLUMNS, self.step)?;
        }
        while self.step < self.options.steps && !self.is_spent() {
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(None);
            }
            let begin = Instant::now();
            let (loss, norm, rate) = self.advance()?;
            let examples_per_second = self.options.batch as f64 / begin.elapsed().as_secs_f64();
            let looks = self.step.is_multiple_of(self.options.validate_every.max(1))
                || self.step == self.options.steps;
            let looked = if looks { self.validate()? } else { None };
            validation = looked.or(validation);
            log.append(self.step, &[Some(loss), looked, Some(norm), Some(rate)])?;
            if looks {
                self.save()?;
            }
            progress(TuneReport {
                step: self.step,
                steps: self.options.steps,
                loss,
                validation,
                examples_per_second,
            });
        }
        drop(log);
        plot_losses(&csv, &self.options.run.join("losses.svg"))?;
        self.finish(base_fingerprint).map(Some)
    }

    /// Makes a step: the loss, the norm of the gradient, and the learning rate.
    fn advance(&mut self) -> Result<(f64, f64, f64), FinetuneError> {
        let options = &self.options;
        let schedule = WarmupCosine {
            peak: options.learning_rate,
            floor: options.learning_rate * 0.02,
            warmup_steps: options.warmup_steps,
            decay_steps: options.steps,
            total_steps: options.steps,
        };
        let rate = schedule.learning_rate(self.step);
        let batch = self.draw();
        let (gradients, shares, loss) = self.gradients(&batch)?;
        if !loss.is_finite() {
            let step = self.step;
            return Err(FinetuneError::NotFinite { step, loss });
        }
        let Variables { vars, frozen, .. } = &self.variables;
        let optimizer = &mut self.optimizer;
        let step = || optimizer.step(vars, frozen, &gradients, &shares, rate);
        let norm = self.all.install(step)?;
        self.step += 1;
        Ok((loss, f64::from(norm), rate))
    }

    /// Draws the examples of a step: those that come next in the order of their epoch, each with one of its
    /// right answers.
    fn draw(&mut self) -> Vec<(Example, Option<u32>)> {
        let (count, batch) = (self.train.len() as u64, self.options.batch as u64);
        let first = self.step * batch;
        let mut drawn = Vec::with_capacity(self.options.batch);
        for place in first..first + batch {
            let epoch = place / count;
            if self.order.0 != epoch {
                let mut order: Vec<usize> = (0..self.train.len()).collect();
                shuffle(&mut fork(self.options.seed, &[ORDER, epoch]), &mut order);
                self.order = (epoch, order);
            }
            let at = usize::try_from(place % count).unwrap_or_default();
            let example = self.order.1.get(at).and_then(|index| self.train.get(*index));
            let mut rng = fork(self.options.seed, &[ANSWERS, place]);
            drawn.extend(example.map(|example| example.drawn(Some(&mut rng))));
        }
        drawn
    }

    /// Computes the gradients of a batch: one store for each worker that had a share, what it counts, and the
    /// mean loss.
    fn gradients(
        &self,
        batch: &[(Example, Option<u32>)],
    ) -> Result<(Vec<GradStore>, Vec<f64>, f64), FinetuneError> {
        let model = self.variables.model()?;
        let parts = batch.chunks(batch.len().div_ceil(self.workers.count()).max(1));
        let work = |part: &[(Example, Option<u32>)]| {
            let loss = loss(&model, part)?;
            let value = f64::from(loss.mean.to_scalar::<f32>()?);
            Ok((loss.mean.backward()?, loss.asked, value))
        };
        let (mut stores, mut shares, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for result in self.each(parts, work) {
            let (store, asked, value) = result?;
            stores.push(store);
            shares.push(asked as f64);
            sum += value * asked as f64;
        }
        let loss = sum / shares.iter().sum::<f64>();
        Ok((stores, shares, loss))
    }

    /// Looks at the validation records, notes whether their loss is the lowest, and keeps the weights if it
    /// is.
    fn validate(&mut self) -> Result<Option<f64>, FinetuneError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let loss = self.validation_loss(&self.variables.model()?)?;
        if !loss.is_finite() {
            let step = self.step;
            return Err(FinetuneError::NotFinite { step, loss });
        }
        self.best = match self.best {
            Some((best, looks)) if best <= loss => Some((best, looks + 1)),
            _ => Some((loss, 0)),
        };
        if let Some((_, 0)) = self.best {
            let best = self.options.run.join(BEST);
            self.state()?.save(&best)?;
        }
        Ok(Some(loss))
    }

    fn validation_loss(&self, model: &Model) -> Result<f64, FinetuneError> {
        let examples: Vec<_> = self
            .validation
            .iter()
            .map(|example| example.drawn(None))
            .collect();
        let work = |part: &[(Example, Option<u32>)]| {
            let loss = loss(model, part)?;
            Ok((f64::from(loss.mean.to_scalar::<f32>()?), loss.asked))
        };
        let (mut sum, mut count) = (0.0, 0);
        let parts: Vec<&[_]> = examples.chunks(VALIDATION_BATCH).collect();
        for round in parts.chunks(self.workers.count()) {
            for result in self.each(round.iter().copied(), work) {
                let (value, asked) = result?;
                sum += value * asked as f64;
                count += asked;
            }
        }
        Ok(sum / count.max(1) as f64)
    }

    /// Hands each worker a part of the examples, and returns the results in the order of the parts.
    fn each<'p, T: Send>(
        &self,
        parts: impl IntoIterator<Item = &'p [(Example, Option<u32>)]>,
        work: impl Fn(&'p [(Example, Option<u32>)]) -> Result<T, FinetuneError> + Sync,
    ) -> Vec<Result<T, FinetuneError>> {
        let results = self.workers.each(parts, work).into_iter();
        let panicked = || Err(worker_failure(PANICKED.to_owned()));
        results.map(|result| result.unwrap_or_else(panicked)).collect()
    }

    /// Tells whether the validation records have shown no progress for as long as the run waits.
    fn is_spent(&self) -> bool {
        let patience = self.options.patience;
        patience > 0 && self.best.is_some_and(|(_, looks)| looks >= patience)
    }

    fn state(&self) -> Result<TrainingState, FinetuneError> {
        let progress = Progress {
            step: self.step,
            seed: self.options.seed,
            // Examples are drawn from the seed and the step alone: no generator or position has to be kept.
            generators: BTreeMap::new(),
            data_position: BTreeMap::new(),
            best: self.best.map(|(loss, looks)| (loss.to_bits(), looks)),
            settings: settings(&self.options, self.train, self.validation),
        };
        Ok(TrainingState::capture(
            progress,
            &self.variables.vars,
            &self.optimizer,
        )?)
    }

    fn save(&self) -> Result<(), FinetuneError> {
        self.state()?.save(&self.options.run)?;
        Ok(())
    }

    /// Takes the best weights.
    fn finish(&mut self, base_fingerprint: &str) -> Result<Finished, FinetuneError> {
        let step = self.step;
        let mut best = None;
        if let Some((loss, _)) = self.best {
            let folder = self.options.run.join(BEST);
            let state = TrainingState::load_latest(&folder)?;
            let is_best =
                |state: &TrainingState| state.progress().best.map(|(bits, _)| bits) == Some(loss.to_bits());
            let state = state
                .filter(is_best)
                .ok_or(FinetuneError::BestLost { folder, loss })?;
            state.restore(&self.variables.vars, &mut self.optimizer)?;
            best = Some((loss, state.progress().step));
        }
        let weights = self.variables.tuned(self.checkpoint.name(), base_fingerprint)?;
        Ok(Finished { step, best, weights })
    }
}

/// The optimiser's settings.
fn optimizer(method: Method) -> AdamWConfig {
    AdamWConfig {
        beta2: 0.999,
        weight_decay: method.weight_decay(),
        max_gradient_norm: Some(1.0),
        average_decay: None,
        ..AdamWConfig::default()
    }
}

/// Describes what must stay the same when a run is resumed, as JSON.
fn settings(options: &TuneOptions, train: &[TuningExample], validation: &[TuningExample]) -> String {
    let digest = |examples: &[TuningExample]| {
        let mut hash = Sha256::new();
        examples.iter().for_each(|example| hash.update(example.digest()));
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        format!(
            "{} records, {:08x}",
            examples.len(),
            u32::from_be_bytes([a, b, c, d])
        )
    };
    let own = [
        ("method", options.method.to_string()),
        ("steps", options.steps.to_string()),
        ("batch", options.batch.to_string()),
        ("learning rate", options.learning_rate.to_string()),
        ("warm-up", options.warmup_steps.to_string()),
        ("validation every", options.validate_every.to_string()),
        ("patience", options.patience.to_string()),
        ("seed", options.seed.to_string()),
        ("workers", options.workers.to_string()),
        ("products", format!("{:?}", options.products).to_lowercase()),
        ("training data", digest(train)),
        ("validation data", digest(validation)),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let all: BTreeMap<String, String> = own.chain(options.identity.clone()).collect();
    serde_json::json!(all).to_string()
}

/// Checks that a run was begun with the settings that it is resumed with.
fn check_settings(folder: &Path, expected: &str, found: &str) -> Result<(), FinetuneError> {
    if expected == found {
        return Ok(());
    }
    let read = |text: &str| serde_json::from_str::<BTreeMap<String, String>>(text).unwrap_or_default();
    let (now, then) = (read(expected), read(found));
    let value =
        |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or("none".to_owned());
    let all: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    let names = all.into_iter().filter(|name| now.get(*name) != then.get(*name));
    Err(FinetuneError::Settings {
        folder: folder.to_owned(),
        different: names
            .map(|name| {
                format!(
                    "{name} was {}, and is now {}",
                    value(&then, name),
                    value(&now, name)
                )
            })
            .collect(),
    })
}

fn worker_failure(reason: String) -> FinetuneError {
    FinetuneError::Worker { reason }
}
