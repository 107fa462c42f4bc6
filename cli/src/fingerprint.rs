//! Which model an index or unfinished results were made with.

use multiway::Checkpoint;
use multiway::checkpoint::{DType, Device};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Outcome};

/// The largest tensors that a model's fingerprint reads.
const FINGERPRINT_TENSOR_BYTES: usize = 1 << 12;

/// How much of a larger tensor it reads: less than a page.
const BEGINNING_BYTES: usize = 1 << 10;

/// Names a model by its contents: what two of them make is not mixed.
///
/// Hashes the configuration, the table of tensors, the small tensors and the beginnings of the large ones,
/// which need not be read whole: training moves all numbers of a weight, or none. An adapter is hashed whole.
pub(crate) fn fingerprint(checkpoint: &Checkpoint) -> Outcome<String> {
    let mut hash = Sha256::new();
    hash.update(checkpoint.config().to_json());
    for tensor in checkpoint.tensors() {
        hash.update(format!("{} {:?} {:?}\n", tensor.name, tensor.shape, tensor.dtype));
        let is_packed = checkpoint.packed().is_some() && tensor.dtype == DType::U8;
        if tensor.bytes <= FINGERPRINT_TENSOR_BYTES && !is_packed {
            let values = checkpoint
                .load_tensor(&tensor.name, &Device::Cpu, DType::F32)
                .and_then(|values| Ok(values.flatten_all()?.to_vec1::<f32>()?)) // [n]
                .map_err(Failure::input)?;
            values.iter().for_each(|value| hash.update(value.to_le_bytes()));
        } else {
            hash.update(checkpoint.first_bytes(&tensor.name, BEGINNING_BYTES));
        }
    }
    if let Some(adapter) = checkpoint.adapter() {
        hash.update(format!("adapter {}\n", adapter.config().scale()));
        for (name, factors) in adapter.factors() {
            hash.update(format!("{name}\n"));
            for factor in factors {
                let values = factor.flatten_all().and_then(|values| values.to_vec1::<f32>()); // [n]
                let values = values.map_err(Failure::runtime)?;
                values.iter().for_each(|value| hash.update(value.to_le_bytes()));
            }
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
