//! Fetching from a hub, played by a server on this machine that breaks off, lies, and serves other bytes.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use multiway_model::checkpoint::Checkpoint;
use multiway_model::hub::{Download, Hub, HubError, HubName};
use multiway_model::testing::tiny_config;
use multiway_model::{Device, initialise};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

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
}

#[derive(Default)]
struct Seen {
    /// Paths with the range that was asked for.
    requests: Vec<String>,
}

struct Server {
    address: String,
    seen: Arc<Mutex<Seen>>,
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
        Self { address, seen }
    }

    fn count(&self, part: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.requests
            .iter()
            .filter(|request| request.contains(part))
            .count()
    }
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
    Hub::new(&server.address, cache).fetch(&name(), &mut |_| {})
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
    let hub = Hub::new(&server.address, cache.path());
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
        Server::start(small(), Mischief::BreakOff(5)),
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
    let hub = Hub::new(&server.address, cache.path());
    let error = hub.fetch(&other, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    let error = hub.only_cached().fetch(&other, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}

/// Runs against a hub that is there no more.
fn fetch_from_nowhere(cache: &Path) -> Result<std::path::PathBuf, HubError> {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Hub::new(format!("http://{nowhere}"), cache).fetch(&name(), &mut |_| {})
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
    let hub = Hub::new(&server.address, cache.path()).only_cached();
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
}
