//! Names of repositories, and of what is in the cache.

use std::fmt;
use std::path::PathBuf;

use hf_hub::{CacheRepo, Repo, RepoType};

use super::error::HubError;

/// A repository of a hub, and which revision of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    pub(super) repository: String,
    pub(super) revision: String,
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

    pub(super) fn repo(&self) -> Repo {
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

/// Finds the folder of a repository in the cache, two above any of its snapshots.
pub(super) fn folder(repo: &CacheRepo) -> PathBuf {
    let snapshot = repo.pointer_path("any");
    snapshot.ancestors().nth(2).unwrap_or(&snapshot).to_owned()
}

/// Says whether a text may become the name of a file: hashes do.
pub(super) fn is_hash(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
