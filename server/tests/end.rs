//! A server on a socket, and its end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use multiway::task::WatchedLibrary;
use multiway::{Checkpoint, Engine, TaskLibrary};
use multiway_server::{Server, ServerError, ServerOptions, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Long enough for the tests that send a whole head at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

/// Serves the default checkpoint, and the task files of a folder.
async fn start(drain: Duration, folder: &std::path::Path) -> Running {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let engine = Engine::builder(&checkpoint).build().unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let library = WatchedLibrary::open(library, [folder]).unwrap();
    let options = ServerOptions {
        drain,
        head_timeout: HEAD_TIMEOUT,
        ..ServerOptions::default()
    };
    let server = Server::new(options).with_model("small", engine, library).unwrap();
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        server.serve(listener, stopped).await
    });
    Running {
        address,
        stop,
        serving,
    }
}

/// Sends the head of a request and half of its body.
async fn half_sent(address: SocketAddr) -> (TcpStream, &'static str) {
    let (first, second) = (r#"{"model": "small", "prompt": "#, r#""a cat", "max_tokens": 3}"#);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = first.len() + second.len();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{first}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    (stream, second)
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    Some(read_all(&mut stream).await)
}

/// Waits until a server says something of a route.
async fn wait_for(address: SocketAddr, path: &str, expected: &str) {
    for _ in 0..600 {
        if ask(address, path)
            .await
            .is_some_and(|answer| answer.contains(expected))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never said {expected}");
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_and_no_other_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Duration::from_secs(60), folder.path()).await;
    wait_for(running.address, "/health", "\"ok\"").await;
    let (mut begun, rest) = half_sent(running.address).await;
    // It has a place once its head was read.
    wait_for(running.address, "/metrics", "multiway_server_requests").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.stop.send(()).unwrap();
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.write_all(rest.as_bytes()).await.unwrap();
    let answer = read_all(&mut begun).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("text_completion"), "{answer}");
    running.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Duration::from_millis(100), folder.path()).await;
    wait_for(running.address, "/health", "\"ok\"").await;
    let (_begun, _) = half_sent(running.address).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), running.serving).await;
    ended.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn task_files_that_change_are_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Duration::from_millis(100), folder.path()).await;
    wait_for(running.address, "/v1/tasks/shout", "404").await;
    let file =
        "---\ndescription: Shouts.\ninputs: {text: {type: text}}\noutput: {kind: text}\n---\n{{ text }}!";
    std::fs::write(folder.path().join("shout.task"), file).unwrap();
    wait_for(running.address, "/v1/tasks/shout", "Shouts.").await;
    std::fs::write(
        folder.path().join("shout.task"),
        file.replace("Shouts.", "Cries out."),
    )
    .unwrap();
    wait_for(running.address, "/v1/tasks/shout", "Cries out.").await;
    std::fs::write(folder.path().join("wrong.task"), "no task").unwrap();
    wait_for(running.address, "/v1/tasks", "wrong.task").await;
    running.stop.send(()).unwrap();
    running.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_or_sends_too_much_of_it_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Duration::from_millis(100), folder.path()).await;
    wait_for(running.address, "/health", "\"ok\"").await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n")
        .await
        .unwrap();
    let long = format!("x: {}\r\n", "a".repeat(200_000));
    for flood in [long, "x: a\r\n".repeat(1000)] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!("GET /health HTTP/1.1\r\nhost: a\r\n{flood}\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        // The refusal may be lost where a connection is closed before all was read.
        let mut status = [0; 12];
        if stream.read_exact(&mut status).await.is_ok() {
            assert_eq!(&status, b"HTTP/1.1 431");
        }
    }
    wait_for(running.address, "/health", "\"ok\"").await;
    // Nothing more is said to the slow one.
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(HEAD_TIMEOUT * 4, slow.read_to_end(&mut rest)).await;
    closed.expect("the connection ends").unwrap();
    running.stop.send(()).unwrap();
    running.serving.await.unwrap().unwrap();
}

/// A listener of pipes, whose buffers are small.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Asks for a text through a pipe.
async fn asked(pipes: &mpsc::Sender<DuplexStream>, body: &str) -> DuplexStream {
    let (mut ours, theirs) = tokio::io::duplex(512);
    pipes.send(theirs).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    ours.write_all((head + body).as_bytes()).await.unwrap();
    ours
}

async fn read_to_end(mut pipe: DuplexStream) -> String {
    let mut text = String::new();
    // A connection that is cut off may be cut within a chunk.
    let _ = pipe.read_to_string(&mut text).await;
    text
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_place() {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let engine = Engine::builder(&checkpoint).build().unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let library = WatchedLibrary::open(library, Vec::<&str>::new()).unwrap();
    let options = ServerOptions {
        max_requests: 1,
        write_timeout: Duration::from_millis(300),
        ..ServerOptions::default()
    };
    let server = Server::new(options).with_model("small", engine, library).unwrap();
    let (pipes, listener) = mpsc::channel(1);
    tokio::spawn(server.serve(Pipes(listener), std::future::pending()));

    let long = r#"{"prompt": "a", "max_tokens": 20, "min_tokens": 20, "logprobs": 5, "stream": true}"#;
    let whole = read_to_end(asked(&pipes, long).await).await;
    assert!(whole.contains("[DONE]"), "{whole}");
    let silent = asked(&pipes, long).await;
    let short = r#"{"prompt": "a", "max_tokens": 1}"#;
    for expected in ["429", "200"] {
        let mut answer = String::new();
        for _ in 0..1200 {
            answer = read_to_end(asked(&pipes, short).await).await;
            if answer.split(' ').nth(1) == Some(expected) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{answer}");
    }
    let cut = read_to_end(silent).await;
    assert!(!cut.contains("[DONE]") && cut.len() < whole.len(), "{cut}");
}
