//! Checkpoints whose weights an adapter changes, and adapters in their files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter, AdapterError};
use super::opened::Checkpoint;
use super::save::write_atomically;

impl Checkpoint {
    /// Returns the checkpoint with weights that an adapter has changed: [`Checkpoint::load_tensor`] and all
    /// that is built on it see the changed ones. The files stay as they are.
    ///
    /// # Errors
    /// [`AdapterError::OtherModel`] where the adapter changes weights that the model does not have,
    /// [`AdapterError::Packed`] where the checkpoint is packed.
    pub fn with_adapter(&self, adapter: Adapter) -> Result<Self, AdapterError> {
        if self.packed().is_some() {
            return Err(AdapterError::Packed);
        }
        adapter.check(self.config())?;
        Ok(Self {
            adapter: Some(Arc::new(adapter)),
            ..self.clone()
        })
    }

    /// Returns the adapter that changes the weights, if there is one.
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_deref()
    }

    /// Tells whether an adapter changes a weight.
    pub(crate) fn is_adapted(&self, name: &str) -> bool {
        self.adapter().is_some_and(|adapter| adapter.changes(name))
    }
}

impl Adapter {
    /// Writes the adapter into a folder, which is made if need be: the factors first, then what describes
    /// them, each file as a whole.
    ///
    /// # Errors
    /// [`AdapterError::File`] where the folder cannot be written.
    ///
    /// # Examples
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use multiway_model::checkpoint::{Adapter, AdapterConfig};
    /// use multiway_model::{DType, Device, Tensor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = AdapterConfig {
    ///     base: "default".to_owned(),
    ///     base_fingerprint: String::new(),
    ///     rank: 2,
    ///     alpha: 4.0,
    ///     weights: Vec::new(),
    /// };
    /// let factor = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
    /// let factors = BTreeMap::from([("q_proj.weight".to_owned(), [factor((2, 8))?, factor((6, 2))?])]);
    /// # let folder = std::env::temp_dir().join(format!("multiway-adapter-{}", std::process::id()));
    /// Adapter::new(config, factors).save(&folder)?;
    /// assert_eq!(Adapter::open(&folder)?.config().weights, ["q_proj.weight"]);
    /// # std::fs::remove_dir_all(folder)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        let folder = folder.as_ref();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| AdapterError::File { action, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        let weights = self.to_bytes(&path)?;
        write_atomically(&path, &weights).map_err(failed("write", &path))?;
        let path = folder.join(ADAPTER_CONFIG_FILE);
        let config = serde_json::to_string_pretty(self.config()).map_err(|source| AdapterError::Config {
            path: path.clone(),
            source,
        })?;
        write_atomically(&path, (config + "\n").as_bytes()).map_err(failed("write", &path))
    }

    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, AdapterError> {
        let mut stored = Vec::new();
        for (name, factors) in self.factors() {
            for (factor, ending) in factors.iter().zip(Self::ENDINGS) {
                let values: Vec<f32> = factor.flatten_all()?.to_vec1()?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                stored.push((format!("{name}{ending}"), factor.dims().to_vec(), bytes));
            }
        }
        let failed = |source| AdapterError::Format {
            path: path.to_owned(),
            source,
        };
        let views = stored.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            Ok((name.as_str(), view.map_err(failed)?))
        });
        let views = views.collect::<Result<Vec<_>, AdapterError>>()?;
        safetensors::serialize(views, None).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::checkpoint::AdapterConfig;
    use crate::init::initialise;
    use crate::testing::tiny_config;

    fn checkpoint(folder: &Path) -> Checkpoint {
        let config = tiny_config();
        let tensors = initialise(&config, 1, &Device::Cpu).unwrap();
        let tensors: HashMap<String, Tensor> = tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_dtype(DType::BF16).unwrap()))
            .collect();
        Checkpoint::save(folder, &config, &tensors, &[]).unwrap();
        Checkpoint::open(folder).unwrap()
    }

    /// Makes an adapter that changes one weight, given a shape.
    fn adapter(weight: &str, [outputs, inputs]: [usize; 2]) -> Adapter {
        let config = AdapterConfig {
            base: "tiny".to_owned(),
            base_fingerprint: "0".to_owned(),
            rank: 2,
            alpha: 3.0,
            weights: Vec::new(),
        };
        let ones = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let factors = [ones((2, inputs)), ones((outputs, 2))];
        Adapter::new(config, BTreeMap::from([(weight.to_owned(), factors)]))
    }

    #[test]
    fn an_adapter_changes_what_is_loaded_and_what_is_converted() {
        let folder = tempfile::tempdir().unwrap();
        let base = checkpoint(&folder.path().join("base"));
        let (weight, shape) = base.config().adaptable_weights().remove(3);
        adapter(&weight, shape)
            .save(folder.path().join("adapter"))
            .unwrap();
        let adapter = Adapter::open(folder.path().join("adapter")).unwrap();
        let adapted = base.with_adapter(adapter).unwrap();
        let load = |checkpoint: &Checkpoint, name: &str| {
            let tensor = checkpoint.load_tensor(name, &Device::Cpu, DType::F32).unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        // Both rows of the product are ones: twice alpha over the rank is added.
        let expected: Vec<f32> = load(&base, &weight).iter().map(|value| value + 3.0).collect();
        assert_eq!(load(&adapted, &weight), expected);
        let other = "text_embed.weight";
        assert_eq!(load(&adapted, other), load(&base, other));

        let out = folder.path().join("merged");
        assert!(adapted.convert(&out, None, &[]).unwrap().max_error < f32::MIN_POSITIVE);
        let merged = Checkpoint::open(&out).unwrap();
        assert_eq!(load(&merged, &weight), expected);
        let stored = |name: &str| {
            let mut entries = merged.tensors().iter();
            entries.find(|entry| entry.name == name).unwrap().dtype
        };
        assert_eq!((stored(&weight), stored(other)), (DType::F32, DType::BF16));
    }

    #[test]
    fn an_adapter_of_another_model_or_of_a_packed_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let base = checkpoint(&folder.path().join("base"));
        let (weight, [outputs, inputs]) = base.config().adaptable_weights().remove(0);
        for (weight, shape) in [
            (weight.as_str(), [outputs, inputs + 1]),
            ("text_embed.weight", [outputs, inputs]),
        ] {
            let error = base.with_adapter(adapter(weight, shape)).unwrap_err();
            assert!(matches!(error, AdapterError::OtherModel { .. }), "{error}");
        }
        let packed = folder.path().join("packed");
        base.pack(&packed, crate::kernels::WeightType::F32, &[]).unwrap();
        let packed = Checkpoint::open(packed).unwrap();
        let error = packed
            .with_adapter(adapter(&weight, [outputs, inputs]))
            .unwrap_err();
        assert!(matches!(error, AdapterError::Packed), "{error}");
    }

    #[test]
    fn files_that_are_no_adapter_are_told_from_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, weights) = (folder.path(), folder.path().join(ADAPTER_WEIGHTS_FILE));
        let told = || Adapter::open(path).unwrap_err().to_string();
        assert!(told().contains("cannot read"), "{}", told());
        let whole = adapter("q_proj.weight", [6, 4]);
        whole.save(path).unwrap();
        let bytes = fs::read(&weights).unwrap();
        for length in 0..bytes.len() {
            fs::write(&weights, &bytes[..length]).unwrap();
            assert!(
                told().contains("no whole safetensors file"),
                "{length}: {}",
                told()
            );
        }
        fs::write(&weights, &bytes).unwrap();
        let config = path.join(ADAPTER_CONFIG_FILE);
        let text = fs::read_to_string(&config).unwrap();
        for (from, to, expected) in [
            ("\"rank\": 2", "\"rank\": 3", "factors of rank 3"),
            ("q_proj", "k_proj", "k_proj.weight.lora_a"),
            (
                "\"q_proj.weight\"",
                "",
                "two factors for each of 0 different weights",
            ),
            ("\"rank\": 2", "\"rank\": 0", "a rank from 1"),
            ("rank", "rang", "unknown field `rang`"),
            ("{", "[", "does not describe an adapter"),
        ] {
            fs::write(&config, text.replacen(from, to, 1)).unwrap();
            assert!(told().contains(expected), "{}", told());
        }
    }
}
