//! One commit of a repository on its way into the cache: which files, each checked, and where they go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hf_hub::CacheRepo;
use sha2::{Digest, Sha256};

use super::HubError;
use super::name::{Download, HubName, folder, is_hash};
use super::requests::{Announced, Fault, Requests};
use crate::checkpoint::{
    COMPANIONS, CONFIG_FILE, INDEX_FILE, PTH_FILE, PTH_INDEX_FILE, WEIGHTS_FILE, is_plain_file_name,
};

/// The most files with weights that are fetched.
const MAX_FILES: usize = 1024;

/// The files that weights are in, whole or with an index of their parts, the first choice first.
const WEIGHTS: [(&str, &str); 2] = [(WEIGHTS_FILE, INDEX_FILE), (PTH_FILE, PTH_INDEX_FILE)];

/// One commit of a repository being fetched.
pub(super) struct Fetching<'a> {
    pub(super) requests: Requests,
    /// The address that the names of files are put behind.
    pub(super) files_at: String,
    pub(super) cached: CacheRepo,
    pub(super) name: &'a HubName,
    pub(super) commit: String,
}

impl Fetching<'_> {
    pub(super) fn all(
        &self,
        files: &[String],
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, HubError> {
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
        for (whole, index) in WEIGHTS {
            if has(whole) {
                return Ok(vec![whole.to_owned()]);
            }
            if has(index) {
                self.file(index, progress)?;
                let path = self.cached.pointer_path(&self.commit).join(index);
                return shards(&path).map_err(|problem| self.damaged(index, problem));
            }
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
    /// What was checked is marked, beside the cache's own folders: what another tool fetched, or what was not
    /// checked to the end, is checked once.
    fn file(&self, file: &str, progress: &mut dyn FnMut(Download)) -> Result<(), HubError> {
        let url = format!("{}/{file}", self.files_at);
        let announced = self.requests.announced(&url);
        let Announced { etag, size } = announced.map_err(|fault| fault_error(self.name, file, &fault))?;
        if !is_hash(&etag) {
            return Err(wrong_name(self.name, file, &etag));
        }
        let folder = folder(&self.cached);
        let blob = folder.join("blobs").join(&etag);
        let pointer = self.cached.pointer_path(&self.commit).join(file);
        let mark = folder.join(CHECKED).join(&etag);
        if !blob.exists() {
            // It may have been removed since, by hand or by another tool: what comes now is not what was
            // checked.
            let _ = fs::remove_file(&mark);
            self.download(file, &url, size, &blob, progress)?;
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
            // It may lead to what is gone, under another name.
            let _ = fs::remove_file(&pointer);
            link(&blob, &pointer).map_err(|source| io_error(&pointer, source))?;
        }
        Ok(())
    }

    /// Downloads one file, and goes on where an earlier download stopped.
    fn download(
        &self,
        file: &str,
        url: &str,
        size: u64,
        blob: &Path,
        progress: &mut dyn FnMut(Download),
    ) -> Result<(), HubError> {
        let part = blob.with_extension("part");
        let at_part = |source| io_error(&part, source);
        if let Some(folder) = part.parent() {
            fs::create_dir_all(folder).map_err(at_part)?;
        }
        // One process writes a file at a time; the lock ends with this function.
        let lock = File::create(blob.with_extension("lock")).map_err(at_part)?;
        lock.lock().map_err(at_part)?;
        if blob.exists() {
            return Ok(());
        }
        let mut open = File::options();
        let mut to = open
            .create(true)
            .truncate(false)
            .write(true)
            .open(&part)
            .map_err(at_part)?;
        let found = to.metadata().map_err(at_part)?.len();
        if found > size {
            to.set_len(0).map_err(at_part)?;
        }
        // Else all of it came, and only its name is missing.
        if found != size {
            let mut tell = |done| {
                progress(Download {
                    file,
                    done,
                    total: size,
                });
            };
            match self.requests.download(url, size, &mut to, &mut tell) {
                Err(Fault::Disk(source)) => return Err(at_part(source)),
                Err(fault) => return Err(fault_error(self.name, file, &fault)),
                Ok(()) => {}
            }
        }
        fs::rename(&part, blob).map_err(|source| io_error(blob, source))
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
        match std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer) {
            // Another process that fetched the same was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }
    #[cfg(not(unix))]
    {
        fs::copy(blob, pointer).map(drop)
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> HubError {
    HubError::Io {
        path: path.display().to_string(),
        source,
    }
}

/// Says what of a file that came does not match what was announced. The hub calls large files by their
/// SHA-256.
fn check(path: &Path, size: u64, etag: &str) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    if found != size {
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

/// Says whether a folder has all the weights of a checkpoint.
pub(super) fn has_weights(folder: &Path) -> bool {
    let is_there = |file: &str| folder.join(file).exists();
    for (whole, index) in WEIGHTS {
        if is_there(whole) {
            return true;
        }
        if is_there(index) {
            let files = shards(&folder.join(index));
            return files.is_ok_and(|files| files.iter().all(|file| is_there(file)));
        }
    }
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_pth = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".pth");
    entries.filter(is_pth).count() == 1
}

/// Names a file of a checkpoint that a folder has as a link to nothing, or as the name of a part of its
/// weights alone.
pub(super) fn lacking(folder: &Path) -> Option<String> {
    let is_gone = |path: &PathBuf| path.is_symlink() && !path.exists();
    let weights = WEIGHTS.iter().flat_map(|(whole, index)| [*whole, *index]);
    let known = [CONFIG_FILE].into_iter().chain(COMPANIONS).chain(weights);
    let mut known = known.map(|file| folder.join(file));
    let gone = known.find(is_gone).or_else(|| {
        let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
        let is_pth = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "pth");
        entries
            .map(|entry| entry.path())
            .find(|path| is_pth(path) && is_gone(path))
    });
    let part = || {
        let is_there = |file: &&str| folder.join(file).exists();
        let (_, index) = WEIGHTS
            .iter()
            .find(|(_, index)| is_there(index))
            .filter(|(whole, _)| !is_there(whole))?;
        let parts = shards(&folder.join(index)).ok()?.into_iter();
        parts.map(|part| folder.join(part)).find(|part| !part.exists())
    };
    gone.or_else(part).map(|path| path.display().to_string())
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

pub(super) fn fault_error(name: &HubName, what: &str, fault: &Fault) -> HubError {
    if fault.is_refusal() {
        return HubError::NotFound {
            what: what.to_owned(),
            name: name.to_string(),
            reason: fault.to_string(),
        };
    }
    fetch_error(name, what, fault)
}

pub(super) fn fetch_error(name: &HubName, what: &str, reason: &dyn fmt::Display) -> HubError {
    HubError::Fetch {
        what: what.to_owned(),
        name: name.to_string(),
        reason: reason.to_string(),
    }
}

pub(super) fn wrong_name(name: &HubName, what: &str, found: &str) -> HubError {
    HubError::NotFound {
        what: what.to_owned(),
        name: name.to_string(),
        reason: format!("the hub calls it '{found}', expected a hash"),
    }
}
