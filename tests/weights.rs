//! The embedded model with 16-bit and 8-bit weights.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use multiway::{
    Checkpoint, Choice, Engine, ImageProcessor, InputValue, TaskInputs, TaskLibrary, WeightType,
    embedded_checkpoint,
};

/// How far an 8-bit probability may be from that of f32, over ten names and four pictures.
const TOLERANCE: f64 = 0.05;

fn engine(checkpoint: &Checkpoint, weights: WeightType) -> Engine {
    Engine::builder(checkpoint).weights(weights).build().unwrap()
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

#[test]
fn the_embedded_model_answers_in_8_bits_about_as_it_does_in_32() {
    let checkpoint = embedded_checkpoint().unwrap();
    let single = engine(&checkpoint, WeightType::F32);
    let mut moved = Vec::new();
    for weights in [WeightType::Bf16, WeightType::Int8] {
        let narrow = engine(&checkpoint, weights);
        let mut most: f64 = 0.0;
        for picture in ["cat.png", "red-apple.png", "bicycle.png", "guitar.png"] {
            let expected = classify(&single, &checkpoint, picture);
            let found = classify(&narrow, &checkpoint, picture);
            assert_eq!(found[0].text, expected[0].text, "{weights}: {picture}");
            for choice in &found {
                let same = expected.iter().find(|other| other.text == choice.text).unwrap();
                most = most.max((choice.probability - same.probability).abs());
            }
        }
        assert!(most < TOLERANCE, "{weights}: {most}");
        moved.push(most);
    }
    // The embedded weights are stored in bf16, so that keeping them so changes nothing.
    assert!(moved[0] == 0.0 && moved[1] > 0.0, "{moved:?}");
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
