//! Checkpoints from a model hub: fetched by name, kept in the cache that other tools share, checked before use.
//!
//! Files go where `huggingface_hub` puts them, so what was downloaded by any tool is not downloaded again. A download
//! that broke off goes on where it stopped. What arrives is compared with the length and, for weights, the SHA-256 that
//! the hub announces; what does not match is removed.
//!
//! Nothing here is called unless a checkpoint is asked for by its name on the hub.

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::checkpoint::{COMPANIONS, CONFIG_FILE, INDEX_FILE, PTH_FILE, WEIGHTS_FILE, is_plain_file_name};

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
    /// The hub does not have it, or does not give it to this caller.
    #[error("the hub has no {what} of '{name}', or does not let you have it: {reason}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The repository.
        name: String,
        /// What the hub said.
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
    pub fn only_cached(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Makes sure that a checkpoint is in the cache, and returns its folder; `progress` is told of each part that comes.
    ///
    /// Where the hub cannot be reached, what was fetched whole before is used.
    ///
    /// # Errors
    /// [`HubError`] where it is not there and cannot be fetched, or arrives damaged. Whole files that came stay, and so
    /// do parts of files, for the next time.
    pub fn fetch(&self, name: &HubName, progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let cached = || complete_snapshot(&Cache::new(self.cache.clone()), name);
        if self.offline {
            return cached().ok_or_else(|| HubError::Offline {
                name: name.to_string(),
                cache: self.cache.display().to_string(),
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
        let mut builder = ApiBuilder::from_cache(cache.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_user_agent("multiway", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder
            .build()
            .map_err(|error| fetch_error(name, "the address", &error))?;
        let info = api.repo(name.repo()).info();
        let info = info.map_err(|error| fetch_error(name, "the list of files", &error))?;
        if !is_hash(&info.sha) {
            return Err(wrong_name(name, "the list of files", &info.sha));
        }
        // All files are of one commit, whatever happens to the branch meanwhile.
        let commit = Repo::with_revision(name.repository.clone(), RepoType::Model, info.sha.clone());
        let fetching = Fetching {
            repo: api.repo(commit.clone()),
            cached: cache.repo(commit),
            api,
            name,
            commit: info.sha,
        };
        let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let folder = fetching.all(&files, progress)?;
        // The branch leads to the new commit only once all of it is there.
        let branch = cache.repo(name.repo());
        branch
            .create_ref(&fetching.commit)
            .map_err(|source| io_error(&folder, source))?;
        Ok(folder)
    }
}

/// Finds the folder of a checkpoint whose weights are all in the cache.
fn complete_snapshot(cache: &Cache, name: &HubName) -> Option<PathBuf> {
    let repo = cache.repo(name.repo());
    // Any name gives the place of a snapshot; a revision may be a branch or a commit.
    let snapshots = repo.pointer_path("any").parent()?.to_owned();
    let branch = snapshots.parent()?.join("refs").join(&name.revision);
    let commit = fs::read_to_string(branch).unwrap_or_else(|_| name.revision.clone());
    let commit = commit.trim();
    let folder = snapshots.join(commit);
    (is_hash(commit) && has_weights(&folder)).then_some(folder)
}

fn has_weights(folder: &Path) -> bool {
    let is_there = |file: &str| folder.join(file).exists();
    if is_there(WEIGHTS_FILE) {
        return true;
    }
    if is_there(INDEX_FILE) {
        let files = shards(&folder.join(INDEX_FILE));
        return files.is_ok_and(|files| files.iter().all(|file| is_there(file)));
    }
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_pth = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".pth");
    is_there(PTH_FILE) || entries.filter(is_pth).count() == 1
}

/// Lists the files that an index names; or says what is wrong with it.
fn shards(index: &Path) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = fs::read(index).map_err(|error| error.to_string())?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| !is_plain_file_name(file)) {
        Some(file) => Err(format!("it names '{file}', expected plain file names")),
        None if files.len() > MAX_FILES => Err(format!("it names {} files", files.len())),
        None => Ok(files.into_iter().collect()),
    }
}

/// Says whether a text may become the name of a file: hashes do.
fn is_hash(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn fetch_error(name: &HubName, what: &str, error: &ApiError) -> HubError {
    let reason = error.to_string();
    if ["status: 401", "status: 403", "status: 404"]
        .iter()
        .any(|status| reason.contains(status))
    {
        return HubError::NotFound {
            what: what.to_owned(),
            name: name.to_string(),
            reason,
        };
    }
    HubError::Fetch {
        what: what.to_owned(),
        name: name.to_string(),
        reason,
    }
}

fn wrong_name(name: &HubName, what: &str, found: &str) -> HubError {
    HubError::NotFound {
        what: what.to_owned(),
        name: name.to_string(),
        reason: format!("the hub calls it '{found}', expected a hash"),
    }
}

/// One commit of a repository being fetched.
struct Fetching<'a> {
    api: Api,
    repo: ApiRepo,
    cached: CacheRepo,
    name: &'a HubName,
    commit: String,
}

impl Fetching<'_> {
    fn all(&self, files: &[String], progress: &mut dyn FnMut(Download)) -> Result<PathBuf, HubError> {
        let has = |file: &str| files.iter().any(|other| other == file);
        for file in [CONFIG_FILE]
            .into_iter()
            .chain(COMPANIONS)
            .filter(|file| has(file))
        {
            self.file(file, progress)?;
        }
        for file in self.weights(files, progress)? {
            self.file(&file, progress)?;
        }
        Ok(self.cached.pointer_path(&self.commit))
    }

    /// Chooses the files with weights.
    fn weights(&self, files: &[String], progress: &mut dyn FnMut(Download)) -> Result<Vec<String>, HubError> {
        let has = |file: &str| files.iter().any(|other| other == file);
        if has(WEIGHTS_FILE) {
            return Ok(vec![WEIGHTS_FILE.to_owned()]);
        }
        if has(INDEX_FILE) {
            self.file(INDEX_FILE, progress)?;
            let index = self.cached.pointer_path(&self.commit).join(INDEX_FILE);
            return shards(&index).map_err(|problem| self.damaged(INDEX_FILE, problem));
        }
        if has(PTH_FILE) {
            return Ok(vec![PTH_FILE.to_owned()]);
        }
        let mut pth = files
            .iter()
            .filter(|file| file.ends_with(".pth") && is_plain_file_name(file));
        if let (Some(only), None) = (pth.next(), pth.next()) {
            return Ok(vec![only.clone()]);
        }
        let found: Vec<&str> = files.iter().take(8).map(String::as_str).collect();
        Err(HubError::NoWeights {
            name: self.name.to_string(),
            found: if found.is_empty() {
                "no files".to_owned()
            } else {
                found.join(", ")
            },
        })
    }

    fn damaged(&self, file: &str, problem: String) -> HubError {
        HubError::Damaged {
            file: file.to_owned(),
            name: self.name.to_string(),
            problem,
        }
    }

    /// Fetches one file, unless it is there.
    ///
    /// What was checked is marked, beside the cache's own folders: what another tool fetched, or what was not checked
    /// to the end, is checked once.
    fn file(&self, file: &str, progress: &mut dyn FnMut(Download)) -> Result<(), HubError> {
        let url = self.repo.url(file);
        let metadata = self
            .api
            .metadata(&url)
            .map_err(|error| fetch_error(self.name, file, &error))?;
        let (etag, size) = (metadata.etag().to_owned(), metadata.size());
        if !is_hash(&etag) {
            return Err(wrong_name(self.name, file, &etag));
        }
        let blob = self.cached.blob_path(&etag);
        let pointer = self.cached.pointer_path(&self.commit).join(file);
        let mark = blob
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join(CHECKED).join(&etag));
        let mark = mark.unwrap_or_else(|| blob.with_extension("checked"));
        if !blob.exists() {
            self.download(file, size, &blob, progress)?;
        }
        if !mark.exists() {
            let problem = check(&blob, size, &etag).map_err(|source| io_error(&blob, source))?;
            if let Some(problem) = problem {
                // The pointer first: it must never lead nowhere.
                let _ = fs::remove_file(&pointer);
                let _ = fs::remove_file(&blob);
                return Err(self.damaged(file, problem));
            }
            write_mark(&mark).map_err(|source| io_error(&mark, source))?;
        }
        if !pointer.exists() {
            link(&blob, &pointer).map_err(|source| io_error(&pointer, source))?;
        }
        Ok(())
    }

    /// Downloads one file, and goes on where an earlier download stopped.
    fn download(
        &self,
        file: &str,
        size: usize,
        blob: &Path,
        progress: &mut dyn FnMut(Download),
    ) -> Result<(), HubError> {
        let part = blob.with_extension("part");
        match fs::metadata(&part) {
            // All of it came, and only its name is missing.
            Ok(found) if found.len() == size as u64 => {
                return fs::rename(&part, blob).map_err(|source| io_error(blob, source));
            }
            Ok(found) if found.len() > size as u64 => {
                fs::remove_file(&part).map_err(|source| io_error(&part, source))?;
            }
            _ => {}
        }
        let mut last = ApiError::InvalidResume;
        for _ in 0..ATTEMPTS {
            let report = Report {
                file,
                done: 0,
                total: 0,
                tell: &mut *progress,
            };
            match self.repo.download_with_progress(file, report) {
                Ok(_) => return Ok(()),
                Err(ApiError::InvalidResume) => {
                    // What lies there is not the beginning of this file.
                    let _ = fs::remove_file(&part);
                }
                Err(error @ (ApiError::RequestError(_) | ApiError::IoError(_))) => {
                    tracing::warn!(file, %error, "a download broke off");
                    last = error;
                }
                Err(error) => return Err(fetch_error(self.name, file, &error)),
            }
        }
        Err(fetch_error(self.name, file, &last))
    }
}

/// The folder, beside `blobs` and `snapshots`, with a name for each blob that was checked.
const CHECKED: &str = "multiway-checked";

fn write_mark(mark: &Path) -> io::Result<()> {
    if let Some(folder) = mark.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(mark, b"")
}

/// Makes a file of a snapshot of a blob, as other tools do: a link where the system has links, else a copy.
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer)
    }
    #[cfg(not(unix))]
    {
        fs::copy(blob, pointer).map(drop)
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
