//! Checkpoints from a model hub: fetched by name, kept in the cache that other tools share, checked before
//! use.
//!
//! Files go where `huggingface_hub` puts them, so what was downloaded by any tool is not downloaded again. A
//! download that broke off goes on where it stopped, and a hub that is busy is asked again, after pauses that
//! grow or that it asks for. What arrives is compared with the length and, for weights, the SHA-256 that the
//! hub announces; what does not match is removed.
//!
//! Nothing here is called unless a checkpoint is asked for by its name on the hub.

mod environment;
mod error;
mod fetching;
mod name;
mod requests;
#[cfg(test)]
mod requests_tests;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};

use environment::Environment;
pub use error::HubError;
use fetching::{Fetching, fault_error, fetch_error, has_weights, io_error, lacking, wrong_name};
pub use name::{Download, HubName};
use name::{folder, is_hash};
use requests::{Pause, Requests};

/// Where the hub is, if nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// A hub and the cache of what came from it.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    pause: Pause,
}

impl Hub {
    /// Uses the hub and the cache that the environment names, as `huggingface_hub` does: `HF_HUB_CACHE`,
    /// `HUGGINGFACE_HUB_CACHE`, `HF_HOME` or `XDG_CACHE_HOME` for the cache, with `~` and `$NAME` in them;
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` or the file `HF_TOKEN_PATH`; `HF_ENDPOINT`; `HF_HUB_OFFLINE` and
    /// `TRANSFORMERS_OFFLINE`.
    ///
    /// # Errors
    /// [`HubError::NoHome`] where nothing says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        let environment = Environment {
            variable: &|name| std::env::var(name).ok(),
            home: &environment::home,
        };
        Ok(Self {
            token: environment.token(),
            cache: environment.cache().ok_or(HubError::NoHome)?,
            endpoint: environment.endpoint().unwrap_or_else(|| ENDPOINT.to_owned()),
            offline: environment.is_offline(),
            pause: Pause::default(),
        })
    }

    /// Uses a hub at a given address, and a cache in a given folder, without a token.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: endpoint.into(),
            token: None,
            offline: false,
            pause: Pause::default(),
        }
    }

    /// Uses what is in the cache only.
    #[must_use]
    pub fn only_cached(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Replaces how the thread waits before it asks the hub again, which by default is to sleep.
    #[must_use]
    pub fn pausing_by(mut self, pause: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.pause = Pause(Arc::new(pause));
        self
    }

    /// Makes sure that a checkpoint is in the cache, and returns its folder; `progress` is told of each part
    /// that comes.
    ///
    /// Where the hub cannot be reached, what was fetched whole before is used.
    ///
    /// # Errors
    /// [`HubError`] where it is not there and cannot be fetched, or arrives damaged. Whole files that came
    /// stay, and so do parts of files, for the next time.
    pub fn fetch(&self, name: &HubName, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let snapshot = snapshot(&Cache::new(self.cache.clone()), name);
        let cached = || {
            let snapshot = snapshot.clone()?;
            (has_weights(&snapshot) && lacking(&snapshot).is_none()).then_some(snapshot)
        };
        if self.offline {
            return cached().ok_or_else(|| match snapshot.as_deref().and_then(lacking) {
                Some(file) => HubError::Incomplete {
                    name: name.to_string(),
                    file,
                },
                None => HubError::Offline {
                    name: name.to_string(),
                    cache: self.cache.display().to_string(),
                },
            });
        }
        match self.download(name, progress) {
            Err(error @ HubError::Fetch { .. }) => match cached() {
                Some(folder) => {
                    tracing::warn!(%error, folder = %folder.display(), "the hub is not there; using what was fetched before");
                    Ok(folder)
                }
                None => Err(error),
            },
            outcome => outcome,
        }
    }

    fn download(&self, name: &HubName, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let cache = Cache::new(self.cache.clone());
        let requests = Requests::new(self.token.clone(), self.pause.clone());
        let endpoint = self.endpoint.trim_end_matches('/');
        let listing = listing(&requests, endpoint, name)?;
        // All files are of one commit, whatever happens to the branch meanwhile.
        let commit = Repo::with_revision(name.repository.clone(), RepoType::Model, listing.sha.clone());
        let fetching = Fetching {
            files_at: format!("{endpoint}/{}/resolve/{}", name.repository, listing.sha),
            requests,
            cached: cache.repo(commit),
            name,
            commit: listing.sha,
        };
        let files: Vec<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        let folder = fetching.all(&files, progress)?;
        // The branch leads to the new commit only once all of it is there.
        let branch = cache.repo(name.repo());
        branch
            .create_ref(&fetching.commit)
            .map_err(|source| io_error(&folder, source))?;
        Ok(folder)
    }
}

/// Finds the folder of a checkpoint in the cache, whole or not.
fn snapshot(cache: &Cache, name: &HubName) -> Option<PathBuf> {
    let repo = cache.repo(name.repo());
    // A revision may be a branch or a commit.
    let branch = folder(&repo).join("refs").join(&name.revision);
    let commit = fs::read_to_string(branch).unwrap_or_else(|_| name.revision.clone());
    let commit = commit.trim();
    let folder = repo.pointer_path(commit);
    is_hash(commit).then_some(folder)
}

/// What the hub says of a revision.
#[derive(serde::Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks which commit a revision is, and which files it has.
fn listing(requests: &Requests, endpoint: &str, name: &HubName) -> Result<Listing, HubError> {
    let what = "the list of files";
    let revision = name.revision.replace('/', "%2F");
    let url = format!("{endpoint}/api/models/{}/revision/{revision}", name.repository);
    let list = requests
        .document(&url)
        .map_err(|fault| fault_error(name, what, &fault))?;
    let listing: Listing = serde_json::from_slice(&list).map_err(|error| fetch_error(name, what, &error))?;
    if is_hash(&listing.sha) {
        Ok(listing)
    } else {
        Err(wrong_name(name, what, &listing.sha))
    }
}
