//! A sample of BEiT-3 gives the same bits alone as beside longer and shorter ones, from every row to every
//! head.

use multiway_model::{EncoderOutput, TaskGroup, Tensor};

use super::beit3::{Samples, word_logits};
use super::case::Case;

/// Every way in which the case's samples can be given: texts, pictures, and both.
pub(crate) fn rows_alone(case: &Case) {
    let task = case.model.config().task_group;
    let has_text = case.inputs.get("text_lengths").is_some();
    let masked = "in.vision_masked_position";
    let masked = case.has(masked).then_some(masked);
    let pictures = |samples: Samples| samples.with_pictures(case, "in.image", masked);
    let takes_one_alone = !matches!(task, TaskGroup::Vqa | TaskGroup::Nlvr2);
    if has_text {
        let both = pictures(Samples::text(case));
        let lengths = both.texts.iter().map(Vec::len);
        assert_ne!(
            lengths.clone().min(),
            lengths.max(),
            "{}: all of one length",
            case.name
        );
        check(case, task, "both", &both);
    }
    if has_text && takes_one_alone {
        check(case, task, "text", &Samples::text(case));
    }
    if takes_one_alone {
        check(case, task, "pictures", &pictures(Samples::default()));
    }
}

/// Compares what all samples give in one batch with what each gives alone; those of two pictures come in
/// pairs.
fn check(case: &Case, task: TaskGroup, what: &str, samples: &Samples) {
    let count = samples.texts.len().max(samples.pixels.len());
    let groups: Vec<Vec<usize>> = if task == TaskGroup::Nlvr2 {
        // Any two samples make a pair for the head.
        (0..count).map(|first| vec![first, (first + 1) % count]).collect()
    } else {
        (0..count).map(|sample| vec![sample]).collect()
    };
    let all = groups.concat();
    let together = bits(case, task, &samples.select(&all), groups[0].len());
    for (group, together) in groups.iter().zip(together) {
        let alone = bits(case, task, &samples.select(group), group.len());
        assert!(
            alone == [together],
            "{}: {what}: samples {group:?} alone",
            case.name
        );
    }
}

/// Encodes samples and reads, for each group of so many, its rows and what the heads make of them.
fn bits(case: &Case, task: TaskGroup, samples: &Samples, size: usize) -> Vec<Vec<u32>> {
    let encoded = case.model.encode(&samples.batch(case)).unwrap();
    let groups = encoded.segments.samples.len() / size;
    let each = (0..groups).map(|group| {
        let members = group * size..(group + 1) * size;
        let mut read = Vec::new();
        for sample in members.clone() {
            for range in encoded.segments.samples[sample].all() {
                read.push(encoded.hidden.narrow(0, range.start, range.len()).unwrap());
            }
            read.extend(token_heads(case, task, &encoded, sample));
        }
        let of_group = match task {
            TaskGroup::Vqa | TaskGroup::Nlvr2 | TaskGroup::ImageClassification => {
                Some(case.model.classify(&encoded).unwrap()) // [groups, C]
            }
            TaskGroup::Retrieval => Some(case.model.embed(&encoded).unwrap()), // [groups, E]
            _ => None,
        };
        read.extend(of_group.map(|rows| rows.narrow(0, group, 1).unwrap()));
        let values = read
            .iter()
            .flat_map(|rows| rows.to_vec2::<f32>().unwrap().concat());
        values.map(f32::to_bits).collect()
    });
    each.collect()
}

/// Names the words and the visual codes of a sample's rows, where the model has such heads.
fn token_heads(case: &Case, task: TaskGroup, encoded: &EncoderOutput, sample: usize) -> Vec<Tensor> {
    let segments = &encoded.segments.samples[sample];
    let (words, codes) = match task {
        TaskGroup::Captioning => (true, false),
        TaskGroup::Pretraining => (true, true),
        _ => (false, false),
    };
    let mut read = Vec::new();
    if words && !segments.text.is_empty() {
        read.push(word_logits(case, encoded, sample)); // [L, V]
    }
    if codes && let Some(image) = segments.images.first() {
        let rows: Vec<u32> = image.clone().map(|row| u32::try_from(row).unwrap()).collect();
        read.push(case.model.visual_code_logits(encoded, &rows).unwrap()); // [1 + P, C]
    }
    read
}
