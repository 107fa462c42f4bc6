//! The file of a state: tensors named by their role and parameter, and the rest as metadata.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensors, serialize_to_file};
use sha2::{Digest, Sha256};

use super::{BTreeMap, HashMap, Path, Progress, StateError, StoredParameter, TrainingState, file_error, fs};

const FORMAT: &str = "multiway-training-state/1";
/// What a tensor is to its parameter, before the parameter's name.
const ROLES: [&str; 4] = ["weights/", "first_moment/", "second_moment/", "average/"];

/// A tensor on its way to the file.
struct StoredTensor<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

impl TrainingState {
    pub(super) fn write(&self, path: &Path) -> Result<(), StateError> {
        let progress = serde_json::to_string(&self.progress)
            .map_err(|error| content(path, "progress that can be written as JSON", error.to_string()))?;
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("progress".to_owned(), progress),
            ("optimizer_steps".to_owned(), self.optimizer_steps.to_string()),
        ]);
        let tensors = self.tensors();
        metadata.insert(
            "digest".to_owned(),
            digest(
                &metadata,
                tensors.iter().map(|(name, view)| (name.as_str(), view.data())),
            ),
        );
        serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => file_error("write", path)(source),
            source => StateError::Format {
                path: path.to_owned(),
                source,
            },
        })
    }

    /// Lists every tensor, in the order of its name in the file.
    fn tensors(&self) -> Vec<(String, StoredTensor<'_>)> {
        let mut tensors = Vec::with_capacity(self.parameters.len() * ROLES.len());
        for (name, stored) in &self.parameters {
            let values = [
                Some(&stored.weights),
                Some(&stored.first_moment),
                Some(&stored.second_moment),
                stored.average.as_ref(),
            ];
            for (role, values) in ROLES.iter().zip(values) {
                if let Some(values) = values {
                    tensors.push((
                        format!("{role}{name}"),
                        StoredTensor {
                            shape: &stored.shape,
                            values,
                        },
                    ));
                }
            }
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }

    /// Loads one state and checks all of it.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read, is not whole, or holds something else than a state.
    pub fn load(path: &Path) -> Result<Self, StateError> {
        let bytes = fs::read(path).map_err(file_error("read", path))?;
        let format = |source| StateError::Format {
            path: path.to_owned(),
            source,
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
        let found = metadata
            .get("format")
            .cloned()
            .unwrap_or_else(|| "none".to_owned());
        if found != FORMAT {
            return Err(content(
                path,
                format!("the format '{FORMAT}' in the metadata"),
                format!("'{found}'"),
            ));
        }
        check_digest(path, &mut metadata, &tensors)?;
        let progress: Progress = serde_json::from_str(&entry(path, &metadata, "progress")?)
            .map_err(|error| content(path, "a run's progress in the metadata", error.to_string()))?;
        let steps = entry(path, &metadata, "optimizer_steps")?;
        let optimizer_steps = steps
            .parse()
            .map_err(|_| content(path, "the count of optimiser steps in the metadata", &steps))?;
        Ok(Self {
            progress,
            optimizer_steps,
            parameters: read_parameters(path, &tensors)?,
        })
    }
}

fn read_parameters(
    path: &Path,
    tensors: &SafeTensors<'_>,
) -> Result<BTreeMap<String, StoredParameter>, StateError> {
    let mut parameters = BTreeMap::new();
    for name in tensors.names() {
        if let Some(parameter) = name.strip_prefix(ROLES[0]) {
            let [weights, first_moment, second_moment, average] =
                ROLES.map(|role| read_tensor(path, tensors, &format!("{role}{parameter}")));
            let (shape, weights) = required(path, name, weights?)?;
            let stored = StoredParameter {
                first_moment: same_shape(path, name, &shape, required(path, name, first_moment?)?)?,
                second_moment: same_shape(path, name, &shape, required(path, name, second_moment?)?)?,
                average: average?
                    .map(|average| same_shape(path, name, &shape, average))
                    .transpose()?,
                shape,
                weights,
            };
            parameters.insert(parameter.to_owned(), stored);
        }
    }
    let stored = |parameter: &StoredParameter| 3 + usize::from(parameter.average.is_some());
    let expected: usize = parameters.values().map(stored).sum();
    if expected != tensors.len() {
        return Err(content(
            path,
            format!("{expected} tensors for its parameters"),
            tensors.len().to_string(),
        ));
    }
    Ok(parameters)
}

type ShapeAndValues = (Vec<usize>, Vec<f32>);

fn read_tensor(
    path: &Path,
    tensors: &SafeTensors<'_>,
    name: &str,
) -> Result<Option<ShapeAndValues>, StateError> {
    let Ok(view) = tensors.tensor(name) else {
        return Ok(None);
    };
    if view.dtype() != Dtype::F32 {
        return Err(content(
            path,
            format!("'{name}' as F32"),
            format!("{:?}", view.dtype()),
        ));
    }
    let (numbers, _) = view.data().as_chunks::<4>();
    let values: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Some((view.shape().to_vec(), values)))
}

fn required(path: &Path, name: &str, tensor: Option<ShapeAndValues>) -> Result<ShapeAndValues, StateError> {
    tensor.ok_or_else(|| content(path, format!("both moments of '{name}'"), "fewer"))
}

fn same_shape(
    path: &Path,
    name: &str,
    shape: &[usize],
    tensor: ShapeAndValues,
) -> Result<Vec<f32>, StateError> {
    if tensor.0 == shape {
        return Ok(tensor.1);
    }
    Err(content(
        path,
        format!("moments and average of '{name}' with its shape {shape:?}"),
        format!("{:?}", tensor.0),
    ))
}

fn check_digest(
    path: &Path,
    metadata: &mut HashMap<String, String>,
    tensors: &SafeTensors<'_>,
) -> Result<(), StateError> {
    let found = metadata.remove("digest").unwrap_or_default();
    let mut views: Vec<_> = tensors.iter().collect();
    views.sort_by(|a, b| a.0.cmp(b.0));
    let expected = digest(
        metadata,
        views
            .iter()
            .map(|(name, view)| (*name, Cow::Borrowed(view.data()))),
    );
    if found == expected {
        return Ok(());
    }
    Err(content(
        path,
        format!("content with the digest '{found}'"),
        format!("'{expected}': the file was damaged"),
    ))
}

/// Digests names and values, in the order of the names, after the metadata.
fn digest<'a>(
    metadata: &HashMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>,
) -> String {
    let mut hash = Sha256::new();
    let mut update = |part: &[u8]| {
        // The length keeps neighbouring parts apart.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    let sorted: BTreeMap<_, _> = metadata.iter().collect();
    for (key, value) in sorted {
        update(key.as_bytes());
        update(value.as_bytes());
    }
    for (name, bytes) in tensors {
        update(name.as_bytes());
        update(&bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(path: &Path, metadata: &HashMap<String, String>, key: &str) -> Result<String, StateError> {
    let found = metadata.get(key).cloned();
    found.ok_or_else(|| content(path, format!("'{key}' in the metadata"), "none"))
}

fn content(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> StateError {
    StateError::Content {
        path: path.to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}
