//! What HTTP adds to an engine, and what a thousand clients do to a server.
//!
//! Both are asked in turn for captions of the same pictures: the engine by this program, and the server,
//! which has the same engine, over loopback. Then a thousand clients stream at a time, of which a tenth
//! leaves and a twentieth never reads.
//!
//! `cargo bench -p multiway-server --bench load`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for whoever develops this"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use multiway::task::{TaskOutcome, WatchedLibrary};
use multiway::{Checkpoint, Engine, TaskInputs, TaskLibrary};
use multiway_server::{Server, ServerError, ServerOptions, listen};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A server that runs.
type Serving = tokio::task::JoinHandle<Result<(), ServerError>>;

const PICTURES: [&str; 4] = ["cat", "dog", "bicycle", "guitar"];
const LANGUAGES: [&str; 4] = ["English", "French", "German", "Spanish"];
const CLIENTS: usize = 32;
const ROUNDS: usize = 7;
const REQUESTS_OF_ROUND: usize = 1024;
const MANY: usize = 1000;

/// A request, as the engine and as the server gets it, and its right answer.
struct Question {
    file: Vec<u8>,
    language: &'static str,
    body: String,
    text: String,
    new_tokens: usize,
}

/// An engine, and a server of it.
struct Bench {
    engine: Engine,
    library: Arc<TaskLibrary>,
    questions: Vec<Question>,
    address: SocketAddr,
}

impl Bench {
    fn question(&self, number: usize) -> &Question {
        &self.questions[number % self.questions.len()]
    }

    async fn embedded(&self, file: Vec<u8>, language: &str) -> TaskOutcome {
        let task = self.library.get("caption").unwrap();
        let processor = task.image_processor(self.engine.config());
        let image = tokio::task::spawn_blocking(move || processor.process(&file).unwrap());
        let inputs = TaskInputs::new()
            .with_image(image.await.unwrap())
            .with("language", language);
        task.run(&self.engine, &inputs).unwrap().wait().await.unwrap()
    }
}

fn questions() -> Vec<Question> {
    let pairs = PICTURES
        .iter()
        .flat_map(|name| LANGUAGES.map(|language| (*name, language)));
    let question = |(name, language): (&str, &'static str)| {
        let file = std::fs::read(format!("../examples/pictures/{name}.png")).unwrap();
        let url = format!("data:image/png;base64,{}", STANDARD.encode(&file));
        Question {
            body: json!({ "inputs": { "image": url, "language": language } }).to_string(),
            file,
            language,
            text: String::new(),
            new_tokens: 0,
        }
    };
    pairs.map(question).collect()
}

/// A connection that asks one thing after the other.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    async fn send(&mut self, body: &str) {
        let head = format!(
            "POST /v1/tasks/caption HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0
            .get_mut()
            .write_all((head + body).as_bytes())
            .await
            .unwrap();
    }

    /// Reads the head of an answer: its status, and the length of its body.
    async fn head(&mut self) -> (String, usize) {
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            if line.trim().is_empty() {
                return (status, length);
            }
            if status.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut status);
            } else if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
    }

    async fn ask(&mut self, body: &str) -> Value {
        self.send(body).await;
        let (status, length) = self.head().await;
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(status, "200", "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }
}

/// The latencies of requests, in milliseconds, sorted; and requests a second.
struct Measured {
    latencies: Vec<f64>,
    throughput: f64,
}

impl Measured {
    fn at(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of a list"
        )]
        let index = (share * (self.latencies.len() - 1) as f64).round() as usize;
        self.latencies[index]
    }
}

/// Sends the requests of a round, each client one after the other.
async fn round(bench: &Arc<Bench>, over_http: bool) -> Measured {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (bench, next) = (Arc::clone(bench), Arc::clone(&next));
        tokio::spawn(async move {
            let mut client = Client::connect(bench.address).await;
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS_OF_ROUND {
                    return latencies;
                }
                let question = bench.question(number);
                let start = Instant::now();
                let text = if over_http {
                    let answer = client.ask(&question.body).await;
                    answer["text"].as_str().unwrap_or_default().to_owned()
                } else {
                    let outcome = bench.embedded(question.file.clone(), question.language).await;
                    outcome.answer.text().unwrap_or_default().to_owned()
                };
                latencies.push(start.elapsed().as_secs_f64() * 1000.0);
                assert_eq!(text, question.text);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.unwrap());
    }
    latencies.sort_by(f64::total_cmp);
    Measured {
        throughput: latencies.len() as f64 / start.elapsed().as_secs_f64(),
        latencies,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Compares the server with the engine, round by round.
async fn compare(bench: &Arc<Bench>) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((round(bench, false).await, round(bench, true).await));
    }
    let of = |value: &dyn Fn(&(Measured, Measured)) -> f64| median(rounds.iter().map(value).collect());
    println!("| {CLIENTS} clients, {ROUNDS} rounds | engine | over HTTP | added |");
    println!("|---|---|---|---|");
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (engine, http) = (
            of(&|(engine, _)| engine.at(share)),
            of(&|(_, http)| http.at(share)),
        );
        let added = of(&|(engine, http)| http.at(share) - engine.at(share));
        println!("| {name}, ms | {engine:.1} | {http:.1} | {added:+.2} |");
    }
    let (engine, http) = (
        of(&|(engine, _)| engine.throughput),
        of(&|(_, http)| http.throughput),
    );
    let ratio = of(&|(engine, http)| http.throughput / engine.throughput);
    println!("| requests/s | {engine:.0} | {http:.0} | x {ratio:.3} |");
}

/// Kibibytes of memory that this program has.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Reads the events of a stream: the joined text, and the new tokens.
fn streamed(answer: &str) -> (String, Option<usize>) {
    let (mut text, mut new_tokens) = (String::new(), None);
    for event in answer.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        text.push_str(event["text"].as_str().unwrap_or_default());
        let tokens = event["outcome"]["usage"]["new_tokens"].as_u64();
        new_tokens = tokens
            .and_then(|tokens| usize::try_from(tokens).ok())
            .or(new_tokens);
    }
    (text, new_tokens)
}

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Reads,
    Leaves,
    NeverReads,
}

/// Streams to clients of which some leave or never read. Returns how many got their answer, and how many were
/// to get it.
async fn many(bench: &Arc<Bench>, count: usize) -> (usize, usize) {
    let clients = (0..count).map(|number| {
        let bench = Arc::clone(bench);
        let manner = match number % 20 {
            0 | 10 => Manner::Leaves,
            5 => Manner::NeverReads,
            _ => Manner::Reads,
        };
        let client = tokio::spawn(async move {
            let question = bench.question(number);
            let body = question.body.replacen('{', "{\"stream\": true, ", 1);
            let mut client = Client::connect(bench.address).await;
            client.send(&body).await;
            match manner {
                Manner::Leaves => {
                    drop(client.head().await);
                    (None, false)
                }
                Manner::NeverReads => (Some(client), false),
                Manner::Reads => {
                    let mut answer = String::new();
                    while !answer.contains("[DONE]") && client.0.read_line(&mut answer).await.unwrap_or(0) > 0
                    {
                    }
                    let is_right = streamed(&answer) == (question.text.clone(), Some(question.new_tokens));
                    (None, is_right)
                }
            }
        });
        (manner, client)
    });
    let clients: Vec<_> = clients.collect();
    let (mut right, mut all, mut silent) = (0, 0, Vec::new());
    for (manner, client) in clients {
        let (open, is_right) = client.await.unwrap();
        silent.extend(open);
        all += usize::from(manner == Manner::Reads);
        right += usize::from(is_right);
    }
    (right, all)
}

/// Streams to clients while the server is told to stop. Returns how many answers that had begun came whole,
/// and how many had begun.
async fn stopped(bench: &Arc<Bench>, stop: oneshot::Sender<()>) -> (usize, usize) {
    let clients = (0..CLIENTS * 4).map(|number| {
        let bench = Arc::clone(bench);
        tokio::spawn(async move {
            let question = bench.question(number);
            let mut client = Client::connect(bench.address).await;
            client
                .send(&question.body.replacen('{', "{\"stream\": true, ", 1))
                .await;
            let (status, _) = client.head().await;
            let mut answer = String::new();
            drop(client.0.read_to_string(&mut answer).await);
            (
                status == "200",
                streamed(&answer) == (question.text.clone(), Some(question.new_tokens)),
            )
        })
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let _ = stop.send(());
    let (mut right, mut begun) = (0, 0);
    for client in clients {
        let (has_begun, is_right) = client.await.unwrap();
        begun += usize::from(has_begun);
        right += usize::from(has_begun && is_right);
    }
    (right, begun)
}

/// Serves an engine, and asks it the questions once for their answers. With a budget of 0 nothing is taken
/// from the cache of encoded prompts: every request is computed.
async fn start(reuse_budget: Option<usize>) -> (Arc<Bench>, oneshot::Sender<()>, Serving) {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let mut builder = Engine::builder(&checkpoint);
    if let Some(bytes) = reuse_budget {
        builder = builder.reuse_budget(bytes);
    }
    let engine = builder.build().unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let watched = WatchedLibrary::open(library.clone(), Vec::<&str>::new()).unwrap();
    let options = ServerOptions {
        max_requests: 2 * MANY,
        ..ServerOptions::default()
    };
    let server = Server::new(options)
        .with_model("default", engine.clone(), watched)
        .unwrap();
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopping) = oneshot::channel();
    let serving = tokio::spawn(server.serve(listener, async move { drop(stopping.await) }));
    let mut bench = Bench {
        engine,
        library: Arc::new(library),
        questions: questions(),
        address,
    };
    for index in 0..bench.questions.len() {
        let question = &bench.questions[index];
        let outcome = bench.embedded(question.file.clone(), question.language).await;
        let question = &mut bench.questions[index];
        outcome
            .answer
            .text()
            .unwrap_or_default()
            .clone_into(&mut question.text);
        question.new_tokens = outcome.usage.new_tokens;
    }
    (Arc::new(bench), stop, serving)
}

#[tokio::main]
async fn main() {
    println!("every request computed:\n");
    let (bench, stop, serving) = start(Some(0)).await;
    compare(&bench).await;
    drop((bench, stop));
    serving.await.unwrap().unwrap();

    println!("\nprompts from the cache:\n");
    let (bench, stop, serving) = start(None).await;
    compare(&bench).await;
    println!();
    let (mut before, mut line) = (memory(), String::new());
    for turn in 0..3 {
        let start = Instant::now();
        let (right, all) = many(&bench, MANY).await;
        let seconds = start.elapsed().as_secs_f64();
        // Of the first turn remain buffers that the next ones use again.
        before = if turn == 1 { memory() } else { before };
        line = format!("{MANY} streams at a time: {right} of {all} that read were right, in {seconds:.1} s");
    }
    println!(
        "{line}; memory {} MiB before, {} MiB after",
        before / 1024,
        memory() / 1024
    );
    let (right, begun) = stopped(&bench, stop).await;
    serving.await.unwrap().unwrap();
    println!("told to stop: {right} of {begun} answers that had begun came whole");
}
