//! Answers that are read from generated text.

use multiway_prompts::{GroundingDialect, LocationDialect, NumberSpec};

use crate::answer::{Answer, TaskOutcome};
use crate::parse::{
    Form, PictureView, parse_grounded, parse_labels, parse_locations, parse_number, parse_table,
};

/// Special tokens that end a text and belong to none.
const ENDS: [&str; 3] = ["</s>", "<pad>", "<s>"];

/// Reads a typed answer from text.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Labels {
        separator: String,
        closed: Option<Vec<String>>,
    },
    Number(NumberSpec),
    Located {
        form: Form,
        dialect: LocationDialect,
        view: PictureView,
    },
    Grounded {
        dialect: GroundingDialect,
        view: PictureView,
    },
    Table,
}

impl Reader {
    /// Tells whether special tokens are a part of the text.
    pub(crate) fn needs_special(&self) -> bool {
        matches!(self, Self::Located { .. } | Self::Grounded { .. })
    }

    /// Reads the answer and the samples of an outcome; their texts are kept.
    pub(crate) fn read_outcome(&self, mut outcome: TaskOutcome) -> TaskOutcome {
        outcome.answer = self.read(outcome.answer);
        for sample in &mut outcome.samples {
            sample.answer = self.read(sample.answer.clone());
        }
        outcome
    }

    fn read(&self, answer: Answer) -> Answer {
        let Answer::Text { text, .. } = answer else {
            return answer;
        };
        let whole = without_ends(&text);
        match self {
            Self::Labels { separator, closed } => {
                let labels = parse_labels(whole, separator, closed.as_deref());
                Answer::Labels { labels, text }
            }
            Self::Number(spec) => {
                let number = parse_number(whole, spec);
                Answer::Number { number, text }
            }
            Self::Located { form, dialect, view } => {
                let objects = parse_locations(whole, *form, *dialect, view);
                Answer::Located {
                    form: *form,
                    objects,
                    text,
                }
            }
            Self::Grounded { dialect, view } => {
                let grounded = parse_grounded(whole, *dialect, view);
                Answer::Grounded { grounded, text }
            }
            Self::Table => Answer::Table {
                table: parse_table(whole),
                text,
            },
        }
    }
}

fn without_ends(mut text: &str) -> &str {
    text = text.trim();
    while let Some(rest) = ENDS.iter().find_map(|end| text.strip_suffix(end)) {
        text = rest.trim_end();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_text_is_kept_and_the_end_of_the_answer_is_no_part_of_a_label() {
        let text = "<loc0000><loc0000><loc1023><loc1023> cat</s>".to_owned();
        let reader = Reader::Located {
            form: Form::Box,
            dialect: LocationDialect::Paligemma,
            view: PictureView::whole(10, 10),
        };
        let answer = reader.read(Answer::Text {
            text: text.clone(),
            spans: Vec::new(),
        });
        assert_eq!(answer.text(), Some(text.as_str()));
        let Answer::Located { objects, .. } = answer else {
            unreachable!("boxes were asked for")
        };
        assert_eq!(objects[0].label, "cat");
        assert_eq!(objects[0].pixels, [0.0, 0.0, 10.0, 10.0]);
    }
}
