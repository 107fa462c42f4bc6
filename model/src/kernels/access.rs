//! Reads candle tensors as plain slices, without copying where they are contiguous.

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};

/// Says whether a tensor can be handed to the CPU kernels.
pub(crate) fn is_cpu_f32(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// Borrows the numbers of a contiguous f32 storage.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(all) = storage else {
        bail!("expected f32 numbers, found {:?}", storage_dtype(storage))
    };
    match layout
        .contiguous_offsets()
        .and_then(|(start, end)| all.get(start..end))
    {
        Some(part) => Ok(part),
        None => bail!(
            "expected a contiguous tensor, found shape {:?} strides {:?}",
            layout.shape(),
            layout.stride()
        ),
    }
}

fn storage_dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Borrows the numbers of a contiguous f32 tensor on the CPU.
pub(crate) fn host<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(cpu) => slice(cpu, layout),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// Calls `f` with the numbers of a tensor, which is made contiguous first if need be.
pub(crate) fn with_slice<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    f(host(&storage, layout)?)
}
