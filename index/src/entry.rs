//! What stands beside a vector.

use std::fs::Metadata;
use std::time::UNIX_EPOCH;

use crate::error::{IndexError, Mismatch, mismatch};

/// The longest entry, in bytes as it is stored.
pub(crate) const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Bytes of an entry before its key.
const FIXED_BYTES: usize = 24;

/// The length that stands for no text.
const NO_TEXT: u32 = u32::MAX;

/// Names what a vector was made of, and the state of its file at that time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexEntry {
    /// A path relative to the indexed folder, or the id of a record.
    pub key: String,
    /// The size of the file in bytes; 0 for what is no file.
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; 0 where the file system does not say.
    pub modified_ns: u64,
    /// A text that belongs to it.
    pub text: Option<String>,
}

impl IndexEntry {
    /// Makes an entry of a key alone.
    ///
    /// # Examples
    /// ```
    /// let entry = multiway_index::IndexEntry::new("record-7");
    /// assert_eq!((entry.key.as_str(), entry.bytes), ("record-7", 0));
    /// ```
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            bytes: 0,
            modified_ns: 0,
            text: None,
        }
    }

    /// Makes an entry of a file as it is now.
    #[must_use]
    pub fn of_file(key: impl Into<String>, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            bytes: metadata.len(),
            modified_ns: modified
                .and_then(|time| u64::try_from(time.as_nanos()).ok())
                .unwrap_or_default(),
            ..Self::new(key)
        }
    }

    /// Stores the entry: size, time, the lengths of key and text, and these.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, IndexError> {
        let text = self.text.as_deref().unwrap_or_default();
        let length = FIXED_BYTES + self.key.len() + text.len();
        let lengths = u32::try_from(self.key.len())
            .ok()
            .zip(u32::try_from(text.len()).ok());
        let Some((key_length, text_length)) = lengths.filter(|_| length <= MAX_ENTRY_BYTES) else {
            return Err(IndexError::Limit {
                limit: format!("entries of at most {MAX_ENTRY_BYTES} bytes"),
                found: format!("one of {length}"),
            });
        };
        let text_length = self.text.as_ref().map_or(NO_TEXT, |_| text_length);
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.modified_ns.to_le_bytes());
        bytes.extend_from_slice(&key_length.to_le_bytes());
        bytes.extend_from_slice(&text_length.to_le_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(text.as_bytes());
        Ok(bytes)
    }

    /// Reads an entry.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Mismatch> {
        let cut = || {
            (
                "a whole entry".to_owned(),
                format!("one of {} bytes", bytes.len()),
            )
        };
        let (size, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        let (modified, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (key_length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (text_length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (key_length, text_length) = (u32::from_le_bytes(*key_length), u32::from_le_bytes(*text_length));
        let key_length = usize::try_from(key_length).map_err(|_| cut())?;
        let (key, text) = rest.split_at_checked(key_length).ok_or_else(cut)?;
        let expected = if text_length == NO_TEXT { 0 } else { text_length };
        if usize::try_from(expected) != Ok(text.len()) {
            return mismatch(
                format!("a text of {expected} bytes"),
                format!("{} bytes", text.len()),
            );
        }
        let utf8 = |bytes: &[u8]| {
            let read = str::from_utf8(bytes).map(str::to_owned);
            read.map_err(|error| ("an entry in UTF-8".to_owned(), error.to_string()))
        };
        Ok(Self {
            key: utf8(key)?,
            bytes: u64::from_le_bytes(*size),
            modified_ns: u64::from_le_bytes(*modified),
            text: (text_length != NO_TEXT).then(|| utf8(text)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = IndexEntry> {
        (
            any::<String>(),
            any::<u64>(),
            any::<u64>(),
            any::<Option<String>>(),
        )
            .prop_map(|(key, bytes, modified_ns, text)| IndexEntry {
                key,
                bytes,
                modified_ns,
                text,
            })
    }

    proptest! {
        #[test]
        fn an_entry_that_is_stored_and_read_is_the_same(entry in entries()) {
            let bytes = entry.encode().unwrap();
            prop_assert_eq!(IndexEntry::decode(&bytes).unwrap(), entry);
            for end in 0..bytes.len() {
                prop_assert!(IndexEntry::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_entry_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(entry) = IndexEntry::decode(&bytes) {
                prop_assert_eq!(entry.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn an_entry_that_is_too_long_is_refused() {
        let error = IndexEntry::new("x".repeat(MAX_ENTRY_BYTES)).encode().unwrap_err();
        insta::assert_snapshot!(error, @"an index has entries of at most 1048576 bytes, found one of 1048600");
    }
}
