//! The two pre-training heads of BEiT-3: the words of text rows, and the visual codes of masked patches.

use multiway_model::{EncoderOutput, Tensor};

use super::beit3::{Samples, first, pass, word_logits};
use super::case::Case;

const MASKED: Option<&str> = Some("in.vision_masked_position");

/// Masked words alone, masked patches alone, and both in one pass.
pub(crate) fn walk(case: &Case) {
    let texts = Samples::text(case);
    let order = first(texts.texts.len());
    let encoded = pass(case, &texts, "text.", Some("out"), &order);
    words(case, "text.word_logits", &encoded);

    let pictures = Samples::default().with_pictures(case, "in.image", MASKED);
    let encoded = pass(case, &pictures, "vision.", Some("out"), &order);
    codes(case, "vision.code_logits", &pictures, &encoded);

    let both = texts.with_pictures(case, "in.image", MASKED);
    let encoded = pass(case, &both, "vl.", Some("out"), &order);
    words(case, "vl.word_logits", &encoded);
    codes(case, "vl.code_logits", &both, &encoded);
}

/// Compares the words of every text row that is no padding.
fn words(case: &Case, name: &str, encoded: &EncoderOutput) {
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for sample in 0..encoded.segments.samples.len() {
        let logits = word_logits(case, encoded, sample); // [L, V]
        let recorded = case.recorded(name).get(sample).unwrap(); // [T, V]
        expected.push(recorded.narrow(0, 0, logits.dim(0).unwrap()).unwrap());
        found.push(logits);
    }
    let join = |parts: &[Tensor]| Tensor::cat(parts, 0).unwrap();
    case.compare(name, &join(&found), &join(&expected));
}

/// Compares the visual codes of every masked patch.
fn codes(case: &Case, name: &str, samples: &Samples, encoded: &EncoderOutput) {
    let mut rows = Vec::new();
    for (segments, patches) in encoded.segments.samples.iter().zip(&samples.patches) {
        // The class row comes before the patches.
        let patch_rows = segments.images[0].clone().skip(1);
        let masked = patch_rows.zip(patches).filter(|(_, patch)| patch.masked);
        rows.extend(masked.map(|(row, _)| u32::try_from(row).unwrap()));
    }
    let logits = case.model.visual_code_logits(encoded, &rows).unwrap(); // [masked, C]
    case.compare(name, &logits, case.recorded(name));
}
