//! The real binary on folders of pictures that are closed, on indexes that are moved, and on all queries.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(feature = "embedded-checkpoint")]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use common::TestFolder;

/// Puts two pictures in folders, and an index of them beside.
fn indexed() -> TestFolder {
    let place = TestFolder::new();
    for (folder, name) in [("a", "cat.png"), ("b", "dog.png")] {
        place.write(&format!("album/pictures/{folder}/{name}"), common::picture(name));
    }
    let report = index(&place, "album/pictures", "album/my.index");
    assert_eq!(report["pictures"], 2, "{report}");
    place
}

fn index(place: &TestFolder, folder: &str, out: &str) -> Value {
    place
        .run(&["search", "index", folder, "--out", out, "--json"])
        .json()
}

/// Where the picture is that is nearest to itself, how near, and what was noted.
fn nearest(place: &TestFolder, index: &str, picture: &str) -> (String, f64, String) {
    let ended = place.run(&["search", "query", index, "--image", picture, "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let first = ended.json()["results"][0].clone();
    let path = first["path"].as_str().unwrap().to_owned();
    (path, first["score"].as_f64().unwrap(), ended.stderr)
}

#[test]
fn an_index_and_its_pictures_may_be_moved_together() {
    let place = indexed();
    place.write("cat.png", common::picture("cat.png"));
    let (path, score, noted) = nearest(&place, "album/my.index", "cat.png");
    assert!(
        fs::exists(path).unwrap() && score <= 1.0 && score > 0.999,
        "{score}"
    );
    assert_eq!(noted, "");
    fs::rename(place.path("album"), place.path("moved")).unwrap();
    let (path, _, noted) = nearest(&place, "moved/my.index", "cat.png");
    let here = fs::canonicalize(place.path("moved/pictures/a/cat.png")).unwrap();
    assert_eq!((path.as_str(), noted.as_str()), (here.to_str().unwrap(), ""));
    // Nothing is read again.
    assert_eq!(index(&place, "moved/pictures", "moved/my.index")["reused"], 2);
}

#[test]
fn of_pictures_that_were_moved_alone_it_is_said_where_they_were() {
    let place = indexed();
    let old = fs::canonicalize(place.path("album/pictures")).unwrap();
    fs::rename(&old, place.path("elsewhere")).unwrap();
    let (path, _, noted) = nearest(&place, "album/my.index", "elsewhere/a/cat.png");
    assert_eq!(path, old.join("a/cat.png").to_str().unwrap());
    assert!(
        noted.contains(&format!("the pictures were in '{}'", old.display())),
        "{noted}"
    );
    // Indexed where they are now, they are known by their names, sizes and times.
    assert_eq!(index(&place, "elsewhere", "album/my.index")["reused"], 2);
    let (path, _, noted) = nearest(&place, "album/my.index", "elsewhere/a/cat.png");
    assert!(fs::exists(path).unwrap() && noted.is_empty(), "{noted}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_closed_is_skipped_and_reported() {
    use std::os::unix::fs::PermissionsExt;

    let place = indexed();
    let closed = place.path("album/pictures/b");
    let open = |mode| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    open(0o000);
    // Nothing is closed to the system's administrator.
    let is_closed = fs::read_dir(&closed).is_err();
    let report = index(&place, "album/pictures", "album/my.index");
    open(0o755);
    if is_closed {
        assert_eq!(report["pictures"], 1, "{report}");
        let skipped = &report["skipped"][0];
        assert_eq!(skipped["path"], "album/pictures/b");
        assert!(
            skipped["reason"]
                .as_str()
                .unwrap()
                .contains("the folder cannot be read"),
            "{report}"
        );
    }
}

const NAMES: [&str; 6] = [
    "bicycle.png",
    "cat.png",
    "dog.png",
    "guitar.png",
    "rocket.png",
    "turtle.png",
];

/// Puts pictures in a folder.
fn album() -> TestFolder {
    let place = TestFolder::new();
    for name in NAMES {
        place.write(&format!("album/{name}"), common::picture(name));
    }
    place
}

/// Asks an index, and returns what is printed.
fn query(place: &TestFolder, args: &[&str]) -> Value {
    let ended = place.run(&[&["search", "query", "my.index", "--json"], args].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    ended.json()
}

/// The names of the files that were found, in order.
fn names(results: &Value) -> Vec<String> {
    let hits = results.as_array().unwrap().iter();
    hits.map(|hit| {
        hit["path"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    })
    .collect()
}

#[test]
fn a_build_that_is_killed_goes_on_and_writes_the_same_bytes() {
    let place = album();
    index(&place, "album", "my.index");
    let expected = fs::read(place.path("my.index")).unwrap();
    fs::remove_file(place.path("my.index")).unwrap();
    let mut build = Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(["search", "index", "album", "--out", "my.index", "--quiet"])
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = place.path("my.index.journal");
    // Until a vector is finished, or all are.
    while fs::metadata(&journal).map_or(0, |journal| journal.len()) < 100
        && build.try_wait().unwrap().is_none()
    {
        std::thread::yield_now();
    }
    build.kill().unwrap();
    build.wait().unwrap();
    let was_killed = journal.exists();
    let report = index(&place, "album", "my.index");
    assert!(!was_killed || report["reused"].as_u64().unwrap() > 0, "{report}");
    assert!(fs::read(place.path("my.index")).unwrap() == expected);
    assert!(!journal.exists());
}

#[test]
fn int8_and_lists_find_the_same_pictures() {
    let place = album();
    index(&place, "album", "my.index");
    let expected = query(&place, &["--text", "a cat"]);
    let build = [
        "search",
        "index",
        "album",
        "--out",
        "my.index",
        "--vector-dtype",
        "int8",
        "--approximate",
    ];
    let ended = place.run(&build);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let found = query(&place, &["--text", "a cat", "--approximate", "--probes", "9"]);
    assert_eq!(names(&found["results"])[0], names(&expected["results"])[0]);
    assert_eq!(names(&found["results"]).len(), NAMES.len());
    let refused = album();
    index(&refused, "album", "my.index");
    let ended = refused.run(&["search", "query", "my.index", "--text", "cat", "--approximate"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("was built for exact search only"),
        "{}",
        ended.stderr
    );
}

#[test]
fn several_queries_are_answered_as_each_alone() {
    let place = album();
    index(&place, "album", "my.index");
    let found = query(&place, &["--text", "a cat", "--text", "a rocket", "--top", "2"]);
    let queries = found["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 2);
    for (text, answered) in ["a cat", "a rocket"].iter().zip(queries) {
        assert_eq!(answered["text"], *text);
        assert_eq!(
            answered["results"],
            query(&place, &["--text", text, "--top", "2"])["results"]
        );
    }
    let ended = place.run(&[
        "search", "query", "my.index", "--text", "a cat", "--text", "a dog", "--top", "1",
    ]);
    assert_eq!(ended.stdout.lines().next(), Some("'a cat':"), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 4);
}

#[test]
fn a_picture_and_a_text_are_one_query_between_both() {
    let place = album();
    index(&place, "album", "my.index");
    let score = |args: &[&str], name: &str| {
        let found = query(&place, args);
        let hits = found["results"].as_array().unwrap().clone();
        let hit = hits
            .into_iter()
            .find(|hit| hit["path"].as_str().unwrap().ends_with(name));
        hit.unwrap()["score"].as_f64().unwrap()
    };
    let both = ["--image", "album/dog.png", "--text", "a rocket"];
    for (weight, alone) in [("0", &both[..2]), ("1", &both[2..])] {
        let weighted = [&both[..], &["--weight", weight]].concat();
        for name in NAMES {
            assert!(
                (score(&weighted, name) - score(alone, name)).abs() < 1e-4,
                "{weight} {name}"
            );
        }
    }
    let even = score(&both, "dog.png");
    assert!(
        even < score(&both[..2], "dog.png") && even > score(&both[2..], "dog.png"),
        "{even}"
    );
    let odd = [
        "search", "query", "my.index", "--image", "a", "--image", "b", "--text", "c", "--text", "d",
        "--text", "e",
    ];
    assert_eq!(place.run(&odd).code, Some(2));
}

#[test]
fn the_nearest_are_ordered_anew_by_the_fused_model() {
    let place = album();
    index(&place, "album", "my.index");
    let args = ["--text", "a turtle", "--rerank", "4"];
    let found = query(&place, &args);
    assert_eq!(found, query(&place, &args));
    let hits = found["results"].as_array().unwrap();
    let rerank: Vec<f64> = hits.iter().map(|hit| hit["rerank"].as_f64().unwrap()).collect();
    assert_eq!(rerank.len(), 4);
    assert!(
        rerank.is_sorted_by(|a, b| a >= b) && rerank.iter().all(|score| *score < 0.0),
        "{rerank:?}"
    );
    // They are the nearest, with their similarities.
    let mut nearest = query(&place, &["--text", "a turtle", "--top", "4"])["results"]
        .as_array()
        .unwrap()
        .clone();
    let mut reranked = hits.clone();
    for hit in &mut reranked {
        hit.as_object_mut().unwrap().remove("rerank");
    }
    for hits in [&mut nearest, &mut reranked] {
        hits.sort_by_key(|hit| hit["path"].to_string());
    }
    assert_eq!(reranked, nearest);
    let ended = place.run(&[
        "search", "query", "my.index", "--text", "a turtle", "--rerank", "4", "--top", "1",
    ]);
    let line: Vec<&str> = ended.stdout.split_whitespace().collect();
    let first: (f64, f64) = (line[0].parse().unwrap(), line[1].parse().unwrap());
    assert!(
        (first.0 - rerank[0]).abs() < 1e-3 && (-1.0..=1.0).contains(&first.1),
        "{line:?}"
    );
    // A picture that is gone is noted, and comes last.
    fs::remove_file(place.path("album/turtle.png")).unwrap();
    let ended = place.run(&[
        "search", "query", "my.index", "--text", "a turtle", "--rerank", "6", "--json",
    ]);
    assert_eq!(names(&ended.json()["results"])[5], "turtle.png");
    assert!(ended.stderr.contains("cannot re-rank"), "{}", ended.stderr);
}

#[test]
fn a_task_that_chooses_can_order_anew_and_others_are_refused() {
    let place = album();
    index(&place, "album", "my.index");
    place.write(
        "tasks/fits.task",
        "---\ndescription: Says whether a text fits a picture.\ninputs:\n  image: {type: image}\n  text: {type: text}\n\
         output: {kind: choice, choices: [\"yes\", \"no\"]}\ndecode: {prefix: \"<extra_id_0>\"}\n---\n\
         {{ image }}question: is it {{ text }}? answer: <extra_id_0>",
    );
    let args = [
        "--task-dir",
        "tasks",
        "search",
        "query",
        "my.index",
        "--json",
        "--rerank",
        "3",
    ];
    let ended = place.run(&[&args[..], &["--text", "a cat", "--rerank-task", "fits"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    for hit in ended.json()["results"].as_array().unwrap() {
        assert!((0.0..=1.0).contains(&hit["rerank"].as_f64().unwrap()), "{hit}");
    }
    for (more, told) in [
        (
            &["--text", "a cat", "--rerank-task", "retrieve"][..],
            "found the output kind embedding",
        ),
        (
            &["--text", "a cat", "--rerank-task", "classify"],
            "found the output kind choice",
        ),
        (&["--image", "album/cat.png"], "give the query as --text"),
    ] {
        let ended = place.run(&[&args[..], more].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}
