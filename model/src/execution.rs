//! How a model is executed: decided once, when it is loaded.

use std::fmt;

use candle_core::{DType, Device, DeviceLocation};

use crate::checkpoint::{Checkpoint, LoadError};
use crate::config::ModelConfig;
use crate::encoding::Progress;
use crate::kernels::{CacheType, WeightType};
use crate::layers::graph::Graph;
use crate::layers::host::Host;
use crate::parts::Parts;

/// How a checkpoint's weights and a cache's keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The element type of all weights but those of [`weights`](Self::weights), and of activations; by
    /// default f32.
    pub dtype: DType,
    /// The type in which the weights of linear layers are stored; by default that of a packed checkpoint, and
    /// f32 of others. Packed checkpoints, and types other than f32, need the CPU and `dtype` f32.
    pub weights: Option<WeightType>,
    /// The element type of the KV cache; by default f32. Others need a text decoder on the CPU and `dtype`
    /// f32.
    pub cache: CacheType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            weights: None,
            cache: CacheType::F32,
        }
    }
}

/// How a model is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// For inference on the CPU: packed weights, and the kernels of this crate on slices of memory, in f32.
    Host {
        /// The type in which the weights of linear layers are stored.
        weights: WeightType,
    },
    /// On any device: a graph of tensors, which can be differentiated.
    Graph {
        /// The device.
        device: DeviceLocation,
        /// The element type of weights and activations.
        dtype: DType,
    },
}

impl Execution {
    /// Tells how a model of a device and an element type is executed.
    fn on(device: &Device, dtype: DType) -> Self {
        match (device, dtype) {
            (Device::Cpu, DType::F32) => Self::Host {
                weights: WeightType::F32,
            },
            _ => Self::Graph {
                device: device.location(),
                dtype,
            },
        }
    }

    /// Decides how a checkpoint is executed: on the host where it is loaded onto the CPU in f32, and else as
    /// a graph.
    ///
    /// # Errors
    /// [`LoadError::Weights`] or [`LoadError::Cache`] where the options do not go together, or not with the
    /// model; [`LoadError::PackedAs`] and [`LoadError::PackedFor`] where the checkpoint is packed for others.
    pub fn of(checkpoint: &Checkpoint, device: &Device, options: &LoadOptions) -> Result<Self, LoadError> {
        let execution = Self::on(device, options.dtype);
        execution.check_cache(checkpoint.config(), options.cache)?;
        let (asked, dtype) = (options.weights, options.dtype);
        let device = || format!("{:?}", device.location());
        match (execution, checkpoint.packed()) {
            (_, Some(found)) if asked.is_some_and(|asked| asked != found) => Err(LoadError::PackedAs {
                file: checkpoint.weights_file(),
                expected: asked.unwrap_or(found),
                found,
            }),
            (Self::Graph { .. }, Some(weights)) => Err(LoadError::PackedFor {
                file: checkpoint.weights_file(),
                weights,
                device: device(),
                dtype,
            }),
            (Self::Graph { .. }, None) => match asked {
                Some(weights) if weights != WeightType::F32 => Err(LoadError::Weights {
                    weights,
                    device: device(),
                    dtype,
                }),
                _ => Ok(execution),
            },
            (Self::Host { .. }, stored) => Ok(Self::Host {
                weights: stored.or(asked).unwrap_or_default(),
            }),
        }
    }

    /// Returns the type in which linear layers are packed, where they are.
    pub(crate) fn weight_type(self) -> WeightType {
        match self {
            Self::Host { weights } => weights,
            Self::Graph { .. } => WeightType::F32,
        }
    }

    /// Checks that keys and values can be kept in a type: others than f32 need a text decoder on the host.
    pub(crate) fn check_cache(self, config: &ModelConfig, cache: CacheType) -> Result<(), LoadError> {
        let found = match self {
            _ if cache == CacheType::F32 => return Ok(()),
            _ if config.writing_mask().is_some() => "a model that writes through its encoder".to_owned(),
            _ if config.decoder.is_none() => "a model that writes no text".to_owned(),
            Self::Host { .. } => return Ok(()),
            Self::Graph {
                device: DeviceLocation::Cpu,
                dtype: DType::F32,
            } => "linear layers that are not packed".to_owned(),
            Self::Graph { device, dtype } => format!("{device:?} and {dtype:?}"),
        };
        Err(LoadError::Cache { cache, found })
    }
}

impl fmt::Display for Execution {
    /// Describes the execution in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { weights } => write!(f, "host kernels on the CPU, weights packed in {weights}"),
            Self::Graph { device, dtype } => write!(f, "tensor graph on {device:?} in {dtype:?}"),
        }
    }
}

/// The parts of a model in the form of its execution.
#[derive(Debug)]
pub(crate) enum Assembled {
    Host(Box<Parts<Host>>),
    Graph(Box<Parts<Graph>>),
}

/// An encoding under way, in the form of the execution that began it.
#[derive(Debug)]
pub(crate) enum Underway {
    Host(Progress<Host>),
    Graph(Progress<Graph>),
}

/// Evaluates an expression with the parts of a model, whatever their form.
macro_rules! with_parts {
    ($assembled:expr, $parts:ident => $body:expr) => {
        match $assembled {
            $crate::execution::Assembled::Host($parts) => $body,
            $crate::execution::Assembled::Graph($parts) => $body,
        }
    };
}
pub(crate) use with_parts;
