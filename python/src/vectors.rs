//! Vectors as arrays of numpy.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::failure::Failure;

/// Vectors of one length.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    count: usize,
    /// The numbers of all vectors, little-endian.
    bytes: Vec<u8>,
}

impl Vectors {
    /// Holds one vector.
    pub(crate) fn one(vector: &[f32]) -> Self {
        let mut vectors = Self::default();
        vectors.push(vector);
        vectors
    }

    pub(crate) fn push(&mut self, vector: &[f32]) {
        self.count += 1;
        self.bytes
            .extend(vector.iter().flat_map(|number| number.to_le_bytes()));
    }

    /// Makes an array of one dimension, which may be written to.
    pub(crate) fn array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let numpy = py.import(intern!(py, "numpy")).map_err(|error| {
            Failure::Engine(format!(
                "vectors are arrays of numpy, which cannot be imported: {error}"
            ))
        })?;
        let bytes = PyBytes::new(py, &self.bytes);
        let array = numpy.call_method1(intern!(py, "frombuffer"), (bytes, intern!(py, "<f4")))?;
        array.call_method0(intern!(py, "copy"))
    }

    /// Makes an array with a row for each vector.
    pub(crate) fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let columns = self.bytes.len() / size_of::<f32>() / self.count.max(1);
        self.array(py)?
            .call_method1(intern!(py, "reshape"), (self.count, columns))
    }
}
