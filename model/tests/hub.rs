//! Fetching from a hub, played by a server on this machine that breaks off, lies, and serves other bytes.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use multiway_model::checkpoint::Checkpoint;
use multiway_model::hub::{Download, Hub, HubError, HubName};
use multiway_model::testing::tiny_config;
use multiway_model::{Device, initialise};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does to the body of `model.safetensors`.
#[derive(Clone, Copy, PartialEq)]
enum Mischief {
    None,
    /// Sends half of what is asked for and hangs up, this many times.
    BreakOff(usize),
    /// Announces more bytes in all than it ever sends.
    WrongLength,
    /// Sends other bytes.
    WrongBytes,
    /// Calls the file by a name that leads out of the cache.
    Traversal,
    /// Is too busy for an answer, this many times, and says in these words when to come again.
    Busy(usize, &'static str),
    /// Sends the whole file, whatever part of it is asked for, and breaks off once.
    NoRanges(bool),
}

#[derive(Default)]
struct Seen {
    /// Paths with the range that was asked for.
    requests: Vec<String>,
}

struct Server {
    address: String,
    seen: Arc<Mutex<Seen>>,
    /// How long was waited for it.
    pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>, mischief: Mischief) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shared, mischief) = (Arc::clone(&seen), Arc::new(Mutex::new(mischief)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is no matter.
                let _ = serve(stream.unwrap(), &files, &shared, &mischief);
            }
        });
        Self {
            address,
            seen,
            pauses: Arc::default(),
        }
    }

    /// Makes a hub that notes pauses and makes none.
    fn hub(&self, cache: &Path) -> Hub {
        let pauses = Arc::clone(&self.pauses);
        Hub::new(&self.address, cache).pausing_by(move |pause| pauses.lock().unwrap().push(pause))
    }

    fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().unwrap().clone()
    }

    fn count(&self, part: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.requests
            .iter()
            .filter(|request| request.contains(part))
            .count()
    }
}

/// Answers as a busy hub does, if it is one.
fn busy(mischief: &mut Mischief) -> Option<String> {
    let Mischief::Busy(times @ 1.., wish) = *mischief else {
        return None;
    };
    *mischief = Mischief::Busy(times - 1, wish);
    let wish = if wish.is_empty() {
        String::new()
    } else {
        format!("Retry-After: {wish}\r\n")
    };
    Some(format!(
        "HTTP/1.1 503 Service Unavailable\r\n{wish}Content-Length: 0\r\nConnection: close\r\n\r\n"
    ))
}

fn serve(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    seen: &Mutex<Seen>,
    mischief: &Mutex<Mischief>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap()?;
    let mut range = None;
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = Some(value.to_owned());
        }
    }
    let path = request.split(' ').nth(1).unwrap().to_owned();
    seen.lock()
        .unwrap()
        .requests
        .push(format!("{path} {}", range.clone().unwrap_or_default()));
    if path == "/api/models/owner/small/revision/main" {
        let names: Vec<_> = files
            .keys()
            .map(|name| format!("{{\"rfilename\": \"{name}\"}}"))
            .collect();
        let body = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", names.join(","));
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let file = path
        .strip_prefix(&format!("/owner/small/resolve/{COMMIT}/"))
        .and_then(|name| files.get_key_value(name));
    let Some((name, bytes)) = file else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    let is_weights = name == "model.safetensors";
    let mut mischief = mischief.lock().unwrap();
    if let Some(answer) = busy(&mut mischief) {
        return stream.write_all(answer.as_bytes());
    }
    let total = bytes.len()
        + if is_weights && *mischief == Mischief::WrongLength {
            10
        } else {
            0
        };
    let (start, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
        Some((start, "")) => (start.parse().unwrap(), bytes.len()),
        Some((start, end)) => (start.parse().unwrap(), end.parse::<usize>().unwrap() + 1),
        None => (0, bytes.len()),
    };
    if let Mischief::NoRanges(breaks_off) = *mischief
        && start + 1 < end
    {
        *mischief = Mischief::NoRanges(breaks_off && !is_weights);
        let sent = if breaks_off && is_weights {
            total / 2
        } else {
            total
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\nConnection: close\r\n\r\n"
        )?;
        return stream.write_all(&bytes[..sent]);
    }
    let mut body = bytes[start..end].to_vec();
    let etag = match *mischief {
        Mischief::Traversal => "../../../elsewhere".to_owned(),
        _ => Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    };
    if is_weights && *mischief == Mischief::WrongBytes {
        body.iter_mut().for_each(|byte| *byte ^= 1);
    }
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: {}\r\n\
         Content-Range: bytes {start}-{}/{total}\r\nConnection: close\r\n\r\n",
        body.len(),
        end - 1
    )?;
    if let Mischief::BreakOff(times) = *mischief
        && is_weights
        && body.len() > 1
        && times > 0
    {
        *mischief = Mischief::BreakOff(times - 1);
        body.truncate(body.len() / 2);
    }
    stream.write_all(&body)
}

/// A whole small checkpoint, as files.
fn small() -> BTreeMap<String, Vec<u8>> {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny_config());
    let tensors = initialise(&config, 1, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();
    Checkpoint::save(folder.path(), &config, &tensors, &[("tokenizer.json", b"{}")]).unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .chain([("README.md".to_owned(), b"not fetched".to_vec())])
        .collect()
}

fn name() -> HubName {
    HubName::parse("owner/small").unwrap()
}

fn fetch(server: &Server, cache: &Path) -> Result<std::path::PathBuf, HubError> {
    server.hub(cache).fetch(&name(), &mut |_| {})
}

#[test]
fn a_checkpoint_is_fetched_once_and_then_found_without_a_network() {
    let (server, cache) = (
        Server::start(small(), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let mut last = BTreeMap::new();
    let mut note = |download: Download| {
        last.insert(download.file.to_owned(), (download.done, download.total));
    };
    let hub = server.hub(cache.path());
    let folder = hub.fetch(&name(), &mut note).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(*checkpoint.config(), tiny_config());
    assert_eq!(last.len(), 3);
    assert!(
        last.values().all(|(done, total)| done == total && *total > 0),
        "{last:?}"
    );
    assert_eq!(server.count("README"), 0);
    // The place where `huggingface_hub` looks.
    assert!(
        cache
            .path()
            .join(format!("models--owner--small/snapshots/{COMMIT}/config.json"))
            .exists()
    );
    let bodies = server.count("model.safetensors 0-\n") + server.count("model.safetensors 0-");
    fetch(&server, cache.path()).unwrap();
    // Once more the hub is asked what there is, byte 0 alone; nothing is downloaded.
    let again = server.count("model.safetensors 0-\n") + server.count("model.safetensors 0-");
    assert_eq!(again, bodies + 1);
    let before = server.seen.lock().unwrap().requests.len();
    assert_eq!(hub.only_cached().fetch(&name(), &mut |_| {}).unwrap(), folder);
    assert_eq!(server.seen.lock().unwrap().requests.len(), before);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let files = small();
    let whole = files["model.safetensors"].clone();
    let (server, cache) = (
        Server::start(files, Mischief::BreakOff(2)),
        tempfile::tempdir().unwrap(),
    );
    let folder = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), whole);
    let half = whole.len() / 2;
    assert_eq!(server.count(&format!("model.safetensors {half}-")), 1);
    // It breaks off more often than is tried: the part stays, and the next call goes on from there.
    let (server, cache) = (
        Server::start(small(), Mischief::BreakOff(7)),
        tempfile::tempdir().unwrap(),
    );
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Fetch { .. }), "{error}");
    let folder = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), whole);
    assert_eq!(
        server.count("model.safetensors 0-"),
        server.count("model.safetensors 0-0") + 1
    );
}

#[test]
fn what_arrives_otherwise_than_announced_is_removed() {
    for (mischief, problem) in [
        (Mischief::WrongLength, "expected"),
        (Mischief::WrongBytes, "SHA-256"),
    ] {
        let (server, cache) = (Server::start(small(), mischief), tempfile::tempdir().unwrap());
        let error = fetch(&server, cache.path()).unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        let snapshot = cache
            .path()
            .join(format!("models--owner--small/snapshots/{COMMIT}"));
        assert!(snapshot.join("config.json").exists());
        assert!(!snapshot.join("model.safetensors").exists());
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (server, cache) = (
        Server::start(small(), Mischief::Traversal),
        tempfile::tempdir().unwrap(),
    );
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(error.to_string().contains("expected a hash"), "{error}");
    for wrong in ["", "small", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a/b c"] {
        assert!(HubName::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(
        BTreeMap::from([("README.md".to_owned(), Vec::new())]),
        Mischief::None,
    );
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::NoWeights { .. }), "{error}");
    let other = HubName::parse("owner/other").unwrap();
    let hub = server.hub(cache.path());
    let error = hub.fetch(&other, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    let error = hub.only_cached().fetch(&other, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}

/// Runs against a hub that is there no more.
fn fetch_from_nowhere(cache: &Path) -> Result<std::path::PathBuf, HubError> {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Nobody waits for a hub that is not there.
    let hub = Hub::new(format!("http://{nowhere}"), cache).pausing_by(|pause| assert!(pause.is_zero()));
    hub.fetch(&name(), &mut |_| {})
}

#[test]
fn without_the_hub_what_was_fetched_whole_is_used_and_nothing_less() {
    let (server, cache) = (
        Server::start(small(), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let error = fetch_from_nowhere(cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Fetch { .. }), "{error}");
    let folder = fetch(&server, cache.path()).unwrap();
    assert_eq!(fetch_from_nowhere(cache.path()).unwrap(), folder);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert!(fetch_from_nowhere(cache.path()).is_err());
    let hub = server.hub(cache.path()).only_cached();
    assert!(matches!(
        hub.fetch(&name(), &mut |_| {}),
        Err(HubError::Offline { .. })
    ));
}

#[test]
fn what_lies_in_the_cache_unchecked_is_checked_once_and_a_finished_part_is_used() {
    let (server, cache) = (
        Server::start(small(), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let folder = fetch(&server, cache.path()).unwrap();
    let weights = folder.join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let blob = std::fs::canonicalize(&weights).unwrap();
    let marks = cache.path().join("models--owner--small/multiway-checked");
    // Another tool fetched it, or the check was interrupted; and its bytes are damaged.
    std::fs::remove_dir_all(&marks).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    std::fs::write(&blob, damaged).unwrap();
    assert!(matches!(
        fetch(&server, cache.path()),
        Err(HubError::Damaged { .. })
    ));
    assert!(!weights.exists() && !blob.exists());
    // A part that has every byte needs no download.
    std::fs::write(blob.with_extension("part"), &whole).unwrap();
    let bodies = server.count("model.safetensors 0-") - server.count("model.safetensors 0-0");
    fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(&weights).unwrap(), whole);
    assert_eq!(
        server.count("model.safetensors 0-") - server.count("model.safetensors 0-0"),
        bodies
    );
    // What was checked was removed by hand, and what comes in its place is damaged.
    std::fs::remove_file(&blob).unwrap();
    let mut damaged = whole;
    damaged[100] ^= 1;
    std::fs::write(blob.with_extension("part"), damaged).unwrap();
    assert!(matches!(
        fetch(&server, cache.path()),
        Err(HubError::Damaged { .. })
    ));
}

#[test]
fn a_busy_hub_is_asked_again_after_pauses_that_grow() {
    let (server, cache) = (
        Server::start(small(), Mischief::Busy(4, "")),
        tempfile::tempdir().unwrap(),
    );
    fetch(&server, cache.path()).unwrap();
    let pauses = server.pauses();
    assert_eq!(pauses.len(), 4);
    for (step, pause) in pauses.iter().enumerate() {
        // By chance up to twice as long, so that not all come back at once.
        let least = Duration::from_millis(250 << step);
        assert!((least..2 * least).contains(pause), "pause {step}: {pause:?}");
    }
}

#[test]
fn a_hub_that_stays_busy_is_given_up() {
    let (server, cache) = (
        Server::start(small(), Mischief::Busy(100, "")),
        tempfile::tempdir().unwrap(),
    );
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Fetch { .. }), "{error}");
    assert!(error.to_string().contains("503"), "{error}");
    let pauses = server.pauses();
    assert_eq!((pauses.len(), server.count("/resolve/")), (5, 6));
    assert!(
        pauses.iter().all(|pause| *pause < Duration::from_secs(8)),
        "{pauses:?}"
    );
}

#[test]
fn a_hub_that_says_when_to_come_again_is_waited_for_but_not_for_hours() {
    for (wish, expected) in [
        ("7", Some(7)),
        ("3600", Some(60)),
        ("Tue, 31 Dec 2199 23:59:59 GMT", Some(60)),
        // A time that is over, and no time at all.
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("soon", None),
    ] {
        let (server, cache) = (
            Server::start(small(), Mischief::Busy(1, wish)),
            tempfile::tempdir().unwrap(),
        );
        fetch(&server, cache.path()).unwrap();
        let pauses = server.pauses();
        match expected {
            Some(seconds) => assert_eq!(pauses, [Duration::from_secs(seconds)], "{wish}"),
            None => assert!(
                pauses.len() == 1 && pauses[0] < Duration::from_secs(1),
                "{wish}: {pauses:?}"
            ),
        }
    }
}

#[test]
fn what_is_refused_is_not_asked_for_again() {
    let (server, cache) = (
        Server::start(small(), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let other = HubName::parse("owner/other").unwrap();
    let error = server.hub(cache.path()).fetch(&other, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert_eq!((server.count(""), server.pauses().len()), (1, 0));
}

#[test]
fn a_hub_that_sends_no_parts_of_files_is_asked_for_the_whole_again() {
    let files = small();
    let whole = files["model.safetensors"].clone();
    let (server, cache) = (
        Server::start(files, Mischief::NoRanges(true)),
        tempfile::tempdir().unwrap(),
    );
    let folder = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), whole);
    assert_eq!(server.pauses().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_fetched_again_and_named_where_nothing_may_be_fetched() {
    let (server, cache) = (
        Server::start(small(), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let folder = fetch(&server, cache.path()).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let path = folder.join(file);
        let whole = std::fs::read(&path).unwrap();
        for is_renamed in [false, true] {
            std::fs::remove_file(std::fs::canonicalize(&path).unwrap()).unwrap();
            if is_renamed {
                // The content had another name when the link was made.
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("../../blobs/0123", &path).unwrap();
            }
            let offline = server.hub(cache.path()).only_cached();
            let error = offline.fetch(&name(), &mut |_| {}).unwrap_err();
            assert!(matches!(error, HubError::Incomplete { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fetch(&server, cache.path()).unwrap(), folder);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }
}

#[test]
fn parts_of_weights_by_pytorch_are_fetched_with_their_index() {
    let index = br#"{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}"#;
    let files = [
        ("config.json", b"{}".as_slice()),
        ("pytorch_model.bin.index.json", index),
        ("pytorch_model-00001-of-00002.bin", b"first"),
        ("pytorch_model-00002-of-00002.bin", b"second"),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    let (server, cache) = (
        Server::start(BTreeMap::from(files.clone()), Mischief::None),
        tempfile::tempdir().unwrap(),
    );
    let folder = fetch(&server, cache.path()).unwrap();
    for (name, bytes) in files {
        assert_eq!(std::fs::read(folder.join(name)).unwrap(), bytes);
    }
    let hub = server.hub(cache.path()).only_cached();
    assert_eq!(hub.fetch(&name(), &mut |_| {}).unwrap(), folder);
    std::fs::remove_file(folder.join("pytorch_model-00002-of-00002.bin")).unwrap();
    let error = hub.fetch(&name(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("pytorch_model-00002-of-00002.bin"), "{error}");
}
