//! Typed answers for people.

use multiway::Answer;
use multiway::prompt::OutputSpec;
use multiway::task::parse::LocatedObject;

use super::failure::Outcome;
use super::output::{note, print_line};

/// Tells whether an answer is printed as what was read from its text, rather than as the text itself.
pub(crate) fn is_read(output: &OutputSpec) -> bool {
    matches!(
        output,
        OutputSpec::Labels(_)
            | OutputSpec::Number(_)
            | OutputSpec::Boxes(_)
            | OutputSpec::Points(_)
            | OutputSpec::Polygons(_)
            | OutputSpec::Grounded { .. }
            | OutputSpec::Table
            | OutputSpec::Score { .. }
    )
}

/// Tells whether an answer has places in a picture, which can be drawn.
pub(crate) fn has_places(output: &OutputSpec) -> bool {
    matches!(
        output,
        OutputSpec::Boxes(_) | OutputSpec::Points(_) | OutputSpec::Polygons(_) | OutputSpec::Grounded { .. }
    )
}

/// Prints what was read from an answer. What is wrong with it goes to standard error.
pub(crate) fn print_typed(answer: &Answer) -> Outcome {
    match answer {
        Answer::Labels { labels, .. } => {
            for label in &labels.unknown {
                note(&format!("  not one of the labels: {label:?}"));
            }
            labels.labels.iter().try_for_each(|label| print_line(label))
        }
        Answer::Number { number, text } => match number.value {
            Some(value) => {
                let unit = number.unit.as_ref().map(|unit| format!(" {unit}"));
                print_line(&format!("{value}{}", unit.unwrap_or_default()))
            }
            None => {
                note(&format!(
                    "  no number: {}",
                    number.problem.as_deref().unwrap_or_default()
                ));
                print_line(text)
            }
        },
        Answer::Located { objects, .. } => objects.iter().try_for_each(print_object),
        Answer::Grounded { grounded, .. } => {
            print_line(&grounded.plain)?;
            grounded
                .phrases
                .iter()
                .flat_map(|phrase| &phrase.boxes)
                .try_for_each(print_object)
        }
        Answer::Table { table, .. } => {
            table
                .problems
                .iter()
                .for_each(|problem| note(&format!("  {problem}")));
            print_line(table.to_csv().trim_end())
        }
        Answer::Score {
            log_probability,
            tokens,
            ..
        } => {
            for token in tokens {
                note(&format!("  {:.3}  {}", token.log_probability, token.piece));
            }
            print_line(&format!("{log_probability:.4}"))
        }
        _ => Ok(()),
    }
}

/// Prints a line: the label, and the pixels, rounded.
fn print_object(object: &LocatedObject) -> Outcome {
    if let Some(problem) = &object.problem {
        note(&format!("  left out {:?}: {problem}", object.raw));
        return Ok(());
    }
    let pixels: Vec<String> = object.pixels.iter().map(|pixel| format!("{pixel:.0}")).collect();
    print_line(&format!("{}\t{}", object.label, pixels.join(" ")))
}
