//! The released BEiT-3 architecture against torchscale and the published fine-tuning classes.

use super::case::Case;
use multiway_model::families::beit3::Beit3Task;
use multiway_model::{EncoderBatch, EncoderOutput, Family, Patch, PatchedImage, Place, Tensor};

/// The samples of one pass: pictures as normalised pixels with the patches to see, and texts.
#[derive(Default)]
struct Samples {
    pixels: Vec<Vec<f32>>,
    patches: Vec<Vec<Patch>>,
    texts: Vec<Vec<u32>>,
}

impl Samples {
    fn text(case: &Case) -> Self {
        let lengths: Vec<usize> = serde_json::from_value(case.inputs["text_lengths"].clone()).unwrap();
        let rows = case.tokens("text_ids").into_iter().zip(lengths);
        Self {
            texts: rows.map(|(ids, length)| ids[..length].to_vec()).collect(),
            ..Self::default()
        }
    }

    fn with_pictures(mut self, case: &Case, name: &str, masked: Option<&str>) -> Self {
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

    fn batch(&self, case: &Case) -> EncoderBatch {
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

/// Picks each sample's rows out of packed ones and compares them with the valid rows of a recorded `[B, L, D]`.
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
fn pass(
    case: &Case,
    samples: &Samples,
    prefix: &str,
    output: Option<&str>,
    order: &[usize],
) -> EncoderOutput {
    let batch = samples.batch(case);
    let mut look = |place, rows: &Tensor| {
        let name = match place {
            Place::Embedded => format!("{prefix}layer_in.0"),
            Place::Layer(index) => format!("{prefix}layer.{index}"),
            Place::Output => match output {
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

fn first(count: usize) -> Vec<usize> {
    (0..count).collect()
}

pub(crate) fn walk(case: &Case) {
    let Family::Beit3(details) = &case.model.config().family else {
        unreachable!("chosen by its family")
    };
    match details.task {
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
        Beit3Task::Encoder => encoder(case),
        Beit3Task::Retrieval => retrieval(case),
        Beit3Task::Vqa => {
            let samples = Samples::text(case).with_pictures(case, "in.image", None);
            classes(case, &samples, &first(samples.texts.len()));
        }
        Beit3Task::ImageClassification => {
            let samples = Samples::default().with_pictures(case, "in.image", None);
            classes(case, &samples, &first(samples.pixels.len()));
        }
        Beit3Task::Nlvr2 => nlvr2(case),
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
