//! The real binary on folders of pictures that are closed, and on indexes that are moved.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
#![cfg(feature = "embedded-checkpoint")]

mod common;

use std::fs;

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
