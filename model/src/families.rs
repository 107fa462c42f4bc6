//! Model families: each a conversion of its `config.json` and a table of weight names, for the same layers.

mod beit3;
mod family;
mod multiway;
mod t5;

use serde_json::Value;

use crate::config::{ConfigError, ModelConfig, WeightSpec};
use family::Family;
pub(crate) use family::Shapes;

/// Every family; the first is the native one, which a file without a name belongs to.
static FAMILIES: [&Family; 3] = [&multiway::FAMILY, &t5::FAMILY, &beit3::FAMILY];

/// Lists the names by which a `config.json` tells its family.
///
/// # Examples
/// ```
/// assert!(multiway_model::model_types().any(|name| name == "beit3"));
/// ```
pub fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES
        .into_iter()
        .flat_map(|family| family.model_types.iter().copied())
}

/// Finds a family by a name that a file has for it.
fn named(name: &str) -> Option<&'static Family> {
    FAMILIES
        .into_iter()
        .find(|family| family.model_types.contains(&name))
}

/// Tells what model weights without a configuration belong to, as the text of a `config.json`; or why not.
pub(crate) fn infer(shapes: &Shapes) -> Result<String, String> {
    let mut reason = Err("its weights are of no known family".to_owned());
    for infer in FAMILIES.iter().filter_map(|family| family.infer) {
        reason = infer(shapes);
        if reason.is_ok() {
            break;
        }
    }
    reason
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, what was found and what was expected.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        // The family is looked at first: a foreign file would otherwise fail on its first unknown key.
        let value: Value = serde_json::from_slice(json)?;
        let text = |key: &str| value.get(key).and_then(|v| v.as_str());
        let [native, ..] = FAMILIES;
        let is_native = |name: &&str| native.model_types.contains(name);
        // Foreign files may have a key of the name of ours.
        let (architecture, model_type) = (text("architecture"), text("model_type"));
        let foreign = model_type.filter(|name| !is_native(name)).and_then(named);
        match (
            architecture.filter(is_native),
            foreign,
            architecture.or(model_type),
        ) {
            (Some(_), ..) | (None, None, None) => (native.read)(json),
            (None, Some(family), _) => (family.read)(json),
            (None, None, Some(found)) => Err(unknown(found)),
        }
    }

    /// Returns the name by which `config.json` tells the family: `multiway`, `t5`, `mt5`, `umt5` or `beit3`.
    #[must_use]
    pub fn model_type(&self) -> &str {
        &self.model_type
    }

    /// Returns the family, which made this configuration.
    fn family(&self) -> &'static Family {
        let [native, ..] = FAMILIES;
        named(&self.model_type).unwrap_or(native)
    }

    /// Writes the configuration as the text of a `config.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        (self.family().write)(self)
    }

    /// Lists every weight, in the order in which a native checkpoint stores them.
    ///
    /// This table is the only place where a weight's name and shape are decided: files are checked against
    /// it, and training initialises from it.
    pub(crate) fn weights(&self) -> Vec<WeightSpec> {
        (self.family().weights)(self)
    }

    /// Adapts to the weights that a file really holds, where `config.json` leaves it open.
    pub(crate) fn adapt(&mut self, shapes: &Shapes) {
        (self.family().adapt)(self, shapes);
    }

    /// Says whether a weight may stand in a file without being read.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        (self.family().is_unused)(self, name)
    }

    /// Names the table of embeddings, and what else files call it where they store it as a part of the model.
    pub(crate) fn embedding_aliases(&self) -> Option<(&'static str, &'static [&'static str])> {
        self.family().embedding_aliases
    }

    /// Lists every weight as the file has it: name and shape.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let all = self.weights().into_iter();
        all.map(|weight| (weight.stored, weight.shape)).collect()
    }

    /// Counts the model's parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }
}

/// Makes the error of a name that no family has.
fn unknown(found: &str) -> ConfigError {
    let names: Vec<String> = model_types().map(|name| format!("'{name}'")).collect();
    let expected = match names.split_last() {
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    ConfigError::Architecture {
        found: found.to_owned(),
        expected,
    }
}
