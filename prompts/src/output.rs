//! The kinds of answer, and their options.

use serde::{Deserialize, Serialize};

/// Declares the kind of answer that a task gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputSpec {
    /// Text, as the decoder writes it.
    Text {
        /// The input whose gaps the answer fills.
        #[serde(skip_serializing_if = "Option::is_none")]
        fill: Option<String>,
    },
    /// One of a closed set of answers.
    Choice(ChoiceSpec),
    /// Yes or no, with a probability.
    Predicate(PredicateSpec),
    /// A step of a graded scale.
    Level(LevelSpec),
    /// Several labels.
    Labels(LabelsSpec),
    /// A number.
    Number(NumberSpec),
    /// Labelled boxes in the first picture.
    Boxes(LocationSpec),
    /// Labelled points in the first picture.
    Points(LocationSpec),
    /// Labelled polygons in the first picture.
    Polygons(LocationSpec),
    /// Text whose phrases are tied to boxes in the first picture.
    Grounded {
        /// How phrases and boxes are written.
        dialect: GroundingDialect,
    },
    /// Rows and columns.
    Table,
    /// The log-likelihood of a given text.
    Score {
        /// The input that holds the text.
        target_from: String,
    },
    /// A vector.
    Embedding,
    /// What hidden patches of the first picture show, as visual codes.
    Patches {
        /// The input that says which patches are hidden.
        hidden: String,
    },
    /// JSON.
    Json {
        /// The JSON schema that the answer fits.
        schema: serde_json::Value,
    },
}

impl OutputSpec {
    /// Names the kinds that there are, as task files write them.
    pub const KINDS: [&'static str; 15] = [
        "text",
        "choice",
        "predicate",
        "level",
        "labels",
        "number",
        "boxes",
        "points",
        "polygons",
        "grounded",
        "table",
        "score",
        "embedding",
        "patches",
        "json",
    ];

    /// Names this kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Choice(_) => "choice",
            Self::Predicate(_) => "predicate",
            Self::Level(_) => "level",
            Self::Labels(_) => "labels",
            Self::Number(_) => "number",
            Self::Boxes(_) => "boxes",
            Self::Points(_) => "points",
            Self::Polygons(_) => "polygons",
            Self::Grounded { .. } => "grounded",
            Self::Table => "table",
            Self::Score { .. } => "score",
            Self::Embedding => "embedding",
            Self::Patches { .. } => "patches",
            Self::Json { .. } => "json",
        }
    }

    /// Tells whether the answer is read off the encoded prompt, and has no text that could be decoded or
    /// written down.
    pub fn is_encoded(&self) -> bool {
        matches!(self, Self::Embedding | Self::Patches { .. })
    }

    /// Tells whether the answer is generated token by token, so that several can be drawn.
    pub fn is_generated(&self) -> bool {
        match self {
            Self::Choice(_) | Self::Predicate(_) | Self::Level(_) | Self::Score { .. } => false,
            output => !output.is_encoded(),
        }
    }

    /// Tells whether decoding is constrained by the kind itself, so that the answer ends by itself and is
    /// written by one beam.
    pub fn is_constrained(&self) -> bool {
        match self {
            Self::Choice(choice) => choice.method == ChoiceMethod::Trie,
            Self::Labels(labels) => labels.choices.is_some(),
            output => matches!(output, Self::Json { .. }),
        }
    }

    /// Returns where the answers to choose from are, if it is a choice, or labels of a closed set.
    pub fn choices(&self) -> Option<&Choices> {
        match self {
            Self::Choice(choice) => Some(&choice.choices),
            Self::Labels(labels) => labels.choices.as_ref(),
            _ => None,
        }
    }

    /// Tells whether templates know the answers to choose from, as `answer_choices`.
    pub(crate) fn has_answer_choices(&self) -> bool {
        self.choices().is_some_and(|choices| *choices != Choices::OfModel)
    }

    /// Names the input that the answer itself uses, if any.
    pub fn uses_input(&self) -> Option<&str> {
        match self {
            Self::Text { fill } => fill.as_deref(),
            Self::Choice(ChoiceSpec {
                choices: Choices::FromInput(name),
                ..
            })
            | Self::Labels(LabelsSpec {
                choices: Some(Choices::FromInput(name)),
                ..
            })
            | Self::Patches { hidden: name }
            | Self::Score { target_from: name } => Some(name),
            _ => None,
        }
    }
}

/// Says where the answers to choose from are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Choices {
    /// In the task file.
    #[serde(rename = "choices")]
    Listed(Vec<String>),
    /// Computed from the inputs, by a template each of whose `{{ }}` gives a list of texts, or one text.
    #[serde(rename = "choices")]
    Computed(String),
    /// In an input of type list.
    #[serde(rename = "choices_from")]
    FromInput(String),
    /// The classes that the model's own head knows.
    #[serde(rename = "of_model", serialize_with = "yes")]
    OfModel,
}

fn yes<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(true)
}

/// Declares a choice: its answers, and how one is found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChoiceSpec {
    /// The answers to choose from.
    #[serde(flatten)]
    pub choices: Choices,
    /// How one of them is found.
    #[serde(skip_serializing_if = "is_default")]
    pub method: ChoiceMethod,
    /// How likelihoods are compared.
    #[serde(flatten)]
    pub ranking: Ranking,
}

/// Says how one of several answers is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMethod {
    /// All are scored as whole answers, and ranked by log-likelihood.
    #[default]
    Likelihood,
    /// One is decoded greedily in the trie of all.
    Trie,
}

/// Says how log-likelihoods of answers are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// What a log-likelihood is divided by, or compared with.
    #[serde(skip_serializing_if = "is_default")]
    pub normalization: Normalization,
    /// How probabilities are calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Says how a log-likelihood is made independent of the length of its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// It is not.
    #[default]
    None,
    /// It is divided by the number of tokens, `</s>` included.
    Tokens,
    /// It is divided by the number of characters.
    Characters,
    /// The log-likelihood after the prompt `.`, without pictures, is subtracted.
    Unconditional,
}

/// Says how probabilities are calibrated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// What log-probabilities are divided by before the softmax; above 0.
    pub temperature: f64,
}

/// Declares a yes or no.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PredicateSpec {
    /// The answer that means yes.
    pub yes: String,
    /// The answer that means no.
    pub no: String,
    /// How likelihoods are compared.
    #[serde(flatten)]
    pub ranking: Ranking,
}

/// Declares a graded scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LevelSpec {
    /// The levels, the lowest first.
    pub levels: Vec<String>,
    /// The number of each level; without any, levels count from 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<f64>,
    /// How likelihoods are compared.
    #[serde(flatten)]
    pub ranking: Ranking,
}

/// Declares several labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LabelsSpec {
    /// What stands between labels.
    pub separator: String,
    /// The closed set that labels are from, if there is one.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Choices>,
}

/// Declares a number.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NumberSpec {
    /// The language of number words and separators.
    pub language: NumberLanguage,
    /// Whether it is a whole number.
    pub integer: bool,
    /// The least that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The most that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The unit that may stand before or after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Names a language whose number words and separators are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NumberLanguage {
    /// English.
    #[default]
    #[serde(rename = "en")]
    English,
    /// German.
    #[serde(rename = "de")]
    German,
    /// French.
    #[serde(rename = "fr")]
    French,
    /// Spanish.
    #[serde(rename = "es")]
    Spanish,
    /// Italian.
    #[serde(rename = "it")]
    Italian,
    /// Portuguese.
    #[serde(rename = "pt")]
    Portuguese,
    /// Chinese.
    #[serde(rename = "zh")]
    Chinese,
    /// Japanese.
    #[serde(rename = "ja")]
    Japanese,
    /// Russian.
    #[serde(rename = "ru")]
    Russian,
    /// Hindi.
    #[serde(rename = "hi")]
    Hindi,
}

impl NumberLanguage {
    /// Lists all languages.
    pub const ALL: [Self; 10] = [
        Self::English,
        Self::German,
        Self::French,
        Self::Spanish,
        Self::Italian,
        Self::Portuguese,
        Self::Chinese,
        Self::Japanese,
        Self::Russian,
        Self::Hindi,
    ];

    /// Returns the BCP 47 tag, as task files write it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Italian => "it",
            Self::Portuguese => "pt",
            Self::Chinese => "zh",
            Self::Japanese => "ja",
            Self::Russian => "ru",
            Self::Hindi => "hi",
        }
    }

    /// Names the language in English.
    pub fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::German => "German",
            Self::French => "French",
            Self::Spanish => "Spanish",
            Self::Italian => "Italian",
            Self::Portuguese => "Portuguese",
            Self::Chinese => "Chinese",
            Self::Japanese => "Japanese",
            Self::Russian => "Russian",
            Self::Hindi => "Hindi",
        }
    }
}

/// Declares boxes, points or polygons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LocationSpec {
    /// How locations are written.
    pub dialect: LocationDialect,
}

/// Names a way to write labels and locations in a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LocationDialect {
    /// The label, then `<loc_0>` to `<loc_1023>`, x first.
    #[default]
    Native,
    /// `<loc0000>` to `<loc1023>`, y first, then the label; `;` between objects.
    Paligemma,
    /// The label, then `<loc_0>` to `<loc_999>`, x first.
    Florence2,
    /// `<extra_id_200>` to `<extra_id_1199>`, y first, then the label.
    UnifiedIo,
}

impl LocationDialect {
    /// Lists all dialects with their names, as task files write them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("native", Self::Native),
        ("paligemma", Self::Paligemma),
        ("florence2", Self::Florence2),
        ("unified_io", Self::UnifiedIo),
    ];
}

/// Names a way to tie phrases of a text to boxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroundingDialect {
    /// `<phrase>a cat</phrase>` and boxes of the native dialect.
    #[default]
    Native,
    /// `<phrase>a cat</phrase><object><patch_index_0044><patch_index_0863></object>`, on a grid of 32 x 32.
    Kosmos2,
    /// A phrase, then its boxes in the dialect of Florence-2.
    Florence2,
}

impl GroundingDialect {
    /// Lists all dialects with their names, as task files write them.
    pub const ALL: [(&'static str, Self); 3] = [
        ("native", Self::Native),
        ("kosmos2", Self::Kosmos2),
        ("florence2", Self::Florence2),
    ];
}
