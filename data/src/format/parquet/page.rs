//! A page: its header, and its bytes.

use std::io::{self, Read};

use flate2::Crc;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding};
use ruzstd::decoding::StreamingDecoder;

use super::thrift::{STRUCT, Thrift, ThriftError};

/// What a page is.
#[derive(Debug, Clone, Copy)]
pub(super) enum PageKind {
    Dictionary {
        values: u32,
        encoding: Encoding,
    },
    Data {
        values: u32,
        encoding: Encoding,
        definition: Encoding,
        repetition: Encoding,
    },
    DataV2 {
        values: u32,
        nulls: u32,
        rows: u32,
        encoding: Encoding,
        definition_bytes: u32,
        repetition_bytes: u32,
        is_compressed: bool,
    },
    /// Any other, which is passed over.
    Other,
}

/// The header of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageHeader {
    pub(super) kind: PageKind,
    /// The bytes of the page when it is decompressed.
    pub(super) size: usize,
    /// The bytes of the page in the file.
    pub(super) compressed: usize,
    checksum: Option<u32>,
    /// The bytes of the header itself.
    pub(super) header: usize,
}

impl PageHeader {
    /// Reads the header that `bytes` begin with.
    ///
    /// # Errors
    ///
    /// When the bytes end before the header does, or are none.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ThriftError> {
        let mut thrift = Thrift::new(bytes);
        let mut plain = [None; 5];
        let mut kinds = [None; 9];
        let mut id = 0;
        while let Some(field) = thrift.field(id)? {
            id = field.id;
            let place = usize::try_from(id).unwrap_or(usize::MAX);
            match (field.kind, plain.get_mut(place), kinds.get_mut(place)) {
                (4..=6, Some(plain), _) => *plain = Some(thrift.number()?),
                (STRUCT, _, Some(kind)) => *kind = Some(thrift.numbers()?),
                (kind, ..) => thrift.skip(kind)?,
            }
        }
        let [_, Some(number), Some(size), Some(compressed), checksum] = plain else {
            return Err(ThriftError::Wrong);
        };
        let [_, _, _, _, _, data, _, dictionary, data_v2] = kinds;
        let kind = match number {
            0 => data_kind(&data.ok_or(ThriftError::Wrong)?)?,
            2 => dictionary_kind(&dictionary.ok_or(ThriftError::Wrong)?)?,
            3 => data_v2_kind(&data_v2.ok_or(ThriftError::Wrong)?)?,
            _ => PageKind::Other,
        };
        let bytes_of = |number: i64| i32::try_from(number).and_then(usize::try_from);
        Ok(Self {
            kind,
            size: bytes_of(size).map_err(|_| ThriftError::Wrong)?,
            compressed: bytes_of(compressed).map_err(|_| ThriftError::Wrong)?,
            // Written as a signed number.
            checksum: checksum
                .and_then(|sum| i32::try_from(sum).ok())
                .map(i32::cast_unsigned),
            header: bytes.len() - thrift.left(),
        })
    }

    /// Returns the bytes of the page, decompressed.
    ///
    /// # Errors
    ///
    /// When the checksum is another, or the bytes do not decompress to the size of the header.
    pub(super) fn decompress(&self, bytes: Vec<u8>, codec: Compression) -> Result<Vec<u8>, String> {
        if let Some(expected) = self.checksum {
            let mut crc = Crc::new();
            crc.update(&bytes);
            if crc.sum() != expected {
                let found = crc.sum();
                return Err(format!("expected the checksum {expected:08x}, found {found:08x}"));
            }
        }
        // The levels of a page of the second version are never compressed.
        let (plain, is_compressed) = match self.kind {
            PageKind::DataV2 {
                definition_bytes,
                repetition_bytes,
                is_compressed,
                ..
            } => (
                u64::from(definition_bytes) + u64::from(repetition_bytes),
                is_compressed,
            ),
            _ => (0, true),
        };
        let split = usize::try_from(plain).unwrap_or(usize::MAX);
        let size = self.size.checked_sub(split);
        let (Some((levels, values)), Some(size)) = (bytes.split_at_checked(split), size) else {
            return Err("its levels are longer than the page".to_owned());
        };
        if codec == Compression::UNCOMPRESSED || !is_compressed {
            return sized(bytes, self.size);
        }
        if size == 0 {
            return Ok(levels.to_vec());
        }
        let values = decompressed(values, codec, size)?;
        Ok([levels, values.as_slice()].concat())
    }
}

fn encoding(number: Option<i64>) -> Result<Encoding, ThriftError> {
    Ok(match number.ok_or(ThriftError::Wrong)? {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        #[expect(deprecated, reason = "it is named in the message that refuses it")]
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return Err(ThriftError::Wrong),
    })
}

fn count(number: Option<i64>) -> Result<u32, ThriftError> {
    let number = number.ok_or(ThriftError::Wrong)?;
    let number = i32::try_from(number).map_err(|_| ThriftError::Wrong)?;
    u32::try_from(number).map_err(|_| ThriftError::Wrong)
}

fn data_kind(
    [_, values, coded, definition, repetition, ..]: &[Option<i64>; 10],
) -> Result<PageKind, ThriftError> {
    Ok(PageKind::Data {
        values: count(*values)?,
        encoding: encoding(*coded)?,
        definition: encoding(*definition)?,
        repetition: encoding(*repetition)?,
    })
}

fn dictionary_kind([_, values, coded, ..]: &[Option<i64>; 10]) -> Result<PageKind, ThriftError> {
    Ok(PageKind::Dictionary {
        values: count(*values)?,
        encoding: encoding(*coded)?,
    })
}

fn data_v2_kind(numbers: &[Option<i64>; 10]) -> Result<PageKind, ThriftError> {
    let [
        _,
        values,
        nulls,
        rows,
        coded,
        definition,
        repetition,
        compressed,
        ..,
    ] = *numbers;
    let (values, nulls) = (count(values)?, count(nulls)?);
    if nulls > values {
        return Err(ThriftError::Wrong);
    }
    Ok(PageKind::DataV2 {
        values,
        nulls,
        rows: count(rows)?,
        encoding: encoding(coded)?,
        definition_bytes: count(definition)?,
        repetition_bytes: count(repetition)?,
        is_compressed: compressed != Some(0),
    })
}

fn sized(bytes: Vec<u8>, size: usize) -> Result<Vec<u8>, String> {
    if bytes.len() == size {
        return Ok(bytes);
    }
    Err(format!("expected a page of {size} bytes, found {}", bytes.len()))
}

/// Decompresses to `size` bytes, and not to more, whatever the bytes are.
fn decompressed(bytes: &[u8], codec: Compression, size: usize) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn std::error::Error| format!("the page does not decompress: {error}");
    match codec {
        Compression::SNAPPY => {
            let declared = snap::raw::decompress_len(bytes).map_err(|error| wrong(&error))?;
            if declared != size {
                return Err(format!("expected a page of {size} bytes, found {declared}"));
            }
            let decompressed = snap::raw::Decoder::new().decompress_vec(bytes);
            decompressed.map_err(|error| wrong(&error))
        }
        Compression::LZ4_RAW => {
            let decompressed = lz4_flex::block::decompress(bytes, size).map_err(|error| wrong(&error))?;
            sized(decompressed, size)
        }
        Compression::GZIP(_) => read_sized(MultiGzDecoder::new(bytes), size).map_err(|error| wrong(&error)),
        Compression::ZSTD(_) => {
            let decoder = StreamingDecoder::new(bytes).map_err(|error| wrong(&error))?;
            read_sized(decoder, size).map_err(|error| wrong(&error))
        }
        // Refused when the file is opened.
        _ => Err(format!("the codec {codec} is not read")),
    }
}

/// Reads `size` bytes, and one more at most to see that there is none.
fn read_sized(decoder: impl Read, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(size as u64 + 1).read_to_end(&mut bytes)?;
    sized(bytes, size).map_err(io::Error::other)
}

/// Names a codec that is not read.
pub(super) fn refused(codec: Compression) -> Option<&'static str> {
    match codec {
        Compression::LZO => Some("LZO"),
        Compression::BROTLI(_) => Some("Brotli"),
        Compression::LZ4 => Some("LZ4 in the frames of Hadoop"),
        _ => None,
    }
}

/// Tells whether an encoding is not read: its decoder takes memory for numbers that cannot be checked before.
pub(super) fn is_refused(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::DELTA_BYTE_ARRAY | Encoding::ALP)
}
