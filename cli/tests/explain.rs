//! `multiway run --explain`: what the embedded model looked at, as a picture.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use tiny_skia::Pixmap;

use common::{Ended, TestFolder};

fn run(pictures: &[&str], args: &[&str]) -> (TestFolder, Ended) {
    let place = TestFolder::new();
    pictures.iter().for_each(|name| place.picture(name));
    let images: Vec<&str> = pictures.iter().flat_map(|name| ["--image", name]).collect();
    let ended = place.run(&[&["run"], args, &images, &["--explain", "looked.png"]].concat());
    (place, ended)
}

fn sheet(place: &TestFolder) -> Pixmap {
    Pixmap::load_png(place.path("looked.png")).unwrap()
}

/// Counts the colors of a square of the sheet.
fn colors(sheet: &Pixmap, left: u32, top: u32) -> usize {
    let places = (0..192).flat_map(|y| (0..192).map(move |x| (left + x, top + y)));
    let colors = places.map(|(x, y)| {
        let pixel = sheet.pixel(x, y).unwrap();
        (pixel.red(), pixel.green(), pixel.blue())
    });
    colors.collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn each_word_has_a_tile_with_its_heat_and_the_sheet_is_the_same_every_time() {
    let mut sheets = Vec::new();
    for picture in ["cat.png", "bicycle.png", "dog-and-apple.png"] {
        let (place, ended) = run(&[picture], &["caption", "--json"]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        let report = ended.json();
        let explanation = &report["explanation"];
        let words = explanation["answer"].as_array().unwrap();
        let spoken: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
        assert_eq!(spoken.join(" "), report["text"].as_str().unwrap());
        assert_eq!(
            (explanation["grid"].as_u64(), explanation["pictures"].as_u64()),
            (Some(8), Some(1))
        );
        for word in words {
            let patches = word["patches"][0].as_array().unwrap();
            let shares: Vec<f64> = patches.iter().map(|share| share.as_f64().unwrap()).collect();
            assert_eq!(shares.len(), 64);
            let most = shares.iter().copied().fold(0.0, f64::max);
            let mean = shares.iter().sum::<f64>() / 64.0;
            assert!(most > 2.0 * mean, "{word}");
            let rest = word["class_share"].as_f64().unwrap() + word["text_share"].as_f64().unwrap();
            assert!((64.0 * mean + rest - 1.0).abs() < 1e-4, "{word}");
        }
        let sheet = sheet(&place);
        let rows = u32::try_from(words.len().div_ceil(6)).unwrap() + 2;
        assert!(
            sheet.width() > 4 * 192 && sheet.height() > rows * 192,
            "{}",
            sheet.height()
        );
        // The first picture is the one that was given; the tile of the first word is not even.
        assert!(colors(&sheet, 24, sheet.height() - 24 - 26 - 22 - 192) > 8);
        let bytes = std::fs::read(place.path("looked.png")).unwrap();
        let (again, _) = run(&[picture], &["caption"]);
        assert!(
            std::fs::read(again.path("looked.png")).unwrap() == bytes,
            "{picture}"
        );
        sheets.push(bytes);
    }
    assert!(sheets[0] != sheets[1]);
}

#[test]
fn a_layer_and_the_words_of_a_choice_are_shown() {
    let sheet = |args: &[&str]| {
        let (place, ended) = run(&["cat.png"], args);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        (std::fs::read(place.path("looked.png")).unwrap(), ended)
    };
    let choice = ["classify", "--set", "choices=dog,cat,red guitar"];
    let (mean, ended) = sheet(&choice);
    assert!(ended.stderr.contains("  1  image "), "{}", ended.told());
    let layer = |layer| sheet(&[&choice[..], &["--explain-layer", layer]].concat()).0;
    assert!(layer("0") != mean && layer("1") != layer("0"));
}

#[test]
fn two_pictures_are_side_by_side() {
    let place = TestFolder::new();
    let file = "---\ndescription: Two.\ninputs: {images: {type: images, min: 2, max: 2}}\noutput: {kind: text}\ndecode: {max_new_tokens: 4}\n---\n{% for image in images %}{{ image }}{% endfor %}what do they show?";
    place.write("tasks/two.task", file);
    place.picture("cat.png");
    place.picture("dog.png");
    let ended = place.run(&[
        "--task-dir",
        "tasks",
        "run",
        "two",
        "--image",
        "cat.png",
        "--image",
        "dog.png",
        "--explain",
        "looked.png",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let sheet = sheet(&place);
    assert!(colors(&sheet, 24, 60) > 8 && colors(&sheet, 24 + 196, 60) > 8);
}

#[test]
fn what_cannot_be_explained_is_refused_before_the_model_runs() {
    let explain = ["--explain", "looked.png"];
    for (task, text, told) in [
        (
            "summarize",
            "text=The cat sat.",
            "the task 'summarize' takes no image",
        ),
        (
            "infill",
            "text=The ___ sat.",
            "expected an image to draw on, `--image PATH`",
        ),
    ] {
        let args = [&["run", task, "--set", text], &explain[..]].concat();
        let ended = TestFolder::new().run(&args);
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.stderr.contains(told), "{}", ended.told());
    }
    let (place, ended) = run(&["cat.png"], &["caption", "--explain-layer", "2"]);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.stderr.contains("the model has 2 decoder layers"),
        "{}",
        ended.told()
    );
    assert!(!place.path("looked.png").exists());
    let place = TestFolder::new();
    place.picture("cat.png");
    let bytes = std::fs::read(place.path("cat.png")).unwrap();
    let stdin = [&["run", "caption", "--image", "-"], &explain[..]].concat();
    let ended = place.run_with(&stdin, &bytes);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.stderr.contains("standard input is read once"),
        "{}",
        ended.told()
    );
}
