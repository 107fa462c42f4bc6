//! `multiway serve`: the HTTP server.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use multiway::Checkpoint;
use multiway::index::VectorIndex;
use multiway_server::{FetchOptions, Metrics, Server, ServerError, ServerOptions, listen};

use super::context::{Context, tokenizer};
use super::engine::{EngineArgs, bytes, duration};
use super::failure::{Failure, Outcome};
use super::fingerprint::fingerprint;
use super::interrupt::Signals;
use super::output::{note, print_line};

/// What the embedded checkpoint is called.
const EMBEDDED: &str = "multiway";

const AFTER_HELP: &str = "\
Examples:
  multiway serve
  multiway --checkpoint google/flan-t5-small serve --port 9000
  multiway serve --model small=google/flan-t5-small --model own=./my-model --api-key s3cret
  multiway serve --index photos=pictures.index
  multiway --task-dir tasks/ serve --unix /run/multiway.sock
  curl http://127.0.0.1:8000/v1/tasks
  curl http://127.0.0.1:8000/v1/chat/completions -d '{\"model\": \"multiway:caption\",
    \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\",
    \"image_url\": {\"url\": \"data:image/png;base64,'$(base64 -w0 cat.png)'\"}}]}]}'

A request names a model, or a model and one of its tasks as MODEL:TASK; without a name it goes to the
first model. Task files in a --task-dir are read again when they change. The address opened in a browser is
a page that runs tasks and searches. Routes: /health, /version, /metrics, /v1/models, /v1/tasks,
/v1/tasks/TASK, /v1/chat/completions, /v1/responses, /v1/completions, /v1/decisions,
/v1/systemone, /v1/embeddings, /v1/search, /tokenize, /detokenize, /tokenizer_info,
/openapi.json.

Prints the address, one line. The first Ctrl-C or SIGTERM refuses new requests and lets running ones
finish; the second ends at once.";

/// Says what is served, where, and to whom.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Address to listen on; 0.0.0.0 and :: are all that the machine has
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, short, value_name = "PORT", default_value_t = 8000)]
    port: u16,

    /// Unix socket to listen on, instead of an address
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    unix: Option<PathBuf>,

    /// Checkpoint to serve under a name (repeatable) [default: the one of --checkpoint]
    #[arg(long = "model", value_name = "NAME=PLACE", value_parser = named)]
    models: Vec<(String, PathBuf)>,

    /// Index of `multiway search index` to serve under a name; one of the models made it (repeatable)
    #[arg(long = "index", value_name = "NAME=FILE", value_parser = indexed)]
    indexes: Vec<(String, PathBuf)>,

    /// API key that every request but /health has to bring (repeatable) [default: none is needed]
    #[arg(long = "api-key", value_name = "KEY", env = "MULTIWAY_API_KEY", hide_env_values = true, value_parser = key)]
    keys: Vec<String>,

    /// Origin whose web pages may ask, or `*` (repeatable) [default: none may]
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,

    /// Requests that are answered or wait at a time; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_requests: u32,

    /// Bytes of the body of a request, pictures included
    #[arg(long, value_name = "BYTES", default_value = "20MB", value_parser = bytes)]
    max_body: usize,

    /// How long a client may leave unread what it is sent before its connection is closed
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    write_timeout: Duration,

    /// How long running requests may take after the server was told to stop
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    drain: Duration,

    /// Path that a proxy puts before all routes, such as /multiway
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = root_path)]
    root_path: String,

    /// Host from which pictures may be fetched by URL, `*.example.org` for all below it (repeatable)
    /// [default: nothing is fetched]
    #[arg(long = "picture-host", value_name = "HOST", value_parser = host)]
    picture_hosts: Vec<String>,

    /// Fetch pictures from addresses of private networks and of this machine, too
    #[arg(long, requires = "picture_hosts")]
    private_pictures: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() && !name.contains(':') => {
            Ok((name.to_owned(), PathBuf::from(place)))
        }
        _ => Err(format!(
            "expected NAME=PLACE, with no colon in the name, found '{text}'"
        )),
    }
}

/// Reads the name of an index, which is part of addresses, and its file.
fn indexed(text: &str) -> Result<(String, PathBuf), String> {
    let is_plain = |name: &str| {
        name.chars()
            .all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign))
    };
    let (name, path) = named(text)?;
    match is_plain(&name) {
        true => Ok((name, path)),
        false => Err(format!(
            "expected NAME=FILE, with letters, digits, '-', '_' and '.' in the name, found '{text}'"
        )),
    }
}

fn key(text: &str) -> Result<String, String> {
    match text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits and signs of ASCII, without spaces".to_owned()),
    }
}

fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
    match is_plain && !name.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected a host as pictures.example.org or *.example.org, found '{text}'"
        )),
    }
}

fn root_path(text: &str) -> Result<String, String> {
    let plain = text.starts_with('/') && !text.contains(['{', '}', '*', ' ', '?', '#']) && text.len() > 1;
    match plain || text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(format!("expected a path such as /multiway, found '{text}'")),
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &ServeArgs) -> Outcome {
    // Before the engines, which it is to count.
    let metrics = Metrics::install();
    let options = ServerOptions {
        keys: args.keys.clone(),
        max_requests: usize::try_from(args.max_requests).map_err(Failure::runtime)?,
        max_body_bytes: args.max_body,
        cors_origins: args.cors_origins.clone(),
        timeout: args.engine.terms().timeout,
        write_timeout: args.write_timeout,
        drain: args.drain,
        root_path: args.root_path.clone(),
        fetch: FetchOptions {
            hosts: args.picture_hosts.clone(),
            private: args.private_pictures,
        },
        ..ServerOptions::default()
    };
    let mut server = Server::new(options).with_metrics(metrics);
    let mut models: Vec<(String, Checkpoint)> = Vec::new();
    if args.models.is_empty() {
        models.push((context.name(EMBEDDED), context.checkpoint()?));
    }
    for (name, place) in &args.models {
        models.push((name.clone(), context.open(place)?));
    }
    for (name, checkpoint) in &models {
        server = add(context, args, server, name.clone(), checkpoint)?;
    }
    server = add_indexes(args, server, &models)?;
    context.block_on(async {
        #[cfg(unix)]
        if let Some(path) = &args.unix {
            return serve_unix(server, path).await;
        }
        let address = SocketAddr::new(args.host, args.port);
        let listening = listen(address).await;
        let (listener, address) =
            listening.map_err(|error| Failure::Input(anyhow!("cannot listen on {address}: {error}")))?;
        if !args.host.is_loopback() && args.keys.is_empty() && !context.quiet() {
            note("warning: other machines may reach this address, and no --api-key is needed");
        }
        print_line(&format!("http://{address}{}", args.root_path))?;
        until_stopped(|stop| server.serve(listener, stop)).await
    })
}

/// Loads a checkpoint and adds it to a server.
fn add(
    context: &Context,
    args: &ServeArgs,
    server: Server,
    name: String,
    checkpoint: &Checkpoint,
) -> Outcome<Server> {
    let library = context.watched_library(checkpoint)?;
    let engine = context.engine_with(checkpoint, tokenizer(checkpoint)?, &args.engine)?;
    server.with_model(name, engine, library).map_err(Failure::input)
}

/// Opens the indexes and adds each beside the model that made it.
fn add_indexes(args: &ServeArgs, mut server: Server, models: &[(String, Checkpoint)]) -> Outcome<Server> {
    if args.indexes.is_empty() {
        return Ok(server);
    }
    let made_by = models
        .iter()
        .map(|(name, checkpoint)| Ok((name, fingerprint(checkpoint)?)));
    let made_by = made_by.collect::<Outcome<Vec<_>>>()?;
    for (name, path) in &args.indexes {
        let index = VectorIndex::open(path).map_err(Failure::input)?;
        let mut tried = made_by
            .iter()
            .map(|(model, fingerprint)| index.check_model(fingerprint).map(|()| *model));
        // What is wrong is said of the first model.
        let first = tried
            .next()
            .ok_or_else(|| Failure::Input(anyhow!("there is no model")))?;
        let model = first.or_else(|error| tried.find_map(Result::ok).ok_or(error));
        let model = model.map_err(Failure::input)?;
        server = server
            .with_index(name.clone(), model.clone(), index)
            .map_err(Failure::input)?;
    }
    Ok(server)
}

#[cfg(unix)]
async fn serve_unix(server: Server, path: &Path) -> Outcome {
    let listener = tokio::net::UnixListener::bind(path).map_err(|error| {
        Failure::Input(anyhow!(
            "cannot listen on the socket '{}': {error}",
            path.display()
        ))
    })?;
    print_line(&format!("unix:{}", path.display()))?;
    let served = until_stopped(|stop| server.serve(listener, stop)).await;
    // Whoever listens next needs the name.
    let _ = std::fs::remove_file(path);
    served
}

/// Serves until a first signal, and until the running requests are done or a second one comes.
async fn until_stopped<F>(serve: impl FnOnce(futures_util::future::BoxFuture<'static, ()>) -> F) -> Outcome
where
    F: Future<Output = Result<(), ServerError>>,
{
    let mut signals = Signals::watch()?;
    let (told, stopped) = tokio::sync::oneshot::channel::<()>();
    let stop = Box::pin(async move {
        let _ = stopped.await;
    });
    let serving = serve(stop);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return served.map_err(Failure::runtime),
        () = signals.next() => {}
    }
    let _ = told.send(());
    tokio::select! {
        served = &mut serving => served.map_err(Failure::runtime),
        () = signals.next() => Err(Failure::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_name_and_a_place() {
        assert_eq!(named("a=b/c"), Ok(("a".to_owned(), PathBuf::from("b/c"))));
        assert_eq!(named("a=b=c"), Ok(("a".to_owned(), PathBuf::from("b=c"))));
        for wrong in ["a", "=b", "a=", "a:b=c"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_index_has_a_name_that_an_address_can_hold() {
        assert_eq!(indexed("a-1=b c"), Ok(("a-1".to_owned(), PathBuf::from("b c"))));
        for wrong in ["a/b=c", "a b=c", "a"] {
            assert!(indexed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_before_all_routes_is_a_plain_one() {
        for right in ["", "/multiway", "/a/b"] {
            assert!(root_path(right).is_ok(), "{right}");
        }
        for wrong in ["multiway", "/", "/{a}", "/a?b"] {
            assert!(root_path(wrong).is_err(), "{wrong}");
        }
        assert!(host("*.example.org").is_ok() && host("http://a").is_err() && host("*.").is_err());
        assert!(key("s3cret").is_ok() && key("a b").is_err() && key("").is_err());
    }
}
