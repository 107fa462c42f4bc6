//! A tar in the layout of WebDataset: members with the same name up to the first dot of the file's name are
//! one record.
//!
//! A `.json` member is the fields of the record, a picture the field `image` (a second one has the name of
//! its extension), and any other member a text named by its extension.

use std::io::{self, Read};

use indexmap::IndexMap;
use tar::{Archive, EntryType};

use super::folder::is_picture;
use super::jsonl::object;
use crate::limited::{Budget, Limited, most_values};
use crate::record::{Field, Picture};
use crate::row::{Row, Rows};

/// How many members a record may have.
const MAX_MEMBERS: usize = 64;

/// The most bytes of a member's headers: long names and extended attributes are read whole.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// A member of the tar: its name, and its bytes or what is wrong with it.
struct Member {
    name: String,
    bytes: Result<Vec<u8>, String>,
}

/// Members of one key.
#[derive(Default)]
struct Group {
    members: Vec<Member>,
    bytes: u64,
    /// Why the record is not read, whatever its other members are.
    problem: Option<String>,
}

impl Group {
    fn takes(&self, member: &Member) -> bool {
        self.members
            .first()
            .is_none_or(|first| key(&first.name) == key(&member.name))
    }

    /// Adds a member, unless the record is too large with it.
    fn add(&mut self, member: Member, limit: u64) {
        self.bytes += member.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.members.len() == MAX_MEMBERS {
            self.problem = Some(format!("a record has more than {MAX_MEMBERS} members"));
        } else if self.bytes > limit {
            self.problem = Some(format!("a record has more than {limit} bytes"));
        } else {
            self.members.push(member);
        }
    }

    fn row(self, limit: u64) -> Row {
        match self.problem {
            Some(problem) => Row::Corrupt(problem),
            None => record(self.members, most_values(limit)),
        }
    }
}

pub(super) fn rows(bytes: Box<dyn Read + Send>, limit: u64) -> Rows {
    let mut members = Members::new(bytes, limit);
    let mut ahead: Option<Member> = None;
    let mut is_over = false;
    Box::new(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let mut group = Group::default();
        if let Some(member) = ahead.take() {
            group.add(member, limit);
        }
        loop {
            match members.next() {
                Ok(Some(member)) if group.takes(&member) => group.add(member, limit),
                Ok(Some(member)) => {
                    ahead = Some(member);
                    return Some(group.row(limit));
                }
                Ok(None) => {
                    is_over = true;
                    return (!group.members.is_empty()).then(|| group.row(limit));
                }
                // Whether the record before the damage is whole cannot be known.
                Err(error) => {
                    is_over = true;
                    return Some(Row::Broken(error.to_string()));
                }
            }
        }
    }))
}

/// Reads the members of a tar one after the other.
struct Members {
    bytes: Limited<Box<dyn Read + Send>>,
    budget: Budget,
    limit: u64,
}

impl Members {
    fn new(bytes: Box<dyn Read + Send>, limit: u64) -> Self {
        let budget = Budget::new(MAX_HEADER_BYTES);
        Self {
            bytes: Limited::new(bytes, budget.clone()),
            budget,
            limit,
        }
    }

    /// Reads the next member that is a file.
    ///
    /// Each member is read by an archive of its own, which starts where the one before has ended: so the
    /// reader can be kept beside what it reads.
    fn next(&mut self) -> io::Result<Option<Member>> {
        loop {
            self.budget.refill();
            let mut archive = Archive::new(&mut self.bytes);
            let Some(entry) = archive.entries()?.next() else {
                return Ok(None);
            };
            let mut entry = entry?;
            let size = entry.size();
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_gnu_sparse() {
                let message = format!("'{name}' is a sparse member, which are not read");
                return Err(io::Error::other(message));
            }
            let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
            let padding = (512 - size % 512) % 512;
            self.budget.grant(size.saturating_add(padding));
            let bytes = if is_file && size <= self.limit {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                if content.len() as u64 != size {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                Ok(content)
            } else {
                io::copy(&mut entry, &mut io::sink())?;
                Err(format!(
                    "it has {size} bytes, and at most {} are read",
                    self.limit
                ))
            };
            io::copy(&mut archive.into_inner().take(padding), &mut io::sink())?;
            if is_file && !name.ends_with('/') {
                return Ok(Some(Member { name, bytes }));
            }
        }
    }
}

/// Returns what names the record of a member.
fn key(name: &str) -> &str {
    split(name).0
}

/// Splits the name of a member at the first dot of the file's name.
fn split(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name.get(start..).and_then(|file| file.find('.'));
    match dot {
        Some(dot) => (
            name.get(..start + dot).unwrap_or(name),
            name.get(start + dot + 1..).unwrap_or_default(),
        ),
        None => (name, ""),
    }
}

/// Makes members a record, which may have `values` values.
fn record(group: Vec<Member>, mut values: usize) -> Row {
    let id = group.first().map(|member| key(&member.name).to_owned());
    let mut fields = IndexMap::new();
    for member in group {
        let (_, extension) = split(&member.name);
        let bytes = match member.bytes {
            Ok(bytes) => bytes,
            Err(reason) => return Row::Corrupt(format!("'{}': {reason}", member.name)),
        };
        if extension == "json" {
            match object(&bytes, &mut values) {
                Ok(more) => fields.extend(more),
                Err(reason) => return Row::Corrupt(format!("'{}': {reason}", member.name)),
            }
        } else if is_picture(extension) {
            let name = if fields.contains_key("image") {
                extension
            } else {
                "image"
            };
            let picture = Picture::of_bytes(member.name.clone(), &bytes);
            fields.insert(name.to_owned(), Field::Picture(picture));
        } else {
            let Ok(text) = String::from_utf8(bytes) else {
                return Row::Corrupt(format!("'{}' is no JSON, picture or UTF-8 text", member.name));
            };
            fields.insert(extension.to_owned(), Field::Value(text.trim_end().into()));
        }
    }
    Row::Fields(id, fields)
}
