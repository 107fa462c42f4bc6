//! The embedded model with weights, and with keys and values, in 16 and in 8 bits.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use multiway::checkpoint::{CacheType, Device, WeightType};
use multiway::prompt::InputValue;
use multiway::task::Choice;
use multiway::tokenizer::Tokenizer;
use multiway::{Checkpoint, Engine, ImageProcessor, TaskInputs, TaskLibrary, embedded_checkpoint};
use multiway_model::{EncoderBatch, EncoderSample, HookPoint, LoadOptions, Model, TargetBatch, Tensor};

/// How far an 8-bit probability may be from that of f32, over ten names and four pictures.
const TOLERANCE: f64 = 0.05;

const PICTURES: [&str; 4] = ["cat.png", "red-apple.png", "bicycle.png", "guitar.png"];

fn engine(checkpoint: &Checkpoint, weights: WeightType) -> Engine {
    Engine::builder(checkpoint).weights(weights).build().unwrap()
}

fn engine_with_cache(checkpoint: &Checkpoint, cache: CacheType) -> Engine {
    Engine::builder(checkpoint).cache(cache).build().unwrap()
}

/// The probabilities of some names for a picture, the likeliest first.
fn classify(engine: &Engine, checkpoint: &Checkpoint, picture: &str) -> Vec<Choice> {
    let names = [
        "cat", "dog", "apple", "bicycle", "guitar", "turtle", "rocket", "triangle", "circle", "tree",
    ];
    let image = ImageProcessor::new(checkpoint.config())
        .open(format!("examples/pictures/{picture}"))
        .unwrap();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let inputs = TaskInputs::new()
        .with_image(image)
        .with("choices", InputValue::List(names));
    let library = TaskLibrary::builtin().unwrap();
    let task = library.get("classify").unwrap();
    let outcome = task.run(engine, &inputs).unwrap().wait_blocking().unwrap();
    outcome.answer.choices().to_vec()
}

/// How far the probabilities of four pictures' names move at most from those of f32; the likeliest must stay.
fn moved(checkpoint: &Checkpoint, narrow: &Engine) -> f64 {
    let single = engine(checkpoint, WeightType::F32);
    let mut most: f64 = 0.0;
    for picture in ["cat.png", "red-apple.png", "bicycle.png", "guitar.png"] {
        let expected = classify(&single, checkpoint, picture);
        let found = classify(narrow, checkpoint, picture);
        assert_eq!(found[0].text, expected[0].text, "{picture}");
        for choice in &found {
            let same = expected.iter().find(|other| other.text == choice.text).unwrap();
            most = most.max((choice.probability - same.probability).abs());
        }
    }
    most
}

#[test]
fn the_embedded_model_answers_in_8_bits_about_as_it_does_in_32() {
    let checkpoint = embedded_checkpoint().unwrap();
    let [half, eighth] =
        [WeightType::Bf16, WeightType::Int8].map(|weights| moved(&checkpoint, &engine(&checkpoint, weights)));
    // The embedded weights are stored in bf16: what moves is that activations are rounded, too. Measured:
    // 0.011.
    assert!(half > 0.0 && half < 0.02, "{half}");
    assert!(eighth > 0.0 && eighth < TOLERANCE, "{eighth}");
}

#[test]
fn the_embedded_model_answers_from_narrow_keys_and_values_about_as_it_does_from_32_bits() {
    let checkpoint = embedded_checkpoint().unwrap();
    // Measured: 0.0008 and 0.0023.
    for (cache, most) in [(CacheType::Bf16, 0.003), (CacheType::Int8, 0.008)] {
        let moved = moved(&checkpoint, &engine_with_cache(&checkpoint, cache));
        assert!(moved > 0.0 && moved < most, "{cache}: {moved}");
    }
}

#[test]
fn the_embedded_model_writes_in_8_bits() {
    let checkpoint = embedded_checkpoint().unwrap();
    let engine = engine(&checkpoint, WeightType::Int8);
    let image = ImageProcessor::new(checkpoint.config())
        .open("examples/pictures/cat.png")
        .unwrap();
    let library = TaskLibrary::builtin().unwrap();
    let inputs = TaskInputs::new().with_image(image);
    let outcome = library
        .get("caption")
        .unwrap()
        .run(&engine, &inputs)
        .unwrap()
        .wait_blocking()
        .unwrap();
    assert!(
        outcome.answer.text().unwrap().chars().any(char::is_alphabetic),
        "{:?}",
        outcome.answer
    );
}

/// The rows of every layer for four pictures with a question and an answer, and the logits behind them.
fn rows(checkpoint: &Checkpoint, weights: WeightType) -> Vec<(String, Tensor)> {
    let options = LoadOptions {
        weights: Some(weights),
        ..LoadOptions::default()
    };
    let model = Model::load_with(checkpoint, &Device::Cpu, &options).unwrap();
    let (tokenizer, config) = (Tokenizer::from_checkpoint(checkpoint).unwrap(), model.config());
    let tokens = |text| [tokenizer.encode_text(text).unwrap(), vec![config.eos_token_id]].concat();
    let question = tokens("what is in the picture?");
    let images = PICTURES.map(|picture| {
        let picture = format!("examples/pictures/{picture}");
        [ImageProcessor::new(config).open(picture).unwrap()]
    });
    let samples = images.each_ref().map(|images| EncoderSample {
        images,
        tokens: &question,
    });
    let mut seen = Vec::new();
    let mut see = |stack: &str, place: HookPoint, rows: &Tensor| {
        seen.push((format!("{stack}, {place:?}"), rows.clone()));
        Ok(())
    };
    let batch = EncoderBatch::new(config, &samples).unwrap();
    let encoded = model
        .encode_observed(&batch, &mut |place, rows| see("encoder", place, rows))
        .unwrap();
    let mut targets = TargetBatch::default();
    for sample in 0..samples.len() {
        let answer = tokens("a drawing of a red apple");
        targets.push(sample, &[vec![config.decoder_start_token_id], answer].concat());
    }
    let logits = model
        .decode_observed(&encoded, &targets, &mut |place, rows| see("decoder", place, rows))
        .unwrap(); // [N, V]
    seen.push(("logits".to_owned(), logits));
    seen
}

/// The root of the mean square of the differences, relative to that of what was expected.
fn relative_error(found: &Tensor, expected: &Tensor) -> f32 {
    let square = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    (square(&(found - expected).unwrap()) / square(expected)).sqrt()
}

/// How far the worst of a stack's places may be, half as much again as was measured. Words are looked up, so
/// that the decoder's embedding is as it was.
const BOUNDS: [(&str, f32); 4] = [
    ("decoder, Embedded", 0.0),
    ("encoder", 0.033),
    ("decoder", 0.048),
    ("logits", 0.051),
];

#[test]
fn the_embedded_models_layers_move_in_8_bits_as_far_as_is_stated() {
    let checkpoint = embedded_checkpoint().unwrap();
    let expected = rows(&checkpoint, WeightType::F32);
    let found = rows(&checkpoint, WeightType::Int8);
    let mut worst = BOUNDS.map(|_| 0.0_f32);
    for ((place, found), (_, expected)) in found.iter().zip(&expected) {
        let error = relative_error(found, expected);
        let bound = BOUNDS
            .iter()
            .position(|(start, _)| place.starts_with(start))
            .unwrap();
        assert!(
            error <= BOUNDS[bound].1,
            "{place}: {error}, expected at most {}",
            BOUNDS[bound].1
        );
        worst[bound] = worst[bound].max(error);
    }
    // Bounds that are far above every error would say nothing.
    assert!(
        worst
            .iter()
            .zip(BOUNDS)
            .all(|(worst, (_, bound))| *worst >= bound / 2.0),
        "{worst:?}"
    );
}
