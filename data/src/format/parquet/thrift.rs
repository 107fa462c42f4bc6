//! Thrift's compact protocol, as far as sizes are checked in it before memory is allocated.
//!
//! Source: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// How deep structs may be in each other.
const MAX_DEPTH: usize = 32;

/// The kinds of values that are told apart; all others are passed over by their size.
pub(super) const STRUCT: u8 = 12;
pub(super) const LIST: u8 = 9;

/// Reports why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ThriftError {
    /// They end too early.
    End,
    /// They are no values of the protocol.
    Wrong,
}

/// Reads values one after the other.
pub(super) struct Thrift<'a> {
    rest: &'a [u8],
}

/// The number and the kind of a struct's field.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldHeader {
    pub(super) id: i16,
    pub(super) kind: u8,
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Counts the bytes that are not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn byte(&mut self) -> Result<u8, ThriftError> {
        let (byte, rest) = self.rest.split_first().ok_or(ThriftError::End)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), ThriftError> {
        let bytes = usize::try_from(bytes).map_err(|_| ThriftError::End)?;
        self.rest = self.rest.get(bytes..).ok_or(ThriftError::End)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Wrong)
    }

    /// Reads a number of 16, 32 or 64 bits.
    pub(super) fn number(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Reads the beginning of a list: the kind of its items, and how many there are.
    pub(super) fn list(&mut self) -> Result<(u8, u64), ThriftError> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((header & 15, count))
    }

    /// Reads the beginning of a struct's next field. `id` is the field before, 0 at first.
    pub(super) fn field(&mut self, id: i16) -> Result<Option<FieldHeader>, ThriftError> {
        let header = self.byte()?;
        if header == 0 {
            return Ok(None);
        }
        let id = match header >> 4 {
            0 => i16::try_from(self.number()?).map_err(|_| ThriftError::Wrong)?,
            step => id.checked_add(i16::from(step)).ok_or(ThriftError::Wrong)?,
        };
        let kind = header & 15;
        Ok(Some(FieldHeader { id, kind }))
    }

    /// Passes over the value of a field.
    pub(super) fn skip(&mut self, kind: u8) -> Result<(), ThriftError> {
        self.skip_at(kind, 0)
    }

    fn skip_at(&mut self, kind: u8, depth: usize) -> Result<(), ThriftError> {
        if depth > MAX_DEPTH {
            return Err(ThriftError::Wrong);
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (kind, count) = self.list()?;
                self.skip_items(&[kind], count, depth)
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.skip_items(&[kinds >> 4, kinds & 15], count, depth)
            }
            STRUCT => {
                let mut id = 0;
                while let Some(field) = self.field(id)? {
                    id = field.id;
                    self.skip_at(field.kind, depth + 1)?;
                }
                Ok(())
            }
            13 => self.pass(16),
            _ => Err(ThriftError::Wrong),
        }
    }

    /// Passes over the items of a list; each takes a byte at least, so that the bytes bound the loop.
    fn skip_items(&mut self, kinds: &[u8], count: u64, depth: usize) -> Result<(), ThriftError> {
        for _ in 0..count {
            for kind in kinds {
                match kind {
                    1 | 2 => self.pass(1)?,
                    kind => self.skip_at(*kind, depth + 1)?,
                }
            }
        }
        Ok(())
    }

    /// Reads the numbers of a struct whose fields are numbered from 1 to 9, and passes over all else.
    pub(super) fn numbers(&mut self) -> Result<[Option<i64>; 10], ThriftError> {
        let mut numbers = [None; 10];
        let mut id = 0;
        while let Some(field) = self.field(id)? {
            id = field.id;
            let value = match field.kind {
                1 => Some(1),
                2 => Some(0),
                3 => Some(i64::from(self.byte()?)),
                4..=6 => Some(self.number()?),
                kind => {
                    self.skip_at(kind, 1)?;
                    None
                }
            };
            let place = usize::try_from(id).ok().and_then(|id| numbers.get_mut(id));
            if let Some(place) = place {
                *place = value;
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_struct_are_read_and_all_else_is_passed_over() {
        // 1: i32 -3, 2: binary "ab", 3: list of 2 i32, 5: true, 8: struct {1: i8 7}, 9: i64 300.
        let bytes = [
            0x15, 5, 0x18, 2, b'a', b'b', 0x19, 0x25, 2, 4, 0x21, 0x3c, 0x13, 7, 0, 0x16, 0xd8, 4, 0, 99,
        ];
        let mut thrift = Thrift::new(&bytes);
        let numbers = thrift.numbers().unwrap();
        assert_eq!(numbers[1], Some(-3));
        assert_eq!((numbers[2], numbers[3], numbers[8]), (None, None, None));
        assert_eq!((numbers[5], numbers[9]), (Some(1), Some(300)));
        assert_eq!(thrift.left(), 1);
        for end in 0..bytes.len() - 1 {
            assert_eq!(
                Thrift::new(&bytes[..end]).numbers().unwrap_err(),
                ThriftError::End
            );
        }
    }

    #[test]
    fn structs_that_never_end_and_lists_of_nothing_are_refused() {
        assert_eq!(
            Thrift::new(&[0x1c; 1000]).skip(STRUCT).unwrap_err(),
            ThriftError::Wrong
        );
        // A list of 2^62 booleans.
        let mut bytes = vec![0xf1];
        bytes.extend([0x80; 8]);
        bytes.push(0x40);
        assert_eq!(Thrift::new(&bytes).skip(LIST).unwrap_err(), ThriftError::End);
    }
}
