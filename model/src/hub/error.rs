//! What can go wrong with a hub, in words for the person who asked for a checkpoint by its name.

use std::io;

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
    /// The network may not be used, and a file of the checkpoint is in the cache by its name alone.
    #[error(
        "'{name}' is in the cache without {file}: what that is a link to is gone or was never fetched, and downloads are switched off; run once without --offline"
    )]
    Incomplete {
        /// The repository.
        name: String,
        /// The file, with its folder.
        file: String,
    },
    /// The hub does not answer as asked.
    #[error("cannot fetch {what} of '{name}': {reason}")]
    Fetch {
        /// The requested file or list.
        what: String,
        /// The repository.
        name: String,
        /// What the hub or the network said.
        reason: String,
    },
    /// The hub does not have it, or does not give it to this caller.
    #[error("the hub has no {what} of '{name}', or does not let you have it: {reason}")]
    NotFound {
        /// The requested file or list.
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
