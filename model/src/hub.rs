//! Checkpoints from a model hub: fetched by name, kept in the cache that other tools share, checked before use.
//!
//! Files go where `huggingface_hub` puts them, so what was downloaded by any tool is not downloaded again. A download
//! that broke off goes on where it stopped. What arrives is compared with the length and, for weights, the SHA-256 that
//! the hub announces; what does not match is removed.
//!
//! Nothing here is called unless a checkpoint is asked for by its name on the hub.

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::checkpoint::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, is_plain_file_name};

/// Files beside the weights that say something about them.
const SMALL_FILES: [&str; 10] = [
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.model",
    "spiece.model",
    "beit3.spm",
    "tokenizer_config.json",
    "labels.txt",
    "answer2label.txt",
];

/// How often a download that breaks off is taken up again.
const ATTEMPTS: usize = 4;

/// The most files with weights that are fetched.
const MAX_FILES: usize = 1024;

/// What can go wrong with fetching a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name is not that of a repository.
    #[error(
        "'{found}' is no name on a hub: expected OWNER/NAME or OWNER/NAME@REVISION, such as google/flan-t5-small"
    )]
    Name {
        /// What was given.
        found: String,
    },
    /// There is no place for the cache.
    #[error("there is no home folder to keep downloads in: set HF_HOME")]
    NoHome,
    /// The network may not be used, and the cache does not have the checkpoint.
    #[error(
        "'{name}' is not in the cache ({cache}), and downloads are switched off; run once without --offline"
    )]
    Offline {
        /// The repository.
        name: String,
        /// Where was looked.
        cache: String,
    },
    /// The hub does not answer as asked.
    #[error("cannot fetch {what} of '{name}': {reason}")]
    Fetch {
        /// What was asked for.
        what: String,
        /// The repository.
        name: String,
        /// What the hub or the network said.
        reason: String,
    },
    /// The repository has no weights that can be used.
    #[error(
        "'{name}' has no weights: expected model.safetensors, its index, pytorch_model.bin or one .pth; found {found}"
    )]
    NoWeights {
        /// The repository.
        name: String,
        /// Some of the files that it has.
        found: String,
    },
    /// A file arrived otherwise than announced.
    #[error("'{file}' of '{name}' arrived damaged: {problem}; it was removed, try again")]
    Damaged {
        /// The file.
        file: String,
        /// The repository.
        name: String,
        /// What does not match.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use '{path}': {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// A repository of a hub, and which revision of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    repository: String,
    revision: String,
}

impl HubName {
    /// Reads `OWNER/NAME` or `OWNER/NAME@REVISION`; without a revision it is `main`.
    ///
    /// # Errors
    /// [`HubError::Name`] where the text is neither.
    ///
    /// ```
    /// use multiway_model::hub::HubName;
    ///
    /// let name = HubName::parse("google/flan-t5-small@refs/pr/3")?;
    /// assert_eq!(name.to_string(), "google/flan-t5-small@refs/pr/3");
    /// assert!(HubName::parse("../weights").is_err());
    /// # Ok::<(), multiway_model::hub::HubError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let wrong = || HubError::Name {
            found: text.to_owned(),
        };
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = repository.split_once('/').ok_or_else(wrong)?;
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let is_revision = revision.split('/').all(is_part);
        if !(is_part(owner) && is_part(name) && is_revision) {
            return Err(wrong());
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
        })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone())
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download<'a> {
    /// The file.
    pub file: &'a str,
    /// How many bytes of it are there.
    pub done: u64,
    /// How many bytes it has.
    pub total: u64,
}

/// A hub and the cache of what came from it.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

impl Hub {
    /// Uses the hub and the cache that the environment names, as `huggingface_hub` does: `HF_ENDPOINT`, `HF_HUB_CACHE`,
    /// `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`HubError::NoHome`] where nothing says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || {
            let home = set("HF_HOME").map(PathBuf::from);
            home.or_else(|| Some(std::env::home_dir()?.join(".cache/huggingface")))
        };
        let cache = set("HF_HUB_CACHE").map(PathBuf::from);
        let cache = cache
            .or_else(|| Some(home()?.join("hub")))
            .ok_or(HubError::NoHome)?;
        let is_true = |value: String| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str());
        Ok(Self {
            token: set("HF_TOKEN").or_else(|| Cache::new(cache.clone()).token()),
            cache,
            endpoint: set("HF_ENDPOINT"),
            offline: set("HF_HUB_OFFLINE").is_some_and(is_true),
        })
    }

    /// Uses a hub at a given address, and a cache in a given folder, without a token.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: Some(endpoint.into()),
            token: None,
            offline: false,
        }
    }

    /// Uses what is in the cache only.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline |= offline;
        self
    }

    /// Makes sure that a checkpoint is in the cache, and returns its folder; `progress` is told of each part that comes.
    ///
    /// # Errors
    /// [`HubError`] where it is not there and cannot be fetched, or arrives damaged. Whole files that came stay, and so
    /// do parts of files, for the next time.
    pub fn fetch(&self, name: &HubName, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        if self.offline {
            let cached = Cache::new(self.cache.clone()).repo(name.repo());
            let mut marks = SMALL_FILES.into_iter().chain([WEIGHTS_FILE]);
            let file = marks.find_map(|file| cached.get(file));
            let folder = file.and_then(|file| Some(file.parent()?.to_owned()));
            return folder.ok_or_else(|| HubError::Offline {
                name: name.to_string(),
                cache: self.cache.display().to_string(),
            });
        }
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_token(self.token.clone())
            .with_progress(false)
            .with_user_agent("multiway", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder
            .build()
            .map_err(|error| fetch_error(name, "the address", &error))?;
        let fetching = Fetching {
            cache: Cache::new(self.cache.clone()),
            repo: api.repo(name.repo()),
            api,
            name,
        };
        fetching.all(progress)
    }
}

fn fetch_error(name: &HubName, what: &str, error: &ApiError) -> HubError {
    HubError::Fetch {
        what: what.to_owned(),
        name: name.to_string(),
        reason: error.to_string(),
    }
}

/// One repository being fetched.
struct Fetching<'a> {
    cache: Cache,
    api: Api,
    repo: ApiRepo,
    name: &'a HubName,
}

impl Fetching<'_> {
    fn all(&self, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let what = "the list of files";
        let info = self
            .repo
            .info()
            .map_err(|error| fetch_error(self.name, what, &error))?;
        let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let has = |file: &str| files.iter().any(|other| other == file);
        let mut folder = None;
        for file in SMALL_FILES.into_iter().filter(|file| has(file)) {
            folder = Some(self.file(file, progress)?);
        }
        let weights = self.weights(&files, progress)?;
        for file in &weights {
            folder = Some(self.file(file, progress)?);
        }
        let folder = folder.and_then(|file| Some(file.parent()?.to_owned()));
        folder.ok_or_else(|| self.no_weights(&files))
    }

    /// Chooses the files with weights.
    fn weights(&self, files: &[String], progress: &mut dyn FnMut(Download)) -> Result<Vec<String>, HubError> {
        let has = |file: &str| files.iter().any(|other| other == file);
        if has(WEIGHTS_FILE) {
            return Ok(vec![WEIGHTS_FILE.to_owned()]);
        }
        if has(INDEX_FILE) {
            let index = self.file(INDEX_FILE, progress)?;
            return self.shards(&index);
        }
        if has("pytorch_model.bin") {
            return Ok(vec!["pytorch_model.bin".to_owned()]);
        }
        let mut pth = files
            .iter()
            .filter(|file| file.ends_with(".pth") && is_plain_file_name(file));
        match (pth.next(), pth.next()) {
            (Some(only), None) => Ok(vec![only.clone()]),
            _ => Err(self.no_weights(files)),
        }
    }

    /// Lists the files that an index names.
    fn shards(&self, index: &Path) -> Result<Vec<String>, HubError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let damaged = |problem: String| HubError::Damaged {
            file: INDEX_FILE.to_owned(),
            name: self.name.to_string(),
            problem,
        };
        let bytes = fs::read(index).map_err(|source| io_error(index, source))?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut files: Vec<String> = index.weight_map.into_values().collect();
        files.sort();
        files.dedup();
        match files.iter().find(|file| !is_plain_file_name(file)) {
            Some(file) => Err(damaged(format!("it names '{file}', expected plain file names"))),
            None if files.len() > MAX_FILES => Err(damaged(format!("it names {} files", files.len()))),
            None => Ok(files),
        }
    }

    fn no_weights(&self, files: &[String]) -> HubError {
        let found: Vec<&str> = files.iter().take(8).map(String::as_str).collect();
        HubError::NoWeights {
            name: self.name.to_string(),
            found: if found.is_empty() {
                "no files".to_owned()
            } else {
                found.join(", ")
            },
        }
    }

    /// Fetches one file, unless it is there, and returns its path in the cache.
    fn file(&self, file: &str, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let url = self.repo.url(file);
        let metadata = self
            .api
            .metadata(&url)
            .map_err(|error| fetch_error(self.name, file, &error))?;
        let (etag, commit, size) = (
            metadata.etag().to_owned(),
            metadata.commit_hash().to_owned(),
            metadata.size(),
        );
        // They become names of files.
        let is_hash = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if !is_hash(&etag) || !is_hash(&commit) {
            return Err(HubError::Fetch {
                what: file.to_owned(),
                name: self.name.to_string(),
                reason: format!("the hub calls it '{etag}' of commit '{commit}', expected hashes"),
            });
        }
        let cached = self.cache.repo(self.name.repo());
        let pointer = cached.pointer_path(&commit).join(file);
        if pointer.exists() {
            cached
                .create_ref(&commit)
                .map_err(|source| io_error(&pointer, source))?;
            return Ok(pointer);
        }
        let blob = cached.blob_path(&etag);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let report = Report {
                file,
                done: 0,
                total: 0,
                tell: &mut *progress,
            };
            match self.repo.download_with_progress(file, report) {
                Ok(_) => {
                    return match check(&blob, size, &etag) {
                        Ok(None) => Ok(pointer),
                        Ok(Some(problem)) => {
                            // The pointer first: it must never lead nowhere.
                            let _ = fs::remove_file(&pointer);
                            let _ = fs::remove_file(&blob);
                            Err(HubError::Damaged {
                                file: file.to_owned(),
                                name: self.name.to_string(),
                                problem,
                            })
                        }
                        Err(source) => Err(io_error(&blob, source)),
                    };
                }
                Err(ApiError::InvalidResume) => {
                    // What lies there is not the beginning of this file.
                    let _ = fs::remove_file(blob.with_extension("part"));
                }
                Err(error @ (ApiError::RequestError(_) | ApiError::IoError(_))) => {
                    tracing::warn!(file, %error, "a download broke off");
                    last = Some(error);
                }
                Err(error) => return Err(fetch_error(self.name, file, &error)),
            }
        }
        Err(match last {
            Some(error) => fetch_error(self.name, file, &error),
            None => fetch_error(self.name, file, &ApiError::InvalidResume),
        })
    }
}

fn io_error(path: &Path, source: io::Error) -> HubError {
    HubError::Io {
        path: path.display().to_string(),
        source,
    }
}

/// Says what of a file that came does not match what was announced. The hub calls large files by their SHA-256.
fn check(path: &Path, size: usize, etag: &str) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    if found != size as u64 {
        return Ok(Some(format!("expected {size} bytes, found {found}")));
    }
    if etag.len() != 64 || !etag.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part)? {
            0 => break,
            bytes => hash.update(part.get(..bytes).unwrap_or_default()),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((found != etag).then(|| format!("expected the SHA-256 {etag}, found {found}")))
}

/// Passes progress on.
struct Report<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(Download),
}

impl Report<'_> {
    fn tell(&mut self) {
        (self.tell)(Download {
            file: self.file,
            done: self.done,
            total: self.total,
        });
    }
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
        self.tell();
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.tell();
    }

    fn finish(&mut self) {
        self.tell();
    }
}
