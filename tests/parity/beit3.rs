//! The released BEiT-3 architecture against torchscale and the published fine-tuning classes.

use multiway_model::{
    DecoderBatch, DecoderRow, EncoderBatch, EncoderOutput, HookPoint, Patch, PatchedImage, ProcessedImage,
    TaskGroup, Tensor,
};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{Request, SamplingParams};

use super::case::Case;
use super::generate::engine;

/// `</s>` in XLM-R's numbering.
const END: u32 = 2;

/// The samples of one pass: pictures as normalised pixels with the patches to see, and texts.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) pixels: Vec<Vec<f32>>,
    pub(crate) patches: Vec<Vec<Patch>>,
    pub(crate) texts: Vec<Vec<u32>>,
}

impl Samples {
    pub(crate) fn text(case: &Case) -> Self {
        let lengths: Vec<usize> = serde_json::from_value(case.inputs["text_lengths"].clone()).unwrap();
        let rows = case.tokens("text_ids").into_iter().zip(lengths);
        Self {
            texts: rows.map(|(ids, length)| ids[..length].to_vec()).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn with_pictures(mut self, case: &Case, name: &str, masked: Option<&str>) -> Self {
        let config = case.model.config();
        let masks = masked.map(|name| case.recorded(name).to_dtype(candle_core::DType::U32).unwrap());
        let masks = masks.map(|masks| masks.to_vec2::<u32>().unwrap());
        let pixels = case.recorded(name);
        for row in 0..pixels.dim(0).unwrap() {
            let is_masked = |index: usize| masks.as_ref().is_some_and(|masks| masks[row][index] == 1);
            self.pixels
                .push(pixels.get(row).unwrap().flatten_all().unwrap().to_vec1().unwrap());
            let patches = (0..config.patches()).map(|index| Patch {
                index,
                masked: is_masked(index),
            });
            self.patches.push(patches.collect());
        }
        self
    }

    /// Takes some of the samples, in a given order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().filter_map(|row| all.get(*row).cloned()).collect()
        }
        Self {
            pixels: of(&self.pixels, rows),
            patches: of(&self.patches, rows),
            texts: of(&self.texts, rows),
        }
    }

    pub(crate) fn batch(&self, case: &Case) -> EncoderBatch {
        let count = self.pixels.len().max(self.texts.len());
        let samples = (0..count).map(|row| {
            let images = self.pixels.get(row).zip(self.patches.get(row));
            let images = images.map(|(pixels, patches)| PatchedImage { pixels, patches });
            let text = self.texts.get(row).map(Vec::as_slice).unwrap_or_default();
            (images.into_iter().collect(), text)
        });
        EncoderBatch::with_patches(case.model.config(), &samples.collect::<Vec<_>>()).unwrap()
    }
}

/// Picks each sample's rows out of packed ones and compares them with the valid rows of a recorded `[B, L,
/// D]`.
///
/// `order` says which recorded row each sample is.
fn compare(case: &Case, name: &str, packed: &Tensor, batch: &EncoderBatch, order: &[usize]) {
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (sample, row) in batch.segments().samples.iter().zip(order) {
        for range in sample.all() {
            found.push(packed.narrow(0, range.start, range.len()).unwrap());
        }
        expected.push(
            case.recorded(name)
                .get(*row)
                .unwrap()
                .narrow(0, 0, sample.rows())
                .unwrap(),
        );
    }
    case.compare(
        name,
        &Tensor::cat(&found, 0).unwrap(),
        &Tensor::cat(&expected, 0).unwrap(),
    );
}

/// Encodes samples and compares every layer, where the layers were recorded.
pub(crate) fn pass(
    case: &Case,
    samples: &Samples,
    prefix: &str,
    output: Option<&str>,
    order: &[usize],
) -> EncoderOutput {
    let batch = samples.batch(case);
    let mut look = |place, rows: &Tensor| {
        let name = match place {
            HookPoint::Embedded => format!("{prefix}layer_in.0"),
            HookPoint::Layer(index) => format!("{prefix}layer.{index}"),
            HookPoint::Output => match output {
                Some(name) => format!("{prefix}{name}"),
                None => return Ok(()),
            },
        };
        if case.has(&name) {
            compare(case, &name, rows, &batch, order);
        }
        Ok(())
    };
    case.model.encode_observed(&batch, &mut look).unwrap()
}

pub(crate) fn first(count: usize) -> Vec<usize> {
    (0..count).collect()
}

pub(crate) fn walk(case: &Case) {
    match case.model.config().task_group {
        _ if case.has("pos_A_interpolated") => {
            let pictures = Samples::default().with_pictures(case, "in.image", None);
            pass(
                case,
                &pictures,
                "",
                Some("vision.out"),
                &first(pictures.pixels.len()),
            );
        }
        TaskGroup::Encoder => encoder(case),
        TaskGroup::Retrieval => retrieval(case),
        TaskGroup::Vqa => {
            let samples = Samples::text(case).with_pictures(case, "in.image", None);
            classes(case, &samples, &first(samples.texts.len()));
        }
        TaskGroup::ImageClassification => {
            let samples = Samples::default().with_pictures(case, "in.image", None);
            classes(case, &samples, &first(samples.pixels.len()));
        }
        TaskGroup::Nlvr2 => nlvr2(case),
        TaskGroup::Captioning => captioning(case),
        TaskGroup::Pretraining => super::pretraining::walk(case),
        other => panic!("{}: {other:?} is not compared", case.name),
    }
    // One shows in the logits, the other in the first layer's input.
    case.assert_complete(&["pooled", "pos_A_interpolated"]);
}

fn encoder(case: &Case) {
    let text = || Samples::text(case);
    let picture = |samples: Samples, masked| samples.with_pictures(case, "in.image", masked);
    let count = text().texts.len();
    let masked = Some("in.vision_masked_position");
    pass(
        case,
        &picture(Samples::default(), None),
        "vision.",
        Some("out"),
        &first(count),
    );
    pass(
        case,
        &picture(Samples::default(), masked),
        "vision_masked.",
        Some("out"),
        &first(count),
    );
    pass(case, &text(), "text.", Some("out"), &first(count));
    let mut alone = text();
    alone.texts.truncate(1);
    pass(case, &alone, "text_row0_nopad.", Some("out"), &first(1));
    pass(case, &picture(text(), None), "vl.", Some("out"), &first(count));
}

fn classes(case: &Case, samples: &Samples, order: &[usize]) {
    let encoded = pass(case, samples, "", None, order);
    case.compare(
        "logits",
        &case.model.classify(&encoded).unwrap(),
        case.recorded("logits"),
    );
}

/// The reference runs all first pictures and then all second ones; here the two of a sentence are neighbours.
fn nlvr2(case: &Case) {
    let first = Samples::text(case).with_pictures(case, "in.image", None);
    let second = Samples::text(case).with_pictures(case, "in.image_b", None);
    let count = first.texts.len();
    let mut samples = Samples::default();
    let mut order = Vec::new();
    for row in 0..count {
        for (half, picture) in [(0, &first), (count, &second)] {
            samples.texts.push(picture.texts[row].clone());
            samples.pixels.push(picture.pixels[row].clone());
            samples.patches.push(picture.patches[row].clone());
            order.push(half + row);
        }
    }
    classes(case, &samples, &order);
}

/// Reads the logits `[L, V]` of a sample's text rows.
pub(crate) fn word_logits(case: &Case, encoded: &EncoderOutput, sample: usize) -> Tensor {
    let rows = encoded.segments.samples[sample].text.clone();
    let rows: Vec<u32> = rows.map(|row| u32::try_from(row).unwrap()).collect();
    case.model.word_logits(encoded, &rows).unwrap()
}

/// Masked words under the causal mask, then the same word by word behind a picture that is encoded once.
fn captioning(case: &Case) {
    let mut samples = Samples::text(case).with_pictures(case, "in.image", None);
    for (text, masked) in samples.texts.iter_mut().zip(case.tokens("masked_text_ids")) {
        let length = text.len();
        text.clone_from_slice(&masked[..length]);
    }
    let order = first(samples.texts.len());
    let encoded = pass(case, &samples, "", None, &order);
    let (mut found, mut expected, mut at_masks) = (Vec::new(), Vec::new(), Vec::new());
    let masks = case.tokens("language_masked_pos");
    for row in order.iter().copied() {
        let logits = word_logits(case, &encoded, row); // [L, V]
        let length = samples.texts[row].len();
        let masked = (0..length).filter(|place| masks[row][*place] == 1);
        at_masks.extend(masked.map(|place| logits.narrow(0, place, 1).unwrap()));
        let recorded = case.recorded("logits").get(row).unwrap();
        expected.push(recorded.narrow(0, 0, length).unwrap());
        found.push(logits);
    }
    let join = |parts: &[Tensor]| Tensor::cat(parts, 0).unwrap();
    case.compare("logits", &join(&found), &join(&expected));
    case.compare("masked_logits", &join(&at_masks), case.recorded("masked_logits"));

    let pictures = Samples::default().with_pictures(case, "in.image", None);
    let encoded = case.model.encode(&pictures.batch(case)).unwrap();
    let memories = case.model.prompt_memory(&encoded).unwrap();
    let mut cache = case.model.new_cache(order.len(), 8).unwrap();
    let texts = case.tokens("text_ids");
    let steps = (0..).map(|step| (step, format!("inc.step{step}.logits")));
    for (step, name) in steps.take_while(|(_, name)| case.has(name)) {
        let rows: Vec<DecoderRow> = order
            .iter()
            .map(|&row| DecoderRow {
                token: texts[row][step],
                slot: row,
                memory: &memories[row],
            })
            .collect();
        let batch = DecoderBatch { rows: &rows };
        let logits = case.model.decode_step(&batch, &mut cache).unwrap(); // [B, V]
        // The reference also records what stands at the word itself.
        let recorded = case.recorded(&name).narrow(1, 1, 1).unwrap().squeeze(1).unwrap(); // [B, V]
        case.compare(&name, &logits, &recorded);
    }
}

fn retrieval(case: &Case) {
    let pictures = Samples::default().with_pictures(case, "in.image", None);
    let order = first(pictures.pixels.len());
    let vision = case
        .model
        .embed(&pass(case, &pictures, "", None, &order))
        .unwrap(); // [B, E]
    case.compare("vision_cls", &vision, case.recorded("vision_cls"));
    let language = case
        .model
        .embed(&pass(case, &Samples::text(case), "", None, &order))
        .unwrap(); // [B, E]
    case.compare("language_cls", &language, case.recorded("language_cls"));
    let scores = vision.matmul(&language.t().unwrap()).unwrap(); // [B, B]
    case.compare("scores", &scores, case.recorded("scores"));
    // The training loss: each picture is to find its text, and each text its picture.
    let logits = scores
        .broadcast_mul(&case.weight("logit_scale").exp().unwrap())
        .unwrap();
    let own = Tensor::arange(0, u32::try_from(order.len()).unwrap(), logits.device()).unwrap();
    let forth = candle_nn::loss::cross_entropy(&logits, &own).unwrap();
    let back = candle_nn::loss::cross_entropy(&logits.t().unwrap().contiguous().unwrap(), &own).unwrap();
    let loss = ((forth + back).unwrap() * 0.5).unwrap();
    case.compare("loss", &loss.reshape(1).unwrap(), case.recorded("loss"));
}

/// Every recorded caption, through the engine: pictures one by one, whatever the number of beams.
pub(crate) fn captions(case: &Case) {
    let Some(runs) = case.inputs["captions"].as_object() else {
        return;
    };
    let engine = engine(case);
    let pixels = case.recorded("in.image");
    for (name, run) in runs {
        let count = |key: &str| usize::try_from(run[key].as_u64().unwrap()).unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "a recorded setting of few digits")]
        let length_penalty = run["length_penalty"].as_f64().unwrap() as f32;
        let decoded: Vec<Vec<u32>> = serde_json::from_value(run["decoded"].clone()).unwrap();
        for (row, decoded) in decoded.iter().enumerate() {
            let pixels = pixels.get(row).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let picture = ProcessedImage::from_pixels(pixels);
            let prompt = Prompt {
                parts: vec![PromptPart::Image(0)],
            };
            let request = Request {
                sampling: SamplingParams {
                    // The reference counts <s> and the mask.
                    max_new_tokens: count("max_len") - 2,
                    beams: count("num_beams"),
                    length_penalty,
                    ..SamplingParams::default()
                },
                ..Request::new(prompt, vec![picture])
            };
            let found = engine.search(request).wait_blocking().unwrap().value;
            // <s>, the words, the mask that stood behind them, </s>, padding.
            let end = decoded.iter().position(|id| *id == END).unwrap();
            let expected = [&decoded[1..end - 1], &[END]].concat();
            assert_eq!(found[0].tokens, expected, "{}: {name}, picture {row}", case.name);
        }
    }
}
