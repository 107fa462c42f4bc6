//! The variables of a method, and the model that is built on them.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use multiway_model::checkpoint::{Adapter, AdapterConfig, compose};
use multiway_model::kernels::Products;
use multiway_model::{Checkpoint, Model, ModelConfig};

use super::error::FinetuneError;
use super::method::Method;
use crate::random::{between, fork};

/// What was trained.
#[derive(Debug)]
pub enum TunedWeights {
    /// Low-rank factors, for the checkpoint that was fine-tuned.
    Adapter(Adapter),
    /// All weights of the model.
    Full(HashMap<String, Tensor>),
}

/// Weights that no answer in text depends on begin so, and stay as they are; or, where classes are asked for,
/// those that write.
const BESIDE_TEXT: [&str; 5] = ["mim_head", "embed.", "pooler.", "head.", "mlm_head"];
const BESIDE_CLASSES: [&str; 3] = ["mim_head", "mlm_head", "embed."];

/// The weights of a model, some of them variable.
pub(super) struct Variables {
    config: ModelConfig,
    products: Products,
    method: Method,
    /// The weights of the checkpoint, by name; of those that are variables themselves there are none.
    fixed: HashMap<String, Tensor>,
    /// Factors or weights, by name.
    pub(super) vars: Vec<(String, Var)>,
    /// Which variables stay as they are.
    pub(super) frozen: Vec<bool>,
}

impl Variables {
    /// Reads the weights of a checkpoint, and makes the variables of a method.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        method: Method,
        products: Products,
        seed: u64,
    ) -> Result<Self, FinetuneError> {
        let config = checkpoint.config();
        let mut fixed = HashMap::new();
        for (name, _) in config.tensors() {
            let tensor = checkpoint.load_tensor(&name, &Device::Cpu, DType::F32)?;
            fixed.insert(name, tensor);
        }
        let vars = match method {
            Method::Lora { rank, .. } => factors(config, rank, seed)?,
            Method::Full => {
                let weights = config.tensors().into_iter().filter_map(|(name, _)| {
                    let tensor = fixed.remove(&name)?;
                    Some(Var::from_tensor(&tensor).map(|var| (name, var)))
                });
                weights.collect::<candle_core::Result<_>>()?
            }
        };
        let beside: &[&str] = match config.decoder {
            Some(_) => &BESIDE_TEXT,
            None => &BESIDE_CLASSES,
        };
        let is_frozen = |name: &str| beside.iter().any(|beside| name.starts_with(beside));
        Ok(Self {
            frozen: vars.iter().map(|(name, _)| is_frozen(name)).collect(),
            config: config.clone(),
            products,
            method,
            fixed,
            vars,
        })
    }

    /// Builds the model on the variables as they are now.
    pub(super) fn model(&self) -> Result<Model, FinetuneError> {
        let mut tensors = self.fixed.clone();
        match self.method {
            Method::Lora { alpha, rank } => {
                let scale = alpha / rank.max(1) as f64;
                for (name, [a, b]) in self.pairs() {
                    if let Some(weight) = tensors.get_mut(name) {
                        *weight = compose(weight, a, b, scale)?;
                    }
                }
            }
            Method::Full => {
                let vars = self.vars.iter();
                tensors.extend(vars.map(|(name, var)| (name.clone(), var.as_tensor().clone())));
            }
        }
        Ok(Model::for_training(&self.config, &tensors, self.products)?)
    }

    /// Lists the factors `A` and `B` with the weight that they change: variables of neighbouring names.
    fn pairs(&self) -> impl Iterator<Item = (&str, [&Tensor; 2])> {
        let (pairs, _) = self.vars.as_chunks::<2>();
        let [ending, _] = Adapter::ENDINGS;
        pairs.iter().filter_map(move |[(name, a), (_, b)]| {
            let weight = name.strip_suffix(ending)?;
            Some((weight, [a.as_tensor(), b.as_tensor()]))
        })
    }

    /// Counts the numbers that are trained.
    pub(super) fn trained(&self) -> usize {
        let vars = self.vars.iter().zip(&self.frozen);
        vars.filter(|(_, frozen)| !**frozen)
            .map(|((_, var), _)| var.elem_count())
            .sum()
    }

    /// Takes the weights as they are now. `base` and its fingerprint name the checkpoint in an adapter.
    pub(super) fn tuned(&self, base: &str, base_fingerprint: &str) -> Result<TunedWeights, FinetuneError> {
        let copied = |tensor: &Tensor| tensor.copy().map(|copy| copy.detach());
        match self.method {
            Method::Lora { rank, alpha } => {
                let pairs = self.pairs();
                let factors = pairs.map(|(name, [a, b])| Ok((name.to_owned(), [copied(a)?, copied(b)?])));
                let config = AdapterConfig {
                    base: base.to_owned(),
                    base_fingerprint: base_fingerprint.to_owned(),
                    rank,
                    alpha,
                    weights: Vec::new(),
                };
                let factors = factors.collect::<candle_core::Result<BTreeMap<_, _>>>()?;
                Ok(TunedWeights::Adapter(Adapter::new(config, factors)))
            }
            Method::Full => {
                let weights = self.vars.iter();
                let weights = weights.map(|(name, var)| Ok((name.clone(), copied(var)?)));
                Ok(TunedWeights::Full(weights.collect::<candle_core::Result<_>>()?))
            }
        }
    }
}

/// Makes the factors of all adaptable weights: `A` is drawn as wide as a linear layer's weight would be, and
/// `B` is zero, so that the model begins as it is.
fn factors(config: &ModelConfig, rank: usize, seed: u64) -> Result<Vec<(String, Var)>, FinetuneError> {
    let mut vars = Vec::new();
    for (number, (name, [outputs, inputs])) in (0u64..).zip(config.adaptable_weights()) {
        let mut rng = fork(seed, &[FACTORS, number]);
        let bound = 1.0 / (inputs.max(1) as f32).sqrt();
        let values: Vec<f32> = (0..rank * inputs)
            .map(|_| between(&mut rng, -bound, bound))
            .collect();
        let a = Tensor::from_vec(values, (rank, inputs), &Device::Cpu)?; // [rank, in]
        let b = Tensor::zeros((outputs, rank), DType::F32, &Device::Cpu)?; // [out, rank]
        for (factor, ending) in [a, b].iter().zip(Adapter::ENDINGS) {
            vars.push((format!("{name}{ending}"), Var::from_tensor(factor)?));
        }
    }
    Ok(vars)
}

/// The first counter of the generators that draw factors.
const FACTORS: u64 = 1;
