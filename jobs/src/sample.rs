//! What metrics compare: an answer and the right ones, read from a row.

use multiway_prompts::OutputSpec;
use multiway_tasks::metrics::{
    BoundingBox, Confidence, ExpectedBox, FoundBox, LabelCounts, PictureBoxes, brier_score, exact_match,
    normalise_label,
};
use multiway_tasks::parse::{parse_labels, parse_number};
use serde_json::Value;

use crate::boxes::Edges;
use crate::row::Row;

/// An answer and the right ones, in each way that its kind is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) references: Vec<String>,
    pub(crate) boxes: Option<PictureBoxes>,
    pub(crate) labels: Option<LabelCounts>,
    pub(crate) numbers: Option<Numbers>,
    pub(crate) ranked: Option<Ranked>,
}

/// A number that was answered, and the right one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) found: f64,
    pub(crate) expected: f64,
}

/// What the probabilities of an answer's candidates say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) confidence: Confidence,
    pub(crate) brier: f64,
}

impl Sample {
    /// Reads the answer of a row; `None` if it has none.
    pub(crate) fn of(row: &Row, output: &OutputSpec) -> Option<Self> {
        let text = row.text.clone().filter(|_| row.error.is_none())?;
        let ranked = match output {
            OutputSpec::Choice(_) | OutputSpec::Predicate(_) | OutputSpec::Level(_) => ranked(row),
            _ => None,
        };
        Some(Self {
            boxes: picture_boxes(row),
            labels: label_counts(row, output),
            numbers: numbers(row, output),
            ranked,
            text,
            references: row.references.clone(),
        })
    }
}

/// Returns the candidates of a ranked answer, and the place of the right one if it is among them.
pub(crate) fn candidates(row: &Row) -> Option<(Vec<f64>, Option<usize>)> {
    let choices = row.answer.get("choices")?.as_array()?;
    let probability = |choice: &Value| choice.get("probability")?.as_f64();
    let probabilities: Vec<f64> = choices.iter().map(probability).collect::<Option<_>>()?;
    let is_right = |choice: &Value| {
        let text = choice.get("text").and_then(Value::as_str);
        text.is_some_and(|text| exact_match(text, &row.references))
    };
    Some((probabilities, choices.iter().position(is_right)))
}

fn ranked(row: &Row) -> Option<Ranked> {
    let (probabilities, right) = candidates(row)?;
    Some(Ranked {
        confidence: Confidence {
            probability: probabilities.first().copied()?,
            is_right: right == Some(0),
        },
        brier: brier_score(&probabilities, right),
    })
}

/// Reads the boxes that were found, in the unit of those that should be.
fn picture_boxes(row: &Row) -> Option<PictureBoxes> {
    let right = row.boxes.as_ref()?;
    let unit = match right.first().map(|right| right.edges) {
        Some(Edges::Pixels(_)) => "pixels",
        _ => "fractions",
    };
    let found = found_objects(row).filter_map(|object| {
        let edges: Vec<f64> = object
            .get(unit)?
            .as_array()?
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        Some(FoundBox {
            label: normalise_label(object.get("label").and_then(Value::as_str).unwrap_or_default()),
            bounds: BoundingBox::new(edges.try_into().ok()?),
            score: None,
        })
    });
    let expected = right.iter().map(|right| ExpectedBox {
        label: normalise_label(&right.label),
        bounds: right.edges.bounds(),
        crowd: right.crowd,
    });
    Some(PictureBoxes {
        found: found.collect(),
        expected: expected.collect(),
    })
}

/// Iterates over the boxes of an answer, in their order; those of a grounded text are those of its phrases.
fn found_objects(row: &Row) -> impl Iterator<Item = &Value> {
    let grounded = row.answer.get("grounded");
    let phrases = items(grounded.and_then(|grounded| grounded.get("phrases")));
    let of_phrases = phrases.flat_map(|phrase| items(phrase.get("boxes")));
    items(row.answer.get("boxes")).chain(of_phrases)
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn label_counts(row: &Row, output: &OutputSpec) -> Option<LabelCounts> {
    let OutputSpec::Labels(spec) = output else {
        return None;
    };
    let labels = |name: &str| items(row.answer.get(name)).filter_map(Value::as_str);
    let found: Vec<&str> = labels("labels").chain(labels("unknown")).collect();
    let expected: Vec<String> = row
        .references
        .iter()
        .flat_map(|reference| parse_labels(reference, &spec.separator, None).labels)
        .collect();
    Some(LabelCounts::of(&found, &expected))
}

/// Reads the number that was answered and the nearest right one; `None` if either is none.
fn numbers(row: &Row, output: &OutputSpec) -> Option<Numbers> {
    let found = match output {
        OutputSpec::Number(_) => row.answer.get("number")?.get("value")?.as_f64()?,
        OutputSpec::Level(_) => row.answer.get("level")?.get("expected")?.as_f64()?,
        _ => return None,
    };
    let references = row.references.iter();
    let expected = references
        .filter_map(|reference| right_number(reference, output))
        .min_by(|one, other| (one - found).abs().total_cmp(&(other - found).abs()))?;
    Some(Numbers { found, expected })
}

fn right_number(reference: &str, output: &OutputSpec) -> Option<f64> {
    let plain: Option<f64> = reference.trim().parse().ok();
    let read = match output {
        OutputSpec::Level(level) => {
            let step = level
                .levels
                .iter()
                .position(|level| exact_match(level, &[reference]));
            step.map(|step| level.values.get(step).copied().unwrap_or((step + 1) as f64))
        }
        OutputSpec::Number(spec) => plain.or_else(|| parse_number(reference, spec).value),
        _ => None,
    };
    read.or(plain).filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use multiway_prompts::{Metric, TaskFile};
    use serde_json::json;

    use super::*;
    use crate::scores::{report, score};

    fn output(kind: &str) -> OutputSpec {
        let file = format!(
            "---\ndescription: Asks.\ninputs: {{image: {{type: image}}}}\noutput: {kind}\n---\n{{{{ image }}}}"
        );
        TaskFile::parse("ask.task", file.as_bytes()).unwrap().output
    }

    fn sample(kind: &str, row: Value) -> Sample {
        let mut row = row;
        row["id"] = json!("data.jsonl#1");
        row["text"] = json!("text");
        Sample::of(&serde_json::from_value(row).unwrap(), &output(kind)).unwrap()
    }

    fn value(metric: Metric, samples: &[Sample]) -> (f64, usize) {
        let report = report(metric, samples);
        (report.value, report.samples)
    }

    #[test]
    fn boxes_are_compared_in_the_unit_of_the_right_ones() {
        let found = json!({"boxes": [
            {"label": "Cat", "pixels": [0.0, 0.0, 10.0, 10.0], "fractions": [0.0, 0.0, 0.1, 0.1], "raw": ""},
            {"label": "dog", "pixels": [], "fractions": [], "raw": "", "problem": "expected 4 locations"},
        ]});
        let pixels = json!([{"label": "cat", "pixels": [0.0, 0.0, 10.0, 8.1]}]);
        let fractions = json!([{"label": "cat", "fractions": [0.0, 0.0, 0.1, 0.081]}]);
        let wrong = json!([{"label": "cat", "fractions": [0.0, 0.0, 10.0, 8.0]}]);
        let of = |right: &Value| sample("{kind: boxes}", json!({"answer": found, "boxes": right}));
        for right in [&pixels, &fractions] {
            let sample = of(right);
            assert_eq!(
                value(Metric::BoxAccuracy, std::slice::from_ref(&sample)),
                (1.0, 1)
            );
            assert_eq!(
                value(Metric::AveragePrecision50, std::slice::from_ref(&sample)),
                (1.0, 1)
            );
            // An IoU of 0.81 is enough for 7 of the 10 thresholds.
            let (precision, _) = value(Metric::AveragePrecision, &[sample]);
            assert!((precision - 0.7).abs() < 1e-9, "{precision}");
        }
        assert!(score(Metric::BoxAccuracy, &of(&wrong)).abs() < f64::EPSILON);
        let grounded = json!({"grounded": {"plain": "a cat", "phrases": [{"text": "a cat", "boxes": [
            {"label": "a cat", "pixels": [0.0, 0.0, 10.0, 10.0], "fractions": [0.0, 0.0, 0.1, 0.1]}
        ]}]}});
        let right = json!([{"label": "A cat", "pixels": [0.0, 0.0, 10.0, 9.0]}]);
        let sample = sample("{kind: grounded}", json!({"answer": grounded, "boxes": right}));
        assert_eq!(value(Metric::AveragePrecision50, &[sample]), (1.0, 1));
    }

    #[test]
    fn labels_are_sets_whatever_form_the_right_ones_have() {
        let found = json!({"labels": ["Cat", "sun"], "unknown": ["moon"]});
        for right in [json!(["cat", "sun"]), json!(["cat , sun"])] {
            let sample = sample("{kind: labels}", json!({"answer": found, "references": right}));
            assert_eq!(value(Metric::LabelF1, &[sample]), (0.8, 1));
        }
        let none = sample("{kind: labels}", json!({"answer": {"labels": []}}));
        assert_eq!(value(Metric::LabelF1Mean, &[none]), (1.0, 1));
    }

    #[test]
    fn answers_that_are_no_numbers_are_not_among_the_samples() {
        let number = |value: Value, right: Value| {
            sample(
                "{kind: number}",
                json!({"answer": {"number": {"value": value}}, "references": right}),
            )
        };
        let samples = [
            number(json!(3.0), json!(["5", "2"])),
            number(json!(12.0), json!(["twelve"])),
            number(Value::Null, json!(["1"])),
        ];
        assert_eq!(value(Metric::MeanAbsoluteError, &samples), (0.5, 2));
        let level = |right: &str| {
            let answer = json!({"level": {"text": "low", "expected": 2.5}});
            sample(
                "{kind: level, levels: [low, high], values: [2, 4]}",
                json!({"answer": answer, "references": [right]}),
            )
        };
        assert_eq!(
            value(Metric::MeanAbsoluteError, &[level("High"), level("2")]),
            (1.0, 2)
        );
    }

    #[test]
    fn probabilities_are_compared_with_the_right_answer_among_them() {
        let choices = json!([{"text": "cat", "probability": 0.75}, {"text": "dog", "probability": 0.25}]);
        let of = |right: &str| {
            sample(
                "{kind: choice, choices: [cat, dog]}",
                json!({"answer": {"choices": choices}, "references": [right]}),
            )
        };
        let samples = [of("Cat"), of("dog"), of("cat"), of("bird")];
        assert_eq!(value(Metric::CalibrationError, &samples), (0.25, 4));
        let (brier, _) = value(Metric::Brier, &samples);
        assert!(
            (brier - (0.125 + 1.125 + 0.125 + 1.625) / 4.0).abs() < 1e-12,
            "{brier}"
        );
    }
}
