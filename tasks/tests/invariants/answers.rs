//! What holds for any text that is read as an answer.

use multiway_prompts::{GroundingDialect, LocationDialect, NumberLanguage, NumberSpec};
use multiway_tasks::parse::{
    Form, PictureView, parse_grounded, parse_labels, parse_locations, parse_number, parse_table,
};

/// Reads a text as every kind of answer.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let view = PictureView::cropped(640, 480);
    for language in NumberLanguage::ALL {
        let spec = NumberSpec {
            language,
            ..NumberSpec::default()
        };
        let answer = parse_number(&text, &spec);
        assert!(answer.value.is_some() != answer.problem.is_some(), "{text:?}");
        assert!(answer.value.is_none_or(f64::is_finite), "{text:?}");
    }
    for (_, dialect) in LocationDialect::ALL {
        for form in [Form::Box, Form::Point, Form::Polygon] {
            for object in parse_locations(&text, form, dialect, &view) {
                assert_eq!(object.problem.is_some(), object.pixels.is_empty(), "{text:?}");
                assert_eq!(object.pixels.len(), object.fractions.len());
                assert!(
                    object.pixels.iter().all(|pixel| (0.0..=640.0).contains(pixel)),
                    "{text:?}"
                );
            }
        }
    }
    for (_, dialect) in GroundingDialect::ALL {
        let read = parse_grounded(&text, dialect, &view);
        for phrase in &read.phrases {
            assert_eq!(
                read.plain.get(phrase.start..phrase.end),
                Some(phrase.text.as_str())
            );
        }
    }
    let labels = parse_labels(&text, ",", None);
    assert!(
        labels
            .labels
            .iter()
            .all(|label| !label.is_empty() && label.trim() == label)
    );
    let table = parse_table(&text);
    assert!(table.rows.iter().all(|row| row.len() == table.header.len()));
    assert!(table.to_csv().len() <= 3 * text.len() + 16);
}
