//! The `decode` of a task: how its answer is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::problem::{Problem, line};
use crate::output::OutputSpec;
use crate::sampling::SamplingOptions;
use crate::spec::DecodeSpec;
use crate::special::{SPECIAL_FORMS, split_specials};
use crate::suggest::quoted;

/// The keys that task files have beside the sampling parameters of all layers.
const OWN_KEYS: [&str; 3] = ["prefix", "regex", "lark"];

/// All keys, for messages and for the schema.
pub(super) const DECODE_KEYS: [&str; OWN_KEYS.len() + SamplingOptions::NAMES.len()] = {
    let mut keys = [""; OWN_KEYS.len() + SamplingOptions::NAMES.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = if index < OWN_KEYS.len() {
            OWN_KEYS[index]
        } else {
            SamplingOptions::NAMES[index - OWN_KEYS.len()]
        };
        index += 1;
    }
    keys
};

#[derive(Debug, Default)]
pub(super) struct RawDecode {
    own: OwnKeys,
    sampling: SamplingOptions,
}

/// What the layered parameters do not say of themselves: the keys of task files alone, and the lines of all
/// others.
#[derive(Debug, Default)]
struct OwnKeys {
    prefix: Option<Spanned<String>>,
    regex: Option<Spanned<String>>,
    lark: Option<Spanned<String>>,
    lines: BTreeMap<String, Option<usize>>,
}

impl OwnKeys {
    /// Names a fault of a sampling parameter, with the line of its key.
    fn problem(&self, parameter: &str, message: String) -> Problem {
        Problem {
            line: self.lines.get(parameter).copied().flatten(),
            key: format!("decode.{parameter}"),
            message,
        }
    }
}

impl RawDecode {
    /// Takes over what another task file says, as the layers of sampling parameters do, and returns the keys
    /// that are taken over.
    pub(super) fn inherit(&mut self, parent: Self) -> Vec<String> {
        let mut inherited = Vec::new();
        let own = &mut self.own;
        // An answer has one form.
        let has_form = own.regex.is_some() || own.lark.is_some();
        let taken = [
            ("prefix", &mut own.prefix, parent.own.prefix),
            ("regex", &mut own.regex, parent.own.regex.filter(|_| !has_form)),
            ("lark", &mut own.lark, parent.own.lark.filter(|_| !has_form)),
        ];
        for (key, own, parent) in taken {
            if own.is_none() && parent.is_some() {
                inherited.push(key.to_owned());
                *own = parent;
            }
        }
        for (key, line) in parent.own.lines {
            own.lines.entry(key).or_insert_with_key(|key| {
                inherited.push(key.clone());
                line
            });
        }
        self.sampling = parent.sampling.overlay(std::mem::take(&mut self.sampling));
        inherited
    }
}

impl<'de> Deserialize<'de> for RawDecode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawDecodeVisitor)
    }
}

struct RawDecodeVisitor;

impl<'de> Visitor<'de> for RawDecodeVisitor {
    type Value = RawDecode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("how the answer is decoded, written `key: value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawDecode, A::Error> {
        let mut own = OwnKeys::default();
        let keys = SamplingKeys { map, own: &mut own };
        let sampling = SamplingOptions::deserialize(MapAccessDeserializer::new(keys))?;
        Ok(RawDecode { own, sampling })
    }
}

/// Passes on the keys of sampling parameters, and keeps the others.
///
/// `#[serde(flatten)]` would lose the places of all values.
struct SamplingKeys<'o, A> {
    map: A,
    own: &'o mut OwnKeys,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for SamplingKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<Spanned<String>>()? {
            let own = match key.value.as_str() {
                "prefix" => &mut self.own.prefix,
                "regex" => &mut self.own.regex,
                "lark" => &mut self.own.lark,
                name if SamplingOptions::NAMES.contains(&name) => {
                    self.own.lines.insert(key.value.clone(), line(&key));
                    let name: StringDeserializer<A::Error> = key.value.into_deserializer();
                    return seed.deserialize(name).map(Some);
                }
                name => return Err(A::Error::unknown_field(name, &DECODE_KEYS)),
            };
            *own = self.map.next_value()?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

pub(super) fn check_decode(raw: Spanned<RawDecode>, output: &OutputSpec) -> Result<DecodeSpec, Problem> {
    if output.is_encoded() {
        let message = format!(
            "an answer of kind {} is not decoded: remove `decode`",
            output.kind()
        );
        return Err(Problem::new(&raw, "decode", message));
    }
    let RawDecode { own, sampling } = raw.value;
    check_constraint(&own, &sampling, output)?;
    check_drawn(&own, &sampling, output)?;
    if let Err(error) = sampling.check() {
        let message = format!("expected {}, found {}", error.expected, error.found);
        return Err(own.problem(error.parameter, message));
    }
    Ok(DecodeSpec {
        prefix: own.prefix.map(prefix).transpose()?.unwrap_or_default(),
        sampling,
        regex: own.regex.map(|regex| regex.value),
        lark: own.lark.map(|lark| lark.value),
    })
}

/// Checks that an answer that must have a form is text of one form, written by one beam to its end.
fn check_constraint(own: &OwnKeys, sampling: &SamplingOptions, output: &OutputSpec) -> Result<(), Problem> {
    let forms = [("decode.regex", &own.regex), ("decode.lark", &own.lark)];
    let mut forms = forms
        .iter()
        .filter_map(|(key, form)| Some((*key, form.as_ref()?)));
    let (first, second) = (forms.next(), forms.next());
    if let Some((key, form)) = second {
        let message = "an answer has one form: remove either `regex` or `lark`";
        return Err(Problem::new(form, key, message));
    }
    if let Some((key, form)) = first
        && *output != (OutputSpec::Text { fill: None })
    {
        let kind = output.kind();
        let message = format!("it goes with an output of kind text that fills no gaps, found {kind}");
        return Err(Problem::new(form, key, message));
    }
    if first.is_none() && !output.is_constrained() {
        return Ok(());
    }
    if let Some(beams) = sampling.beams.filter(|beams| *beams > 1) {
        let message = format!("an answer of a given form is written by one beam, found {beams}");
        return Err(own.problem("beams", message));
    }
    if sampling.stop.is_empty() {
        return Ok(());
    }
    let message = "an answer of a given form ends by itself: remove `stop`";
    Err(own.problem("stop", message.to_owned()))
}

/// Checks that several answers are drawn of what is generated alone.
fn check_drawn(own: &OwnKeys, sampling: &SamplingOptions, output: &OutputSpec) -> Result<(), Problem> {
    if output.is_generated() {
        return Ok(());
    }
    let counts = [
        ("samples", sampling.samples, 1),
        ("best_of", sampling.best_of, 1),
        ("top_log_probabilities", sampling.top_log_probabilities, 0),
    ];
    for (parameter, found, most) in counts {
        if let Some(found) = found.filter(|found| *found > most) {
            let kind = output.kind();
            let message =
                format!("an answer of kind {kind} is scored, not generated: remove it, found {found}");
            return Err(own.problem(parameter, message));
        }
    }
    Ok(())
}

fn prefix(prefix: Spanned<String>) -> Result<Vec<String>, Problem> {
    split_specials(&prefix.value).ok_or_else(|| {
        let message = format!(
            "expected special tokens ({SPECIAL_FORMS}), found {}",
            quoted(&prefix.value)
        );
        Problem::new(&prefix, "decode.prefix", message)
    })
}
