//! A case's files, and how its tensors are compared.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use multiway_model::{Checkpoint, Device, LoadError, LoadOptions, Model, Tensor, WeightType};
use serde_json::Value;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) model: Model,
    pub(crate) inputs: Value,
    pub(crate) weights: WeightType,
    recorded: HashMap<String, Tensor>,
    compared: RefCell<BTreeSet<String>>,
    errors: RefCell<Vec<(String, f64)>>,
}

pub(crate) fn load(checkpoint: &Checkpoint, weights: WeightType) -> Result<Model, LoadError> {
    let options = LoadOptions {
        weights: Some(weights),
        ..LoadOptions::default()
    };
    Model::load_with(checkpoint, &Device::Cpu, &options)
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let squares =
        |values: &mut dyn Iterator<Item = f32>| -> f64 { values.map(|x| f64::from(x).powi(2)).sum() };
    let differences = &mut found
        .iter()
        .zip(expected)
        .map(|(found, expected)| found - expected);
    (squares(differences) / squares(&mut expected.iter().copied())).sqrt()
}

impl Case {
    pub(crate) fn open(folder: &Path) -> Self {
        Self::with_weights(folder, WeightType::F32)
    }

    /// Opens a case whose tensors, where the weights are narrow, are weighed instead of being compared.
    pub(crate) fn with_weights(folder: &Path, weights: WeightType) -> Self {
        let fail = |error: &dyn std::fmt::Display| -> ! { panic!("{}: {error}", folder.display()) };
        let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| fail(&error));
        let model = load(&checkpoint, weights).unwrap_or_else(|error| fail(&error));
        let inputs = std::fs::read(folder.join("inputs.json")).unwrap_or_else(|error| fail(&error));
        let recorded = folder.join("activations.safetensors");
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            model,
            inputs: serde_json::from_slice(&inputs).unwrap(),
            recorded: candle_core::safetensors::load(recorded, &Device::Cpu).unwrap(),
            weights,
            compared: RefCell::default(),
            errors: RefCell::default(),
        }
    }

    pub(crate) fn recorded(&self, name: &str) -> &Tensor {
        let tensor = self.recorded.get(name);
        tensor.unwrap_or_else(|| panic!("{}: '{name}' was not recorded", self.name))
    }

    /// Reads a tensor of the case's weights, where the model itself does not use it.
    pub(crate) fn weight(&self, name: &str) -> Tensor {
        let weights =
            candle_core::safetensors::load(self.folder.join("model.safetensors"), &Device::Cpu).unwrap();
        weights[name].clone()
    }

    /// Checks that every recorded tensor was compared, but inputs (`in.`) and those that are seen otherwise.
    pub(crate) fn assert_complete(&self, seen_otherwise: &[&str]) {
        let compared = self.compared.borrow();
        let left_out = self.recorded.keys().filter(|name| {
            !compared.contains(*name) && !name.starts_with("in.") && !seen_otherwise.contains(&name.as_str())
        });
        let left_out: BTreeSet<_> = left_out.collect();
        assert!(left_out.is_empty(), "{}: not compared: {left_out:?}", self.name);
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.recorded.contains_key(name)
    }

    /// Reads a table of token ids, `[B, L]`.
    pub(crate) fn tokens(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.inputs[key].clone()).unwrap()
    }

    /// Lists how far narrow weights moved each tensor that was compared: the root of the mean square of the
    /// differences, relative to that of what was recorded.
    pub(crate) fn errors(&self) -> Vec<(String, f64)> {
        self.errors.take()
    }

    /// Compares rows with what was recorded: within 1e-4 of the largest value, or four times the reference's
    /// own noise.
    pub(crate) fn compare(&self, name: &str, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims(), "{}: shape of '{name}'", self.name);
        self.compared.borrow_mut().insert(name.to_owned());
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (found, expected) = (flat(found), flat(expected));
        if self.weights != WeightType::F32 {
            let error = relative_error(&found, &expected);
            self.errors.borrow_mut().push((name.to_owned(), error));
            return;
        }
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
