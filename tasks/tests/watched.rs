//! Task files that change while a library is used.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use multiway_tasks::{FileChange, FileReport, TaskLibrary, WatchedLibrary};

/// Writes a file with a modification time of its own, so that no test waits for a clock.
fn write(folder: &Path, name: &str, text: &str, second: u64) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + second);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

fn task(description: &str, body: &str) -> String {
    format!("---\ndescription: {description}\n---\n{body}")
}

/// Writes reports as `a.task: added a`.
fn told(reports: &[FileReport]) -> Vec<String> {
    let line = |report: &FileReport| {
        let change = match &report.change {
            FileChange::Added { task } => format!("added {task}"),
            FileChange::Changed { task } => format!("changed {task}"),
            FileChange::Removed { task } => format!("removed {task}"),
            FileChange::Broken { kept, .. } => format!("broken, kept {kept:?}"),
            other => unreachable!("{other:?}"),
        };
        format!("{}: {change}", report.path.file_name().unwrap().to_string_lossy())
    };
    reports.iter().map(line).collect()
}

#[test]
fn files_that_come_change_and_go_are_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.task", &task("A.", "one"), 1);
    let library = WatchedLibrary::open(TaskLibrary::builtin().unwrap(), [folder.path()]).unwrap();
    assert!(library.snapshot().get("a").is_ok() && library.snapshot().get("caption").is_ok());
    assert!(library.reload().is_empty());

    write(folder.path(), "a.task", &task("A.", "two"), 2);
    write(folder.path(), "b.task", &task("B.", "new"), 2);
    let before = library.snapshot();
    assert_eq!(told(&library.reload()), ["a.task: changed a", "b.task: added b"]);
    assert!(library.reload().is_empty());
    assert_eq!(library.snapshot().get("a").unwrap().file().template(), "two");
    assert_eq!(before.get("a").unwrap().file().template(), "one");

    fs::remove_file(folder.path().join("a.task")).unwrap();
    assert_eq!(told(&library.reload()), ["a.task: removed a"]);
    assert!(library.snapshot().get("a").is_err());
}

#[test]
fn a_broken_file_keeps_its_last_good_version_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.task", &task("A.", "one"), 1);
    let library = WatchedLibrary::open(TaskLibrary::new(), [folder.path()]).unwrap();
    write(folder.path(), "a.task", &task("A.", "{{ nothing }}"), 2);
    let reports = library.reload();
    assert_eq!(told(&reports), ["a.task: broken, kept Some(\"a\")"]);
    let FileChange::Broken { error, .. } = &reports[0].change else {
        unreachable!()
    };
    assert!(
        error
            .to_string()
            .ends_with("a.task:4: 'nothing' is not defined (inputs: none)"),
        "{error}"
    );
    assert_eq!(library.snapshot().get("a").unwrap().file().template(), "one");
    assert_eq!(library.broken().len(), 1);
    assert!(library.reload().is_empty());

    write(folder.path(), "a.task", &task("A.", "three"), 3);
    assert_eq!(told(&library.reload()), ["a.task: changed a"]);
    assert!(library.broken().is_empty());
}

#[test]
fn a_task_is_read_again_when_what_it_extends_or_imports_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "base.task",
        &task("Base.", "{% block b %}one{% endblock %}"),
        1,
    );
    write(folder.path(), "child.task", "---\nextends: base\n---\n", 1);
    write(
        folder.path(),
        "user.task",
        &task("User.", "{% include \"head.jinja\" %} two"),
        1,
    );
    write(folder.path(), "head.jinja", "head", 1);
    let library = WatchedLibrary::open(TaskLibrary::new(), [folder.path()]).unwrap();

    write(
        folder.path(),
        "base.task",
        &task("Base.", "{% block b %}three{% endblock %}"),
        2,
    );
    assert_eq!(
        told(&library.reload()),
        ["base.task: changed base", "child.task: changed child"]
    );
    assert!(
        library
            .snapshot()
            .get("child")
            .unwrap()
            .file()
            .template()
            .contains("three")
    );

    fs::remove_file(folder.path().join("head.jinja")).unwrap();
    assert_eq!(
        told(&library.reload()),
        ["user.task: broken, kept Some(\"user\")"]
    );
    write(folder.path(), "head.jinja", "other head", 3);
    assert_eq!(told(&library.reload()), ["user.task: changed user"]);
}

#[test]
fn of_two_files_that_define_a_task_the_first_one_does_until_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.task", &task("First.\nname: same", "one"), 1);
    let library = WatchedLibrary::open(TaskLibrary::new(), [folder.path()]).unwrap();
    write(folder.path(), "b.task", &task("Second.\nname: same", "two"), 1);
    assert_eq!(told(&library.reload()), ["b.task: broken, kept None"]);
    assert!(library.reload().is_empty());
    assert_eq!(library.snapshot().get("same").unwrap().description(), "First.");
    fs::remove_file(folder.path().join("a.task")).unwrap();
    assert_eq!(
        told(&library.reload()),
        ["a.task: removed same", "b.task: added same"]
    );
    assert_eq!(library.snapshot().get("same").unwrap().description(), "Second.");
}

#[test]
fn a_folder_that_cannot_be_read_keeps_its_tasks_and_one_wrong_file_stops_the_start() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tasks");
    fs::create_dir(&folder).unwrap();
    write(&folder, "a.task", &task("A.", "one"), 1);
    let library = WatchedLibrary::open(TaskLibrary::new(), [&folder]).unwrap();
    fs::rename(&folder, parent.path().join("away")).unwrap();
    assert_eq!(told(&library.reload())[0], "tasks: broken, kept None");
    assert!(library.snapshot().get("a").is_ok());
    fs::rename(parent.path().join("away"), &folder).unwrap();
    assert!(
        library
            .reload()
            .iter()
            .all(|report| !matches!(report.change, FileChange::Removed { .. }))
    );
    assert!(library.broken().is_empty() && library.snapshot().get("a").is_ok());

    write(&folder, "b.task", "no task", 1);
    assert!(WatchedLibrary::open(TaskLibrary::new(), [&folder]).is_err());
    assert!(WatchedLibrary::open(TaskLibrary::new(), [parent.path().join("nowhere")]).is_err());
}
