//! How wrong the model is on some examples.

use multiway_model::kernels::cross_entropy;
use multiway_model::{EncoderBatch, ForwardError, Model, PatchedImage, Tensor};

use crate::objective::{Example, LossWeights, Teachers, losses};

/// The loss of some examples.
#[derive(Debug)]
pub(super) struct Loss {
    /// The mean over what was asked, a differentiable scalar.
    pub(super) mean: Tensor,
    /// How many tokens or classes were asked.
    pub(super) asked: usize,
}

/// Only the text counts, and all of its probability is meant for the right one.
const TEXT: LossWeights = LossWeights {
    text: 1.0,
    codes: 0.0,
    features: 0.0,
    shown: 0.0,
    whole: 0.0,
    retrieval: 0.0,
    smoothing: 0.0,
    soft: 0.0,
};

/// Scores examples, which all ask for a text or all for a class.
pub(super) fn loss(model: &Model, examples: &[(Example, Option<u32>)]) -> Result<Loss, ForwardError> {
    let classes: Vec<u32> = examples.iter().filter_map(|(_, class)| *class).collect();
    let examples: Vec<Example> = examples.iter().map(|(example, _)| example.clone()).collect();
    if !classes.is_empty() {
        return class_loss(model, &examples, classes);
    }
    let asked = examples
        .iter()
        .map(|example| example.target.len() - example.given);
    Ok(Loss {
        asked: asked.sum(),
        mean: losses(model, Teachers::default(), &examples, &TEXT)?.total,
    })
}

fn class_loss(model: &Model, examples: &[Example], classes: Vec<u32>) -> Result<Loss, ForwardError> {
    let samples: Vec<(Vec<PatchedImage>, &[u32])> = examples
        .iter()
        .map(|example| {
            let images = example.pictures.iter().map(|picture| PatchedImage {
                pixels: &picture.pixels,
                patches: &picture.patches,
            });
            (images.collect(), example.tokens.as_slice())
        })
        .collect();
    let batch = EncoderBatch::with_patches(model.config(), &samples)?;
    let logits = model.classify(&model.encode(&batch)?)?; // [B, C]
    let asked = classes.len();
    let weights = vec![1.0 / asked as f32; asked];
    Ok(Loss {
        mean: cross_entropy(&logits, classes, weights, 0.0)?,
        asked,
    })
}
