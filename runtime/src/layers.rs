//! Layers of sampling parameters, resolved to what a request says.

use multiway_prompts::SamplingOptions;

use crate::sampling_params::SamplingParams;

impl SamplingParams {
    /// Puts a layer on top of these parameters, as [`SamplingOptions::overlay`] does with two layers.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::{SamplingOptions, SamplingParams};
    ///
    /// let layer = SamplingOptions { beams: Some(4), ..SamplingOptions::default() };
    /// let params = SamplingParams::default().overlay(layer);
    /// assert_eq!((params.beams, params.top_p), (4, 1.0));
    /// ```
    #[must_use]
    pub fn overlay(mut self, layer: SamplingOptions) -> Self {
        self.logit_bias.extend(&layer.logit_bias);
        self.stop.extend(layer.stop.iter().cloned());
        self.sequence_bias.extend(layer.sequence_bias.iter().cloned());
        self.bad_words_ids.extend(layer.bad_words_ids.iter().cloned());
        self.suppress_tokens.extend(&layer.suppress_tokens);
        self.begin_suppress_tokens.extend(&layer.begin_suppress_tokens);
        Self {
            max_new_tokens: layer.max_new_tokens.unwrap_or(self.max_new_tokens),
            temperature: layer.temperature.unwrap_or(self.temperature),
            top_k: layer.top_k.or(self.top_k),
            top_p: layer.top_p.unwrap_or(self.top_p),
            min_p: layer.min_p.unwrap_or(self.min_p),
            typical_p: layer.typical_p.unwrap_or(self.typical_p),
            seed: layer.seed.or(self.seed),
            repetition_penalty: layer.repetition_penalty.unwrap_or(self.repetition_penalty),
            presence_penalty: layer.presence_penalty.unwrap_or(self.presence_penalty),
            frequency_penalty: layer.frequency_penalty.unwrap_or(self.frequency_penalty),
            no_repeat_ngram_size: layer.no_repeat_ngram_size.unwrap_or(self.no_repeat_ngram_size),
            forced_bos_token_id: layer.forced_bos_token_id.or(self.forced_bos_token_id),
            exponential_decay_length_penalty: layer
                .exponential_decay_length_penalty
                .or(self.exponential_decay_length_penalty),
            min_new_tokens: layer.min_new_tokens.unwrap_or(self.min_new_tokens),
            beams: layer.asked_beams().unwrap_or(self.beams),
            length_penalty: layer.length_penalty.unwrap_or(self.length_penalty),
            early_stopping: layer.early_stopping.unwrap_or(self.early_stopping),
            samples: layer.samples.unwrap_or(self.samples),
            best_of: layer.best_of.or(self.best_of),
            show_special: layer.show_special.unwrap_or(self.show_special),
            top_log_probabilities: layer.top_log_probabilities.unwrap_or(self.top_log_probabilities),
            forced_eos_token_id: layer.forced_eos_token_id.unwrap_or(self.forced_eos_token_id),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Says everything, `n` times or by `n` more.
    fn layer(n: u32) -> SamplingOptions {
        let said: Vec<(&str, Value)> = vec![
            ("max_new_tokens", json!(90 + n)),
            ("temperature", json!(0)),
            ("top_k", json!(n)),
            ("top_p", json!(0.5)),
            ("min_p", json!(0.5)),
            ("typical_p", json!(0.5)),
            ("seed", json!(n)),
            ("beams", json!(n)),
            ("length_penalty", json!(n)),
            ("early_stopping", json!("never")),
            ("repetition_penalty", json!(n)),
            ("presence_penalty", json!(0.5)),
            ("frequency_penalty", json!(0.5)),
            ("logit_bias", json!({ n.to_string(): 0.5 })),
            ("no_repeat_ngram_size", json!(n)),
            ("min_new_tokens", json!(n)),
            ("stop", json!([n.to_string()])),
            ("sequence_bias", json!([[[n], 0.5]])),
            ("bad_words_ids", json!([[n]])),
            ("suppress_tokens", json!([n])),
            ("begin_suppress_tokens", json!([n])),
            ("forced_bos_token_id", json!(n)),
            ("forced_eos_token_id", json!([n])),
            ("exponential_decay_length_penalty", json!([n, 0.5])),
            ("samples", json!(n)),
            ("best_of", json!(n)),
            ("top_log_probabilities", json!(n)),
            ("show_special", json!(true)),
        ];
        let names: Vec<&str> = said.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, SamplingOptions::NAMES);
        let said = said.into_iter().map(|(name, value)| (name.to_owned(), value));
        serde_json::from_value(Value::Object(said.collect())).unwrap()
    }

    #[test]
    fn every_parameter_of_a_layer_arrives_and_layers_may_be_joined_before() {
        let params = SamplingParams::default().overlay(layer(3));
        let written = serde_json::to_value(&params).unwrap();
        for (name, said) in serde_json::to_value(layer(3)).unwrap().as_object().unwrap() {
            assert_eq!(written.get(name), Some(said), "{name}");
        }
        let one_by_one = params.overlay(layer(5));
        let joined = SamplingParams::default().overlay(layer(3).overlay(layer(5)));
        assert_eq!(one_by_one, joined);
        assert_eq!(one_by_one.bad_words_ids, [[3], [5]]);
    }

    #[test]
    fn an_empty_layer_changes_nothing_and_one_that_samples_has_one_beam() {
        let params = SamplingParams::default().overlay(layer(3));
        assert_eq!(params.clone().overlay(SamplingOptions::default()), params);
        let samples = SamplingOptions {
            temperature: Some(0.5),
            ..SamplingOptions::default()
        };
        assert_eq!(params.overlay(samples).beams, 1);
    }
}
