//! Metrics equal their reference implementations, whose scores `scripts/metrics_reference.py` recorded.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::path::Path;

use multiway_tasks::metrics::{
    BleuCounts, BleuTokenizer, ChrfCounts, anls, cider_d, relaxed_match, rouge_l, token_f1, vqa_accuracy,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    answer: String,
    references: Vec<String>,
    #[serde(default)]
    scores: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct CorpusScores {
    bleu: [f64; 4],
    cider_d: f64,
    rouge_l: f64,
    #[serde(flatten)]
    others: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Corpus {
    from: usize,
    to: usize,
    scores: CorpusScores,
}

fn lines(name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    text.split_terminator('\n').map(str::to_owned).collect()
}

fn parse<T: DeserializeOwned>(lines: &[String]) -> Vec<T> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn corpus_differences(cases: &[Case], expected: &CorpusScores) -> Vec<String> {
    let mut bleu = BleuCounts::default();
    let mut translations = [
        (BleuTokenizer::Thirteen, "13a", BleuCounts::default()),
        (BleuTokenizer::Chinese, "zh", BleuCounts::default()),
        (BleuTokenizer::Character, "char", BleuCounts::default()),
    ];
    let (mut chrf, mut chrf_words) = (ChrfCounts::default(), ChrfCounts::default());
    for Case {
        answer, references, ..
    } in cases
    {
        bleu.add(&BleuCounts::of_caption(answer, references));
        for (tokenizer, _, counts) in &mut translations {
            counts.add(&BleuCounts::of_translation(answer, references, *tokenizer));
        }
        chrf.add(&ChrfCounts::of(answer, references));
        chrf_words.add(&ChrfCounts::with_words(answer, references));
    }
    let corpus: Vec<_> = cases
        .iter()
        .map(|case| (&case.answer, case.references.clone()))
        .collect();
    let size = cases.len() as f64;
    let rouge = cases.iter().map(|case| rouge_l(&case.answer, &case.references));
    let mut pairs = vec![
        (
            "cider_d",
            cider_d(&corpus).iter().sum::<f64>() / size,
            expected.cider_d,
        ),
        ("rouge_l", rouge.sum::<f64>() / size, expected.rouge_l),
        ("chrf", chrf.score(), expected.others["chrf"]),
        ("chrf++", chrf_words.score(), expected.others["chrf++"]),
    ];
    for (_, name, counts) in &translations {
        pairs.push((name, counts.translation_score(), expected.others[*name]));
    }
    for (found, expected) in bleu.caption_scores().into_iter().zip(expected.bleu) {
        pairs.push(("bleu", found, expected));
    }
    pairs
        .into_iter()
        .filter(|(_, found, expected)| (found - expected).abs() > TOLERANCE)
        .map(|(name, found, expected)| format!("{name}: expected {expected}, found {found}"))
        .collect()
}

#[test]
fn scores_of_single_answers_equal_the_reference() {
    let cases: Vec<Case> = parse(&lines("answers.jsonl"));
    assert!(cases.len() >= 1000);
    for Case {
        answer,
        references,
        scores,
    } in &cases
    {
        let found = [
            ("vqa_accuracy", vqa_accuracy(answer, references)),
            (
                "relaxed_match",
                f64::from(u8::from(relaxed_match(answer, references))),
            ),
            ("anls", anls(answer, references)),
            ("token_f1", token_f1(answer, references)),
            ("rouge_l", rouge_l(answer, references)),
        ];
        assert_eq!(found.len(), scores.len());
        for (name, score) in found {
            let expected = scores[name];
            assert!(
                (score - expected).abs() <= TOLERANCE,
                "{name} of {answer:?} against {references:?}: expected {expected}, found {score}"
            );
        }
    }
}

#[test]
fn scores_of_corpora_equal_the_reference() {
    let cases: Vec<Case> = parse(&lines("answers.jsonl"));
    let corpora: Vec<Corpus> = parse(&lines("corpora.jsonl"));
    assert!(
        corpora
            .iter()
            .any(|corpus| corpus.to - corpus.from == cases.len())
    );
    let mut differences = Vec::new();
    for Corpus { from, to, scores } in &corpora {
        let found = corpus_differences(&cases[*from..*to], scores);
        differences.extend(found.into_iter().map(|line| format!("{from}..{to}: {line}")));
    }
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn captions_that_people_wrote_score_as_published() {
    #[derive(Deserialize)]
    struct Head {
        scores: CorpusScores,
    }
    let lines = lines("captions.jsonl");
    let (head, rest) = lines.split_first().unwrap();
    let Head { scores } = serde_json::from_str(head).unwrap();
    let cases: Vec<Case> = parse(rest);
    assert_eq!(cases.len(), 464);
    assert_eq!(corpus_differences(&cases, &scores), Vec::<String>::new());
    assert!((scores.cider_d - 0.4017).abs() < TOLERANCE, "{}", scores.cider_d);
    assert!((scores.rouge_l - 0.3958).abs() < TOLERANCE, "{}", scores.rouge_l);
}
