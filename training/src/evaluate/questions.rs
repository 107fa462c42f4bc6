//! Questions of data sets: easy-VQA, handwritten digits, statements by people.

use multiway_model::ProcessedImage;
use multiway_tasks::TaskInputs;

use super::asker::Asker;
use super::{Count, EvaluateError, EvaluationSplit, Scores};
use crate::data::{PreparedData, Split, Stated, read_nlvr};
use crate::random::{fork, shuffle};

/// Digits that are shown at most.
const DIGITS: usize = 2000;

pub(super) fn score(
    asker: &Asker<'_>,
    data: &PreparedData,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    let limit = options.questions.unwrap_or(usize::MAX);
    let is_shown = |picture: usize, split: Split| match options.split {
        EvaluationSplit::Test => split == Split::Test,
        EvaluationSplit::Validation => split == Split::Train && data.is_validation(picture),
    };
    if scores.wants(&["easy-vqa"]) {
        let questions = data.questions().iter();
        let mut questions: Vec<_> = questions.filter(|q| is_shown(q.picture, q.split)).collect();
        shuffle(&mut fork(options.seed, &[1]), &mut questions);
        questions.truncate(limit);
        let answers = asker.each("easy-VQA questions", &questions, |question| {
            let inputs = TaskInputs::new()
                .with_image(asker.prepared(data, question.picture)?)
                .with("question", question.question.as_str());
            Ok(asker.text("vqa", inputs)? == question.answer)
        })?;
        scores.push("easy-vqa", "the answer is the right one", Count::of(answers));
    }
    if scores.wants(&["digits"]) {
        let pictures = data.pictures().iter().enumerate();
        let mut digits: Vec<(usize, &str)> = pictures
            .filter(|(index, picture)| is_shown(*index, picture.split))
            .filter_map(|(index, picture)| Some((index, picture.label.as_deref()?)))
            .collect();
        shuffle(&mut fork(options.seed, &[3]), &mut digits);
        digits.truncate(limit.min(DIGITS));
        let answers = asker.each("digits", &digits, |(picture, label)| {
            let inputs = TaskInputs::new()
                .with_image(asker.prepared(data, *picture)?)
                .with("question", "which digit is this?");
            Ok(asker.text("vqa", inputs)? == **label)
        })?;
        scores.push("digits", "the digit is the right one", Count::of(answers));
    }
    if scores.wants(&["statements"]) {
        statements(asker, data, limit, scores)?;
    }
    Ok(())
}

fn statements(
    asker: &Asker<'_>,
    data: &PreparedData,
    limit: usize,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let verify = |pictures: Vec<ProcessedImage>, sentence: &str, label: bool| {
        let inputs = pictures
            .into_iter()
            .fold(TaskInputs::new(), TaskInputs::with_image);
        let inputs = inputs.with("sentence", sentence);
        Ok(asker.text("verify", inputs)? == if label { "true" } else { "false" })
    };
    let what = "true or false is the right answer";
    let answers = match (scores.options.split, &scores.options.shards) {
        (EvaluationSplit::Test, None) => return Ok(()),
        (EvaluationSplit::Test, Some(folder)) => {
            let mut stated = read_nlvr(folder, "test")?;
            shuffle(&mut fork(scores.options.seed, &[4]), &mut stated);
            stated.truncate(limit);
            asker.each("NLVR statements", &stated, |stated: &Stated| {
                let pictures: Result<Vec<_>, _> = stated
                    .pictures
                    .iter()
                    .map(|picture| {
                        let pixels = picture
                            .pixels()
                            .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]);
                        asker.rgb(picture.width() as usize, &pixels.collect::<Vec<u8>>())
                    })
                    .collect();
                let (sentence, _, label) = stated.statements.first().cloned().unwrap_or_default();
                verify(pictures?, &sentence, label)
            })?
        }
        (EvaluationSplit::Validation, _) => {
            let kept = |pictures: &[usize]| pictures.first().is_some_and(|first| data.is_validation(*first));
            let statements = data
                .statements()
                .iter()
                .filter(|statement| kept(&statement.pictures));
            let mut statements: Vec<_> = statements.collect();
            statements.truncate(limit);
            asker.each("statements", &statements, |statement| {
                let pictures = statement
                    .pictures
                    .iter()
                    .map(|picture| asker.prepared(data, *picture));
                verify(
                    pictures.collect::<Result<_, _>>()?,
                    &statement.sentence,
                    statement.label,
                )
            })?
        }
    };
    scores.push("statements", what, Count::of(answers));
    Ok(())
}
