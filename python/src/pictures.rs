//! Pictures as Python programs have them.

use std::path::PathBuf;

use multiway::ImageProcessor;
use multiway::image::ProcessedImage;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple};

use crate::failure::Failure;

/// A picture that was read from a Python object, and is yet to be decoded.
#[derive(Debug)]
pub(crate) enum Given {
    /// The bytes of a file.
    File(Vec<u8>),
    Path(PathBuf),
    /// Rows from the top, each pixel red, green, blue.
    Pixels {
        width: u32,
        height: u32,
        rgb: Vec<u8>,
    },
}

impl Given {
    /// Reads a picture, the value of the input `name`.
    pub(crate) fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = value.py();
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::File(bytes.as_bytes().to_vec()));
        }
        if let Ok(bytes) = value.cast::<PyByteArray>() {
            return Ok(Self::File(bytes.to_vec()));
        }
        if value.is_instance_of::<PyMemoryView>() {
            let bytes = value.call_method0(intern!(py, "tobytes"))?;
            return Ok(Self::File(bytes.extract()?));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return path_of(name, text.to_string());
        }
        if value.hasattr(intern!(py, "__fspath__"))? {
            return Ok(Self::Path(value.extract()?));
        }
        if value.hasattr(intern!(py, "__array_interface__"))? && value.hasattr(intern!(py, "dtype"))? {
            return array(name, value);
        }
        if value.hasattr(intern!(py, "mode"))? && value.hasattr(intern!(py, "tobytes"))? {
            return pil(value);
        }
        let kind = value.get_type().name()?;
        Err(Failure::Input(format!(
            "input '{name}': expected a picture as a path, the bytes of a file, a PIL picture, or an array of \
             height x width x 3 numbers of 8 bits, found {kind}"
        ))
        .into())
    }

    /// Reads one picture, or the pictures of a list or tuple.
    pub(crate) fn read_all(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<Self>> {
        if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            let pictures = value.try_iter()?.enumerate();
            return pictures
                .map(|(index, picture)| Self::read(&format!("{name}[{index}]"), &picture?))
                .collect();
        }
        Ok(vec![Self::read(name, value)?])
    }

    /// Decodes the picture for a model.
    pub(crate) fn decode(self, name: &str, processor: &ImageProcessor) -> Result<ProcessedImage, Failure> {
        let decoded = match self {
            Self::File(bytes) => processor.process(&bytes),
            Self::Path(path) => processor.open(path),
            Self::Pixels { width, height, rgb } => processor.process_rgb8(width, height, &rgb),
        };
        decoded.map_err(|error| match Failure::input(&error) {
            Failure::Input(message) => Failure::Input(format!("input '{name}': {message}")),
            other => other,
        })
    }
}

fn path_of(name: &str, text: String) -> PyResult<Given> {
    let is_url = ["http://", "https://", "data:"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    if is_url {
        let scheme = text.split(':').next().unwrap_or_default();
        let message = format!(
            "input '{name}': expected a path, found a URL ('{scheme}:...'): fetch it, and give its bytes"
        );
        return Err(Failure::Input(message).into());
    }
    Ok(Given::Path(text.into()))
}

/// Reads a PIL picture. What is not plain RGB goes through a file format, so that transparency and palettes
/// mean what they mean in files.
fn pil(picture: &Bound<'_, PyAny>) -> PyResult<Given> {
    let py = picture.py();
    let mode: String = picture.getattr(intern!(py, "mode"))?.extract()?;
    if mode == "RGB" {
        let (width, height) = picture.getattr(intern!(py, "size"))?.extract()?;
        let rgb = picture.call_method0(intern!(py, "tobytes"))?.extract()?;
        return Ok(Given::Pixels { width, height, rgb });
    }
    let is_in_png = ["1", "L", "LA", "P", "RGBA", "I;16"].contains(&mode.as_str());
    let picture = match is_in_png {
        true => picture.clone(),
        false => picture.call_method1(intern!(py, "convert"), ("RGB",))?,
    };
    let file = py
        .import(intern!(py, "io"))?
        .call_method0(intern!(py, "BytesIO"))?;
    let options = PyDict::new(py);
    options.set_item(intern!(py, "format"), "PNG")?;
    options.set_item(intern!(py, "compress_level"), 0)?;
    picture.call_method(intern!(py, "save"), (&file,), Some(&options))?;
    let bytes = file.call_method0(intern!(py, "getvalue"))?;
    Ok(Given::File(bytes.extract()?))
}

/// Reads an array of height x width x 3, or height x width for grey.
fn array(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Given> {
    let py = array.py();
    let shape: Vec<u32> = array.getattr(intern!(py, "shape"))?.extract()?;
    let dtype = array.getattr(intern!(py, "dtype"))?.str()?.to_string();
    let wrong = |shape: &[u32]| {
        let message = format!(
            "input '{name}': expected an array of uint8 of shape (height, width, 3), or (height, width) for grey, \
             found {dtype} of shape {shape:?}"
        );
        PyErr::from(Failure::Input(message))
    };
    let ([height, width] | [height, width, 1 | 3]) = shape[..] else {
        return Err(wrong(&shape));
    };
    if dtype != "uint8" {
        return Err(wrong(&shape));
    }
    let bytes: Vec<u8> = array.call_method0(intern!(py, "tobytes"))?.extract()?;
    let rgb = match shape[..] {
        [_, _, 3] => bytes,
        _ => bytes.into_iter().flat_map(|grey| [grey; 3]).collect(),
    };
    Ok(Given::Pixels { width, height, rgb })
}
