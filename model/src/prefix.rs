//! The encoder's state of pictures, reused by every later prompt about them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::config::{ModelConfig, StackConfig};
use crate::error::ForwardError;

/// The encoder's state of one ordered group of pictures; cheap to clone, and shared by every prompt about
/// them.
///
/// Where image rows see image rows only
/// ([`AttentionPattern::ImagePrefix`](crate::AttentionPattern::ImagePrefix)), it does not depend on the text
/// beside the pictures. The pictures of a group see each other, so that it stands for all of them in their
/// order, and for none of them alone. It belongs to the weights that made it: keep those of two models apart.
///
/// # Shapes
/// For R rows, each picture's class row before its patches: keys and values `[R, 2D]` of each encoder layer,
/// the final rows `[R, D]`, and cross-attention keys and values `[R, 2D]` of each decoder layer.
#[derive(Clone, Debug)]
pub struct ImagePrefix {
    encoded: Arc<PrefixRows>,
}

#[derive(Debug)]
struct PrefixRows {
    /// The rows of each picture, from 0 to R.
    images: Vec<Range<usize>>,
    /// `[R, 2D]` for each encoder layer: keys, then values.
    layers: Vec<Tensor>,
    /// `[R, D]`, after the last norm.
    hidden: Tensor,
    /// `[R, 2D]` for each decoder layer: keys, then values.
    cross: Vec<Tensor>,
}

/// How many layers keep keys and values, and how wide a row of them is.
#[derive(PartialEq)]
struct Shape {
    encoder: (usize, usize),
    decoder: (usize, usize),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((encoder, width), (decoder, cross)) = (self.encoder, self.decoder);
        write!(f, "{encoder} encoder layers of width {width}")?;
        match decoder {
            0 => write!(f, " and no decoder"),
            _ => write!(f, " and {decoder} decoder layers of width {cross}"),
        }
    }
}

impl ImagePrefix {
    /// Takes the rows of each picture, from 0 to R, with what was computed of them.
    pub(crate) fn new(
        images: Vec<Range<usize>>,
        layers: Vec<Tensor>,
        hidden: Tensor,
        cross: Vec<Tensor>,
    ) -> Self {
        let encoded = PrefixRows {
            images,
            layers,
            hidden,
            cross,
        };
        Self {
            encoded: Arc::new(encoded),
        }
    }

    /// Counts the rows of all its pictures, R.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.encoded.images.last().map_or(0, |image| image.end)
    }

    /// Lists the rows of each picture, in the order of the group, from 0 to R.
    #[must_use]
    pub fn images(&self) -> &[Range<usize>] {
        &self.encoded.images
    }

    /// Tells whether a clone of it is held elsewhere.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.encoded) > 1
    }

    /// Counts the bytes that it keeps, however many clones of it there are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let PrefixRows {
            layers,
            hidden,
            cross,
            ..
        } = self.encoded.as_ref();
        let all = layers.iter().chain(cross).chain([hidden]);
        all.map(|x| x.elem_count() * x.dtype().size_in_bytes()).sum()
    }

    /// Returns the keys and values of an encoder layer, `[R, 2D]`.
    pub(crate) fn layer(&self, layer: usize) -> Result<&Tensor> {
        at(&self.encoded.layers, layer, "encoder")
    }

    /// Returns the cross-attention keys and values of a decoder layer, `[R, 2D]`.
    pub(crate) fn cross(&self, layer: usize) -> Result<&Tensor> {
        at(&self.encoded.cross, layer, "decoder")
    }

    /// Returns the final rows, `[R, D]`.
    pub(crate) fn hidden(&self) -> &Tensor {
        &self.encoded.hidden
    }

    /// Tells whether two are clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.encoded, &other.encoded)
    }

    /// Checks that it is made as a model's own would be.
    pub(crate) fn check(&self, config: &ModelConfig, sample: usize) -> std::result::Result<(), ForwardError> {
        let (found, expected) = (self.shape(), shape_of(config));
        if found == expected {
            return Ok(());
        }
        Err(ForwardError::ForeignPrefix {
            sample,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }

    fn shape(&self) -> Shape {
        let of = |layers: &[Tensor]| {
            let width = layers
                .first()
                .map_or(0, |kv| kv.dims().last().map_or(0, |width| width / 2));
            (layers.len(), width)
        };
        Shape {
            encoder: of(&self.encoded.layers),
            decoder: of(&self.encoded.cross),
        }
    }
}

fn shape_of(config: &ModelConfig) -> Shape {
    let of = |stack: &StackConfig| (stack.layers, stack.inner_size());
    Shape {
        encoder: of(&config.encoder),
        decoder: config.decoder.as_ref().map_or((0, 0), of),
    }
}

fn at<'a>(layers: &'a [Tensor], layer: usize, stack: &str) -> Result<&'a Tensor> {
    match layers.get(layer) {
        Some(kv) => Ok(kv),
        None => bail!(
            "the image prefix has {} {stack} layers, asked for layer {layer}",
            layers.len()
        ),
    }
}

/// Appends rows of prefixes to those of a batch, where it has rows of its own.
pub(crate) fn with_prefixes(
    own: Option<Tensor>,
    prefixes: &[ImagePrefix],
    kept: impl Fn(&ImagePrefix) -> Result<&Tensor>,
) -> Result<Tensor> {
    let known = prefixes.iter().map(|prefix| kept(prefix).cloned());
    let parts = own.into_iter().map(Ok).chain(known);
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0) // [N + R, ..]
}
