//! Reads what a pickle describes, and makes none of it: functions and classes stay names, and nothing is
//! called.
//!
//! Objects lie side by side in one list and refer to each other by their places in it. What a pickle
//! remembers and recalls is therefore never copied, so that memory grows with the length of the pickle alone,
//! and nothing recurses.
//!
//! Source: Python's `Lib/pickletools.py`; all operations that protocols 2 to 5 write, of which `torch.save`
//! uses the second.

use std::collections::HashMap;

use super::error::{PthError, shown};

/// The most objects that may be pushed. Those of PyTorch's files push less than one for each byte.
const PUSH_LIMIT: usize = 1 << 21;

/// The longest name of a module or class, in bytes.
const NAME_LIMIT: usize = 256;

/// Modules through which a pickle that Python loads can reach beyond data. No checkpoint has a use for them.
const HARMFUL: [&str; 49] = [
    "_io",
    "_operator",
    "_pickle",
    "_thread",
    "asyncio",
    "atexit",
    "bdb",
    "cProfile",
    "cffi",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "distutils",
    "ensurepip",
    "ftplib",
    "gc",
    "http",
    "idlelib",
    "imp",
    "importlib",
    "inspect",
    "io",
    "marshal",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "platform",
    "posix",
    "profile",
    "pty",
    "pydoc",
    "runpy",
    "setuptools",
    "shutil",
    "signal",
    "site",
    "smtplib",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "timeit",
    "trace",
    "webbrowser",
];

/// What Python's built-in names and its module of types have that holds data; the rest of them can do harm.
const HARMLESS: [&str; 14] = [
    "SimpleNamespace",
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "set",
    "slice",
    "tuple",
];

/// The place of an object in the list of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(usize);

/// An object as far as weights are described with it.
#[derive(Debug)]
enum Node<'a> {
    Text(&'a str),
    Int(i64),
    /// A function or class.
    Class {
        module: &'a str,
        name: &'a str,
    },
    Tuple(Vec<Id>),
    Table(Vec<(Id, Id)>),
    /// A function or class with its arguments.
    Call(Id, Id),
    /// What lies elsewhere in the file, by its name.
    Elsewhere(Id),
    /// A fraction, bytes, a list or anything else.
    Other,
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, PthError> {
        let mut reader = Reader {
            rest: bytes,
            length: bytes.len(),
            nodes: Vec::new(),
            stack: Vec::new(),
            memo: HashMap::new(),
            pushed: 0,
        };
        while reader.step()? {}
        let root = reader.pop()?;
        Ok(Self {
            nodes: reader.nodes,
            root,
        })
    }

    /// Returns the object that the pickle is about.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    fn node(&self, id: Id) -> Option<&Node<'a>> {
        self.nodes.get(id.0)
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.node(id)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a number that counts something.
    pub(super) fn count(&self, id: Id) -> Option<usize> {
        match self.node(id)? {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Returns the module and the name of a function or class.
    pub(super) fn class(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match self.node(id)? {
            Node::Class { module, name } => Some((module, name)),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.node(id)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn table(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id)? {
            Node::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// Returns a function with its arguments.
    pub(super) fn call(&self, id: Id) -> Option<((&'a str, &'a str), &[Id])> {
        match self.node(id)? {
            Node::Call(function, arguments) => Some((self.class(*function)?, self.tuple(*arguments)?)),
            _ => None,
        }
    }

    /// Returns the name of what lies elsewhere in the file.
    pub(super) fn elsewhere(&self, id: Id) -> Option<Id> {
        match self.node(id)? {
            Node::Elsewhere(name) => Some(*name),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
    nodes: Vec<Node<'a>>,
    /// None is a mark.
    stack: Vec<Option<Id>>,
    memo: HashMap<u32, Id>,
    pushed: usize,
}

impl<'a> Reader<'a> {
    /// Follows one operation; tells whether there are more.
    fn step(&mut self) -> Result<bool, PthError> {
        let place = self.length - self.rest.len();
        let code = self.byte()?;
        match code {
            b'.' => return Ok(false),
            // Its protocol, and how long the next part of it is.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.push_entry(None)?,
            b'0' => drop(self.stack.pop().ok_or(PthError::PickleStack)?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_entry(Some(top))?;
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember_or_recall(code)?,
            b'N' | 0x88 | 0x89 | b']' | 0x8f => self.push(Node::Other)?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Other)?;
            }
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.number(code)?,
            b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.text(code)?,
            b'c' | 0x93 => self.class(code)?,
            b')' | b't' | 0x85..=0x87 => self.tuple(code)?,
            b'}' | b'd' | b's' | b'u' => self.table(code, place)?,
            b'a' | b'e' | b'l' | 0x90 | 0x91 => self.items(code, place)?,
            b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.call(code)?,
            code => return Err(PthError::Operation { place, code }),
        }
        Ok(true)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], PthError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(PthError::PickleEnds)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PthError> {
        self.take(1)?.first().copied().ok_or(PthError::PickleEnds)
    }

    /// Reads up to eight bytes as a little-endian number without sign.
    fn word(&mut self, bytes: usize) -> Result<u64, PthError> {
        let bytes = self.take(bytes)?.iter().rev();
        Ok(bytes.fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, PthError> {
        usize::try_from(self.word(bytes)?).map_err(|_| PthError::PickleEnds)
    }

    fn line(&mut self) -> Result<&'a [u8], PthError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or(PthError::PickleEnds)?)?;
        self.take(1)?;
        Ok(line)
    }

    fn push_entry(&mut self, entry: Option<Id>) -> Result<(), PthError> {
        self.pushed += 1;
        if self.pushed > PUSH_LIMIT {
            return Err(PthError::PickleCost);
        }
        self.stack.push(entry);
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), PthError> {
        let id = Id(self.nodes.len());
        self.push_entry(Some(id))?;
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PthError> {
        self.stack.pop().flatten().ok_or(PthError::PickleStack)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, PthError> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PthError> {
        let mark = self.stack.iter().rposition(Option::is_none);
        let items = self.stack.split_off(mark.ok_or(PthError::PickleStack)?);
        Ok(items.into_iter().flatten().collect())
    }

    fn top(&self) -> Result<Id, PthError> {
        self.stack.last().copied().flatten().ok_or(PthError::PickleStack)
    }

    fn remember_or_recall(&mut self, code: u8) -> Result<(), PthError> {
        let key = match code {
            b'q' | b'h' => self.word(1)?,
            b'r' | b'j' => self.word(4)?,
            _ => self.memo.len() as u64,
        };
        let key = u32::try_from(key).map_err(|_| PthError::PickleStack)?;
        if matches!(code, b'h' | b'j') {
            let known = self.memo.get(&key).copied().ok_or(PthError::PickleStack)?;
            return self.push_entry(Some(known));
        }
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn number(&mut self, code: u8) -> Result<(), PthError> {
        let bytes = match code {
            b'K' => 1,
            b'M' => 2,
            b'J' => 4,
            0x8a => self.length(1)?,
            _ => self.length(4)?,
        };
        if bytes > 8 {
            // Such a number counts nothing.
            self.take(bytes)?;
            return self.push(Node::Other);
        }
        let word = self.word(bytes)?;
        let unused = 64 - 8 * u32::try_from(bytes).unwrap_or(8);
        let is_signed = !matches!(code, b'K' | b'M') && bytes > 0;
        let value = word.cast_signed();
        self.push(Node::Int(if is_signed {
            value << unused >> unused
        } else {
            value
        }))
    }

    /// Reads a text, or bytes.
    fn text(&mut self, code: u8) -> Result<(), PthError> {
        let length = match code {
            0x8c | b'C' => self.length(1)?,
            b'X' | b'B' => self.length(4)?,
            _ => self.length(8)?,
        };
        let bytes = self.take(length)?;
        let is_text = matches!(code, b'X' | 0x8c | 0x8d);
        // Python lets half a surrogate pair pass as text; no tensor is called so.
        match std::str::from_utf8(bytes) {
            Ok(text) if is_text => self.push(Node::Text(text)),
            _ => self.push(Node::Other),
        }
    }

    fn class(&mut self, code: u8) -> Result<(), PthError> {
        let (module, name) = if code == b'c' {
            let text = |line: &'a [u8]| {
                std::str::from_utf8(line).map_err(|_| PthError::Global {
                    found: shown(&String::from_utf8_lossy(line)),
                })
            };
            (text(self.line()?)?, text(self.line()?)?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            let text = |id: Id| match self.nodes.get(id.0) {
                Some(Node::Text(text)) => Ok(*text),
                _ => Err(PthError::PickleStack),
            };
            (text(module)?, text(name)?)
        };
        let (module, name) = (module.trim_end(), name.trim_end());
        if module.len() > NAME_LIMIT || name.len() > NAME_LIMIT {
            return Err(PthError::PickleCost);
        }
        if is_harmful(module, name) {
            let found = shown(&format!("{module}.{name}"));
            return Err(PthError::Global { found });
        }
        self.push(Node::Class { module, name })
    }

    fn tuple(&mut self, code: u8) -> Result<(), PthError> {
        let items = match code {
            b')' => Vec::new(),
            b't' => self.pop_to_mark()?,
            _ => self.pop_many(usize::from(code - 0x84))?,
        };
        self.push(Node::Tuple(items))
    }

    /// Makes a table, or adds entries to one.
    fn table(&mut self, code: u8, place: usize) -> Result<(), PthError> {
        let items = match code {
            b'}' => Vec::new(),
            b's' => self.pop_many(2)?,
            _ => self.pop_to_mark()?,
        };
        let pairs = items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value));
        if matches!(code, b'}' | b'd') {
            return self.push(Node::Table(pairs.collect()));
        }
        let top = self.top()?;
        match self.nodes.get_mut(top.0) {
            Some(Node::Table(entries)) => entries.extend(pairs),
            // An object of a class that is a table too.
            Some(node @ Node::Call(..)) => *node = Node::Table(pairs.collect()),
            _ => return Err(PthError::PickleItems { place }),
        }
        Ok(())
    }

    /// Makes a list or a set, or adds items to one; what they are is of no use.
    fn items(&mut self, code: u8, place: usize) -> Result<(), PthError> {
        match code {
            b'a' => drop(self.pop()?),
            _ => drop(self.pop_to_mark()?),
        }
        if matches!(code, b'l' | 0x91) {
            return self.push(Node::Other);
        }
        let top = self.top()?;
        match self.nodes.get(top.0) {
            Some(Node::Other | Node::Call(..) | Node::Table(_)) => Ok(()),
            _ => Err(PthError::PickleItems { place }),
        }
    }

    /// Makes an object of a class, gives it a state, or names what lies elsewhere.
    fn call(&mut self, code: u8) -> Result<(), PthError> {
        let node = match code {
            // Attributes: of a table of weights they are notes.
            b'b' => {
                self.pop()?;
                return self.top().map(drop);
            }
            b'Q' => Node::Elsewhere(self.pop()?),
            _ => {
                if code == 0x92 {
                    // Arguments by name.
                    self.pop()?;
                }
                let (arguments, function) = (self.pop()?, self.pop()?);
                match self.nodes.get(function.0) {
                    Some(Node::Class {
                        module: "collections",
                        name: "OrderedDict" | "defaultdict",
                    }) => Node::Table(Vec::new()),
                    _ => Node::Call(function, arguments),
                }
            }
        };
        self.push(node)
    }
}

fn is_harmful(module: &str, name: &str) -> bool {
    match module.split('.').next().unwrap_or_default() {
        "builtins" | "__builtin__" | "types" => !HARMLESS.contains(&name),
        root => HARMFUL.contains(&root),
    }
}
