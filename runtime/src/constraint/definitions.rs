//! The intermediate form of a schema: definitions of answers.

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Schema {
    /// One of these texts, as they stand.
    Literals(Vec<String>),
    /// What a regular expression matches.
    Regex(String),
    Object(Vec<Property>),
    Array {
        items: Box<Self>,
        least: u32,
        most: Option<u32>,
    },
    AnyOf(Vec<Self>),
    /// What a definition allows.
    Reference(Reference),
}

/// A reference to a definition.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reference {
    pub(super) definition: usize,
    /// Where it stands.
    pub(super) path: String,
}

/// A schema that others refer to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition {
    /// Where it stands.
    pub(super) path: String,
    pub(super) schema: Schema,
}

/// One property of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    /// The name in quotes, and the colon.
    pub(super) key: String,
    pub(super) schema: Schema,
    pub(super) is_required: bool,
}
