//! What the model is asked in training, and how its answers are scored.
//!
//! Pre-training is masked modelling alone: spans of a text, up to the whole caption, are answered by the
//! decoder with and without the picture; masked patches are answered by the encoder, as discrete visual codes
//! (BEiT v2, arXiv 2208.06366), as the teacher's features there (EVA, arXiv 2211.07636), or as both.
//! Fine-tuning asks the task files' own prompts, and for `retrieve` pulls a picture's embedding towards that
//! of its name.

use std::collections::HashMap;
use std::sync::Arc;

use multiway_model::kernels::{cross_entropy, distilled_cross_entropy};
use multiway_model::{
    EncoderBatch, ForwardError, Model, ModelConfig, Patch, PatchedImage, TargetBatch, Tensor,
};

use crate::teacher::{CELL_NUMBERS, PICTURE_NUMBERS};

/// A picture as the encoder is to see it.
#[derive(Debug, Clone)]
pub struct ExamplePicture {
    /// Normalised pixels, `[3, S, S]`.
    pub pixels: Vec<f32>,
    /// The patches that are shown or masked; others are left out.
    pub patches: Vec<Patch>,
    /// What each of these patches is, in their order; empty where nothing is asked of them.
    pub answers: Vec<PatchAnswer>,
    /// The teacher's features of the whole picture, of [`PICTURE_NUMBERS`], where they are asked.
    pub whole: Option<Vec<f32>>,
}

/// What is asked of a patch; nothing of it where the patch shows nothing of the picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatchAnswer {
    /// Its visual code.
    pub code: Option<u32>,
    /// The teacher's features there, of [`CELL_NUMBERS`].
    pub features: Option<Vec<f32>>,
}

/// One training example.
#[derive(Debug, Clone, Default)]
pub struct Example {
    /// The pictures, in the order of the prompt.
    pub pictures: Vec<Arc<ExamplePicture>>,
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

/// How the parts of the loss are weighed; a part of weight 0 is not computed.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// Weight of the text.
    pub text: f64,
    /// Weight of the visual codes of masked patches.
    pub codes: f64,
    /// Weight of the teacher's features of masked patches.
    pub features: f64,
    /// Weight of the teacher's features of patches that are shown: the teacher saw the whole picture, the
    /// encoder what is left of it.
    ///
    /// Source: Peng et al. 2022, MaskDistill (arXiv 2210.10615), section 3, which asks both kinds of patches.
    pub shown: f64,
    /// Weight of the teacher's features of whole pictures.
    pub whole: f64,
    /// Weight of retrieval.
    pub retrieval: f64,
    /// Label smoothing of the text, 0 to 1.
    pub smoothing: f32,
    /// The share of the text's target distribution that is what the averaged weights say, 0 to 1: against
    /// captions that do not fit their pictures.
    ///
    /// Source: Li et al. 2021, ALBEF (arXiv 2107.07651), section 3.3.
    pub soft: f32,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self {
            text: 1.0,
            codes: 0.0,
            features: 1.0,
            shown: 0.0,
            whole: 1.0,
            retrieval: 1.0,
            smoothing: 0.05,
            soft: 0.0,
        }
    }
}

/// The loss of a batch and its parts; a part that the batch does not ask for is `None`.
#[derive(Debug)]
pub struct Losses {
    /// The weighed sum, a differentiable scalar.
    pub total: Tensor,
    /// The parts, in the order of [`PARTS`].
    pub parts: [Option<f32>; PARTS.len()],
}

/// The parts of the loss. Text, codes and retrieval are mean cross-entropies in nats, of the asked target
/// tokens, of the masked patches, and both ways; features, shown and whole are mean squared distances from
/// vectors of unit length.
pub const PARTS: [&str; 6] = ["text", "codes", "features", "shown", "whole", "retrieval"];

/// The heads that guess the teacher's features. They belong to training alone: a checkpoint has no such
/// tensors.
#[derive(Debug)]
pub struct FeatureHeads {
    cells: [Tensor; 2],
    whole: [Tensor; 2],
}

impl FeatureHeads {
    /// Names of the heads' tensors begin with this.
    pub const PREFIX: &'static str = "teacher_head.";

    /// Lists names and shapes of the heads' tensors for a model of width `hidden_size`.
    #[must_use]
    pub fn shapes(hidden_size: usize) -> [(String, Vec<usize>); 4] {
        let name = |name: &str| format!("{}{name}", Self::PREFIX);
        [
            (name("cells.weight"), vec![CELL_NUMBERS, hidden_size]),
            (name("cells.bias"), vec![CELL_NUMBERS]),
            (name("whole.weight"), vec![PICTURE_NUMBERS, hidden_size]),
            (name("whole.bias"), vec![PICTURE_NUMBERS]),
        ]
    }

    /// Takes the heads out of named tensors; none where one is missing.
    #[must_use]
    pub fn of_tensors(tensors: &HashMap<String, Tensor>) -> Option<Self> {
        let tensor = |name: &str| tensors.get(&format!("{}{name}", Self::PREFIX)).cloned();
        let head = |name: &str| {
            Some([
                tensor(&format!("{name}.weight"))?,
                tensor(&format!("{name}.bias"))?,
            ])
        };
        Some(Self {
            cells: head("cells")?,
            whole: head("whole")?,
        })
    }
}

/// Who is asked what the right answers are, beside the examples themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Teachers<'a> {
    /// The heads that guess the teacher network's features.
    pub heads: Option<&'a FeatureHeads>,
    /// A model of the averaged weights, and how far its share of the text's targets has risen, 0 to 1.
    pub averaged: Option<(&'a Model, f32)>,
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
pub fn losses(
    model: &Model,
    teachers: Teachers<'_>,
    examples: &[Example],
    weights: &LossWeights,
) -> Result<Losses, ForwardError> {
    let config = model.config();
    let samples: Vec<(Vec<PatchedImage>, &[u32])> = examples
        .iter()
        .map(|example| {
            let images = example.pictures.iter().map(|p| PatchedImage {
                pixels: &p.pixels,
                patches: &p.patches,
            });
            (images.collect(), example.tokens.as_slice())
        })
        .collect();
    let batch = EncoderBatch::with_patches(config, &samples)?;
    let encoded = model.encode(&batch)?; // [N, D]
    let asked = |weight: f64, part: &dyn Fn() -> Part| if weight > 0.0 { part() } else { Ok(None) };
    let headed = |weight: f64, part: &dyn Fn(&FeatureHeads) -> Part| match teachers.heads {
        Some(heads) if weight > 0.0 => part(heads),
        _ => Ok(None),
    };
    let parts = [
        (
            weights.text,
            asked(weights.text, &|| {
                let averaged = teachers.averaged.filter(|_| weights.soft > 0.0);
                let soft = averaged.map(|(averaged, risen)| (averaged, &batch, weights.soft * risen));
                text_loss(model, &encoded, examples, weights.smoothing, soft)
            })?,
        ),
        (
            weights.codes,
            asked(weights.codes, &|| code_loss(model, &encoded, examples))?,
        ),
        (
            weights.features,
            headed(weights.features, &|heads| {
                feature_loss(heads, &encoded, examples, Side::Masked)
            })?,
        ),
        (
            weights.shown,
            headed(weights.shown, &|heads| {
                feature_loss(heads, &encoded, examples, Side::Shown)
            })?,
        ),
        (
            weights.whole,
            headed(weights.whole, &|heads| whole_loss(heads, &encoded, examples))?,
        ),
        (
            weights.retrieval,
            asked(weights.retrieval, &|| retrieval_loss(model, &encoded, examples))?,
        ),
    ];
    let mut total: Option<Tensor> = None;
    let mut values = [None; PARTS.len()];
    for ((weight, part), value) in parts.into_iter().zip(&mut values) {
        let Some(part) = part else { continue };
        *value = Some(part.to_scalar::<f32>()?);
        let weighed = (part * weight)?;
        total = Some(match total {
            Some(sum) => (sum + weighed)?,
            None => weighed,
        });
    }
    let total = total.ok_or(ForwardError::EmptyBatch)?;
    Ok(Losses { total, parts: values })
}

type Part = Result<Option<Tensor>, ForwardError>;
type Encoded = multiway_model::EncoderOutput;

fn even(count: usize) -> Vec<f32> {
    vec![1.0 / count.max(1) as f32; count]
}

fn text_loss(
    model: &Model,
    encoded: &Encoded,
    examples: &[Example],
    smoothing: f32,
    soft: Option<(&Model, &EncoderBatch, f32)>,
) -> Part {
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
    let soft = soft.map(|(averaged, prompts, share)| -> Result<_, ForwardError> {
        let encoded = averaged.encode(prompts)?;
        Ok((averaged.decode(&encoded, &batch)?, share)) // [rows, V]
    });
    let soft = soft.transpose()?;
    let soft = soft.as_ref().map(|(logits, share)| (logits, *share));
    Ok(Some(distilled_cross_entropy(
        &logits, targets, weights, smoothing, soft,
    )?))
}

/// Which patches are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Masked,
    Shown,
}

/// Lists the rows of a batch's patches of one side, each with what is asked of it.
fn patch_rows<'a>(
    encoded: &'a Encoded,
    examples: &'a [Example],
    side: Side,
) -> impl Iterator<Item = (u32, &'a PatchAnswer)> {
    let pictures = examples
        .iter()
        .zip(&encoded.segments.samples)
        .flat_map(|(example, segment)| example.pictures.iter().zip(&segment.images));
    pictures.flat_map(move |(picture, range)| {
        // The first row of a picture is its class row.
        let rows = (range.start + 1..range.end).zip(&picture.patches);
        rows.zip(&picture.answers)
            .filter(move |((_, patch), _)| patch.masked == (side == Side::Masked))
            .filter_map(|((row, _), answer)| Some((u32::try_from(row).ok()?, answer)))
    })
}

fn code_loss(model: &Model, encoded: &Encoded, examples: &[Example]) -> Part {
    let (rows, targets): (Vec<u32>, Vec<u32>) = patch_rows(encoded, examples, Side::Masked)
        .filter_map(|(row, answer)| Some((row, answer.code?)))
        .unzip();
    if rows.is_empty() {
        return Ok(None);
    }
    let logits = model.visual_code_logits(encoded, &rows)?; // [rows, C]
    let weights = even(rows.len());
    Ok(Some(cross_entropy(&logits, targets, weights, 0.0)?))
}

fn feature_loss(heads: &FeatureHeads, encoded: &Encoded, examples: &[Example], side: Side) -> Part {
    let asked = patch_rows(encoded, examples, side)
        .filter_map(|(row, answer)| Some((row, answer.features.as_deref()?)));
    squared_distance(&heads.cells, encoded, asked)
}

fn whole_loss(heads: &FeatureHeads, encoded: &Encoded, examples: &[Example]) -> Part {
    let pictures = examples
        .iter()
        .zip(&encoded.segments.samples)
        .flat_map(|(example, segment)| example.pictures.iter().zip(&segment.images));
    let asked = pictures
        .filter_map(|(picture, range)| Some((u32::try_from(range.start).ok()?, picture.whole.as_deref()?)));
    squared_distance(&heads.whole, encoded, asked)
}

/// Guesses a vector at each row by a linear layer: the mean squared distance from the right one.
fn squared_distance<'a>(
    [weight, bias]: &[Tensor; 2],
    encoded: &Encoded,
    asked: impl Iterator<Item = (u32, &'a [f32])>,
) -> Part {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (row, target) in asked {
        rows.push(row);
        targets.extend_from_slice(target);
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let count = rows.len();
    let device = encoded.hidden.device();
    let hidden = encoded.hidden.index_select(&Tensor::new(rows, device)?, 0)?; // [rows, D]
    let guessed = hidden.matmul(&weight.t()?)?.broadcast_add(bias)?; // [rows, K]
    let targets = Tensor::from_vec(targets, guessed.shape(), device)?;
    let distance = (guessed - targets)?.sqr()?.sum_all()?;
    Ok(Some((distance / count as f64)?))
}

/// Contrasts each picture with all candidate names of the batch and each picture's name with all pictures.
///
/// Source: the retrieval fine-tuning of BEiT-3 (arXiv 2208.10442, section 3.1), with the loss of CLIP.
fn retrieval_loss(model: &Model, encoded: &Encoded, examples: &[Example]) -> Part {
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

/// Describes the model that recipes begin with: a vocabulary of `vocab_size`, and settings that a recipe may
/// change.
///
/// # Errors
///
/// Fails where the vocabulary's size cannot be used.
pub fn default_config(vocab_size: usize) -> Result<ModelConfig, multiway_model::ConfigError> {
    let json = serde_json::json!({
        "architecture": "multiway", "vocab_size": vocab_size, "hidden_size": 256, "intermediate_size": 512,
        "encoder_layers": 6, "encoder_heads": 4, "fusion_layers": 0, "decoder_layers": 2, "decoder_heads": 4,
        "shared_attention": true, "attention_pattern": "image_prefix", "image_size": 96, "patch_size": 12,
        "max_images": 4, "max_text_length": 128, "max_target_length": 64,
        "visual_vocab_size": crate::teacher::CODES, "embedding_size": 256,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "trained_tasks": [
            "caption", "vqa", "classify", "retrieve", "infill", "patches", "closed-vqa", "count", "refer", "detect",
            "reason", "entail", "verify", "read"
        ]
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
            answers: (0..16)
                .map(|index| PatchAnswer {
                    code: Some(3),
                    // Longer where a patch is shown.
                    features: Some(vec![[0.125, 0.25][index % 2]; CELL_NUMBERS]),
                })
                .collect(),
            whole: masked.then(|| vec![0.0625; PICTURE_NUMBERS]),
        })
    }

    fn heads(model: &Model) -> FeatureHeads {
        let zeros = |(name, shape): (String, Vec<usize>)| {
            let zeros = Tensor::zeros(shape, multiway_model::DType::F32, model.device()).unwrap();
            (name, zeros)
        };
        let tensors = FeatureHeads::shapes(model.config().hidden_size).map(zeros);
        FeatureHeads::of_tensors(&tensors.into_iter().collect()).unwrap()
    }

    #[test]
    fn a_guess_of_nothing_is_as_far_as_the_features_are_long() {
        let model = random_model(&tiny_config(), 1).unwrap();
        let seen = Example {
            pictures: vec![picture(true)],
            tokens: vec![1],
            ..Example::default()
        };
        let found = losses(
            &model,
            Teachers {
                heads: Some(&heads(&model)),
                averaged: None,
            },
            &[seen],
            &LossWeights {
                shown: 0.5,
                ..LossWeights::default()
            },
        )
        .unwrap();
        let lengths = [
            CELL_NUMBERS as f32 * 0.125 * 0.125,
            CELL_NUMBERS as f32 * 0.25 * 0.25,
            PICTURE_NUMBERS as f32 * 0.0625 * 0.0625,
        ];
        for (part, length) in found.parts[2..5].iter().zip(lengths) {
            assert!((part.unwrap() - length).abs() < 1e-5, "{part:?} {length}");
        }
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
        let heads = heads(&model);
        let asked = |examples: &[Example], weights: &LossWeights| {
            let parts = losses(
                &model,
                Teachers {
                    heads: Some(&heads),
                    averaged: None,
                },
                examples,
                weights,
            )
            .unwrap()
            .parts;
            parts.map(|part| part.is_some())
        };
        let only_text = asked(std::slice::from_ref(&text), &weights);
        assert_eq!(only_text, [true, false, false, false, false, false]);
        let seen = Example {
            pictures: vec![picture(true)],
            tokens: vec![1],
            ..Example::default()
        };
        let only_visual = asked(std::slice::from_ref(&seen), &weights);
        assert_eq!(only_visual, [false, false, true, false, true, false]);
        let codes = LossWeights {
            codes: 0.5,
            features: 0.0,
            whole: 0.0,
            ..weights
        };
        assert_eq!(asked(&[seen], &codes), [false, true, false, false, false, false]);
        let shown = |pair| Example {
            pictures: vec![picture(false)],
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
        assert!(asked(&pairs, &weights)[5]);
        assert!(losses(&model, Teachers::default(), &[], &weights).is_err());
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
            f64::from(
                losses(&model, Teachers::default(), &[example], &weights)
                    .unwrap()
                    .parts[0]
                    .unwrap(),
            )
        };
        let (all, two, one) = (loss(0) * 3.0, loss(1) * 2.0, loss(2));
        let (first, second) = (all - two, two - one);
        assert!(first > 0.0 && second > 0.0 && one > 0.0, "{first} {second} {one}");
    }

    #[test]
    fn the_averaged_weights_take_their_share_of_the_targets() {
        let (model, averaged) = (
            random_model(&tiny_config(), 2).unwrap(),
            random_model(&tiny_config(), 3).unwrap(),
        );
        let example = Example {
            tokens: vec![4, 1],
            target: vec![9, 7, 1],
            ..Example::default()
        };
        let loss = |teacher, soft, risen| {
            let weights = LossWeights {
                smoothing: 0.0,
                soft,
                ..LossWeights::default()
            };
            let teachers = Teachers {
                heads: None,
                averaged: Some((teacher, risen)),
            };
            let examples = std::slice::from_ref(&example);
            losses(&model, teachers, examples, &weights).unwrap().parts[0].unwrap()
        };
        let hard = loss(&averaged, 0.0, 1.0);
        assert!((loss(&averaged, 0.5, 0.0) - hard).abs() < 1e-5);
        // Between what is asked and what the teacher says, the loss is linear.
        let (half, whole) = (loss(&averaged, 0.5, 1.0), loss(&averaged, 1.0, 1.0));
        assert!(
            (half - (hard + whole) / 2.0).abs() < 1e-4,
            "{hard} {half} {whole}"
        );
        assert!((whole - hard).abs() > 1e-3, "{hard} {whole}");
        // Half risen, the whole share counts half.
        assert!((loss(&averaged, 1.0, 0.5) - half).abs() < 1e-5);
    }
}
