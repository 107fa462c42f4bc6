//! What the model is asked in training, and how its answers are scored.
//!
//! Pre-training is masked modelling alone: spans of a text, up to the whole caption, are answered by the
//! decoder with and without the picture; masked patches are named by the encoder as discrete visual codes.
//! Fine-tuning asks the task files' own prompts, and for `retrieve` pulls a picture's embedding towards that
//! of its name.

use std::sync::Arc;

use multiway_model::kernels::cross_entropy;
use multiway_model::{
    EncoderBatch, ForwardError, Model, ModelConfig, Patch, PatchedImage, TargetBatch, Tensor,
};

/// A picture as the encoder is to see it.
#[derive(Debug, Clone)]
pub struct ExamplePicture {
    /// Normalised pixels, `[3, S, S]`.
    pub pixels: Vec<f32>,
    /// The patches that are shown or masked; others are left out.
    pub patches: Vec<Patch>,
    /// The visual code of each masked patch, in the order of `patches`; none where it shows nothing of the
    /// picture.
    pub codes: Vec<Option<u32>>,
}

/// One training example.
#[derive(Debug, Clone, Default)]
pub struct Example {
    /// The picture, where there is one.
    pub picture: Option<Arc<ExamplePicture>>,
    /// The prompt's tokens, the closing `</s>` included.
    pub tokens: Vec<u32>,
    /// What the decoder is to write, the closing `</s>` included; empty where nothing is asked of it.
    pub target: Vec<u32>,
    /// How many tokens at the start of `target` are given rather than asked.
    pub given: usize,
    /// The example of the same batch whose embedding is to be nearest, for retrieval.
    pub pair: Option<usize>,
    /// Whether pictures are contrasted with this example's embedding, for retrieval.
    pub candidate: bool,
}

/// How the parts of the loss are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Weight of the visual codes of masked patches.
    pub visual: f64,
    /// Weight of retrieval.
    pub retrieval: f64,
    /// Label smoothing of the text, 0 to 1.
    pub smoothing: f32,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self {
            visual: 0.3,
            retrieval: 1.0,
            smoothing: 0.05,
        }
    }
}

/// The loss of a batch and its parts; a part that the batch does not ask for is `None`.
#[derive(Debug)]
pub struct Losses {
    /// The weighed sum, a differentiable scalar.
    pub total: Tensor,
    /// Mean cross-entropy of the asked target tokens, in nats.
    pub text: Option<f32>,
    /// Mean cross-entropy of the visual codes, in nats.
    pub visual: Option<f32>,
    /// Mean cross-entropy of retrieval both ways, in nats.
    pub retrieval: Option<f32>,
}

/// Scale of cosines in the retrieval loss: one over a temperature of 0.07.
///
/// Source: Radford et al. 2021, CLIP (arXiv 2103.00020), section 2.5, its initial value.
const LOGIT_SCALE: f64 = 1.0 / 0.07;

/// Runs a batch forward and scores it.
///
/// # Errors
///
/// Fails where an example does not fit the model.
pub fn losses(model: &Model, examples: &[Example], weights: &LossWeights) -> Result<Losses, ForwardError> {
    let config = model.config();
    let samples: Vec<(Vec<PatchedImage>, &[u32])> = examples
        .iter()
        .map(|example| {
            let picture = example.picture.iter();
            let images = picture.map(|p| PatchedImage {
                pixels: &p.pixels,
                patches: &p.patches,
            });
            (images.collect(), example.tokens.as_slice())
        })
        .collect();
    let batch = EncoderBatch::with_patches(config, &samples)?;
    let encoded = model.encode(&batch)?; // [N, D]
    let parts = [
        (1.0, text_loss(model, &encoded, examples, weights.smoothing)?),
        (weights.visual, visual_loss(model, &encoded, examples)?),
        (weights.retrieval, retrieval_loss(model, &encoded, examples)?),
    ];
    let mut total: Option<Tensor> = None;
    let mut values = [None; 3];
    for ((weight, part), value) in parts.into_iter().zip(&mut values) {
        let Some(part) = part else { continue };
        *value = Some(part.to_scalar::<f32>()?);
        let weighed = (part * weight)?;
        total = Some(match total {
            Some(sum) => (sum + weighed)?,
            None => weighed,
        });
    }
    let [text, visual, retrieval] = values;
    let total = total.ok_or(ForwardError::EmptyBatch)?;
    Ok(Losses {
        total,
        text,
        visual,
        retrieval,
    })
}

type Encoded = multiway_model::EncoderOutput;

fn even(count: usize) -> Vec<f32> {
    vec![1.0 / count.max(1) as f32; count]
}

fn text_loss(
    model: &Model,
    encoded: &Encoded,
    examples: &[Example],
    smoothing: f32,
) -> Result<Option<Tensor>, ForwardError> {
    let mut batch = TargetBatch::default();
    let (mut targets, mut asked) = (Vec::new(), Vec::new());
    for (sample, example) in examples.iter().enumerate().filter(|(_, e)| !e.target.is_empty()) {
        let mut input = vec![model.config().decoder_start_token_id];
        input.extend_from_slice(&example.target[..example.target.len() - 1]);
        batch.push(sample, &input);
        targets.extend_from_slice(&example.target);
        asked.extend((0..example.target.len()).map(|i| i >= example.given));
    }
    let count = asked.iter().filter(|a| **a).count();
    if count == 0 {
        return Ok(None);
    }
    let logits = model.decode(encoded, &batch)?; // [rows, V]
    let weights = asked
        .iter()
        .map(|a| if *a { 1.0 / count as f32 } else { 0.0 })
        .collect();
    Ok(Some(cross_entropy(&logits, targets, weights, smoothing)?))
}

fn visual_loss(
    model: &Model,
    encoded: &Encoded,
    examples: &[Example],
) -> Result<Option<Tensor>, ForwardError> {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (example, segment) in examples.iter().zip(&encoded.segments.samples) {
        let (Some(picture), Some(range)) = (&example.picture, segment.images.first()) else {
            continue;
        };
        let masked = (range.start + 1..range.end)
            .zip(&picture.patches)
            .filter(|(_, patch)| patch.masked);
        for ((row, _), code) in masked.zip(&picture.codes) {
            if let (Ok(row), Some(code)) = (u32::try_from(row), code) {
                rows.push(row);
                targets.push(*code);
            }
        }
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let logits = model.visual_code_logits(encoded, &rows)?; // [rows, C]
    let weights = even(rows.len());
    Ok(Some(cross_entropy(&logits, targets, weights, 0.0)?))
}

/// Contrasts each picture with all candidate names of the batch and each picture's name with all pictures.
///
/// Source: the retrieval fine-tuning of BEiT-3 (arXiv 2208.10442, section 3.1), with the loss of CLIP.
fn retrieval_loss(
    model: &Model,
    encoded: &Encoded,
    examples: &[Example],
) -> Result<Option<Tensor>, ForwardError> {
    let candidates: Vec<usize> = (0..examples.len()).filter(|i| examples[*i].candidate).collect();
    let place = |example: usize| candidates.binary_search(&example).ok();
    let pairs = examples.iter().enumerate();
    let pairs: Vec<(usize, usize)> = pairs.filter_map(|(i, e)| Some((i, place(e.pair?)?))).collect();
    if pairs.len() < 2 {
        return Ok(None);
    }
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let rows = |rows: Vec<u32>| Tensor::from_vec(rows, pairs.len(), model.device());
    let all = model.embed(encoded)?; // [B, E]
    let pictures = all.index_select(&rows(pairs.iter().map(|(i, _)| narrow(*i)).collect())?, 0)?; // [pairs, E]
    let texts: Vec<u32> = candidates.iter().map(|i| narrow(*i)).collect();
    let texts = all.index_select(&Tensor::new(texts, model.device())?, 0)?; // [candidates, E]
    let cosines = (pictures.matmul(&texts.t()?)? * LOGIT_SCALE)?; // [pairs, candidates]
    let own: Vec<u32> = pairs.iter().map(|(_, text)| narrow(*text)).collect();
    let forth = cross_entropy(&cosines, own.clone(), even(pairs.len()), 0.0)?;
    let back = cosines.t()?.contiguous()?.index_select(&rows(own)?, 0)?; // [pairs, pairs]
    let back = cross_entropy(&back, (0..narrow(pairs.len())).collect(), even(pairs.len()), 0.0)?;
    Ok(Some(((forth + back)? * 0.5)?))
}

/// Describes the embedded model: a vocabulary of `vocab_size`, everything else as the model card says.
///
/// # Errors
///
/// Fails where the vocabulary's size cannot be used.
pub fn default_config(vocab_size: usize) -> Result<ModelConfig, multiway_model::ConfigError> {
    let json = serde_json::json!({
        "architecture": "multiway", "vocab_size": vocab_size, "hidden_size": 256, "intermediate_size": 512,
        "encoder_layers": 6, "encoder_heads": 4, "fusion_layers": 0, "decoder_layers": 2, "decoder_heads": 4,
        "shared_attention": true, "attention_pattern": "image_prefix", "image_size": 64, "patch_size": 8,
        "max_images": 4, "max_text_length": 128, "max_target_length": 64,
        "visual_vocab_size": crate::teacher::CODES, "embedding_size": 256,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "trained_tasks": ["caption", "vqa", "classify", "retrieve", "infill", "patches", "closed-vqa"]
    });
    ModelConfig::from_json(json.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiway_model::testing::{random_model, tiny_config};

    fn picture(masked: bool) -> Arc<ExamplePicture> {
        let patches = (0..16)
            .map(|index| Patch {
                index,
                masked: masked && index % 2 == 0,
            })
            .collect();
        Arc::new(ExamplePicture {
            pixels: vec![0.3; 3 * 16 * 16],
            patches,
            codes: vec![Some(3); 8],
        })
    }

    #[test]
    fn each_part_of_the_loss_is_there_only_where_it_is_asked_for() {
        let model = random_model(&tiny_config(), 1).unwrap();
        let weights = LossWeights::default();
        let text = Example {
            tokens: vec![4, 5, 1],
            target: vec![119, 9, 1],
            given: 1,
            ..Example::default()
        };
        let only_text = losses(&model, std::slice::from_ref(&text), &weights).unwrap();
        assert!(only_text.text.is_some() && only_text.visual.is_none() && only_text.retrieval.is_none());
        let seen = Example {
            picture: Some(picture(true)),
            tokens: vec![1],
            ..Example::default()
        };
        let only_visual = losses(&model, &[seen], &weights).unwrap();
        assert!(only_visual.text.is_none() && only_visual.visual.is_some());
        let shown = |pair| Example {
            picture: Some(picture(false)),
            tokens: vec![1],
            pair,
            ..Example::default()
        };
        let named = Example {
            tokens: vec![7, 1],
            candidate: true,
            ..Example::default()
        };
        let pairs = [shown(Some(2)), shown(Some(3)), named.clone(), named];
        assert!(losses(&model, &pairs, &weights).unwrap().retrieval.is_some());
        assert!(losses(&model, &[], &weights).is_err());
    }

    #[test]
    fn given_tokens_do_not_count() {
        let model = random_model(&tiny_config(), 2).unwrap();
        let weights = LossWeights {
            smoothing: 0.0,
            ..LossWeights::default()
        };
        let loss = |given| {
            let example = Example {
                tokens: vec![4, 1],
                target: vec![119, 9, 1],
                given,
                ..Example::default()
            };
            f64::from(losses(&model, &[example], &weights).unwrap().text.unwrap())
        };
        let (all, two, one) = (loss(0) * 3.0, loss(1) * 2.0, loss(2));
        let (first, second) = (all - two, two - one);
        assert!(first > 0.0 && second > 0.0 && one > 0.0, "{first} {second} {one}");
    }
}
