//! What can go wrong with a checkpoint, in words for the person who has the file.

use std::{fmt, io};

use candle_core::DType;

use crate::config::ConfigError;
use crate::error::ForwardError;
use crate::kernels::{CacheType, WeightType};

/// What can go wrong with a conversion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The checkpoint, or what was written, cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The folder cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A model cannot be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// What was written gives other numbers.
    #[error("the converted model gives other numbers: off by {error:e} where the largest is {largest:e}")]
    Differs {
        /// The largest difference.
        error: f32,
        /// The largest number.
        largest: f32,
    },
}

/// Errors of opening a checkpoint and reading from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is nothing at the path.
    #[error("there is no checkpoint at '{path}': expected a folder with {EXPECTED_FILES}")]
    NotFound {
        /// The requested path.
        path: String,
    },
    /// There is a file at the path.
    #[error(
        "'{path}' is not a folder: a checkpoint is a folder with {EXPECTED_FILES}, or a .pth file of PyTorch's"
    )]
    NotAFolder {
        /// The requested path.
        path: String,
    },
    /// The folder lacks a file without which it is no checkpoint.
    #[error("'{path}' has no {file}: a checkpoint is a folder with {EXPECTED_FILES}; found {found}")]
    MissingFile {
        /// The folder, or `embedded:` and a name.
        path: String,
        /// The file that is missing.
        file: String,
        /// The files that are there.
        found: String,
    },
    /// A folder has several files of weights by PyTorch, and nothing says which is meant.
    #[error(
        "'{path}' has several files with weights ({files}): name the one to use, such as '{example}', instead of the folder"
    )]
    SeveralWeights {
        /// The folder.
        path: String,
        /// Their names.
        files: String,
        /// The path of the first of them.
        example: String,
    },
    /// A file of PyTorch's was unpacked into a folder.
    #[error(
        "'{path}' is a file of PyTorch's that was unpacked into a folder: pack it again, without compression, with `cd {parent} && zip -0 -r {archive} {folder}`, and name {archive} there"
    )]
    Unpacked {
        /// The folder with data.pkl.
        path: String,
        /// The folder around it, quoted for a shell.
        parent: String,
        /// The name of the folder, quoted for a shell.
        folder: String,
        /// The name of the file to make, quoted for a shell.
        archive: String,
    },
    /// Weights are in several files, of which one is missing.
    #[error("'{path}' lacks '{file}', one of the {count} files that its weights are in: fetch it too")]
    MissingShard {
        /// The folder.
        path: String,
        /// The file that is missing.
        file: String,
        /// How many files there should be.
        count: usize,
    },
    /// Two files hold the same tensor.
    #[error("'{file}' holds tensor '{tensor}', which another of the files with weights holds too")]
    Repeated {
        /// The second file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// Instead of a file there is what Git LFS leaves for one that was not fetched.
    #[error(
        "'{file}' is not the file itself but a pointer of Git LFS to it: fetch the file with `git lfs pull` in its folder, after `git lfs install`"
    )]
    LfsPointer {
        /// The file.
        file: String,
    },
    /// Instead of a file there is a page that was saved in its place.
    #[error(
        "'{file}' is a web page (HTML), not the file itself: download the file, not the page that shows it"
    )]
    WebPage {
        /// The file.
        file: String,
    },
    /// A file is a link to what is not there.
    #[error("'{file}' is a link to '{target}', which is not there: fetch the checkpoint again")]
    DanglingLink {
        /// The file.
        file: String,
        /// Where it leads.
        target: String,
    },
    /// What should be one table of embeddings is stored twice, with different numbers.
    #[error(
        "'{file}' holds '{first}' and '{second}' with different numbers and no '{shared}': the model has one table of embeddings for both, so remove the wrong one"
    )]
    Embeddings {
        /// The file.
        file: String,
        /// The first name.
        first: String,
        /// The second name.
        second: String,
        /// The name that the one table has.
        shared: String,
    },
    /// A weight type that only packed linear layers have, on the CPU with `f32` for the rest.
    #[error("{weights} weights need the CPU and f32 for the rest, found {device} and {dtype:?}")]
    Weights {
        /// The requested type.
        weights: WeightType,
        /// The requested device.
        device: String,
        /// The requested element type.
        dtype: DType,
    },
    /// Weights are packed in another type than the requested one.
    #[error(
        "'{file}' is packed as {found}, not {expected}: ask for {found} or for nothing, or convert the original checkpoint to {expected}"
    )]
    PackedAs {
        /// The file.
        file: String,
        /// The requested type.
        expected: WeightType,
        /// The form in the file.
        found: WeightType,
    },
    /// Weights are packed, but the model was to be loaded onto another device than the CPU or in another
    /// element type than `f32`.
    #[error(
        "'{file}' is packed as {weights}, for the CPU and f32 for the rest, found {device} and {dtype:?}: use the original checkpoint"
    )]
    PackedFor {
        /// The file.
        file: String,
        /// The form in the file.
        weights: WeightType,
        /// The requested device.
        device: String,
        /// The requested element type.
        dtype: DType,
    },
    /// A weight is to be converted or trained, but it is packed.
    #[error(
        "'{file}': tensor '{tensor}' is packed as {weights}, for inference alone: use the original checkpoint"
    )]
    PackedTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The form in the file.
        weights: WeightType,
    },
    /// A packed weight had another shape than the configuration says.
    #[error(
        "'{file}': its multiway.shapes says that tensor '{tensor}' had shape [{found}], expected {expected:?}"
    )]
    PackedShape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape according to `config.json`.
        expected: Vec<usize>,
        /// The shape that the file states.
        found: String,
    },
    /// One of several files with weights is packed.
    #[error("'{file}' is packed, and one of several files with weights: expected it to be the only one")]
    PackedShard {
        /// The file.
        file: String,
    },
    /// A cache type that only a text decoder on the CPU reads, with `f32` for the rest.
    #[error("keys and values in {cache} need a text decoder on the CPU with f32 for the rest, found {found}")]
    Cache {
        /// The requested type.
        cache: CacheType,
        /// What the model is instead.
        found: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read '{file}': {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file is a folder, a pipe or a device.
    #[error("'{file}' is not a regular file")]
    NotAFile {
        /// The file.
        file: String,
    },
    /// A file is larger than such a file can sensibly be.
    #[error("'{file}' has {found} bytes, more than the {limit} that such a file may have")]
    FileTooLarge {
        /// The file.
        file: String,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file name that could lead out of the folder.
    #[error("'{name}' is not a file of a checkpoint: expected a plain file name, without folders")]
    FileName {
        /// The requested name.
        name: String,
    },
    /// The configuration cannot be used.
    #[error("'{file}': {source}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// The index of weights in several files cannot be read.
    #[error("'{file}' is not an index of weights: {source}")]
    Index {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The index names no file, or too many.
    #[error("'{file}' names {found} files with weights, expected 1 to {limit}")]
    Shards {
        /// The index.
        file: String,
        /// How many files it names.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A file holds a tensor that the index has in another file, or not at all.
    #[error("'{file}' does not place tensor '{tensor}' in '{found}', which holds it")]
    Misplaced {
        /// The index.
        file: String,
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        found: String,
    },
    /// The weights file is damaged or something else altogether.
    #[error("'{file}' is not a usable safetensors file: {source}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// A file of PyTorch's is damaged, or holds something else than weights.
    #[error("'{file}' is not a usable PyTorch file: {source}")]
    Pth {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: PthError,
    },
    /// There is no `config.json`, and the weights are not of a kind that explains itself.
    #[error("'{file}' has no config.json beside it, and is no BEiT-3: {problem}")]
    NoConfig {
        /// The file with the weights.
        file: String,
        /// Why the weights do not say what model they belong to.
        problem: String,
    },
    /// The configuration describes weights that the file does not hold.
    #[error("'{file}' lacks {tensors}: its config.json belongs to another model, or the file is incomplete")]
    MissingTensors {
        /// The file.
        file: String,
        /// The first missing tensors with their shapes, and how many more there are.
        tensors: String,
    },
    /// The file holds weights that the configuration does not describe.
    #[error("'{file}' holds {tensors}, which the model of its config.json does not have")]
    UnexpectedTensors {
        /// The file.
        file: String,
        /// The first unexpected tensors with their shapes, and how many more there are.
        tensors: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("'{file}': tensor '{tensor}' has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape according to `config.json`.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// There is no such tensor to load.
    #[error("'{file}' has no tensor '{tensor}'")]
    NoSuchTensor {
        /// The file.
        file: String,
        /// The requested name.
        tensor: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Says which files a checkpoint has.
const EXPECTED_FILES: &str = "config.json, model.safetensors, and tokenizer.json or tokenizer.model";

/// What makes bytes not a file of weights by PyTorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// The file is no zip archive.
    #[error(
        "it is no zip archive, as `torch.save` writes since PyTorch 1.6; load it there and save it again"
    )]
    NotAnArchive,
    /// The archive cannot be read.
    #[error("its archive cannot be read, it may be truncated: {0}")]
    Archive(String),
    /// The archive has no description of tensors.
    #[error(
        "its archive has no data.pkl, so that it is something else than `torch.save` writes; if it is a folder that was packed, unpack it and name the folder"
    )]
    NoPickle,
    /// The archive was packed by another program.
    #[error("its archive is compressed, which PyTorch never does: unpack it, and pack it with `zip -0 -r`")]
    Compressed,
    /// The description is too long.
    #[error("its data.pkl has {found} bytes, more than the {limit} that are read")]
    PickleSize {
        /// Its length in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The description ends too early.
    #[error("its data.pkl ends in the middle of an operation")]
    PickleEnds,
    /// The description uses what is not there.
    #[error("its data.pkl takes something from an empty stack, or recalls what was not remembered")]
    PickleStack,
    /// The description would need more memory than any checkpoint does.
    #[error("its data.pkl makes more objects, or longer names, than any checkpoint does")]
    PickleCost,
    /// The description adds items to what is no container.
    #[error("its data.pkl puts items into something that holds none, at byte {place}")]
    PickleItems {
        /// Where.
        place: usize,
    },
    /// The description has an operation that is not known.
    #[error("its data.pkl has the operation 0x{code:02x} at byte {place}, which checkpoints have no use for")]
    Operation {
        /// Where.
        place: usize,
        /// Which.
        code: u8,
    },
    /// The description names a function or class that no checkpoint needs.
    #[error("its data.pkl names '{found}', which no checkpoint needs; it may be meant to do harm")]
    Global {
        /// Module and name.
        found: String,
    },
    /// Tensors share numbers until they are far more than the file.
    #[error(
        "its tensors would have {found} bytes, but the file has {file}: they use the same numbers again and again"
    )]
    Shared {
        /// The bytes of all tensors together.
        found: u64,
        /// The bytes of the file.
        file: usize,
    },
    /// The file does not hold a table of tensors.
    #[error(
        "it holds no table of tensors by name, neither at its top nor under 'model', 'module', 'state_dict' or 'model_state_dict'; save `model.state_dict()`"
    )]
    NoTable,
    /// A tensor cannot be used.
    #[error("tensor '{tensor}': {problem}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A type of number that weights are not read from.
    #[error(
        "tensor '{tensor}' has numbers of type {found}, expected FloatStorage, HalfStorage or BFloat16Storage"
    )]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The type that the file states.
        found: String,
    },
}

/// What makes bytes not a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before the header's length does.
    #[error("it has {found} bytes, fewer than the 8 of a header's length; it may be truncated")]
    TooShort {
        /// The file's size in bytes.
        found: usize,
    },
    /// The header's length is beyond reason.
    #[error("its header claims {found} bytes, more than the {limit} that are read")]
    TooLong {
        /// The length in bytes that the file claims.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header's length is beyond the end of the file.
    #[error("its header claims {expected} bytes, but only {found} follow; it may be truncated")]
    Truncated {
        /// The length in bytes that the file claims.
        expected: u64,
        /// How many bytes there are after the length.
        found: usize,
    },
    /// The header is not the JSON of a table of tensors.
    #[error("its header is not a table of tensors: {0}")]
    Json(#[from] serde_json::Error),
    /// A type of number that weights are not read from.
    #[error("tensor '{tensor}' has dtype '{found}', expected F32, BF16 or F16")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The type that the file states.
        found: String,
    },
    /// Packed weights are not bytes.
    #[error("tensor '{tensor}' has dtype '{found}', expected U8, as packed weights have")]
    PackedDtype {
        /// The tensor.
        tensor: String,
        /// The type that the file states.
        found: String,
    },
    /// Weights are packed in a layout that this version does not know.
    #[error(
        "its weights are packed in layout '{found}', expected '{expected}': convert the original checkpoint again with this version"
    )]
    Layout {
        /// The layout that the file states.
        found: String,
        /// The layout that is read.
        expected: u32,
    },
    /// Weights are packed in a form that is not known.
    #[error("its weights are packed as '{found}', expected f32, bf16 or int8")]
    PackedWeights {
        /// The form that the file states.
        found: String,
    },
    /// The shapes of packed weights cannot be read.
    #[error("its multiway.shapes is not a table of shapes by name: {0}")]
    PackedShapes(#[source] serde_json::Error),
    /// A shape has more elements than can be counted.
    #[error("tensor '{tensor}' has shape {shape}, which no file can hold")]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// The shape that the file states.
        shape: String,
    },
    /// A tensor's place has another size than its shape and dtype need.
    #[error("tensor '{tensor}' needs {expected} bytes, but its offsets {start} to {end} hold {}", span(*start, *end))]
    Size {
        /// The tensor.
        tensor: String,
        /// The bytes that its shape and dtype need.
        expected: u64,
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Tensors overlap, or leave a hole that could hide something.
    #[error("tensor '{tensor}' starts at offset {found}, expected {expected}, where the one before it ends")]
    Offset {
        /// The tensor.
        tensor: String,
        /// Where the tensor before it ends.
        expected: u64,
        /// Where it starts.
        found: u64,
    },
    /// The tensors together are not as long as the file.
    #[error("its tensors take {expected} bytes, but {found} follow the header; it may be {}", cut_or_padded(*expected, *found))]
    DataSize {
        /// The bytes that the header describes.
        expected: u64,
        /// The bytes that are there.
        found: usize,
    },
}

fn span(start: u64, end: u64) -> String {
    end.checked_sub(start)
        .map_or_else(|| "none".to_owned(), |bytes| bytes.to_string())
}

fn cut_or_padded(expected: u64, found: usize) -> &'static str {
    if (found as u64) < expected {
        "truncated"
    } else {
        "followed by something else"
    }
}

/// Errors of writing a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// A file or folder cannot be written.
    #[error("cannot write '{file}': {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file was to be written under a name that could lead out of the folder, or that the checkpoint uses
    /// itself.
    #[error(
        "'{name}' cannot be added to a checkpoint: expected a plain file name other than config.json and model.safetensors"
    )]
    FileName {
        /// The requested name.
        name: String,
    },
    /// A weight of the configuration was not given.
    #[error("tensor '{tensor}' of shape {expected:?} is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// Its shape according to the configuration.
        expected: Vec<usize>,
    },
    /// A weight was given that the configuration does not describe.
    #[error("tensor '{tensor}' is not one of the model's")]
    UnexpectedTensor {
        /// The tensor.
        tensor: String,
    },
    /// A weight has another shape than the configuration says.
    #[error("tensor '{tensor}' has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape according to the configuration.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A weight has a type that checkpoints are not read from.
    #[error("tensor '{tensor}' has dtype {found:?}, expected F32, BF16 or F16")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The type that was given.
        found: DType,
    },
    /// The file format refused the tensors.
    #[error("cannot write the weights: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Shows text from a file in a message: on one line, without control characters, and not endlessly long.
pub(super) fn shown(text: &str) -> String {
    const LIMIT: usize = 100;
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(LIMIT)
        .flat_map(char::escape_debug)
        .collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// Lists the first few of many things, and says how many more there are.
pub(super) fn shown_list<T: fmt::Display>(items: impl ExactSizeIterator<Item = T>) -> String {
    const LIMIT: usize = 5;
    let rest = items.len().saturating_sub(LIMIT);
    let first: Vec<String> = items.take(LIMIT).map(|item| item.to_string()).collect();
    match rest {
        0 => first.join(", "),
        _ => format!("{} and {rest} more", first.join(", ")),
    }
}
