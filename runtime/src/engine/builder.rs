//! Building an engine.

use std::sync::Arc;

use multiway_model::kernels::Pool;
use multiway_model::{CacheType, Checkpoint, DType, Device, LoadOptions, Model, ModelConfig, WeightType};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use super::Engine;
use super::forward::{Forward, ModelForward};
use super::labels;
use super::limits::{Limits, constraint_cache_bytes};
use super::meters::Metrics;
use super::replica::{Poison, Replica};
use super::shared::Shared;
use super::stats::Counters;
use super::telemetry;
use super::worker::Worker;
use crate::constraint::Constraints;
use crate::error::EngineError;
use crate::generation::GenerationConfig;
use crate::scheduler::Scheduler;
use crate::tokenizer::Tokenizer;

/// The largest value of any option: it bounds allocations, and is far above what is useful.
const MAX_OPTION: usize = 1 << 16;

/// Configures an engine; [`build`](Self::build) starts it.
#[derive(Debug)]
#[must_use = "an engine runs only once it is built"]
pub struct EngineBuilder<'a> {
    source: ModelSource<'a>,
    tokenizer: Option<Tokenizer>,
    options: Options,
    device: Device,
    load: LoadOptions,
}

#[derive(Debug)]
enum ModelSource<'a> {
    Checkpoint(&'a Checkpoint),
    Model(Arc<Model>, Tokenizer),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) threads: Option<usize>,
    pub(super) max_batch: usize,
    pub(super) queue_capacity: usize,
    pub(super) encode_budget: usize,
    pub(super) memory_budget: usize,
    pub(super) reuse_budget: usize,
    pub(super) replicas: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            max_batch: 32,
            queue_capacity: 1024,
            encode_budget: 2048,
            memory_budget: 1 << 30,
            reuse_budget: 256 << 20,
            replicas: 1,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), EngineError> {
        let options = [
            ("threads", self.threads.unwrap_or(1)),
            ("max_batch", self.max_batch),
            ("queue_capacity", self.queue_capacity),
            ("encode_budget", self.encode_budget),
            ("replicas", self.replicas),
        ];
        match options
            .into_iter()
            .find(|(_, value)| !(1..=MAX_OPTION).contains(value))
        {
            Some((option, found)) => Err(EngineError::Option {
                option,
                found,
                expected: "1 to 65536",
            }),
            None => Ok(()),
        }
    }
}

impl<'a> EngineBuilder<'a> {
    pub(super) fn from_checkpoint(checkpoint: &'a Checkpoint) -> Self {
        Self::new(ModelSource::Checkpoint(checkpoint))
    }

    pub(super) fn from_model(model: Arc<Model>, tokenizer: Tokenizer) -> Self {
        Self::new(ModelSource::Model(model, tokenizer))
    }

    fn new(source: ModelSource<'a>) -> Self {
        Self {
            source,
            tokenizer: None,
            options: Options::default(),
            device: Device::Cpu,
            load: LoadOptions::default(),
        }
    }

    /// Gives the checkpoint's tokenizer, if it was read already; default: it is read when the engine is
    /// built.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_model::Checkpoint;
    /// use multiway_runtime::{Engine, Tokenizer};
    ///
    /// let checkpoint = Checkpoint::open("../checkpoints/default")?;
    /// let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
    /// let engine = Engine::builder(&checkpoint).tokenizer(tokenizer).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tokenizer(mut self, tokenizer: Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Sets the number of compute threads of each replica; default: the cores divided by the replicas.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let engine = builder.threads(2).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Sets the number of replicas, which share one set of weights; default: one.
    ///
    /// Each replica has an engine thread, a pool of [`threads`](Self::threads) and a KV cache of its own, and
    /// a request goes to the least loaded one. On one machine a single replica with all cores mostly has the
    /// higher throughput; several isolate requests from each other.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let engine = builder.replicas(2).threads(1).build()?;
    /// assert_eq!(engine.stats().free_slots, 2 * 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.options.replicas = replicas;
        self
    }

    /// Sets how many bytes the running requests may hold together: KV cache, cross-attention memory, and
    /// constraint state; default: 1 GiB.
    ///
    /// The bytes of constraints are estimates: up to an eighth of the budget for running answers, 1.25 MiB
    /// each, and a sixteenth for the cache of compiled constraints.
    ///
    /// A request is admitted once the most that it can need is free, and holds it to its end, so no request
    /// is ever preempted. One that could never be admitted is refused. Weights and scratch buffers are not
    /// included; replicas divide the budget.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let refused = builder.memory_budget(1000).build().unwrap_err();
    /// assert!(refused.to_string().starts_with("memory_budget is 1000 bytes"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.options.memory_budget = bytes;
        self
    }

    /// Sets the bytes of the cache of encoded prompts; default: 256 MiB; 0 turns it off.
    ///
    /// A prompt that is cached is not encoded again. Where pictures do not attend to text
    /// ([`AttentionPattern::ImagePrefix`](multiway_model::AttentionPattern::ImagePrefix)), neither is a
    /// cached picture in another prompt. Answers are the same bits with and without it. The least recently
    /// used entries are evicted first. Replicas divide the budget, and each caches what it encoded itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let engine = builder.threads(1).reuse_budget(0).build()?;
    /// assert_eq!(engine.stats().reuse_bytes, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reuse_budget(mut self, bytes: usize) -> Self {
        self.options.reuse_budget = bytes;
        self
    }

    /// Sets how many sequences a replica decodes in a batch; default: 32.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let engine = builder.threads(1).max_batch(8).build()?;
    /// assert_eq!(engine.stats().free_slots, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_batch(mut self, max_batch: usize) -> Self {
        self.options.max_batch = max_batch;
        self
    }

    /// Sets how many requests may be queued; default: 1024.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let engine = builder.threads(1).queue_capacity(16).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn queue_capacity(mut self, queue_capacity: usize) -> Self {
        self.options.queue_capacity = queue_capacity;
        self
    }

    /// Sets how many encoder rows, text tokens and patches, are encoded in one batch; default: 2048. A prompt
    /// is never split between batches.
    ///
    /// A larger batch has the higher throughput, at the cost of the latency of its first prompt. Running
    /// streams do not wait for a batch: on a CPU it is encoded in slices between their steps.
    pub fn encode_budget(mut self, rows: usize) -> Self {
        self.options.encode_budget = rows;
        self
    }

    /// Sets the device that a checkpoint's weights are loaded onto; default: the CPU.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sets the element type that a checkpoint's weights are loaded as; default: f32.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.load.dtype = dtype;
        self
    }

    /// Sets the storage type of a checkpoint's linear weights on the CPU; default: that of a packed
    /// checkpoint, else f32.
    ///
    /// [`WeightType::Bf16`] takes half the memory, and [`WeightType::Int8`] a quarter; a step with few
    /// sequences, which is bound by reading the weights, is faster by as much. Answers may differ from those
    /// of f32, and are batch-invariant all the same. The device must be the CPU and [`dtype`](Self::dtype)
    /// f32.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use multiway_model::{Checkpoint, WeightType};
    /// use multiway_runtime::Engine;
    ///
    /// let checkpoint = Checkpoint::open("checkpoints/default")?;
    /// let engine = Engine::builder(&checkpoint).weights(WeightType::Int8).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weights(mut self, weights: WeightType) -> Self {
        self.load.weights = Some(weights);
        self
    }

    /// Sets the element type of keys and values on the CPU, of prompts and of new tokens; default: f32.
    ///
    /// [`CacheType::Bf16`] takes half the memory, and [`CacheType::Int8`] about a quarter, so that more
    /// requests fit into the [`memory_budget`](Self::memory_budget), and steps with many sequences and long
    /// prompts are faster. Answers may differ from those of f32, and are batch-invariant all the same. The
    /// model must have a decoder, on the CPU and with [`dtype`](Self::dtype) f32.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use multiway_model::{CacheType, Checkpoint};
    /// use multiway_runtime::Engine;
    ///
    /// let checkpoint = Checkpoint::open("checkpoints/default")?;
    /// let engine = Engine::builder(&checkpoint).cache(CacheType::Bf16).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cache(mut self, cache: CacheType) -> Self {
        self.load.cache = cache;
        self
    }

    /// Loads the checkpoint and starts the engine's threads.
    ///
    /// # Errors
    /// [`EngineError`] where an option is out of range, the checkpoint cannot be loaded, or threads cannot be
    /// started.
    ///
    /// # Examples
    ///
    /// ```
    /// # let builder = multiway_runtime::testing::tiny_builder()?;
    /// let refused = builder.max_batch(0).build().unwrap_err();
    /// assert_eq!(refused.to_string(), "engine option 'max_batch' is 0, expected 1 to 65536");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(self) -> Result<Engine, EngineError> {
        self.options.check()?;
        let (model, tokenizer, generation, labels) = match self.source {
            ModelSource::Model(model, tokenizer) => {
                let tokenizer = tokenizer.for_model(model.config());
                let generation = GenerationConfig::of_model(model.config());
                (model, tokenizer, generation, None)
            }
            ModelSource::Checkpoint(checkpoint) => {
                let tokenizer = self
                    .tokenizer
                    .map_or_else(|| Tokenizer::from_checkpoint(checkpoint), Ok)?;
                let labels = labels::read(checkpoint)?;
                let generation = GenerationConfig::read(checkpoint)?;
                let model = Arc::new(Model::load_with(checkpoint, &self.device, &self.load)?);
                (model, tokenizer, generation, labels)
            }
        };
        let max_batch = self.options.max_batch;
        let beams = generation.sampling.beams;
        if beams > max_batch {
            let problem = format!(
                "num_beams is {beams}, but this engine runs {max_batch} sequences at a time; raise max_batch"
            );
            let file = generation.file;
            return Err(EngineError::Generation { file, problem });
        }
        let known = CheckpointParts {
            tokenizer,
            config: model.config().clone(),
            generation,
            labels,
        };
        let limits = Limits::new(
            &model,
            max_batch,
            self.options.memory_budget / self.options.replicas,
        )?;
        let forwards = (0..self.options.replicas).map(|_| {
            let kept = self.options.reuse_budget / self.options.replicas;
            let forward = ModelForward::new(Arc::clone(&model), &limits.capacity, kept);
            forward.map_err(|source| EngineError::Cache { max_batch, source })
        });
        let forwards = forwards.collect::<Result<Vec<_>, _>>()?;
        start(forwards, known, limits, &self.options)
    }
}

/// What an engine takes of its checkpoint besides the weights.
pub(super) struct CheckpointParts {
    pub(super) tokenizer: Tokenizer,
    pub(super) config: ModelConfig,
    pub(super) generation: GenerationConfig,
    pub(super) labels: Option<Vec<String>>,
}

/// Starts a thread for each replica.
pub(super) fn start<F: Forward + Send + 'static>(
    forwards: Vec<F>,
    known: CheckpointParts,
    limits: Limits,
    options: &Options,
) -> Result<Engine, EngineError> {
    let CheckpointParts {
        tokenizer,
        config,
        generation,
        labels,
    } = known;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or((cores / forwards.len().max(1)).max(1));
    let constraints = Constraints::new(
        tokenizer.clone(),
        generation.ends.clone(),
        constraint_cache_bytes(options.memory_budget),
    );
    let vocabulary = tokenizer.vocab_size();
    let metrics = Arc::new(Metrics::register());
    let replicas = forwards.into_iter().map(|forward| {
        let scheduler = Scheduler::new(limits.capacity, options.encode_budget);
        let counters = Counters::new(limits, Arc::clone(&metrics));
        start_replica(forward, scheduler, counters, threads, vocabulary)
    });
    let shared = Shared {
        metrics: Arc::clone(&metrics),
        replicas: replicas.collect::<Result<_, _>>()?,
        tokenizer,
        config,
        generation,
        constraints: Arc::new(constraints),
        labels: labels.map(Arc::new),
        places: Arc::new(Semaphore::new(options.queue_capacity)),
        queue_capacity: options.queue_capacity,
        limits,
        reuses: options.reuse_budget / options.replicas > 0,
        score_rows: options.max_batch.div_ceil(2),
    };
    Ok(Engine {
        shared: Arc::new(shared),
    })
}

/// Starts a replica's thread inside a pool of its own, which bounds the threads of all its work.
fn start_replica<F: Forward + Send + 'static>(
    forward: F,
    scheduler: Scheduler,
    counters: Counters,
    threads: usize,
    vocabulary: usize,
) -> Result<Replica, EngineError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        // Derivatives of constraints recurse as deep as expressions are nested.
        .stack_size(16 << 20)
        .thread_name(|index| format!("multiway-{index}"))
        .build()
        .map_err(|error| EngineError::Threads(error.to_string()))?;
    let kernels = Arc::new(Pool::new(threads));
    let counters = Arc::new(counters);
    let poison = Poison::default();
    let (commands, receiver) = unbounded_channel();
    let worker = Worker::new(forward, receiver, scheduler, Arc::clone(&counters), vocabulary);
    let poisoned = Arc::clone(&poison);
    let run = telemetry::traced(move || worker.run(&poisoned));
    let thread = std::thread::Builder::new()
        .name("multiway-engine".to_owned())
        .spawn(move || pool.install(|| kernels.install(run)))
        .map_err(|error| EngineError::Threads(error.to_string()))?;
    Ok(Replica::new(commands, counters, poison, thread))
}
