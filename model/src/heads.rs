//! Heads on the encoder's rows: embeddings, visual codes, words, classes.

use candle_core::{Result, Tensor};

use crate::config::{ModelConfig, Pooling, TextRow};
use crate::error::ForwardError;
use crate::layers::Weights;
use crate::layers::form::{Form, LinearLayer, NormLayer};
use crate::output::EncoderOutput;

/// The heads that a model has.
#[derive(Debug)]
pub(crate) struct Heads<F: Form> {
    embedding: Option<EmbeddingHead<F>>,
    visual_codes: Option<F::Linear>,
    words: Option<F::Linear>,
    classes: Option<ClassHead<F>>,
}

/// Projects a picture's class row, or a row of a text.
#[derive(Debug)]
struct EmbeddingHead<F: Form> {
    vision: F::Linear,
    language: F::Linear,
    /// Which row stands for a text.
    text_row: TextRow,
}

/// Names the class of a sample.
#[derive(Debug)]
struct ClassHead<F: Form> {
    pooling: Pooling,
    /// Of VQA: makes one row of the class row.
    pooler: Option<(F::Norm, F::Linear)>,
    norm1: Option<F::Norm>,
    dense1: Option<F::Linear>,
    norm2: Option<F::Norm>,
    dense2: F::Linear,
}

impl<F: Form> Heads<F> {
    pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let linear = |name: &str| F::Linear::load(weights, &[format!("{name}.weight")]);
        let embedding = config.embedding.map(|head| {
            Ok::<_, candle_core::Error>(EmbeddingHead {
                vision: linear("embed.vision")?,
                language: linear("embed.language")?,
                text_row: head.text_row,
            })
        });
        let visual_codes = weights.has("mim_head.weight").then(|| linear("mim_head"));
        let words = weights.has("mlm_head.weight").then(|| linear("mlm_head"));
        let classes = config
            .class_head
            .map(|head| ClassHead::load(head.pooling, config.norm_eps, weights));
        Ok(Self {
            embedding: embedding.transpose()?,
            visual_codes: visual_codes.transpose()?,
            words: words.transpose()?,
            classes: classes.transpose()?,
        })
    }

    /// Projects each sample, `[B, E]`, of any length.
    pub(crate) fn embed(&self, encoded: &EncoderOutput) -> std::result::Result<Tensor, ForwardError> {
        let head = self
            .embedding
            .as_ref()
            .ok_or(ForwardError::NoHead("embeddings"))?;
        let rows = encoded.segments.samples.iter().map(|sample| {
            let (head, row) = match (sample.images.first(), head.text_row) {
                (Some(image), _) => (&head.vision, image.start),
                (None, TextRow::First) => (&head.language, sample.text.start),
                (None, TextRow::Last) => (&head.language, sample.text.end - 1),
            };
            head.forward(&encoded.hidden.narrow(0, row, 1)?) // [1, E]
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Names rows `[N, D]` by visual codes, `[N, C]`.
    pub(crate) fn visual_codes(&self, rows: &Tensor) -> std::result::Result<Tensor, ForwardError> {
        let head = self
            .visual_codes
            .as_ref()
            .ok_or(ForwardError::NoHead("visual codes"))?;
        Ok(head.forward(rows)?)
    }

    /// Returns the head that scores the words that rows `[N, D]` stand for, `[N, V]`.
    pub(crate) fn words(&self) -> std::result::Result<&F::Linear, ForwardError> {
        self.words.as_ref().ok_or(ForwardError::NoHead("words"))
    }

    /// Scores the classes of each sample, `[B, C]`; with two pictures, of each two neighbouring samples.
    pub(crate) fn classify(&self, encoded: &EncoderOutput) -> std::result::Result<Tensor, ForwardError> {
        let head = self.classes.as_ref().ok_or(ForwardError::NoHead("classes"))?;
        head.check(encoded)?;
        Ok(head.forward(encoded)?)
    }
}

impl<F: Form> ClassHead<F> {
    fn load(pooling: Pooling, norm_eps: f64, weights: &Weights) -> Result<Self> {
        let linear = |name: &str| F::Linear::load(weights, &[format!("{name}.weight")]);
        let norm = |name: &str| F::Norm::load(weights, &[format!("{name}.weight")], norm_eps);
        let has = |name: &str| weights.has(&format!("{name}.weight"));
        let pooler = || Ok::<_, candle_core::Error>((norm("pooler.norm")?, linear("pooler.dense")?));
        Ok(Self {
            pooling,
            pooler: has("pooler.dense").then(pooler).transpose()?,
            norm1: has("head.norm1").then(|| norm("head.norm1")).transpose()?,
            dense1: has("head.dense1").then(|| linear("head.dense1")).transpose()?,
            norm2: has("head.norm2").then(|| norm("head.norm2")).transpose()?,
            dense2: linear("head.dense2")?,
        })
    }

    fn check(&self, encoded: &EncoderOutput) -> std::result::Result<(), ForwardError> {
        let samples = &encoded.segments.samples;
        let refuse = |sample, expected| Err(ForwardError::Head { sample, expected });
        if let Some(sample) = samples
            .iter()
            .position(|s| s.images.first().is_none_or(|image| image.len() < 2))
        {
            return refuse(sample, "a picture");
        }
        if self.pooling != Pooling::Pair {
            return Ok(());
        }
        if let Some(sample) = samples.iter().position(|sample| sample.text.is_empty()) {
            return refuse(sample, "a sentence beside the picture");
        }
        if !samples.len().is_multiple_of(2) {
            return refuse(samples.len() - 1, "another sample of the same sentence after it");
        }
        Ok(())
    }

    fn forward(&self, encoded: &EncoderOutput) -> Result<Tensor> {
        let mut x = self.pool(encoded)?; // [B, D] or, of two pictures, [B / 2, 4 D]
        if let Some((norm, dense)) = &self.pooler {
            x = dense.forward(&norm.forward(&x, 0)?)?.tanh()?; // [B, D]
        }
        if let Some(norm) = &self.norm1 {
            x = norm.forward(&x, 0)?;
        }
        if let Some(dense) = &self.dense1 {
            x = dense.forward(&x)?; // [B, 2 D]
        }
        if let Some(norm) = &self.norm2 {
            x = norm.forward(&x, 0)?.gelu_erf()?; // [B, 2 D]
        }
        self.dense2.forward(&x) // [B, C]
    }

    /// Takes the rows that the head reads: class rows, or the mean of the patches.
    fn pool(&self, encoded: &EncoderOutput) -> Result<Tensor> {
        let samples = &encoded.segments.samples;
        let row = |row: usize| encoded.hidden.narrow(0, row, 1); // [1, D]
        let image = |sample: usize| samples[sample].images.first().cloned().unwrap_or(0..1);
        let rows: Result<Vec<Tensor>> = match self.pooling {
            Pooling::PatchMean => (0..samples.len())
                .map(|sample| {
                    let range = image(sample);
                    let patches = encoded.hidden.narrow(0, range.start + 1, range.len() - 1)?; // [P, D]
                    patches.mean_keepdim(0) // [1, D]
                })
                .collect(),
            Pooling::Pair => (0..samples.len() / 2)
                .map(|pair| {
                    let [first, second] = [2 * pair, 2 * pair + 1];
                    let both = |sample: usize| [image(sample).start, samples[sample].text.start];
                    let parts = [both(first), both(second)].concat();
                    let parts: Result<Vec<_>> = parts.into_iter().map(row).collect();
                    Tensor::cat(&parts?, 1) // [1, 4 D]
                })
                .collect(),
            Pooling::ClassRow => (0..samples.len())
                .map(|sample| row(image(sample).start))
                .collect(),
        };
        Tensor::cat(&rows?, 0)
    }
}
