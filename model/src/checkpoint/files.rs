//! The names of a checkpoint's files, and how large they may be.

/// The name of the configuration file.
pub const CONFIG_FILE: &str = "config.json";

/// The name of the file in which PyTorch's weights are, where they are not called after the model.
pub(crate) const PTH_FILE: &str = "pytorch_model.bin";

/// The name of the file that says in which of PyTorch's files the weights are, where they are in several.
pub(crate) const PTH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// The name of the weights file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The name of the file that says in which files the weights are, where they are in several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The file with the checkpoint's defaults for generation.
pub(crate) const GENERATION_FILE: &str = "generation_config.json";

/// Files that go with the weights, where a checkpoint has them.
pub(crate) const COMPANIONS: [&str; 11] = [
    GENERATION_FILE,
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.model",
    "spiece.model",
    "beit3.spm",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "labels.txt",
    "answer2label.txt",
];

/// The most files that weights may be in.
pub(super) const MAX_SHARDS: usize = 1024;

/// The largest `config.json` that is read, in bytes.
pub(super) const CONFIG_LIMIT: u64 = 1 << 20;

/// The largest file that [`Checkpoint::file`] reads, in bytes.
pub(super) const FILE_LIMIT: u64 = 64 << 20;
