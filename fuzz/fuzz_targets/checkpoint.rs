//! A folder with any config.json and any model.safetensors opens as a checkpoint or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiway_model::{Checkpoint, DType, Device};

fuzz_target!(|data: &[u8]| {
    // The first two bytes say where the configuration ends.
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (config, weights) = rest.split_at(length);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
        for tensor in checkpoint.tensors() {
            let _ = checkpoint.load_tensor(&tensor.name, &Device::Cpu, DType::F32);
        }
    }
});
