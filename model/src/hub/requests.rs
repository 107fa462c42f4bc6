//! What is asked of a hub over the network: again after a pause where it is busy or breaks off.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::{Agent, Body, Timeout};

/// How often a request that fails for a while is made again.
pub(super) const RETRIES: usize = 5;

/// The first pause and the longest one, to which up to as much again is added by chance, so that many callers
/// do not come back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The longest pause that a hub may ask for; where it wants a longer one, it is asked again after this.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// How long a connection may take, and how long it may be silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest list of a repository's files, in bytes.
const MAX_LIST: u64 = 1 << 24;

/// How often a hub may send a request elsewhere on itself.
const MAX_MOVES: usize = 8;

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The hub refuses, or cannot at the moment.
    #[error("http status: {code}")]
    Status {
        code: StatusCode,
        /// How long it wants to be left alone.
        wish: Option<Duration>,
    },
    /// There is no way to the hub.
    #[error("{0}")]
    Unreachable(ureq::Error),
    /// The connection broke off or fell silent.
    #[error("the connection broke off: {0}")]
    BrokeOff(String),
    /// The answer cannot be used.
    #[error("{0}")]
    Answer(String),
    /// What came cannot be written.
    #[error("{0}")]
    Disk(io::Error),
}

impl Fault {
    fn of(error: ureq::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        match error {
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => Self::Unreachable(error),
            ureq::Error::Io(ref cause)
                if [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&cause.kind()) =>
            {
                Self::Unreachable(error)
            }
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => {
                Self::BrokeOff(error.to_string())
            }
            other => Self::Answer(other.to_string()),
        }
    }

    fn wish(&self) -> Duration {
        match self {
            Self::Status { wish, .. } => wish.unwrap_or_default().min(LONGEST_WISH),
            _ => Duration::ZERO,
        }
    }

    /// Says whether the hub does not have what was asked for, or does not give it to this caller.
    pub(super) fn is_refusal(&self) -> bool {
        use StatusCode as Code;
        let refusals = [Code::UNAUTHORIZED, Code::FORBIDDEN, Code::NOT_FOUND];
        matches!(self, Self::Status { code, .. } if refusals.contains(code))
    }
}

/// Says whether a status is one of a hub that is busy, or has a fault of its own.
fn is_passing(code: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    passing.contains(&code) || code.is_server_error()
}

/// How a thread waits before it asks again.
#[derive(Clone)]
pub(super) struct Pause(pub(super) Arc<dyn Fn(Duration) + Send + Sync>);

impl Default for Pause {
    fn default() -> Self {
        Self(Arc::new(std::thread::sleep))
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pause")
    }
}

/// What a hub says of a file.
pub(super) struct Announced {
    /// The name of its content: of a large file its SHA-256.
    pub(super) etag: String,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// Asks one hub.
pub(super) struct Requests {
    agent: Agent,
    token: Option<String>,
    pause: Pause,
    /// Whether the hub ever answered: if not, it is not there, and asking again would only delay what is done
    /// instead.
    reached: Cell<bool>,
}

impl Requests {
    pub(super) fn new(token: Option<String>, pause: Pause) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("multiway/", env!("CARGO_PKG_VERSION")))
            // Lengths and places are those of the file itself.
            .accept_encoding("identity")
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .build();
        Self {
            agent: agent.into(),
            token,
            pause,
            reached: Cell::new(false),
        }
    }

    /// Reads a short document.
    pub(super) fn document(&self, url: &str) -> Result<Vec<u8>, Fault> {
        self.patiently(url, || {
            let mut response = self.get(url, "")?;
            let body = response.body_mut().with_config().limit(MAX_LIST);
            body.read_to_vec().map_err(Fault::of)
        })
    }

    /// Asks what a file is called and how long it is.
    pub(super) fn announced(&self, url: &str) -> Result<Announced, Fault> {
        self.patiently(url, || self.announced_once(url))
    }

    /// Downloads a file to its end, where a part of it lies there from that part's end on; tells how many
    /// bytes are there.
    pub(super) fn download(
        &self,
        url: &str,
        size: u64,
        part: &mut File,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), Fault> {
        self.patiently(url, || self.download_once(url, size, part, tell))
    }

    /// Asks until there is an answer that lasts, with growing pauses.
    fn patiently<T>(&self, url: &str, mut ask: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(RETRIES)
            .with_jitter()
            .build();
        loop {
            let fault = match ask() {
                Err(fault) if self.may_pass(&fault) => fault,
                outcome => return outcome,
            };
            let Some(pause) = pauses.next() else {
                return Err(fault);
            };
            let pause = pause.max(fault.wish());
            tracing::warn!(url, %fault, ?pause, "the hub is asked again after a pause");
            (self.pause.0)(pause);
        }
    }

    fn may_pass(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Status { code, .. } => is_passing(*code),
            Fault::Unreachable(_) => self.reached.get(),
            Fault::BrokeOff(_) => true,
            Fault::Answer(_) | Fault::Disk(_) => false,
        }
    }

    /// Asks the hub, also where it sends a request to another of its own addresses, and then whom it names.
    /// Only the hub is sent the token.
    fn get(&self, url: &str, range: &str) -> Result<Response<Body>, Fault> {
        let mut place = url.to_owned();
        for _ in 0..MAX_MOVES {
            let response = self.ask(&place, range, true)?;
            match (
                moved_within(&place, &response),
                text(response.headers(), "location"),
            ) {
                (Some(moved), _) => place = moved,
                (None, Some(elsewhere)) if response.status().is_redirection() => {
                    return self.ask(elsewhere, range, false);
                }
                _ => return Ok(response),
            }
        }
        Err(moved_too_often())
    }

    /// Sends one request: to the hub, with the token and without following it elsewhere; or to anybody.
    fn ask(&self, url: &str, range: &str, is_hub: bool) -> Result<Response<Body>, Fault> {
        let mut request = self.agent.get(url);
        if !range.is_empty() {
            request = request.header(header::RANGE, format!("bytes={range}"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if is_hub {
            request = request.config().max_redirects(0).build();
        }
        let response = request.call().map_err(Fault::of)?;
        self.reached.set(true);
        let code = response.status();
        if code.is_client_error() || code.is_server_error() {
            let wish = wish(response.headers());
            return Err(Fault::Status { code, wish });
        }
        Ok(response)
    }

    /// Reads what the hub itself says before it sends the request to where the bytes are.
    fn announced_once(&self, url: &str) -> Result<Announced, Fault> {
        let mut place = url.to_owned();
        for _ in 0..MAX_MOVES {
            let response = self.ask(&place, "0-0", true)?;
            if let Some(moved) = moved_within(&place, &response) {
                place = moved;
                continue;
            }
            let headers = response.headers();
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
            let etag = etag.ok_or_else(|| Fault::Answer("the header ETag is missing".to_owned()))?;
            let etag = etag
                .strip_prefix("W/")
                .unwrap_or(etag)
                .trim_matches('"')
                .to_owned();
            let size = match text(headers, "x-linked-size").and_then(|size| size.parse().ok()) {
                Some(size) => size,
                None if response.status().is_redirection() => total(&self.get(url, "0-0")?)?,
                None => total(&response)?,
            };
            return Ok(Announced { etag, size });
        }
        Err(moved_too_often())
    }

    fn download_once(
        &self,
        url: &str,
        size: u64,
        part: &mut File,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), Fault> {
        let mut done = part.seek(SeekFrom::End(0)).map_err(Fault::Disk)?;
        let response = self.get(url, &format!("{done}-"))?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            // It sends the file from its beginning.
            part.set_len(0).map_err(Fault::Disk)?;
            done = part.seek(SeekFrom::Start(0)).map_err(Fault::Disk)?;
        }
        tell(done);
        // Where nobody says how much comes, the end of it may be the end of the connection.
        let is_counted = text(response.headers(), "content-length").is_some();
        let mut body = response.into_body().into_reader().take(size.saturating_sub(done));
        let mut piece = vec![0; 1 << 17];
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) if done < size && !is_counted => {
                    return Err(Fault::BrokeOff(format!("it ended after {done} of {size} bytes")));
                }
                Ok(0) => return part.flush().map_err(Fault::Disk),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::BrokeOff(error.to_string())),
            };
            part.write_all(piece.get(..count).unwrap_or_default())
                .map_err(Fault::Disk)?;
            done += count as u64;
            tell(done);
        }
    }
}

fn moved_too_often() -> Fault {
    Fault::Answer(format!("it was sent elsewhere {MAX_MOVES} times"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Reads how long a hub wants to be left alone: seconds, or a time.
fn wish(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, "retry-after")?.trim();
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let time = httpdate::parse_http_date(value).ok()?;
        time.duration_since(SystemTime::now()).ok()
    })
}

/// Reads how long a whole file is from an answer with its first byte, or with all of it.
fn total(response: &Response<Body>) -> Result<u64, Fault> {
    let headers = response.headers();
    let range = text(headers, "content-range").and_then(|range| range.rsplit('/').next());
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT => range,
        _ => text(headers, "content-length"),
    };
    total
        .and_then(|total| total.parse().ok())
        .ok_or_else(|| Fault::Answer("it does not say how long the file is".to_owned()))
}

/// Tells where else on the same hub an answer sends a request.
fn moved_within(place: &str, response: &Response<Body>) -> Option<String> {
    let path = text(response.headers(), "location").filter(|_| response.status().is_redirection())?;
    let origin: Uri = place.parse().ok()?;
    let is_path = path.starts_with('/') && !path.starts_with("//");
    is_path.then(|| {
        format!(
            "{}://{}{path}",
            origin.scheme_str().unwrap_or("https"),
            origin.authority().map_or("", |a| a.as_str())
        )
    })
}
