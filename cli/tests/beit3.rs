//! The released BEiT-3 checkpoints' heads, from the command line: the same commands as for the embedded
//! model.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors;
use multiway::checkpoint::{DType, Device};
use multiway::{Checkpoint, ImageProcessor};
use multiway_model::{EncoderBatch, EncoderSample, Model, Tensor};

use common::TestFolder;

fn fixture(case: &str, file: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    root.join("tests/fixtures/parity").join(case).join(file)
}

/// Puts a small model with a head into a folder, with a tokenizer of BEiT-3's kind.
fn small(place: &TestFolder, case: &str) {
    // The cases have a mask of their own, the last id; here it is the tokenizer's.
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture(case, "config.json")).unwrap()).unwrap();
    config["mask_token_id"] = 85.into();
    place.write("model/config.json", config.to_string());
    place.write(
        "model/model.safetensors",
        fs::read(fixture(case, "model.safetensors")).unwrap(),
    );
    let tokenizer = include_bytes!("../../runtime/tests/fixtures/numbering/beit3.spm");
    place.write("model/beit3.spm", tokenizer);
    place.picture("cat.png");
    place.picture("dog.png");
}

fn labels(count: usize) -> String {
    (0..count).map(|label| format!("label {label}\n")).collect()
}

/// Reads the probabilities that a run printed, by label.
fn choices(report: &serde_json::Value) -> HashMap<String, f64> {
    let choices = report["choices"].as_array().unwrap().iter();
    choices
        .map(|choice| {
            let text = choice["text"].as_str().unwrap().to_owned();
            (text, choice["probability"].as_f64().unwrap())
        })
        .collect()
}

/// Scores classes without engine, tasks and command line, as softmax.
fn expected(place: &TestFolder, pictures: &[&str], tokens: &[u32]) -> Vec<f64> {
    let checkpoint = Checkpoint::open(place.path("model")).unwrap();
    let processor = ImageProcessor::new(checkpoint.config());
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let images: Vec<_> = pictures
        .iter()
        .map(|name| processor.open(place.path(name)).unwrap())
        .collect();
    let samples: Vec<EncoderSample> = images
        .iter()
        .map(|image| EncoderSample {
            images: std::slice::from_ref(image),
            tokens,
        })
        .collect();
    let encoded = model
        .encode(&EncoderBatch::new(model.config(), &samples).unwrap())
        .unwrap();
    let logits = model.classify(&encoded).unwrap(); // [1, C]
    let softmax = candle_nn::ops::softmax(&logits, 1).unwrap();
    softmax
        .get(0)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect()
}

#[test]
fn without_cross_attention_the_alignment_alone_is_explained() {
    let explain = ["--explain", "looked.png", "--json"];
    let place = TestFolder::new();
    small(&place, "beit3_vqa");
    place.write("model/labels.txt", labels(37));
    let vqa = ["--checkpoint", "model", "run", "vqa", "--image", "cat.png"];
    let vqa = [&vqa[..], &["--set", "question=a cat sits"], &explain].concat();
    let ended = place.run(&vqa);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    assert!(
        ended.stderr.contains("The model has no cross-attention"),
        "{}",
        ended.told()
    );
    let explanation = ended.json()["explanation"].clone();
    assert_eq!(explanation["answer"], serde_json::json!([]));
    let words = explanation["alignment"]["words"].as_array().unwrap().iter();
    let words: Vec<&str> = words.map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(words, ["a", "cat", "sits"]);

    // The head for two pictures reads each beside the sentence.
    let place = TestFolder::new();
    small(&place, "beit3_nlvr2");
    let pair = [
        "--checkpoint",
        "model",
        "run",
        "reason",
        "--image",
        "cat.png",
        "--image",
        "dog.png",
    ];
    let pair = [&pair[..], &["--set", "sentence=a cat sits"], &explain].concat();
    let explanation = place.run(&pair).json()["explanation"].clone();
    let patches = explanation["alignment"]["words"][1]["patches"]
        .as_array()
        .unwrap();
    for patches in patches {
        let shares = patches
            .as_array()
            .unwrap()
            .iter()
            .map(|share| share.as_f64().unwrap());
        assert!((shares.sum::<f64>() - 0.5).abs() < 1e-5, "{patches}");
    }
    assert_eq!(patches.len(), 2);

    let place = TestFolder::new();
    small(&place, "beit3_captioning");
    let caption = ["--checkpoint", "model", "run", "caption", "--image", "cat.png"];
    let ended = place.run(&[&caption[..], &explain].concat());
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.stderr.contains("there is nothing to explain"),
        "{}",
        ended.told()
    );
    assert!(!place.path("looked.png").exists());
}

#[test]
fn a_question_is_answered_with_one_of_the_answers_in_the_side_file() {
    let place = TestFolder::new();
    small(&place, "beit3_vqa");
    let ask = [
        "--checkpoint",
        "model",
        "run",
        "vqa",
        "--image",
        "cat.png",
        "--set",
        "question=a cat sits",
        "--json",
    ];
    let unnamed = place.run(&ask);
    assert_eq!(unnamed.code, Some(2), "{}", unnamed.stderr);
    assert!(unnamed.stderr.contains("labels.txt"), "{}", unnamed.stderr);
    place.write("model/labels.txt", labels(37));
    let report = place.run(&ask).json();
    let found = choices(&report);
    // <s> a cat sit s </s>, as transformers numbers it.
    let expected = expected(&place, &["cat.png"], &[0, 7, 23, 20, 28, 13, 8, 5, 2]);
    for (label, probability) in expected.iter().enumerate() {
        assert!(
            (found[&format!("label {label}")] - probability).abs() < 1e-5,
            "label {label}"
        );
    }
    let best = (0..37)
        .max_by(|a, b| expected[*a].total_cmp(&expected[*b]))
        .unwrap();
    assert_eq!(report["text"], format!("label {best}"));
    // The list that BEiT-3's own tools write, in another order.
    let lines = (0..37)
        .rev()
        .map(|label| format!("{{\"answer\": \"label {label}\", \"label\": {label}}}\n"));
    fs::remove_file(place.path("model/labels.txt")).unwrap();
    place.write("model/answer2label.txt", lines.collect::<String>());
    assert_eq!(place.run(&ask).json()["text"], report["text"]);
    place.write("model/labels.txt", labels(36));
    let short = place.run(&ask);
    assert_eq!(short.code, Some(2));
    assert!(short.stderr.contains("expected 37 names"), "{}", short.stderr);
}

#[test]
fn two_pictures_are_compared_with_a_sentence() {
    let place = TestFolder::new();
    small(&place, "beit3_nlvr2");
    let run = |pictures: [&str; 2]| {
        let arguments = [
            "--checkpoint",
            "model",
            "run",
            "reason",
            "--image",
            pictures[0],
            "--image",
            pictures[1],
            "--set",
            "sentence=a cat sits",
            "--json",
        ];
        choices(&place.run(&arguments).json())
    };
    let found = run(["cat.png", "dog.png"]);
    let expected = expected(&place, &["cat.png", "dog.png"], &[0, 7, 23, 20, 28, 13, 8, 5, 2]);
    assert!((found["False"] - expected[0]).abs() < 1e-5 && (found["True"] - expected[1]).abs() < 1e-5);
    assert!(
        (run(["dog.png", "cat.png"])["True"] - expected[1]).abs() > 1e-5,
        "the order counts"
    );
}

#[test]
fn a_picture_is_classified_alone() {
    let place = TestFolder::new();
    small(&place, "beit3_imageclassification");
    place.write("model/labels.txt", labels(11));
    let run = [
        "--checkpoint",
        "model",
        "run",
        "classify",
        "--image",
        "cat.png",
        "--json",
    ];
    let found = choices(&place.run(&run).json());
    for (label, probability) in expected(&place, &["cat.png"], &[]).iter().enumerate() {
        assert!(
            (found[&format!("label {label}")] - probability).abs() < 1e-5,
            "label {label}"
        );
    }
}

#[test]
fn a_caption_is_searched_for_with_beams_and_takes_no_text() {
    let place = TestFolder::new();
    small(&place, "beit3_captioning");
    let run = [
        "--checkpoint",
        "model",
        "run",
        "caption",
        "--image",
        "cat.png",
        "--json",
    ];
    let report = place.run(&run).json();
    assert!(report["usage"]["new_tokens"].as_u64().unwrap() > 0);
    assert_eq!(report["usage"]["prompt_tokens"], 0);
    let tasks = place.run(&["--checkpoint", "model", "tasks", "--json"]).json();
    assert_eq!(tasks.as_array().unwrap().len(), 1);
    let other = place.run(&["--checkpoint", "model", "run", "vqa", "--image", "cat.png"]);
    assert!(other.stderr.contains("unknown task 'vqa'"), "{}", other.stderr);
    place.write(
        "tasks/asking.task",
        "---\ndescription: Asks.\ninputs:\n  image: {type: image}\n---\n{{ image }}why",
    );
    let asked = place.run(&[
        "--checkpoint",
        "model",
        "--task-dir",
        "tasks",
        "run",
        "asking",
        "--image",
        "cat.png",
    ]);
    assert_eq!(asked.code, Some(2));
    assert!(asked.stderr.contains("about a picture alone"), "{}", asked.stderr);
}

#[test]
fn pictures_and_texts_are_embedded_by_two_towers() {
    let place = TestFolder::new();
    small(&place, "beit3_retrieval");
    let picture = place
        .run(&["--checkpoint", "model", "embed", "--image", "cat.png"])
        .json();
    let text = place
        .run(&["--checkpoint", "model", "embed", "--text", "a cat sits"])
        .json();
    for vector in [&picture, &text] {
        let values: Vec<f64> = serde_json::from_value(vector["embedding"].clone()).unwrap();
        assert_eq!(values.len(), 32);
        assert!((values.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4);
    }
    assert_ne!(picture["embedding"], text["embedding"]);
    // A picture alone has no text rows at all.
    assert_eq!(picture["usage"]["prompt_tokens"], 0);
}

/// Values that differ everywhere, the same in every run.
fn spread(shape: (usize, usize), scale: f32) -> Tensor {
    let values = (0..shape.0 * shape.1).map(|place| (place as f32 * 1.7).sin() * scale);
    Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
}

/// Puts a small model with both heads of masked modelling into a folder, and returns its configuration.
fn pretrained(place: &TestFolder) -> serde_json::Value {
    small(place, "beit3_encoder");
    let mut tensors = safetensors::load(fixture("beit3_encoder", "model.safetensors"), &Device::Cpu).unwrap();
    let (vocabulary, width) = (128, 32);
    tensors.insert("mlm_head.weight".to_owned(), spread((vocabulary, width), 1.0));
    tensors.insert(
        "mlm_head.bias".to_owned(),
        spread((1, vocabulary), 0.1).squeeze(0).unwrap(),
    );
    tensors.insert("mim_head.weight".to_owned(), spread((7, width), 1.0));
    tensors.insert(
        "mim_head.bias".to_owned(),
        spread((1, 7), 0.1).squeeze(0).unwrap(),
    );
    safetensors::save(&tensors, place.path("model/model.safetensors")).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture("beit3_encoder", "config.json")).unwrap()).unwrap();
    config["task"] = "pretraining".into();
    place.write("model/config.json", config.to_string());
    config
}

#[test]
fn masked_words_are_filled_in() {
    let place = TestFolder::new();
    let mut config = pretrained(&place);
    let run = [
        "--checkpoint",
        "model",
        "run",
        "infill",
        "--image",
        "cat.png",
        "--set",
        "text=a ___ sits ___",
        "--json",
    ];
    // Without a word about it the mask would be the vocabulary's last id, and the tokenizer says otherwise.
    let unlike = place.run(&run);
    assert_eq!(unlike.code, Some(2));
    assert!(unlike.stderr.contains("the id of <mask>"), "{}", unlike.stderr);
    config["mask_token_id"] = 85.into();
    place.write("model/config.json", config.to_string());
    let report = place.run(&run).json();

    // The same without engine, tasks and command line: <s> a <mask> sit s <mask> </s>.
    let tokens = [0, 7, 85, 28, 13, 8, 5, 85, 2];
    let checkpoint = Checkpoint::open(place.path("model")).unwrap();
    let image = ImageProcessor::new(checkpoint.config())
        .open(place.path("cat.png"))
        .unwrap();
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let sample = EncoderSample {
        images: std::slice::from_ref(&image),
        tokens: &tokens,
    };
    let encoded = model
        .encode(&EncoderBatch::new(model.config(), &[sample]).unwrap())
        .unwrap();
    let first = encoded.segments.samples[0].text.start;
    let row = |place: usize| u32::try_from(first + place).unwrap();
    let logits = model.word_logits(&encoded, &[row(2), row(7)]).unwrap(); // [2, V]
    let tokenizer = multiway::tokenizer::Tokenizer::from_xlmr_sentencepiece(include_bytes!(
        "../../runtime/tests/fixtures/numbering/beit3.spm"
    ))
    .unwrap();
    let known = logits.narrow(1, 0, tokenizer.vocab_size()).unwrap();
    let best = known.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    assert_ne!(best[0], best[1], "the two masks stand for different words");
    let words = best
        .iter()
        .map(|id| tokenizer.decode(&[*id]).trim().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(report["text"], format!("a {} sits {}", words[0], words[1]));
}

#[test]
fn hidden_patches_are_named_by_visual_codes() {
    use multiway_model::{Patch, PatchedImage};
    let place = TestFolder::new();
    let mut config = pretrained(&place);
    config["mask_token_id"] = 85.into();
    place.write("model/config.json", config.to_string());
    let run = |more: &[&str]| {
        let task = ["--checkpoint", "model", "run", "patches", "--image", "cat.png"];
        place.run(&[&task[..], more].concat())
    };
    let checkpoint = Checkpoint::open(place.path("model")).unwrap();
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let image = ImageProcessor::new(model.config())
        .open(place.path("cat.png"))
        .unwrap();
    let grid = model.config().grid();
    // The same without engine, tasks and command line, with the text <s> a cat sit s </s>.
    let hidden = [grid, 1, grid + 1];
    let patches: Vec<Patch> = (0..grid * grid)
        .map(|index| Patch {
            index,
            masked: hidden.contains(&index),
        })
        .collect();
    let expected = |tokens: &[u32]| {
        let image = PatchedImage {
            pixels: image.pixels(),
            patches: &patches,
        };
        let batch = EncoderBatch::with_patches(model.config(), &[(vec![image], tokens)]).unwrap();
        let encoded = model.encode(&batch).unwrap();
        let rows: Vec<u32> = [1, grid, grid + 1]
            .map(|patch| u32::try_from(patch + 1).unwrap())
            .to_vec();
        let logits = model.visual_code_logits(&encoded, &rows).unwrap(); // [3, 7]
        candle_nn::ops::softmax(&logits, 1)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    let hide = ["--set", "hide=1:0-1,0:1,1:1", "--json"];
    for (text, tokens) in [
        ("", &[][..]),
        ("text=a cat sits", &[0, 7, 23, 20, 28, 13, 8, 5, 2][..]),
    ] {
        let told = if text.is_empty() {
            &[][..]
        } else {
            &["--set", text][..]
        };
        let report = run(&[&hide[..], told].concat()).json();
        let found = report["patches"].as_array().unwrap();
        let places: Vec<(u64, u64)> = found
            .iter()
            .map(|patch| (patch["row"].as_u64().unwrap(), patch["column"].as_u64().unwrap()))
            .collect();
        assert_eq!(places, [(0, 1), (1, 0), (1, 1)], "each patch once, row by row");
        for (patch, expected) in found.iter().zip(expected(tokens)) {
            let mut order: Vec<usize> = (0..7).collect();
            order.sort_by(|a, b| expected[*b].total_cmp(&expected[*a]));
            let codes = patch["codes"].as_array().unwrap();
            assert_eq!(codes.len(), 5);
            for (code, best) in codes.iter().zip(order) {
                assert_eq!(code["code"], best);
                let probability = code["probability"].as_f64().unwrap();
                assert!((probability - f64::from(expected[best])).abs() < 1e-5);
            }
        }
    }
    let lines = run(&["--set", "hide=0:1"]);
    assert_eq!(lines.code, Some(0), "{}", lines.told());
    assert!(lines.stdout.starts_with("0:1\t") && lines.stdout.lines().count() == 1);
    let outside = run(&["--set", "hide=0:0-99999999999"]);
    assert_eq!(outside.code, Some(2));
    assert!(
        outside.stderr.contains("rows and") && outside.stderr.contains("0:0-99999999999"),
        "{}",
        outside.stderr
    );
}

#[test]
fn classes_are_the_same_alone_and_in_company_and_what_does_not_fit_disturbs_nobody() {
    use multiway::engine::RequestError;
    use multiway::prompt::{Prompt, PromptPart};
    use multiway::{Engine, Request};
    for (case, pictures) in [("beit3_vqa", 1), ("beit3_nlvr2", 2)] {
        let place = TestFolder::new();
        small(&place, case);
        if case == "beit3_vqa" {
            place.write("model/labels.txt", labels(37));
        }
        let checkpoint = Checkpoint::open(place.path("model")).unwrap();
        let processor = ImageProcessor::new(checkpoint.config());
        let shown = ["cat.png", "dog.png"].map(|name| processor.open(place.path(name)).unwrap());
        let engine = Engine::builder(&checkpoint).build().unwrap();
        let request = |text: &str, pictures: usize| {
            let images = (0..pictures).map(PromptPart::Image);
            let parts = images.chain([PromptPart::Text(text.to_owned())]).collect();
            Request::new(Prompt { parts }, shown[..pictures].to_vec())
        };
        let texts = ["a cat", "two dogs run", "a bird flies over the green grass"];
        let alone: Vec<_> = texts
            .iter()
            .map(|text| {
                engine
                    .classify(request(text, pictures))
                    .wait_blocking()
                    .unwrap()
                    .value
            })
            .collect();
        // Each on a thread of its own, with ones among them that no head can read.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let wrong = request("a cat", 3 - pictures);
                let other = engine.clone();
                scope.spawn(move || {
                    let refused = other.classify(wrong).wait_blocking().unwrap_err();
                    assert!(
                        matches!(
                            refused,
                            RequestError::HeadImages { .. } | RequestError::TooManyImages { .. }
                        ),
                        "{refused}"
                    );
                });
                for (text, alone) in texts.iter().zip(&alone) {
                    let (engine, request) = (engine.clone(), request(text, pictures));
                    scope.spawn(move || {
                        assert_eq!(
                            engine.classify(request).wait_blocking().unwrap().value,
                            *alone,
                            "{text}"
                        )
                    });
                }
            }
        });
        assert!(matches!(
            engine.classify(request("", 0)).wait_blocking().unwrap_err(),
            RequestError::EmptyPrompt | RequestError::HeadImages { .. }
        ));
    }
}

#[test]
fn a_checkpoint_is_converted_with_its_provenance_and_runs_the_same() {
    let place = TestFolder::new();
    small(&place, "beit3_vqa");
    place.write("model/labels.txt", labels(37));
    let report = place.run(&["convert", "model", "out", "--json"]).json();
    assert_eq!(report["max_error"], 0.0);
    assert_eq!(report["files"], serde_json::json!(["beit3.spm", "labels.txt"]));
    let provenance: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("out/provenance.json")).unwrap()).unwrap();
    assert_eq!(provenance["weights"][0]["file"], "model.safetensors");
    let vector = place.run(&["--checkpoint", "model", "embed", "--text", "a cat"]);
    assert_eq!(vector.code, Some(2));
    assert!(vector.stdout.contains("makes no vectors"), "{}", vector.stdout);
    let ask = |checkpoint: &str| {
        let arguments = [
            "--checkpoint",
            checkpoint,
            "run",
            "vqa",
            "--image",
            "cat.png",
            "--set",
            "question=a cat sits",
            "--json",
        ];
        place.run(&arguments).json()["choices"].clone()
    };
    assert_eq!(ask("model"), ask("out"));
    let again = place.run(&["convert", "model", "out"]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    let half = place
        .run(&["convert", "model", "out", "--force", "--dtype", "bf16", "--json"])
        .json();
    let (error, largest) = (
        half["max_error"].as_f64().unwrap(),
        half["largest"].as_f64().unwrap(),
    );
    assert!(error > 0.0 && error < 0.1 * largest, "{half}");
}

#[test]
fn a_checkpoint_that_was_fetched_before_runs_by_its_name_without_a_network() {
    let place = TestFolder::new();
    small(&place, "beit3_captioning");
    let snapshot = "cache/models--owner--captions/snapshots/0123abcd";
    for file in ["config.json", "model.safetensors", "beit3.spm"] {
        place.write(
            &format!("{snapshot}/{file}"),
            fs::read(place.path(&format!("model/{file}"))).unwrap(),
        );
    }
    place.write("cache/models--owner--captions/refs/main", "0123abcd");
    let run = |name: &str| {
        let arguments = [
            "--offline",
            "--checkpoint",
            name,
            "run",
            "caption",
            "--image",
            "cat.png",
        ];
        place.run_in(&arguments, &[("HF_HUB_CACHE", "cache")])
    };
    // A file that is not there is not asked of the hub.
    let mistyped = run("model/other.pth");
    assert!(
        mistyped.stderr.contains("there is no checkpoint at"),
        "{}",
        mistyped.stderr
    );
    let mistyped = run("model/sub");
    assert!(
        mistyped.stderr.contains("there is no checkpoint at"),
        "{}",
        mistyped.stderr
    );
    let named = run("owner/captions");
    assert_eq!(named.code, Some(0), "{}", named.stderr);
    let folder = place.run(&["--checkpoint", "model", "run", "caption", "--image", "cat.png"]);
    assert_eq!(named.stdout, folder.stdout);
    assert_eq!(run("hf:owner/captions").stdout, folder.stdout);
    let missing = run("owner/other");
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("no folder or file 'owner/other'"),
        "{}",
        missing.stderr
    );
    assert!(missing.stderr.contains("not in the cache"), "{}", missing.stderr);
}
