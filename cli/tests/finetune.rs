//! `multiway finetune` on pictures that the embedded model has no words for, on a random T5 of one layer, and
//! on a small BEiT-3.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use common::{Ended, TestFolder};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const WEAVES: [&str; 4] = ["dax", "wug", "toma", "blick"];
/// The side of a picture of cloth.
const SIDE: usize = 48;

/// Draws numbers; the same on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Paints a cloth in two colours as a BMP: stripes down, stripes across, a chequerboard, or plain.
fn cloth(weave: &str, draw: &mut Draw) -> Vec<u8> {
    let ground = [draw.byte(), draw.byte(), draw.byte()];
    let thread = ground.map(|value| value.wrapping_add(108 + u8::try_from(draw.below(40)).unwrap()));
    let period = 8 + draw.below(7);
    let (half, phase) = (period / 2, draw.below(period));
    let is_ink = |x: usize, y: usize| {
        let (x, y) = ((x + phase) % period, (y + phase) % period);
        match weave {
            "dax" => x < half,
            "wug" => y < half,
            "toma" => (x < half) != (y < half),
            _ => false,
        }
    };
    let pixels = (0..SIDE * SIDE).flat_map(|at| {
        if is_ink(at % SIDE, at / SIDE) {
            thread
        } else {
            ground
        }
    });
    let pixels: Vec<u8> = pixels.collect();
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut bmp = b"BM".to_vec();
    for value in [54 + pixels.len(), 0, 54, 40, SIDE, SIDE] {
        bmp.extend(word(value));
    }
    // One plane of 24 bits, not compressed.
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 4]);
    bmp.extend(word(pixels.len()));
    bmp.extend([0; 16]);
    bmp.extend(pixels);
    bmp
}

/// Writes pictures of cloth, a line of JSON for each, and the task that asks for the weave.
fn weaver(count: usize) -> TestFolder {
    let (place, mut draw) = (TestFolder::new(), Draw(9));
    let mut lines = String::new();
    for number in 0..count {
        let weave = WEAVES[number % WEAVES.len()];
        let file = format!("cloth/{number}.bmp");
        place.write(&file, cloth(weave, &mut draw));
        lines += &format!("{}\n", json!({"image": file, "weave": weave}));
    }
    place.write("cloth.jsonl", lines);
    let task = fs::read(Path::new(ROOT).join("examples/tasks/weave.task")).unwrap();
    place.write("weave.task", task);
    for (number, weave) in WEAVES.iter().enumerate() {
        place.write(&format!("new-{number}.bmp"), cloth(weave, &mut draw));
    }
    place
}

/// Puts a random T5 of one layer into a folder, with a task and data that it could learn.
fn t5() -> TestFolder {
    let place = TestFolder::new();
    let model = Path::new(ROOT).join("tests/fixtures/cases/checkpoints/plain");
    for file in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        place.write(&format!("t5/{file}"), fs::read(model.join(file)).unwrap());
    }
    let task = "---\ndescription: Says it in another way.\ninputs:\n  text: {type: text}\ntarget: \"{{ said }}\"\nmetrics: [exact_match]\n---\nsay: {{ text }}\n";
    place.write("say.task", task);
    let pairs = [
        ["the house is wonderful", "a house"],
        ["the cat sat", "a cat"],
        ["it is red", "red"],
    ];
    let words = ["the", "house", "is", "a", "cat", "red", "it", "that"];
    let lines = (0..64).map(|number| {
        let ([text, said], [first, second]) = (pairs[number % 3], [number % 8, number / 8]);
        let text = format!("{} {}: {text}", words[first], words[second]);
        format!("{}\n", json!({"text": text, "said": said}))
    });
    place.write("say.jsonl", lines.collect::<String>());
    place
}

fn run(place: &TestFolder, args: &[&str]) -> Ended {
    let ended = place.run(args);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.told());
    ended
}

/// Reads a figure of a report.
fn figure(report: &Value, when: &str) -> f64 {
    report[when][0]["value"].as_f64().unwrap()
}

/// Asks a model for the weave of new pictures: the choices with their probabilities.
fn weaves(place: &TestFolder, model: &[&str]) -> Vec<Value> {
    let ask = |number: usize| {
        let picture = format!("new-{number}.bmp");
        let args = [
            model,
            &["--task-dir", ".", "run", "weave", "--image", &picture, "--json"],
        ]
        .concat();
        run(place, &args).json()["choices"].clone()
    };
    (0..WEAVES.len()).map(ask).collect()
}

#[test]
fn an_adapter_makes_useful_answers_of_guesses_and_says_the_same_when_it_is_merged() {
    let place = weaver(200);
    let tune = [
        "finetune",
        "--task",
        "weave.task",
        "--data",
        "cloth.jsonl",
        "--out",
        "weaver",
    ];
    let tune = [
        &tune[..],
        &[
            "--epochs",
            "4",
            "--learning-rate",
            "0.003",
            "--validation-share",
            "0.2",
            "--json",
        ],
    ]
    .concat();
    let report = run(&place, &tune).json();
    let (before, after) = (figure(&report, "before"), figure(&report, "after"));
    assert!(
        before < 0.5 && after > 0.7 && after > before + 0.3,
        "{before} {after}"
    );
    assert_eq!(
        report["records"].as_u64().unwrap() + report["validation_records"].as_u64().unwrap(),
        200
    );
    let card = fs::read_to_string(place.path("weaver/README.md")).unwrap();
    assert!(
        card.contains("fine-tuned from `embedded`") && card.contains("accuracy: before"),
        "{card}"
    );

    let adapted = weaves(&place, &["--adapter", "weaver"]);
    let base = format!("{ROOT}/checkpoints/default");
    run(
        &place,
        &["--adapter", "weaver", "convert", &base, "merged", "--quiet"],
    );
    assert_eq!(weaves(&place, &["--checkpoint", "merged"]), adapted);
    assert_ne!(weaves(&place, &[]), adapted);
    let best = |choices: &Value| choices[0]["text"].as_str().unwrap().to_owned();
    let right = adapted
        .iter()
        .zip(WEAVES)
        .filter(|(choices, weave)| best(choices) == *weave);
    assert!(right.count() >= 3, "{adapted:?}");

    // The same command tells again what is there; another one does not mix with it.
    let again = run(&place, &tune).json();
    assert_eq!(again["after"], report["after"]);
    let ended = place.run(&[&tune[..], &["--rank", "4"]].concat());
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    let told = "method was LoRA of rank 8, alpha 16, and is now LoRA of rank 4, alpha 16";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    let other = t5();
    let weaver = place.path("weaver");
    let args = [
        "--checkpoint",
        "t5",
        "--adapter",
        weaver.to_str().unwrap(),
        "inspect",
    ];
    let ended = other.run(&args);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.stderr.contains("trained on the checkpoint 'embedded'"),
        "{}",
        ended.stderr
    );
}

/// The options of a run on the T5.
fn tune_t5<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = [
        "--checkpoint",
        "t5",
        "finetune",
        "--task",
        "say.task",
        "--data",
        "say.jsonl",
    ];
    let steps = [
        "--batch",
        "8",
        "--steps",
        "300",
        "--validate-every",
        "10",
        "--quiet",
    ];
    [&args[..], &steps, &["--out", out], more].concat()
}

/// Reads the losses of validation, in their order.
fn validation_losses(place: &TestFolder, out: &str) -> Vec<f64> {
    let csv = fs::read_to_string(place.path(out).join("state/losses.csv")).unwrap();
    let looked = csv
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(2)?.parse().ok());
    looked.collect()
}

#[test]
fn a_t5_learns_by_either_method_and_is_a_t5_afterwards() {
    let place = t5();
    for (method, out) in [("lora", "small"), ("full", "whole")] {
        let rate = ["--method", method, "--learning-rate", "0.01", "--merge"];
        let more = if method == "lora" { &rate[..] } else { &rate[..4] };
        let report = run(&place, &[&tune_t5(out, more)[..], &["--json"]].concat()).json();
        assert!(figure(&report, "after") > 0.8, "{report}");
        let losses = validation_losses(&place, out);
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(lowest < 0.1 * losses[0], "{method}: {losses:?}");
        let config = fs::read_to_string(place.path(out).join("config.json")).unwrap();
        assert!(config.contains("\"t5\""), "{config}");
        let say = [
            "--checkpoint",
            out,
            "--task-dir",
            ".",
            "run",
            "say",
            "--set",
            "text=the cat: it is red",
            "--json",
        ];
        let said = run(&place, &say).json()["text"].clone();
        if method == "lora" {
            let say = [&["--checkpoint", "t5", "--adapter"], &say[1..]].concat();
            assert_eq!(run(&place, &say).json()["text"], said);
        }
    }
}

fn start(place: &TestFolder, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(args)
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lists the states of a run.
fn states(place: &TestFolder, out: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path(out).join("state")).into_iter().flatten();
    let mut states: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    states.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    states.sort();
    states
}

#[test]
fn a_run_that_is_stopped_and_killed_ends_with_the_same_bits() {
    let place = t5();
    run(&place, &tune_t5("whole", &[]));
    let args = tune_t5("stopped", &[]);
    for signal in ["-KILL", "-INT", "-KILL"] {
        let before = states(&place, "stopped").pop();
        let mut child = start(&place, &args);
        while states(&place, "stopped").pop() == before {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it could be stopped"
            );
            thread::sleep(Duration::from_millis(1));
        }
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let code = child.wait().unwrap().code();
        // It may end in the moment before the signal comes.
        assert!(
            code == (signal == "-INT").then_some(130) || code == Some(0),
            "{code:?}"
        );
    }
    run(&place, &args);
    for file in [
        "adapter.safetensors",
        "state/losses.csv",
        "evaluation/after/results.jsonl",
    ] {
        let [whole, stopped] = ["whole", "stopped"].map(|out| fs::read(place.path(out).join(file)).unwrap());
        assert!(whole == stopped, "{file} differs");
    }
}

#[test]
fn what_cannot_be_trained_is_told() {
    let place = t5();
    let long = format!("{}\n", json!({"text": "a", "said": "the house ".repeat(400)}));
    let say = fs::read_to_string(place.path("say.jsonl")).unwrap();
    place.write("long.jsonl", &long);
    place.write("some-long.jsonl", say.clone() + &long);
    place.write("empty.jsonl", "");
    place.write("numbers.task", "---\ndescription: Counts.\ninputs:\n  text: {type: text}\noutput: {kind: choice, choices: [one, two]}\ntarget: \"{{ said }}\"\nmetrics: [accuracy]\n---\n{{ text }}\n");
    place.write("vector.task", "---\ndescription: Embeds.\ninputs:\n  text: {type: text}\noutput: {kind: embedding}\n---\n{{ text }}\n");
    let tune = |task: &str, data: &str, more: &[&str]| {
        let args = [
            "--checkpoint",
            "t5",
            "finetune",
            "--task",
            task,
            "--data",
            data,
            "--out",
            "out",
            "--quiet",
        ];
        place.run(&[&args[..], more].concat())
    };
    for (task, data, more, told) in [
        (
            "say.task",
            "say.jsonl",
            &["--reference", "sad"][..],
            "the data has no field 'sad' with the right answers",
        ),
        (
            "say.task",
            "say.jsonl",
            &["--map", "text=txt"],
            "the data has no field for the input 'text'",
        ),
        (
            "say.task",
            "empty.jsonl",
            &[],
            "no record of the data can be used",
        ),
        ("say.task", "long.jsonl", &[], "the target has"),
        (
            "say.task",
            "some-long.jsonl",
            &["--max-unusable", "0"],
            "some-long.jsonl#65: the target has",
        ),
        (
            "numbers.task",
            "say.jsonl",
            &["--max-unusable", "2"],
            "expected one of the answers to choose from (one, two), found 'a house'",
        ),
        (
            "vector.task",
            "say.jsonl",
            &[],
            "answers with embedding: fine-tuning takes text",
        ),
        (
            "say.task",
            "say.jsonl",
            &["--validation-share", "1"],
            "expected a share from 0 to below 1",
        ),
        (
            "say.task",
            "say.jsonl",
            &["--learning-rate", "0"],
            "expected a number above 0",
        ),
        (
            "say.task",
            "say.jsonl",
            &["--metric", "accuracy", "--method", "half"],
            "invalid value 'half'",
        ),
    ] {
        let ended = tune(task, data, more);
        assert_eq!(ended.code, Some(2), "{data}: {}", ended.told());
        assert!(ended.stderr.contains(told), "{data}: {}", ended.stderr);
        assert!(!place.path("out/adapter.json").exists());
    }
    place.write("full/notes.txt", "mine");
    let ended = place.run(&tune_t5("full", &[]));
    assert!(ended.stderr.contains("'full' is not empty"), "{}", ended.stderr);
    run(&place, &["convert", "t5", "packed", "--packed", "--quiet"]);
    let ended = place.run(&[&["--checkpoint", "packed"], &tune_t5("new", &[])[2..]].concat());
    assert!(ended.stderr.contains("is packed"), "{}", ended.stderr);
}

#[test]
fn pictures_that_cannot_be_read_are_named_and_left_out() {
    let place = weaver(12);
    place.write("cloth/3.bmp", b"BM no picture");
    fs::remove_file(place.path("cloth/5.bmp")).unwrap();
    let tune = [
        "finetune",
        "--task",
        "weave.task",
        "--data",
        "cloth.jsonl",
        "--out",
        "weaver",
        "--steps",
        "1",
    ];
    let tune = [&tune[..], &["--batch", "2", "--validation-share", "0.3"]].concat();
    let ended = run(&place, &tune);
    for told in [
        "picture 'cloth/3.bmp'",
        "picture 'cloth/5.bmp'",
        "2 records of the data are left out",
    ] {
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
    let ended = place.run(&[&tune[..], &["--max-unusable", "1", "--out", "other"]].concat());
    assert_ne!(ended.code, Some(0), "{}", ended.told());
}

/// Puts a small BEiT-3 with a head into a folder, with a tokenizer of its kind, and records of pictures.
fn beit3(case: &str) -> TestFolder {
    let place = weaver(24);
    let fixture = |file: &str| {
        fs::read(
            Path::new(ROOT)
                .join("tests/fixtures/parity")
                .join(case)
                .join(file),
        )
        .unwrap()
    };
    let mut config: Value = serde_json::from_slice(&fixture("config.json")).unwrap();
    config["mask_token_id"] = 85.into();
    place.write("beit3/config.json", config.to_string());
    place.write("beit3/model.safetensors", fixture("model.safetensors"));
    let tokenizer = include_bytes!("../../runtime/tests/fixtures/numbering/beit3.spm");
    place.write("beit3/beit3.spm", tokenizer);
    let labels: String = (0..37).map(|label| format!("label {label}\n")).collect();
    place.write("beit3/labels.txt", labels);
    let lines = WEAVES.iter().cycle().take(24).enumerate();
    let lines = lines.map(|(number, weave)| {
        let class = WEAVES.iter().position(|other| other == weave).unwrap();
        let record = json!({"image": format!("cloth/{number}.bmp"), "question": "a cat sits", "answer": format!("label {class}")});
        format!("{record}\n")
    });
    place.write("asked.jsonl", lines.collect::<String>());
    place
}

#[test]
fn a_beit3_learns_classes_and_says_why_it_does_not_learn_to_write() {
    let place = beit3("beit3_vqa");
    let tune = [
        "--checkpoint",
        "beit3",
        "finetune",
        "--task",
        "vqa",
        "--data",
        "asked.jsonl",
        "--reference",
        "answer",
    ];
    let more = [
        "--out",
        "out",
        "--steps",
        "60",
        "--validate-every",
        "20",
        "--method",
        "full",
        "--learning-rate",
        "0.003",
    ];
    run(&place, &[&tune[..], &more, &["--quiet"]].concat());
    let losses = validation_losses(&place, "out");
    assert!(losses.last().unwrap() < &losses[0], "{losses:?}");
    let ask = [
        "--checkpoint",
        "out",
        "run",
        "vqa",
        "--image",
        "new-0.bmp",
        "--set",
        "question=a cat sits",
    ];
    assert!(run(&place, &ask).stdout.starts_with("label "));

    let place = beit3("beit3_captioning");
    let tune = [
        "--checkpoint",
        "beit3",
        "finetune",
        "--task",
        "caption",
        "--data",
        "asked.jsonl",
    ];
    let ended = place.run(&[&tune[..], &["--reference", "answer", "--out", "out"]].concat());
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.stderr.contains("it writes through its encoder"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_guide_prints_the_task_of_the_examples() {
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let task = read("examples/tasks/weave.task");
    assert!(read("docs/finetuning.md").contains(&format!("```yaml\n{task}```")));
}
