//! Looks at a pickle before candle's reader does, which copies what it remembers and believes what it is told of lengths.
//!
//! Every operation is followed with the size and depth of each object instead of the object, so that a pickle that would
//! need much memory, or that names functions that no checkpoint has, is refused before anything is built.
//!
//! Source: Python's `Lib/pickletools.py` for the operations; those that `torch.save` writes are known here.

use std::collections::HashMap;

use super::error::{PthError, shown};

/// The most objects that may be made, copies included: as many for each byte of the pickle, but no more in all. Those of
/// PyTorch's files make less than one a byte.
const OBJECTS_A_BYTE: u64 = 4;
const OBJECT_LIMIT: u64 = 1 << 21;

/// The longest name of a module or class, in bytes.
const NAME_LIMIT: usize = 256;

/// The deepest nesting; PyTorch's files have fewer than ten levels.
const DEPTH_LIMIT: u32 = 64;

/// The modules whose names a checkpoint may mention. Nothing of them is ever called.
const MODULES: [&str; 7] = [
    "torch",
    "torch._utils",
    "torch._tensor",
    "torch.nn.parameter",
    "collections",
    "argparse",
    "numpy",
];

/// What an object costs.
#[derive(Clone, Copy)]
struct Cost {
    objects: u64,
    depth: u32,
}

impl Cost {
    const LEAF: Self = Self { objects: 1, depth: 1 };

    /// The cost of an object that holds others.
    fn around(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::LEAF, |whole, part| Self {
            objects: whole.objects.saturating_add(part.objects),
            depth: whole.depth.max(part.depth + 1),
        })
    }
}

struct Scan<'a> {
    rest: &'a [u8],
    length: usize,
    /// None is a mark.
    stack: Vec<Option<Cost>>,
    memo: HashMap<u32, Cost>,
    made: u64,
}

/// Checks a whole pickle.
pub(super) fn scan(pickle: &[u8]) -> Result<(), PthError> {
    let mut scan = Scan {
        rest: pickle,
        length: pickle.len(),
        stack: Vec::new(),
        memo: HashMap::new(),
        made: 0,
    };
    while scan.step()? {}
    Ok(())
}

impl Scan<'_> {
    /// Follows one operation; tells whether there are more.
    fn step(&mut self) -> Result<bool, PthError> {
        let place = self.length - self.rest.len();
        match self.byte()? {
            0x80 => drop(self.take(1)?),
            b'c' => {
                self.global()?;
                self.push(Cost::LEAF)?;
            }
            b')' | b'}' | b']' | b'd' | b'N' | 0x88 | 0x89 => self.push(Cost::LEAF)?,
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => self.number(4)?,
            b'G' => self.number(8)?,
            0x8a => {
                let bytes = self.byte()?;
                // Candle's reader takes no longer ones.
                self.number(usize::from(bytes).min(9))?;
                if bytes > 8 {
                    return Err(PthError::Operation { place, code: 0x8a });
                }
            }
            b'X' => {
                let bytes = self.word()? as usize;
                self.take(bytes)?;
                let objects = 1 + bytes as u64 / 64;
                self.push(Cost { objects, depth: 1 })?;
            }
            b'(' => {
                self.count(1)?;
                self.stack.push(None);
            }
            b't' => self.wrap_to_mark()?,
            0x85 | b'Q' => self.wrap(1)?,
            0x86 | b'R' | b'b' | 0x81 => self.wrap(2)?,
            0x87 => self.wrap(3)?,
            b'a' => self.add(1)?,
            b's' => self.add(2)?,
            b'e' | b'u' => self.add_to_mark()?,
            b'q' => {
                let key = self.byte()?;
                self.remember(u32::from(key))?;
            }
            b'r' => {
                let key = self.word()?;
                self.remember(key)?;
            }
            b'h' => {
                let key = self.byte()?;
                self.recall(u32::from(key))?;
            }
            b'j' => {
                let key = self.word()?;
                self.recall(key)?;
            }
            b'.' => return Ok(false),
            code => return Err(PthError::Operation { place, code }),
        }
        Ok(true)
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], PthError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(PthError::PickleEnds)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PthError> {
        self.take(1)?.first().copied().ok_or(PthError::PickleEnds)
    }

    fn word(&mut self) -> Result<u32, PthError> {
        let bytes = self.take(4)?.first_chunk().copied().ok_or(PthError::PickleEnds)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn line(&mut self) -> Result<String, PthError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(PthError::PickleEnds)?;
        if end > NAME_LIMIT {
            return Err(PthError::PickleCost);
        }
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(line).trim_end().to_owned())
    }

    fn global(&mut self) -> Result<(), PthError> {
        let (module, name) = (self.line()?, self.line()?);
        let root = module.split('.').next().unwrap_or_default();
        if MODULES.contains(&module.as_str()) || root == "numpy" {
            return Ok(());
        }
        Err(PthError::Global {
            found: shown(&format!("{module}.{name}")),
        })
    }

    fn number(&mut self, bytes: usize) -> Result<(), PthError> {
        self.take(bytes)?;
        self.push(Cost::LEAF)
    }

    fn push(&mut self, cost: Cost) -> Result<(), PthError> {
        self.count(cost.objects)?;
        if cost.depth > DEPTH_LIMIT {
            return Err(PthError::PickleCost);
        }
        self.stack.push(Some(cost));
        Ok(())
    }

    fn count(&mut self, objects: u64) -> Result<(), PthError> {
        self.made = self.made.saturating_add(objects);
        if self.made > OBJECT_LIMIT.min(OBJECTS_A_BYTE.saturating_mul(self.length as u64)) {
            return Err(PthError::PickleCost);
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Cost, PthError> {
        self.stack.pop().flatten().ok_or(PthError::PickleStack)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Cost>, PthError> {
        (0..count).map(|_| self.pop()).collect()
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Cost>, PthError> {
        let mark = self.stack.iter().rposition(Option::is_none);
        let parts = self.stack.split_off(mark.ok_or(PthError::PickleStack)?);
        Ok(parts.into_iter().flatten().collect())
    }

    fn wrap(&mut self, count: usize) -> Result<(), PthError> {
        let parts = self.pop_many(count)?;
        self.push(Cost::around(parts))
    }

    fn wrap_to_mark(&mut self) -> Result<(), PthError> {
        let parts = self.pop_to_mark()?;
        self.push(Cost::around(parts))
    }

    fn add(&mut self, count: usize) -> Result<(), PthError> {
        let parts = self.pop_many(count)?;
        let whole = self.pop()?;
        self.push(grown(whole, &parts))
    }

    fn add_to_mark(&mut self) -> Result<(), PthError> {
        let parts = self.pop_to_mark()?;
        let whole = self.pop()?;
        self.push(grown(whole, &parts))
    }

    /// Candle's reader copies what it remembers.
    fn remember(&mut self, key: u32) -> Result<(), PthError> {
        let cost = self.pop()?;
        self.push(cost)?;
        self.memo.insert(key, cost);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PthError> {
        let cost = self.memo.get(&key).copied().ok_or(PthError::PickleStack)?;
        self.push(cost)
    }
}

/// The cost of a container that has got more parts.
fn grown(whole: Cost, parts: &[Cost]) -> Cost {
    let added = Cost::around(parts.iter().copied());
    Cost {
        objects: whole.objects.saturating_add(added.objects - 1),
        depth: whole.depth.max(added.depth),
    }
}
