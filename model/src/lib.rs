//! The multiway encoder-decoder: configuration, layers, kernels, checkpoints and image processing.
//!
//! Tensors in, tensors out: this crate knows neither tokenizers nor requests. An encoder with one expert per
//! modality reads pictures and text packed into rows; a decoder writes text.
//!
//! ```
//! use multiway_model::testing::{random_inference_model, tiny_config};
//! use multiway_model::{DecoderBatch, DecoderRow, EncoderBatch, EncoderSample};
//!
//! # fn main() -> Result<(), multiway_model::ForwardError> {
//! let config = tiny_config();
//! let model = random_inference_model(&config, 7)?;
//! let batch = EncoderBatch::new(&config, &[EncoderSample { images: &[], tokens: &[5, 6, 1] }])?;
//! let encoded = model.encode(&batch)?; // [N, D]
//! let memories = model.prompt_memory(&encoded)?;
//! let mut cache = model.new_cache(1, 8)?;
//! let rows = [DecoderRow { token: config.decoder_start_token_id, slot: 0, memory: &memories[0] }];
//! let logits = model.decode_step(&DecoderBatch { rows: &rows }, &mut cache)?; // [1, V]
//! assert_eq!(logits.dims(), [1, config.vocab_size]);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`checkpoint`] | a model folder: checked before use, read by memory map |
//! | `hub` (feature `hub`) | checkpoints fetched by name |
//! | [`image`] | preprocessing of pictures |
//! | [`kernels`] | kernels for the CPU |
//! | [`measure`] | the peaks of a machine, and the share of them that the kernels reach |
//! | [`testing`] | small random models |

mod attention;
mod batch;
pub mod checkpoint;
mod config;
mod convert;
mod decoder;
mod encoder;
mod encoding;
mod error;
mod execution;
mod explain;
mod families;
mod heads;
mod hook;
#[cfg(feature = "hub")]
pub mod hub;
pub mod image;
mod init;
pub mod kernels;
mod layers;
pub mod measure;
mod memory;
mod model;
mod output;
mod parts;
mod prefix;
mod step;
pub mod testing;
mod transport;

pub use batch::{
    EncoderBatch, EncoderBatchBuilder, EncoderSample, Patch, PatchedImage, SampleSegments, Segments,
    TargetBatch,
};
pub use candle_core::{DType, Device, Tensor};
pub use checkpoint::{Checkpoint, LoadError};
pub use config::{
    Activation, AttentionPattern, ClassConfig, ConfigError, EmbeddingConfig, ModelConfig, Pooling, Positions,
    StackConfig, TaskGroup, TextRow, TokenizerKind, VisionConfig,
};
pub use convert::Conversion;
pub use encoding::{Encoded, EncodingTargets};
pub use error::ForwardError;
pub use execution::{Execution, LoadOptions};
pub use explain::Explanation;
pub use families::model_types;
pub use hook::HookPoint;
pub use image::{ImageError, ImageLimits, ImageProcessor, ProcessedImage, Rgb8Picture};
pub use init::initialise;
pub use kernels::{CacheType, WeightType};
pub use memory::{KvCache, PromptMemory};
pub use model::{EncodingPass, Model};
pub use output::EncoderOutput;
pub use prefix::ImagePrefix;
pub use step::{DecoderBatch, DecoderRow};
pub use transport::TransportPlan;
