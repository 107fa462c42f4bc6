//! Writing any checkpoint as a folder with `config.json` and safetensors, and proving that it is the same
//! model.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::batch::{EncoderBatch, EncoderSample, TargetBatch};
use crate::checkpoint::{
    COMPANIONS, CONFIG_FILE, Checkpoint, ConvertError, GENERATION_FILE, SaveError, save, write_packed,
};
use crate::config::{ModelConfig, foreign_keys};
use crate::execution::LoadOptions;
use crate::image::ProcessedImage;
use crate::kernels::WeightType;
use crate::model::Model;

/// The text of a sample on which the two are compared, in tokens.
const SAMPLE_TOKENS: usize = 12;

/// The report of a conversion.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Conversion {
    /// How many tensors were written.
    pub tensors: usize,
    /// The requested element type; without one each tensor keeps its own.
    pub dtype: Option<DType>,
    /// The form in which linear layers are packed, where they are.
    pub packed: Option<WeightType>,
    /// The files that were copied beside them.
    pub files: Vec<&'static str>,
    /// The largest difference between the outputs of the two models, on a picture and a text of random
    /// tokens.
    pub max_error: f32,
    /// The largest output, for comparison.
    pub largest: f32,
}

/// Keys that say how answers are written, and stood in `config.json` before there was a file for them.
///
/// Source: `transformers` 4.57, `GenerationConfig.__init__`.
const GENERATION_KEYS: [&str; 29] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

impl Checkpoint {
    /// Writes the checkpoint into a folder as `config.json`, `model.safetensors` and the files of its
    /// tokenizer, with `notes` beside them, and compares the outputs of the two.
    ///
    /// Without `dtype` every tensor keeps its type, and the outputs must be the same; with a narrower one
    /// they differ by what it rounds, which is reported.
    ///
    /// # Errors
    /// [`ConvertError`] where something cannot be read or written, or the outputs differ.
    pub fn convert(
        &self,
        folder: impl AsRef<Path>,
        dtype: Option<DType>,
        notes: &[(&str, &[u8])],
    ) -> Result<Conversion, ConvertError> {
        let types: HashMap<&str, DType> = self
            .tensors()
            .iter()
            .map(|entry| (entry.name.as_str(), entry.dtype))
            .collect();
        let mut tensors = HashMap::new();
        let mut rounds = false;
        for (name, _) in self.config().tensors() {
            // What an adapter has changed is no longer a number of the stored type.
            let stored = types
                .get(name.as_str())
                .copied()
                .filter(|_| !self.is_adapted(&name));
            let stored = stored.unwrap_or(DType::F32);
            let wanted = dtype.unwrap_or(stored);
            rounds |= wanted != stored && wanted != DType::F32;
            let tensor = self.load_tensor(&name, &Device::Cpu, wanted)?;
            tensors.insert(name, tensor);
        }
        let count = tensors.len();
        let folder = folder.as_ref();
        let files = self.write_beside(folder, notes, |files| {
            Ok(Self::save(folder, self.config(), &tensors, files)?)
        })?;
        drop(tensors);
        let converted = outputs(&Self::open(folder)?, None)?;
        let (max_error, largest) = compare(&outputs(self, None)?, &converted, rounds)?;
        Ok(Conversion {
            tensors: count,
            dtype,
            packed: None,
            files,
            max_error,
            largest,
        })
    }

    /// Writes the checkpoint into a folder with its linear layers packed in the form that `weights` names, so
    /// that loading need not do it, with the files of its tokenizer and `notes` beside it. Compares the
    /// outputs of the two.
    ///
    /// The outputs must be those of [`Model::load_with`] in this form; what it rounds of those in `f32` is
    /// reported. Embeddings, norms and biases keep the type that they are stored in.
    ///
    /// # Errors
    /// [`ConvertError`] where something cannot be read or written, the checkpoint is packed already, or the
    /// outputs differ.
    pub fn pack(
        &self,
        folder: impl AsRef<Path>,
        weights: WeightType,
        notes: &[(&str, &[u8])],
    ) -> Result<Conversion, ConvertError> {
        // Whatever cannot be read is told before anything is written.
        for (name, _) in self.config().tensors() {
            self.stored(&name)?;
        }
        let (folder, mut tensors) = (folder.as_ref(), 0);
        let files = self.write_beside(folder, notes, |files| {
            tensors = save(folder, self.config(), files, |write| {
                write_packed(self, weights, write)
            })?;
            Ok(())
        })?;
        let packed = outputs(&Self::open(folder)?, None)?;
        let (mut max_error, mut largest) = compare(&outputs(self, Some(weights))?, &packed, false)?;
        if weights != WeightType::F32 {
            (max_error, largest) = compare(&outputs(self, Some(WeightType::F32))?, &packed, true)?;
        }
        Ok(Conversion {
            tensors,
            dtype: None,
            packed: Some(weights),
            files,
            max_error,
            largest,
        })
    }

    /// Writes a model with other weights into a folder as [`Checkpoint::convert`] does, with the files of
    /// this checkpoint's tokenizer and `notes` beside them. Returns the names of the files that were copied.
    ///
    /// # Errors
    /// [`ConvertError`] where the weights are not the model's, or something cannot be read or written.
    pub fn save_with_weights(
        &self,
        folder: impl AsRef<Path>,
        tensors: &HashMap<String, Tensor>,
        notes: &[(&str, &[u8])],
    ) -> Result<Vec<&'static str>, ConvertError> {
        let folder = folder.as_ref();
        self.write_beside(folder, notes, |files| {
            Ok(Self::save(folder, self.config(), tensors, files)?)
        })
    }

    /// Writes what `config.json` says of generating, which the new one does not, as a file of its own.
    fn generation_keys(&self) -> Result<Option<Vec<u8>>, ConvertError> {
        let Some(config) = self.file(CONFIG_FILE)? else {
            return Ok(None);
        };
        // It was read when the checkpoint was opened.
        let mut keys = foreign_keys(&config).unwrap_or_default();
        keys.retain(|key, _| GENERATION_KEYS.contains(&key.as_str()));
        Ok((!keys.is_empty()).then(|| Value::Object(keys).to_string().into_bytes()))
    }

    /// Hands the files that go with the weights to `write`, with `notes`, and removes those of another
    /// checkpoint that was in the folder. Returns the names of those that there are.
    fn write_beside(
        &self,
        folder: &Path,
        notes: &[(&str, &[u8])],
        write: impl FnOnce(&[(&str, &[u8])]) -> Result<(), ConvertError>,
    ) -> Result<Vec<&'static str>, ConvertError> {
        let (mut names, mut contents) = (Vec::new(), Vec::new());
        for name in COMPANIONS {
            let bytes = match self.file(name)? {
                None if name == GENERATION_FILE => self.generation_keys()?.map(Cow::Owned),
                bytes => bytes,
            };
            if let Some(bytes) = bytes {
                names.push(name);
                contents.push(bytes);
            }
        }
        let companions = names.iter().copied().zip(contents.iter().map(AsRef::as_ref));
        let files: Vec<(&str, &[u8])> = companions.chain(notes.iter().copied()).collect();
        write(&files)?;
        // A tokenizer or labels of another checkpoint would take precedence over the new ones.
        for stale in COMPANIONS.iter().filter(|name| !names.contains(name)) {
            let path = folder.join(stale);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SaveError::Io {
                        file: path.display().to_string(),
                        source,
                    }
                    .into());
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

/// Returns the largest difference between the outputs of two models, which must be none but where something
/// `rounds`, and the largest output.
fn compare(a: &[Tensor], b: &[Tensor], rounds: bool) -> Result<(f32, f32), ConvertError> {
    let (mut error, mut largest) = (0.0_f32, 0.0_f32);
    for (a, b) in a.iter().zip(b) {
        let flat = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        for (a, b) in flat(a)?.into_iter().zip(flat(b)?) {
            let difference = (a - b).abs();
            // A number that is none, or beyond all, must not be overlooked.
            error = if difference.is_finite() && !error.is_nan() {
                error.max(difference)
            } else {
                f32::NAN
            };
            largest = largest.max(a.abs());
        }
    }
    if !rounds && error > 0.0 || error.is_nan() {
        return Err(ConvertError::Differs { error, largest });
    }
    Ok((error, largest))
}

/// Runs every part of a model that a checkpoint has, on the same samples for each.
fn outputs(checkpoint: &Checkpoint, weights: Option<WeightType>) -> Result<Vec<Tensor>, ConvertError> {
    let config = checkpoint.config();
    let options = LoadOptions {
        weights,
        ..LoadOptions::default()
    };
    let model = Model::load_with(checkpoint, &Device::Cpu, &options)?;
    let (images, tokens) = (pictures(config), tokens(config));
    let sample = EncoderSample {
        images: &images,
        tokens: &tokens,
    };
    // A head for two pictures reads two samples.
    let batch = EncoderBatch::new(config, &[sample, sample])?;
    let encoded = model.encode(&batch)?; // [N, D]
    let mut outputs = vec![encoded.hidden.clone()];
    if config.decoder.is_some() {
        let mut targets = TargetBatch::default();
        targets.push(0, tokens.get(..4).unwrap_or(&tokens));
        outputs.push(model.decode(&encoded, &targets)?); // [4, V]
    }
    if config.classes() > 0 {
        outputs.push(model.classify(&encoded)?); // [B, C]
    }
    if config.embedding.is_some() {
        outputs.push(model.embed(&encoded)?); // [B, E]
    }
    if config.writing_mask().is_some() || config.word_mask().is_some() {
        outputs.push(model.word_logits(&encoded, &[0])?); // [1, V]
    }
    if config.names_patches() {
        outputs.push(model.visual_code_logits(&encoded, &[0])?); // [1, C]
    }
    Ok(outputs)
}

/// Makes a picture of slow waves, where the model sees pictures.
fn pictures(config: &ModelConfig) -> Vec<ProcessedImage> {
    if config.vision.is_none() {
        return Vec::new();
    }
    let pixels = (0..config.image_values())
        .map(|place| (place as f32 * 0.37).sin())
        .collect();
    vec![ProcessedImage::from_pixels(pixels)]
}

/// Spreads a text over the vocabulary.
fn tokens(config: &ModelConfig) -> Vec<u32> {
    let count = SAMPLE_TOKENS.min(config.max_text_length);
    let spread = (1..=count).map(|place| place * 7919 % config.vocab_size);
    spread.map(|id| u32::try_from(id).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initialise;
    use crate::testing::tiny_config;

    fn saved(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
        let (folder, config) = (tempfile::tempdir().unwrap(), tiny_config());
        let mut tensors = initialise(&config, 1, &Device::Cpu)
            .unwrap()
            .into_iter()
            .collect();
        change(&mut tensors);
        Checkpoint::save(folder.path(), &config, &tensors, &[]).unwrap();
        folder
    }

    fn convert(from: &tempfile::TempDir, dtype: Option<DType>) -> Result<Conversion, ConvertError> {
        let out = tempfile::tempdir().unwrap();
        Checkpoint::open(from.path())
            .unwrap()
            .convert(out.path(), dtype, &[])
    }

    #[test]
    fn the_same_type_gives_the_same_numbers_and_a_narrower_one_nearly() {
        let folder = saved(|_| {});
        assert!(convert(&folder, None).unwrap().max_error < f32::MIN_POSITIVE);
        assert!(convert(&folder, Some(DType::F32)).unwrap().max_error < f32::MIN_POSITIVE);
        let half = convert(&folder, Some(DType::BF16)).unwrap();
        assert!(
            half.max_error > 0.0 && half.max_error < 0.1 * half.largest,
            "{half:?}"
        );
    }

    #[test]
    fn numbers_that_are_none_are_never_overlooked() {
        let name = "embed.vision.weight";
        let damaged = saved(|tensors| {
            let weight = tensors.get_mut(name).unwrap();
            let (rows, width) = weight.dims2().unwrap();
            let mut values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values[3] = f32::NAN;
            *weight = Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap();
        });
        assert!(matches!(
            convert(&damaged, None),
            Err(ConvertError::Differs { .. })
        ));
        let large = saved(|tensors| {
            let weight = tensors.get_mut("mim_head.weight").unwrap();
            *weight = (weight.ones_like().unwrap() * 1e6).unwrap();
        });
        assert!(convert(&large, None).is_ok());
        assert!(matches!(
            convert(&large, Some(DType::F16)),
            Err(ConvertError::Differs { .. })
        ));
    }

    #[test]
    fn files_of_another_checkpoint_do_not_stay() {
        let (from, out) = (saved(|_| {}), tempfile::tempdir().unwrap());
        fs::write(from.path().join("spiece.model"), b"new").unwrap();
        fs::write(out.path().join("tokenizer.json"), b"old").unwrap();
        fs::write(out.path().join("notes.txt"), b"mine").unwrap();
        Checkpoint::open(from.path())
            .unwrap()
            .convert(out.path(), None, &[])
            .unwrap();
        assert!(out.path().join("spiece.model").exists() && out.path().join("notes.txt").exists());
        assert!(!out.path().join("tokenizer.json").exists());
    }
}
