//! Reading the tensors of a checkpoint that was checked when it was opened.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::entry::TensorEntry;
use super::error::{LoadError, shown};
use super::opened::{Checkpoint, Opened};
use super::packed::Packing;
use super::shards::Shard;
use crate::kernels::SharedBytes;
use crate::layers::embedding::StoredTable;

impl Checkpoint {
    /// Reads one tensor, converted to `dtype` and moved to `device`; changed first in F32, where the
    /// checkpoint has an adapter for it.
    ///
    /// # Errors
    /// [`LoadError::NoSuchTensor`] where the model has no such tensor, [`LoadError::PackedTensor`] where it
    /// is packed, and [`LoadError::Tensor`] where the device refuses it.
    pub fn load_tensor(&self, name: &str, device: &Device, dtype: DType) -> Result<Tensor, LoadError> {
        let (entry, bytes) = self.stored(name)?;
        // Converted before it is moved: the narrower type may cross to the device, and every type works on
        // the CPU.
        let stored = Tensor::from_raw_buffer(bytes, entry.dtype, &entry.shape, &Device::Cpu)?; // entry.shape
        let tensor = match self.adapter() {
            Some(adapter) if self.is_adapted(name) => adapter.apply(name, stored.to_dtype(DType::F32)?)?,
            _ => stored,
        };
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// Borrows the first bytes of a tensor as the file stores it, at most `count`; none where there is no
    /// such tensor.
    #[must_use]
    pub fn first_bytes(&self, name: &str, count: usize) -> &[u8] {
        let place = self.place(name);
        let bytes = place.and_then(|(_, shard, range)| shard.weights.bytes().get(range));
        bytes.map_or(&[], |bytes| bytes.get(..count).unwrap_or(bytes))
    }

    /// Releases the pages of the mapped files, but for packed weights; later reads fault them in again.
    pub(crate) fn release(&self) {
        self.opened
            .shards
            .iter()
            .for_each(|shard| shard.weights.release(shard.keep));
    }

    /// Finds a tensor, the file that it is in, and where in it.
    fn place(&self, name: &str) -> Option<(&TensorEntry, &Shard, Range<usize>)> {
        let Opened {
            tensors,
            index,
            shards,
            ..
        } = &*self.opened;
        let entry = index.get(name).and_then(|&i| tensors.get(i))?;
        let shard = shards.get(entry.shard)?;
        let start = shard.data + entry.start;
        Some((entry, shard, start..start + entry.bytes))
    }

    /// Borrows the bytes of a tensor.
    pub(crate) fn stored(&self, name: &str) -> Result<(&TensorEntry, &[u8]), LoadError> {
        let place = self.place(name).filter(|(entry, ..)| entry.dtype != DType::U8);
        let bytes = place.and_then(|(entry, shard, range)| Some((entry, shard.weights.bytes().get(range)?)));
        bytes.ok_or_else(|| self.no_such_tensor(name))
    }

    /// Shares the bytes of a tensor.
    pub(super) fn shared(&self, name: &str) -> Option<SharedBytes> {
        let (_, shard, range) = self.place(name)?;
        let weights = Arc::clone(&shard.weights);
        SharedBytes::new(weights, range)
    }

    /// Finds a table of `f32` numbers whose rows can stay in their file; none where it is stored otherwise.
    pub(crate) fn stored_table(&self, name: &str) -> Option<StoredTable> {
        let (entry, shard, range) = self.place(name)?;
        match (entry.dtype, entry.shape.as_slice()) {
            (DType::F32, [count, width]) => {
                let file = Arc::clone(&shard.weights);
                Some(StoredTable::new(file, range.start as u64, *count, *width))
            }
            _ => None,
        }
    }

    /// Names the first file with weights in a message.
    pub(crate) fn weights_file(&self) -> String {
        let first = self.opened.shards.first();
        first.map(|shard| shard.file.clone()).unwrap_or_default()
    }

    /// Makes the error of a tensor that cannot be loaded as numbers.
    pub(super) fn no_such_tensor(&self, name: &str) -> LoadError {
        let file = self.weights_file();
        let tensor = shown(name);
        let is_packed = |packing: &&Packing| packing.shapes.contains_key(name) || self.place(name).is_some();
        match self.opened.packing.as_ref().filter(is_packed) {
            Some(packing) => LoadError::PackedTensor {
                file,
                tensor,
                weights: packing.weights,
            },
            None => LoadError::NoSuchTensor { file, tensor },
        }
    }
}
