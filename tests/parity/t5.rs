//! The T5 family against `transformers`.

use multiway_model::{
    DecoderBatch, DecoderRow, EncoderBatch, EncoderOutput, EncoderSample, HookPoint, Model, TargetBatch,
    Tensor,
};

use super::case::Case;

/// The prompts without their padding.
pub(crate) fn prompts(case: &Case) -> Vec<Vec<u32>> {
    let masks = case.tokens("attention_mask");
    let rows = case.tokens("input_ids").into_iter().zip(masks);
    rows.map(|(ids, mask)| {
        ids.into_iter()
            .zip(mask)
            .filter(|(_, m)| *m == 1)
            .map(|(id, _)| id)
            .collect()
    })
    .collect()
}

pub(crate) fn batch(model: &Model, prompts: &[Vec<u32>]) -> EncoderBatch {
    let samples: Vec<_> = prompts
        .iter()
        .map(|tokens| EncoderSample { images: &[], tokens })
        .collect();
    EncoderBatch::new(model.config(), &samples).unwrap()
}

/// Takes the valid rows `[N, W]` of a recorded `[B, L, W]`, sample after sample.
pub(crate) fn valid(case: &Case, name: &str, lengths: &[usize]) -> Tensor {
    let recorded = case.recorded(name);
    let valid: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(row, length)| recorded.get(row).unwrap().narrow(0, 0, *length).unwrap())
        .collect();
    Tensor::cat(&valid, 0).unwrap()
}

/// Compares packed rows with what was recorded of them.
pub(crate) fn compare_packed(case: &Case, name: &str, packed: &Tensor, lengths: &[usize]) {
    case.compare(name, packed, &valid(case, name, lengths));
}

pub(crate) fn name(stack: &str, place: HookPoint) -> String {
    match place {
        HookPoint::Embedded => format!("{stack}.embed"),
        HookPoint::Layer(index) => format!("{stack}.block.{index}"),
        HookPoint::Output => format!("{stack}.out"),
    }
}

fn encode(case: &Case, model: &Model, observe: bool) -> EncoderOutput {
    let prompts = prompts(case);
    let lengths: Vec<_> = prompts.iter().map(Vec::len).collect();
    let mut look = |place, rows: &Tensor| {
        if observe {
            compare_packed(case, &name("enc", place), rows, &lengths);
        }
        Ok(())
    };
    model.encode_observed(&batch(model, &prompts), &mut look).unwrap()
}

fn decode(case: &Case, model: &Model, encoded: &EncoderOutput, observe: bool) -> Tensor {
    let inputs = case.tokens("decoder_input_ids");
    let lengths: Vec<_> = inputs.iter().map(Vec::len).collect();
    let mut targets = TargetBatch::default();
    for (sample, tokens) in inputs.iter().enumerate() {
        targets.push(sample, tokens);
    }
    let mut look = |place, rows: &Tensor| {
        if observe {
            compare_packed(case, &name("dec", place), rows, &lengths);
        }
        Ok(())
    };
    let logits = model.decode_observed(encoded, &targets, &mut look).unwrap();
    compare_packed(case, "logits", &logits, &lengths);
    logits
}

pub(crate) fn walk(case: &Case) {
    let encoded = encode(case, &case.model, true);
    let logits = decode(case, &case.model, &encoded, true);
    let labels: Vec<u32> = case.tokens("labels").concat();
    let labels = Tensor::from_slice(&labels, labels.len(), logits.device()).unwrap();
    let loss = candle_nn::loss::cross_entropy(&logits, &labels).unwrap();
    case.compare("loss", &loss.reshape(1).unwrap(), case.recorded("loss"));
    // The buckets are compared where they are made, in the model crate.
    case.assert_complete(&[
        "rel_bucket_bidirectional",
        "rel_bucket_causal",
        "rel_bucket_positions",
    ]);
}

pub(crate) fn rows_alone(case: &Case) {
    let bits = |x: &Tensor| x.to_vec2::<f32>().unwrap();
    let together = bits(&encode(case, &case.model, false).hidden);
    let mut start = 0;
    for prompt in prompts(case) {
        let alone = case
            .model
            .encode(&batch(&case.model, std::slice::from_ref(&prompt)))
            .unwrap();
        let rows = &together[start..start + prompt.len()];
        assert!(
            bits(&alone.hidden) == rows,
            "{}: a row of {} tokens",
            case.name,
            prompt.len()
        );
        start += prompt.len();
    }
}

pub(crate) fn differentiable(case: &Case) {
    let weights =
        candle_core::safetensors::load(case.folder.join("model.safetensors"), case.model.device()).unwrap();
    let model = Model::from_tensors(case.model.config(), &weights).unwrap();
    let encoded = encode(case, &model, true);
    decode(case, &model, &encoded, true);
}

/// Decodes each prompt greedily, all of them in one running batch, until its end or the recorded limit.
pub(crate) fn greedy(case: &Case) {
    let (model, config) = (&case.model, case.model.config());
    let generated = case.inputs["generate"].as_array().unwrap();
    let recorded = generated.iter().find(|run| run["name"] == "greedy").unwrap();
    let expected: Vec<Vec<u32>> = serde_json::from_value(recorded["sequences"].clone()).unwrap();
    let limit = usize::try_from(recorded["kwargs"]["max_new_tokens"].as_u64().unwrap()).unwrap();
    let memories = model.prompt_memory(&encode(case, model, false)).unwrap();
    let mut cache = model.new_cache(memories.len(), limit).unwrap();
    let mut written = vec![vec![config.decoder_start_token_id]; memories.len()];
    for _ in 0..limit {
        let going =
            |row: &usize| written[*row].len() == 1 || written[*row].last() != Some(&config.eos_token_id);
        let running: Vec<usize> = (0..memories.len()).filter(going).collect();
        if running.is_empty() {
            break;
        }
        let rows = running.iter().map(|&row| DecoderRow {
            token: *written[row].last().unwrap(),
            slot: row,
            memory: &memories[row],
        });
        let rows: Vec<_> = rows.collect();
        let logits = model
            .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
            .unwrap();
        let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        for (row, token) in running.into_iter().zip(next) {
            written[row].push(token);
        }
    }
    for (row, (found, expected)) in written.iter().zip(&expected).enumerate() {
        let end = expected.iter().skip(1).position(|id| *id == config.eos_token_id);
        let expected = &expected[..end.map_or(expected.len(), |end| end + 2)];
        assert_eq!(found, expected, "{}: row {row}", case.name);
    }
}
