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
