//! Answers that are found by log-likelihood: choices, predicates, levels, and scores.

use multiway_prompts::{Calibration, Normalization, Prompt, Ranking};
use multiway_runtime::{
    Answered, ClassScore, Engine, FinishReason, Request, RequestError, Score, StreamEvent,
};

use crate::answer::{Answer, Choice, ScoredToken, TaskOutcome};
use crate::error::TaskError;

/// The prompt that log-likelihoods are compared with, where they are normalised so.
const UNCONDITIONAL_PROMPT: &str = ".";

/// Holds the answers to rank, and what is made of their ranks.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    pub(crate) candidates: Vec<String>,
    pub(crate) ranking: Ranking,
    pub(crate) scale: Scale,
}

/// What the ranked answers are.
#[derive(Debug, Clone)]
pub(crate) enum Scale {
    Choice,
    /// The first one means yes.
    Predicate,
    /// The numbers of levels; none if they count from 1.
    Level(Vec<f64>),
}

/// Ranks answers by their log-likelihoods.
pub(crate) async fn choose(
    engine: Engine,
    task: String,
    request: Request,
    ranked: Ranked,
) -> Result<TaskOutcome, TaskError> {
    let candidates = &ranked.candidates;
    let base = match ranked.ranking.normalization {
        Normalization::Unconditional => {
            let mut request = request.clone();
            (request.prompt, request.images) = (Prompt::from_text(UNCONDITIONAL_PROMPT), Vec::new());
            Some(engine.score(request, candidates.clone()).await?.value)
        }
        _ => None,
    };
    let answered = engine.score(request, candidates.clone()).await?;
    let scores = &answered.value;
    let raw = |scores: &[Score]| {
        scores
            .iter()
            .map(|score| score.log_probability)
            .collect::<Vec<f32>>()
    };
    check_numbers(&task, candidates, &raw(scores))?;
    if let Some(base) = &base {
        check_numbers(&task, candidates, &raw(base))?;
    }
    let log_probabilities = ranked.normalised(scores, base.as_deref());
    let answer_tokens = best(scores, &log_probabilities).map(|score| score.tokens.clone());
    let answer_tokens = answer_tokens.unwrap_or_default();
    let likelihood = |score: &Score| f64::from(score.log_probability).exp();
    let mass = scores.iter().map(likelihood).sum();
    let answer = ranked.answer(&log_probabilities);
    let mut outcome = TaskOutcome::whole(answered.map(|_scores| answer), Some(FinishReason::Stop));
    outcome.usage.new_tokens = answer_tokens.len();
    outcome.answer_tokens = answer_tokens;
    outcome.candidate_mass = Some(mass);
    Ok(outcome)
}

fn check_numbers(task: &str, candidates: &[String], values: &[f32]) -> Result<(), TaskError> {
    match candidates.iter().zip(values).find(|(_, value)| value.is_nan()) {
        Some((choice, value)) => Err(TaskError::NotANumber {
            task: task.to_owned(),
            choice: choice.clone(),
            value: *value,
        }),
        None => Ok(()),
    }
}

impl Ranked {
    /// Makes log-likelihoods comparable, and calibrates them.
    #[expect(
        clippy::cast_precision_loss,
        reason = "lengths of answers stay far below 2^24"
    )]
    fn normalised(&self, scores: &[Score], base: Option<&[Score]>) -> Vec<f32> {
        let value = |(index, (score, candidate)): (usize, (&Score, &String))| {
            let value = score.log_probability;
            match self.ranking.normalization {
                Normalization::None => value,
                Normalization::Tokens => value / score.tokens.len().max(1) as f32,
                Normalization::Characters => value / candidate.chars().count().max(1) as f32,
                Normalization::Unconditional => {
                    let base = base.and_then(|base| base.get(index));
                    base.map_or(value, |base| value - base.log_probability)
                }
            }
        };
        let values = scores.iter().zip(&self.candidates).enumerate().map(value);
        calibrated(values, self.ranking.calibration)
    }

    /// Makes the typed answer of calibrated log-probabilities.
    fn answer(&self, log_probabilities: &[f32]) -> Answer {
        let choices = rank(self.candidates.clone(), log_probabilities);
        let probability = |candidate: &String| {
            let choice = choices.iter().find(|choice| choice.text == *candidate);
            choice.map_or(0.0, |choice| choice.probability)
        };
        match &self.scale {
            Scale::Choice => Answer::Choice { choices },
            Scale::Predicate => {
                let probability = self.candidates.first().map_or(0.0, probability);
                Answer::Predicate {
                    value: probability >= 0.5,
                    probability,
                    choices,
                }
            }
            Scale::Level(values) => {
                #[expect(clippy::cast_precision_loss, reason = "levels are few")]
                let number = |index: usize| values.get(index).copied().unwrap_or((index + 1) as f64);
                let levels = self.candidates.iter().enumerate();
                let expected = levels
                    .map(|(index, level)| number(index) * probability(level))
                    .sum();
                Answer::Level { expected, choices }
            }
        }
    }
}

/// Divides log-probabilities by the temperature, if there is one.
fn calibrated(values: impl Iterator<Item = f32>, calibration: Option<Calibration>) -> Vec<f32> {
    let Some(calibration) = calibration else {
        return values.collect();
    };
    #[expect(clippy::cast_possible_truncation, reason = "log-probabilities have 32 bits")]
    let divide = |value: f32| (f64::from(value) / calibration.temperature) as f32;
    values.map(divide).collect()
}

/// Finds the candidate that ranks first; the earlier one of a tie.
fn best<'s>(scores: &'s [Score], log_probabilities: &[f32]) -> Option<&'s Score> {
    let ranked = scores.iter().zip(log_probabilities).rev();
    ranked
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(score, _)| score)
}

/// Names the class that the model's head finds.
pub(crate) async fn classify(
    engine: Engine,
    task: String,
    request: Request,
    calibration: Option<Calibration>,
) -> Result<TaskOutcome, TaskError> {
    let answered = engine.classify(request).await?;
    if let Some(wrong) = answered.value.iter().find(|class| !class.score.is_finite()) {
        return Err(TaskError::NotANumber {
            task,
            choice: wrong.label.clone(),
            value: wrong.score,
        });
    }
    let choice = |classes: Vec<ClassScore>| {
        let classes = classes.into_iter().map(|class| (class.label, class.score));
        let (labels, scores): (Vec<String>, Vec<f32>) = classes.unzip();
        let choices = rank(labels, &calibrated(scores.into_iter(), calibration));
        Answer::Choice { choices }
    };
    Ok(TaskOutcome::whole(answered.map(choice), Some(FinishReason::Stop)))
}

/// Decodes one of the answers of the request's constraint. Its probability is the product of those of its
/// tokens, each among the tokens that the trie of the answers allows.
pub(crate) async fn descend(engine: Engine, mut request: Request) -> Result<TaskOutcome, TaskError> {
    request.sampling.temperature = 0.0;
    let mut tokens = engine.generate(request).await?;
    let (mut answer, mut log_probability, mut answer_tokens) = (String::new(), 0.0, Vec::new());
    while let Some(event) = tokens.next().await {
        match event? {
            StreamEvent::Token {
                id,
                text,
                log_probability: value,
                ..
            } => {
                answer.push_str(&text);
                answer_tokens.push(id);
                log_probability += f64::from(value);
            }
            StreamEvent::Finished {
                finish_reason,
                usage,
                timings,
            } => {
                let choices = vec![Choice {
                    text: answer,
                    probability: log_probability.exp(),
                }];
                let answered = Answered::new(Answer::Choice { choices }, usage, timings);
                return Ok(TaskOutcome {
                    answer_tokens,
                    ..TaskOutcome::whole(answered, Some(finish_reason))
                });
            }
            _ => {}
        }
    }
    Err(RequestError::ShutDown.into())
}

/// Scores a given text.
pub(crate) async fn score(
    engine: Engine,
    task: String,
    request: Request,
    target: String,
) -> Result<TaskOutcome, TaskError> {
    let answered = engine.score(request, vec![target.clone()]).await?;
    let values: Vec<f32> = answered.value.iter().map(|score| score.log_probability).collect();
    check_numbers(&task, std::slice::from_ref(&target), &values)?;
    let tokenizer = engine.tokenizer();
    let mut answer_tokens = Vec::new();
    let answered = answered.map(|scores| {
        let pairs = scores
            .iter()
            .flat_map(|score| score.tokens.iter().zip(&score.log_probabilities));
        let tokens: Vec<ScoredToken> = pairs
            .map(|(id, value)| ScoredToken::new(tokenizer, *id, *value))
            .collect();
        answer_tokens = tokens.iter().map(|token| token.id).collect();
        let log_probability = tokens.iter().map(|token| f64::from(token.log_probability)).sum();
        Answer::Score {
            log_probability,
            tokens,
            text: target,
        }
    });
    let mut outcome = TaskOutcome::whole(answered, None);
    outcome.usage.new_tokens = answer_tokens.len();
    outcome.answer_tokens = answer_tokens;
    Ok(outcome)
}

/// Turns log-likelihoods into choices, the most probable first; ties keep their order.
///
/// The probabilities are the softmax of the log-likelihoods in f64: each candidate's likelihood over the sum
/// of all.
fn rank(candidates: Vec<String>, log_probabilities: &[f32]) -> Vec<Choice> {
    let most = log_probabilities
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    // All candidates are impossible: their probabilities are uniform.
    let weight = |value: f32| {
        if most == f32::NEG_INFINITY {
            1.0
        } else {
            f64::from(value - most).exp()
        }
    };
    let total: f64 = log_probabilities.iter().map(|value| weight(*value)).sum();
    let mut choices: Vec<Choice> = candidates
        .into_iter()
        .zip(log_probabilities)
        .map(|(text, value)| Choice {
            text,
            probability: weight(*value) / total,
        })
        .collect();
    choices.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(log_probabilities: &[f32]) -> Vec<Choice> {
        let candidates = (0..log_probabilities.len()).map(|i| i.to_string()).collect();
        rank(candidates, log_probabilities)
    }

    #[test]
    fn probabilities_are_ratios_of_likelihoods_and_sum_to_one() {
        let choices = ranks(&[0.25f32.ln(), 0.5f32.ln(), 0.05f32.ln()]);
        assert_eq!(choices[0].text, "1");
        assert!((choices[0].probability - 0.625).abs() < 1e-6);
        assert!((choices.iter().map(|choice| choice.probability).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn very_unlikely_answers_still_have_probabilities() {
        let choices = ranks(&[-1e4, -1e4 - 1.0, f32::NEG_INFINITY]);
        assert!((choices[0].probability - 0.731_058_578).abs() < 1e-6);
        assert!(choices[2].probability.abs() < f64::EPSILON);
        let impossible = ranks(&[f32::NEG_INFINITY; 4]);
        assert!(
            impossible
                .iter()
                .all(|choice| (choice.probability - 0.25).abs() < 1e-12)
        );
    }

    #[test]
    fn equal_answers_keep_their_order() {
        let texts: Vec<_> = ranks(&[-2.0, -1.0, -1.0])
            .into_iter()
            .map(|choice| choice.text)
            .collect();
        assert_eq!(texts, ["1", "2", "0"]);
    }

    fn ranked(scale: Scale, temperature: Option<f64>) -> Ranked {
        let calibration = temperature.map(|temperature| Calibration { temperature });
        let ranking = Ranking {
            calibration,
            ..Ranking::default()
        };
        Ranked {
            candidates: ["a", "b"].map(str::to_owned).to_vec(),
            ranking,
            scale,
        }
    }

    #[test]
    fn a_level_has_the_mean_of_its_numbers_and_a_predicate_the_probability_of_yes() {
        let values = [0.25f32.ln(), 0.75f32.ln()];
        let Answer::Level { expected, choices } = ranked(Scale::Level(vec![0.0, 10.0]), None).answer(&values)
        else {
            unreachable!("a level was asked for")
        };
        assert!((expected - 7.5).abs() < 1e-5);
        assert_eq!(choices[0].text, "b");
        let Answer::Predicate {
            value, probability, ..
        } = ranked(Scale::Predicate, None).answer(&values)
        else {
            unreachable!("a predicate was asked for")
        };
        assert!(!value && (probability - 0.25).abs() < 1e-6);
    }

    #[test]
    fn a_temperature_draws_probabilities_together_and_keeps_their_order() {
        let values = [0.1f32.ln(), 0.9f32.ln()].into_iter();
        let Ranked { ranking, .. } = ranked(Scale::Choice, Some(2.0));
        let warm = calibrated(values, ranking.calibration);
        let choices = rank(vec!["a".to_owned(), "b".to_owned()], &warm);
        // The square roots of 0.9 and 0.1 are as 3 to 1.
        assert!((choices[0].probability - 0.75).abs() < 1e-6);
        assert_eq!(choices[0].text, "b");
    }
}
