//! A case's files, and how its tensors are compared.

use multiway_model::{Checkpoint, DType, Device, Model, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) model: Model,
    pub(crate) inputs: Value,
    recorded: HashMap<String, Tensor>,
}

impl Case {
    pub(crate) fn open(folder: &Path) -> Self {
        let fail = |error: &dyn std::fmt::Display| -> ! { panic!("{}: {error}", folder.display()) };
        let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| fail(&error));
        let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap_or_else(|error| fail(&error));
        let inputs = std::fs::read(folder.join("inputs.json")).unwrap_or_else(|error| fail(&error));
        let recorded = folder.join("activations.safetensors");
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            model,
            inputs: serde_json::from_slice(&inputs).unwrap(),
            recorded: candle_core::safetensors::load(recorded, &Device::Cpu).unwrap(),
        }
    }

    pub(crate) fn recorded(&self, name: &str) -> &Tensor {
        let tensor = self.recorded.get(name);
        tensor.unwrap_or_else(|| panic!("{}: '{name}' was not recorded", self.name))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.recorded.contains_key(name)
    }

    /// Reads a table of token ids, `[B, L]`.
    pub(crate) fn tokens(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.inputs[key].clone()).unwrap()
    }

    /// Compares rows with what was recorded: within 1e-4 of the largest value, or four times the reference's own noise.
    pub(crate) fn compare(&self, name: &str, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims(), "{}: shape of '{name}'", self.name);
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (found, expected) = (flat(found), flat(expected));
        let largest = self
            .recorded(name)
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap();
        let largest = largest.to_scalar::<f32>().unwrap();
        let noise = self.inputs["fp32_vs_fp64_max_abs"][name].as_f64().unwrap_or(0.0);
        let tolerance = f64::from(1e-4 * largest.max(1.0)).max(4.0 * noise);
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = f64::from((found - expected).abs());
            assert!(
                error <= tolerance,
                "{}: '{name}' differs first at value {place}: found {found}, expected {expected}, \
                 off by {error:e} where {tolerance:e} is allowed",
                self.name
            );
        }
    }
}
