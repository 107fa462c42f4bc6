//! AdamW over flat slices: gradients of several workers in, weights updated in place.
//!
//! [`AdamW::step`] averages the workers' gradients in their order, clips by the global norm and updates
//! weights, moments and the moving average in one pass. Every sum has a fixed order, whatever the number of
//! threads: the same gradients give the same bits, so a run that is resumed from its saved state goes on as
//! if it had not stopped.

mod orthogonal;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor, Var};
use multiway_model::kernels::Products;
use rayon::prelude::*;

use orthogonal::orthogonalise;

/// Values that are summed in single precision before the sum goes on in double.
const NORM_BLOCK: usize = 1024;
/// Independent partial sums, for vector registers.
const LANES: usize = 16;

/// What can go wrong in an optimiser step or in restoring an optimiser.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// The parameters are not those that the optimiser was made for.
    #[error(
        "parameter {index} of {expected_count} is expected to be '{expected}', found '{found}': pass the same parameters in the same order as to AdamW::new"
    )]
    Parameters {
        /// Place in the list.
        index: usize,
        /// How many parameters the optimiser knows.
        expected_count: usize,
        /// Name and shape expected there.
        expected: String,
        /// Name and shape found there.
        found: String,
    },
    /// A parameter's values are not 32-bit floats in one contiguous piece.
    #[error("parameter '{name}' has to be contiguous f32, found {found}: make it with DType::F32")]
    Layout {
        /// Name of the parameter.
        name: String,
        /// What it is.
        found: String,
    },
    /// The gradients and their weights do not go together.
    #[error(
        "{gradients} workers' gradients came with {weights} weights that sum to {sum}: pass one positive weight for each worker"
    )]
    Workers {
        /// Count of gradient stores.
        gradients: usize,
        /// Count of weights.
        weights: usize,
        /// Sum of the weights.
        sum: f64,
    },
    /// A gradient has not the shape of its parameter.
    #[error("the gradient of '{name}' has {found} values, expected {expected}")]
    GradientShape {
        /// Name of the parameter.
        name: String,
        /// Values of the parameter.
        expected: usize,
        /// Values of the gradient.
        found: usize,
    },
    /// A gradient is infinite or no number; nothing was changed.
    #[error(
        "the gradient of '{name}' is not finite at optimiser step {step}; weights and moments are unchanged: skip the batch, or lower the learning rate"
    )]
    NotFinite {
        /// Name of the first such parameter.
        name: String,
        /// Steps taken before.
        step: u64,
    },
    /// The tensor library failed.
    #[error("cannot read or write the parameter '{name}'")]
    Tensor {
        /// Name of the parameter.
        name: String,
        /// The library's error.
        #[source]
        source: candle_core::Error,
    },
}

/// Settings of [`AdamW`] that stay the same over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, times the learning rate, for the parameters that decay.
    pub weight_decay: f32,
    /// Longest global gradient; longer ones are scaled down to it.
    pub max_gradient_norm: Option<f32>,
    /// Decay of the moving average of the weights; none keeps no average.
    pub average_decay: Option<f32>,
    /// Momentum of hidden matrices, which are then stepped by Muon; none steps everything by AdamW.
    pub muon_momentum: Option<f32>,
    /// How Muon multiplies.
    pub products: Products,
}

impl Default for AdamWConfig {
    /// BEiT-3's settings (arXiv 2208.10442, table 11), with a moving average.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            weight_decay: 0.05,
            max_gradient_norm: Some(3.0),
            average_decay: Some(0.9995),
            muon_momentum: None,
            products: Products::F32,
        }
    }
}

/// Says whether weight decay applies to a parameter: to matrices, and not to embeddings, positions and single
/// rows.
#[must_use]
pub fn decays_by_default(name: &str, shape: &[usize]) -> bool {
    const KEPT: [&str; 5] = ["embed", "position", "token", "norm", "bias"];
    let is_matrix = shape.iter().filter(|&&size| size > 1).count() >= 2;
    is_matrix && !KEPT.iter().any(|part| name.contains(part))
}

/// Says whether a parameter is a matrix between two hidden layers, for which Muon is meant: no embedding and
/// no head.
#[must_use]
pub fn is_hidden_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2
        && decays_by_default(name, shape)
        && !name.starts_with("mim_head")
        && !name.starts_with("teacher_head")
}

/// What the optimiser keeps about one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterState<'a> {
    /// Name of the parameter.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Moving average of the gradient.
    pub first_moment: &'a [f32],
    /// Moving average of the squared gradient.
    pub second_moment: &'a [f32],
    /// Moving average of the weights, where one is kept.
    pub average: Option<&'a [f32]>,
}

/// The AdamW optimiser.
///
/// Source: Loshchilov and Hutter 2019, algorithm 2, with the learning rate also on the decay, as in PyTorch.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    decays: bool,
    is_hidden: bool,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
    average: Option<Vec<f32>>,
    /// The averaged gradient of the running step.
    gradient: Vec<f32>,
}

impl AdamW {
    /// Makes an optimiser for these parameters; `decays` says by name and shape whether weight decay applies.
    ///
    /// # Errors
    ///
    /// Fails where a parameter is not contiguous `f32`.
    pub fn new(
        config: AdamWConfig,
        vars: &[(String, Var)],
        decays: impl Fn(&str, &[usize]) -> bool,
    ) -> Result<Self, OptimizerError> {
        let make = |(name, var): &(String, Var)| {
            let weights = read_weights(name, var)?;
            let zeros = vec![0.0; weights.len()];
            Ok(Slot {
                name: name.clone(),
                shape: var.dims().to_vec(),
                decays: decays(name, var.dims()),
                is_hidden: is_hidden_matrix(name, var.dims()),
                first_moment: zeros.clone(),
                second_moment: zeros.clone(),
                average: config.average_decay.map(|_| weights),
                gradient: zeros,
            })
        };
        let slots = vars.iter().map(make).collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            steps: 0,
            slots,
        })
    }

    /// Returns how many steps were taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Lists what is kept about each parameter, in the order of the parameters.
    pub fn parameters(&self) -> impl Iterator<Item = ParameterState<'_>> {
        self.slots.iter().map(|slot| ParameterState {
            name: &slot.name,
            shape: &slot.shape,
            first_moment: &slot.first_moment,
            second_moment: &slot.second_moment,
            average: slot.average.as_deref(),
        })
    }

    /// Updates the weights by one step and returns the norm of the averaged gradient before clipping.
    ///
    /// `frozen` says of each parameter whether it stays as it is; none beyond its end do. `gradients` holds
    /// one store for each worker, `weights` how much each counts (for example its count of
    /// targets); they are divided by their sum. A parameter that a worker has no gradient for has a zero
    /// gradient there: its moments and weight decay go on, as for any other zero gradient.
    ///
    /// # Errors
    ///
    /// Fails where the parameters are not those of [`AdamW::new`] or a gradient is not finite or has another
    /// shape. Weights and moments are then unchanged.
    pub fn step(
        &mut self,
        vars: &[(String, Var)],
        frozen: &[bool],
        gradients: &[GradStore],
        weights: &[f64],
        learning_rate: f64,
    ) -> Result<f32, OptimizerError> {
        self.check_parameters(vars)?;
        let shares = worker_shares(gradients.len(), weights)?;
        let sums: Vec<f64> = self
            .slots
            .par_iter_mut()
            .zip(vars)
            .enumerate()
            .map(|(at, (slot, (_, var)))| match frozen.get(at) {
                Some(true) => Ok(0.0),
                _ => slot.gather(var, gradients, &shares),
            })
            .collect::<Result<_, _>>()?;
        self.check_finite(&sums)?;
        let norm = sums.iter().sum::<f64>().sqrt();
        let factors = self.factors(norm, learning_rate);
        self.slots
            .par_iter_mut()
            .zip(vars)
            .enumerate()
            .filter(|(at, _)| frozen.get(*at) != Some(&true))
            .try_for_each(|(_, (slot, (_, var)))| slot.update(var, &factors))?;
        self.steps += 1;
        Ok(narrow(norm))
    }

    /// Makes tensors of the moving average of the weights, by name; none where no average is kept.
    ///
    /// # Errors
    ///
    /// Fails where a tensor cannot be made.
    pub fn averages(&self) -> Result<HashMap<String, Tensor>, OptimizerError> {
        let averaged = self
            .slots
            .iter()
            .filter_map(|slot| Some((slot, slot.average.as_deref()?)));
        let tensor = |(slot, average): (&Slot, &[f32])| {
            let tensor = Tensor::from_slice(average, slot.shape.as_slice(), &Device::Cpu);
            Ok((slot.name.clone(), tensor.map_err(tensor_error(&slot.name))?))
        };
        averaged.map(tensor).collect()
    }

    /// Copies the moving average of the weights into variables of the same names and shapes; false where none
    /// is kept.
    ///
    /// # Errors
    ///
    /// Fails where the variables are not those of [`AdamW::new`] or cannot be written.
    pub fn write_average(&self, vars: &[(String, Var)]) -> Result<bool, OptimizerError> {
        self.check_parameters(vars)?;
        for (slot, (name, var)) in self.slots.iter().zip(vars) {
            let Some(average) = &slot.average else {
                return Ok(false);
            };
            write_weights(name, var, average)?;
        }
        Ok(true)
    }

    /// Puts back what [`parameters`](Self::parameters) listed: `state` is asked for each parameter by name.
    ///
    /// # Errors
    ///
    /// Fails where a parameter's state is missing, has another shape, or has an average where none is kept
    /// (or the reverse). Nothing is changed then.
    pub fn restore<'a>(
        &mut self,
        steps: u64,
        state: impl Fn(&str) -> Option<ParameterState<'a>>,
    ) -> Result<(), OptimizerError> {
        let count = self.slots.len();
        let mut found = Vec::with_capacity(count);
        for (index, slot) in self.slots.iter().enumerate() {
            let new = state(&slot.name);
            match new.filter(|new| slot.accepts(new)) {
                Some(new) => found.push(new),
                None => {
                    return Err(slot.mismatch(index, count, new.map(|new| describe(new.name, new.shape))));
                }
            }
        }
        for (slot, new) in self.slots.iter_mut().zip(found) {
            slot.first_moment.copy_from_slice(new.first_moment);
            slot.second_moment.copy_from_slice(new.second_moment);
            slot.average = new.average.map(<[f32]>::to_vec);
        }
        self.steps = steps;
        Ok(())
    }

    fn check_parameters(&self, vars: &[(String, Var)]) -> Result<(), OptimizerError> {
        let count = self.slots.len();
        for (index, slot) in self.slots.iter().enumerate() {
            let found = vars.get(index);
            if !found.is_some_and(|(name, var)| *name == slot.name && var.dims() == slot.shape) {
                return Err(slot.mismatch(index, count, found.map(|(name, var)| describe(name, var.dims()))));
            }
        }
        match vars.get(count) {
            Some((name, var)) => Err(OptimizerError::Parameters {
                index: count,
                expected_count: count,
                expected: "no parameter".to_owned(),
                found: describe(name, var.dims()),
            }),
            None => Ok(()),
        }
    }

    fn check_finite(&self, sums: &[f64]) -> Result<(), OptimizerError> {
        match self.slots.iter().zip(sums).find(|(_, sum)| !sum.is_finite()) {
            Some((slot, _)) => Err(OptimizerError::NotFinite {
                name: slot.name.clone(),
                step: self.steps,
            }),
            None => Ok(()),
        }
    }

    fn factors(&self, norm: f64, learning_rate: f64) -> Factors {
        let config = &self.config;
        let step = (self.steps + 1) as f64;
        let clip = match config.max_gradient_norm {
            Some(limit) if norm > f64::from(limit) => f64::from(limit) / norm,
            _ => 1.0,
        };
        let decay = config
            .average_decay
            .map_or(0.0, |decay| f64::from(decay).min((1.0 + step) / (10.0 + step)));
        Factors {
            clip: narrow(clip),
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            rate: narrow(learning_rate / (1.0 - f64::from(config.beta1).powf(step))),
            second_correction: narrow((1.0 / (1.0 - f64::from(config.beta2).powf(step))).sqrt()),
            muon: config.muon_momentum.map(|momentum| Muon {
                momentum,
                rate: narrow(learning_rate),
                products: config.products,
            }),
            keep: narrow(1.0 - learning_rate * f64::from(config.weight_decay)),
            average_step: narrow(1.0 - decay),
        }
    }
}

/// The numbers of a step by Muon.
#[derive(Debug, Clone, Copy)]
struct Muon {
    momentum: f32,
    rate: f32,
    products: Products,
}

/// The numbers of one step that are the same for every parameter.
#[derive(Debug, Clone, Copy)]
struct Factors {
    clip: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// Learning rate with the first moment's bias correction.
    rate: f32,
    /// Root of the second moment's bias correction.
    second_correction: f32,
    /// How hidden matrices are stepped, if not as everything else.
    muon: Option<Muon>,
    /// What weight decay leaves of a weight.
    keep: f32,
    /// How far the average moves towards the weights.
    average_step: f32,
}

impl Slot {
    /// Averages the workers' gradients into `self.gradient` and returns the sum of their squares.
    fn gather(&mut self, var: &Var, gradients: &[GradStore], shares: &[f32]) -> Result<f64, OptimizerError> {
        self.gradient.fill(0.0);
        for (store, &share) in gradients.iter().zip(shares) {
            let Some(gradient) = store.get(var.as_tensor()) else {
                continue;
            };
            let name = &self.name;
            let sum = &mut self.gradient;
            with_values(gradient, |values| {
                if values.len() != sum.len() {
                    let (expected, found) = (sum.len(), values.len());
                    return Err(OptimizerError::GradientShape {
                        name: name.clone(),
                        expected,
                        found,
                    });
                }
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += share * value;
                }
                Ok(())
            })
            .map_err(tensor_error(name))??;
        }
        Ok(sum_of_squares(&self.gradient))
    }

    fn update(&mut self, var: &Var, factors: &Factors) -> Result<(), OptimizerError> {
        let name = self.name.clone();
        if matches!(var.device(), Device::Cpu) {
            let update = SlotUpdate {
                slot: Mutex::new(self),
                factors: *factors,
            };
            return var.inplace_op1(&update).map_err(tensor_error(&name));
        }
        let mut weights = read_weights(&name, var)?;
        self.update_values(&mut weights, factors);
        write_weights(&name, var, &weights)
    }

    fn update_values(&mut self, weights: &mut [f32], factors: &Factors) {
        let keep = if self.decays { factors.keep } else { 1.0 };
        match factors.muon.filter(|_| self.is_hidden) {
            Some(muon) => self.step_matrix(weights, &muon, factors.clip, keep),
            None => self.step_values(weights, factors, keep),
        }
        if let Some(average) = &mut self.average {
            for (average, weight) in average.iter_mut().zip(weights) {
                *average += factors.average_step * (*weight - *average);
            }
        }
    }

    /// Steps a matrix along its orthogonalised momentum, with Nesterov's look ahead.
    ///
    /// The step is scaled to the size that AdamW's steps have, so that both take the same learning rate.
    ///
    /// Source: Jordan et al. 2024, "Muon"; the scale is that of Liu et al. 2025 (arXiv 2502.16982), section
    /// 2.2.
    fn step_matrix(&mut self, weights: &mut [f32], muon: &Muon, clip: f32, keep: f32) {
        let [rows, columns] = self.shape.as_slice() else {
            return;
        };
        let ahead = self.first_moment.iter_mut().zip(&mut self.gradient);
        for (momentum, gradient) in ahead {
            let own = *gradient * clip;
            *momentum = muon.momentum * *momentum + own;
            *gradient = own + muon.momentum * *momentum;
        }
        orthogonalise(&mut self.gradient, *rows, *columns, muon.products);
        let step = muon.rate * 0.2 * ((*rows).max(*columns) as f32).sqrt();
        for (weight, direction) in weights.iter_mut().zip(&self.gradient) {
            *weight = *weight * keep - step * direction;
        }
    }

    fn step_values(&mut self, weights: &mut [f32], factors: &Factors, keep: f32) {
        let moments = self.first_moment.iter_mut().zip(&mut self.second_moment);
        for ((weight, gradient), (first, second)) in weights.iter_mut().zip(&self.gradient).zip(moments) {
            let gradient = gradient * factors.clip;
            *first = factors.beta1 * *first + (1.0 - factors.beta1) * gradient;
            *second = factors.beta2 * *second + (1.0 - factors.beta2) * gradient * gradient;
            let denominator = second.sqrt() * factors.second_correction + factors.eps;
            *weight = *weight * keep - factors.rate * *first / denominator;
        }
    }

    fn accepts(&self, new: &ParameterState<'_>) -> bool {
        let length = self.gradient.len();
        new.shape == self.shape
            && new.first_moment.len() == length
            && new.second_moment.len() == length
            && new.average.map(<[f32]>::len) == self.average.as_ref().map(|_| length)
    }

    fn mismatch(&self, index: usize, expected_count: usize, found: Option<String>) -> OptimizerError {
        OptimizerError::Parameters {
            index,
            expected_count,
            expected: describe(&self.name, &self.shape),
            found: found.unwrap_or_else(|| "nothing".to_owned()),
        }
    }
}

/// Updates a variable where it lies.
struct SlotUpdate<'a> {
    slot: Mutex<&'a mut Slot>,
    factors: Factors,
}

impl InplaceOp1 for SlotUpdate<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("a parameter has to be f32");
        };
        let range = layout.contiguous_offsets().map(|(start, end)| start..end);
        let Some(weights) = range.and_then(|range| values.get_mut(range)) else {
            candle_core::bail!("a parameter has to be contiguous");
        };
        slot.update_values(weights, &self.factors);
        Ok(())
    }
}

/// Calls `read` with a tensor's values as contiguous `f32` on the CPU, copied only where they are not.
fn with_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    let tensor = tensor
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
        && let Some(values) = values.get(start..end)
    {
        return Ok(read(values));
    }
    candle_core::bail!("a contiguous f32 tensor on the CPU has no such storage")
}

fn read_weights(name: &str, var: &Var) -> Result<Vec<f32>, OptimizerError> {
    if var.dtype() != DType::F32 || !var.is_contiguous() {
        let found = format!("{:?}, {:?}", var.dtype(), var.layout());
        return Err(OptimizerError::Layout {
            name: name.to_owned(),
            found,
        });
    }
    with_values(var.as_tensor(), <[f32]>::to_vec).map_err(tensor_error(name))
}

fn write_weights(name: &str, var: &Var, values: &[f32]) -> Result<(), OptimizerError> {
    Tensor::from_slice(values, var.shape(), var.device())
        .and_then(|tensor| var.set(&tensor))
        .map_err(tensor_error(name))
}

fn worker_shares(gradients: usize, weights: &[f64]) -> Result<Vec<f32>, OptimizerError> {
    let sum: f64 = weights.iter().sum();
    let valid = weights.len() == gradients && weights.iter().all(|&weight| weight >= 0.0);
    if !valid || sum <= 0.0 || !sum.is_finite() {
        return Err(OptimizerError::Workers {
            gradients,
            weights: weights.len(),
            sum,
        });
    }
    Ok(weights.iter().map(|weight| narrow(weight / sum)).collect())
}

/// Sums squares in an order that depends on the length alone.
fn sum_of_squares(values: &[f32]) -> f64 {
    let block_sum = |block: &[f32]| {
        let mut lanes = [0.0_f32; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value * value;
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += value * value;
        }
        f64::from(lanes.iter().sum::<f32>())
    };
    values.chunks(NORM_BLOCK).map(block_sum).sum()
}

fn describe(name: &str, shape: &[usize]) -> String {
    format!("{name} {shape:?}")
}

fn tensor_error(name: &str) -> impl FnOnce(candle_core::Error) -> OptimizerError {
    let name = name.to_owned();
    move |source| OptimizerError::Tensor { name, source }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest single-precision number"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests;
