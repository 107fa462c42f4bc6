//! A file by PyTorch, with any pickle in it, opens as a checkpoint or is refused.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use multiway_model::{Checkpoint, DType, Device};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|data: &[u8]| {
    // The first byte says whether the bytes are the whole file or its pickle: an archive has a sum of its
    // contents.
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let file = if first % 8 == 0 { data.to_vec() } else { archive(data) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    std::fs::write(&path, file).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        for tensor in checkpoint.tensors() {
            let _ = checkpoint.load_tensor(&tensor.name, &Device::Cpu, DType::F32);
        }
    }
});

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[0; 256]), ("a/data/1", &[0; 256])] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
