//! A file by PyTorch opens as a checkpoint or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiway_model::{Checkpoint, DType, Device};

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    std::fs::write(&path, data).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        for tensor in checkpoint.tensors() {
            let _ = checkpoint.load_tensor(&tensor.name, &Device::Cpu, DType::F32);
        }
    }
});
