//! An HTTP server around engines: OpenAI-compatible routes, and a route for every task file.
//!
//! The server is thin: a request becomes a task, a task becomes a prompt, and the engine is the one that
//! programs embed. Every request is bound to a task file: `model` is the name of a checkpoint, or
//! `checkpoint:task`. Answers stream, and a client that leaves frees its place before the next step.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /` | the web page |
//! | `GET /openapi.json` | the routes, and what they take |
//! | `GET /health`, `/version`, `/metrics` | whether it takes requests, what runs, counters for Prometheus |
//! | `GET /v1/models`, `/v1/models/{name}` | the checkpoints |
//! | `GET /v1/tasks`, `/v1/tasks/{name}` | the task files of a checkpoint |
//! | `POST /v1/tasks/{name}` | runs a task on typed inputs |
//! | `POST /v1/chat/completions` | a message with pictures, as OpenAI's clients send it |
//! | `POST /v1/responses` | the same, as OpenAI's newer clients send it |
//! | `POST /v1/completions` | a text for the encoder, an answer by the decoder |
//! | `POST /v1/decisions`, `/v1/systemone` | questions with closed answers, each with its probability |
//! | `POST /v1/embeddings` | vectors of texts and pictures |
//! | `GET /v1/search`, `POST /v1/search` | indexes, and the pictures of an index, by text, picture, or both |
//! | `POST /tokenize`, `/detokenize`, `GET /tokenizer_info` | the tokenizer |
//!
//! ```no_run
//! use multiway::{Checkpoint, Engine, TaskLibrary, task::WatchedLibrary};
//! use multiway_server::{Server, ServerOptions};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open("checkpoints/default")?;
//! let engine = Engine::builder(&checkpoint).build()?;
//! let library = TaskLibrary::for_model(checkpoint.config())?;
//! let library = WatchedLibrary::open(library, Vec::<&str>::new())?;
//!
//! let server = Server::new(ServerOptions::default()).with_model("default", engine, library)?;
//! let (listener, _) = multiway_server::listen("127.0.0.1:8000".parse()?).await?;
//! server.serve(listener, std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```

mod access;
mod body;
mod decide;
mod error;
mod events;
mod fetch;
mod message;
mod openapi;
mod pictures;
mod reply;
mod routes;
mod sampling;
mod search;
mod serve;
mod shared;
mod texts;

pub use fetch::FetchOptions;
pub use serve::{Server, ServerError, listen};
pub use shared::{Metrics, ServerOptions};
