//! Any bytes are an index that can be searched, or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiway_index::{ElementType, IndexBuilder, IndexEntry, IndexSpec, SearchOptions, VectorIndex};

fuzz_target!(|data: &[u8]| {
    use_all(data.to_vec());
    // Few bytes have the right checksum: what is behind it is reached from an index that was built.
    let Some((first, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.index");
    let element = ElementType::ALL[usize::from(first[0] % 2)];
    // The journal is read before anything is built.
    std::fs::write(folder.path().join("my.index.journal"), data).unwrap();
    let spec = IndexSpec::new("model", usize::from(first[1]) + 1, element).approximate(first[0] & 2 == 0);
    let Ok(builder) = IndexBuilder::open(&path, spec.clone()) else {
        std::fs::remove_file(folder.path().join("my.index.journal")).unwrap();
        return damage(&path, spec, first, rest);
    };
    drop(builder);
    damage(&path, spec, first, rest);
});

/// Writes some bytes over those of an index.
fn damage(path: &std::path::Path, spec: IndexSpec, first: &[u8; 4], rest: &[u8]) {
    let mut builder = IndexBuilder::open(path, spec).unwrap();
    for number in 0..usize::from(first[2]) % 40 + 1 {
        let vector: Vec<f32> = (0..usize::from(first[1]) + 1).map(|i| (i % 7 + number) as f32 + 1.0).collect();
        builder.push(&IndexEntry::new(number.to_string()), &vector).unwrap();
    }
    builder.finish().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() * usize::from(first[3]) / 256;
    bytes.iter_mut().skip(at).zip(rest).for_each(|(byte, new)| *byte = *new);
    use_all(bytes);
}

fn use_all(bytes: Vec<u8>) {
    let Ok(index) = VectorIndex::from_bytes("fuzz.index", bytes) else {
        return;
    };
    let _ = index.verify();
    let queries = [vec![0.5; index.width()]];
    let _ = index.search(&queries, SearchOptions::new(5));
    let _ = index.search(&queries, SearchOptions::new(5).approximate(3));
    for position in 0..index.len().min(100) {
        let _ = index.entry(position);
        let _ = index.vector(position);
    }
}
