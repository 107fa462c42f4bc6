//! What a schema allows, twice: as a grammar for masks, and as a language for completions.

use std::collections::BTreeSet;
use std::fmt::Write;

use llguidance::regex_to_lark;

use super::definitions::{Definition, Property, Reference, Schema};
use super::language::{Expression, Language};
use super::regex::parse;

/// Writes a grammar in Lark's syntax whose rule `start` is the answers of the first definition, perhaps with
/// a space in front.
pub(super) fn lark(definitions: &[Definition], leading_space: bool) -> String {
    let mut rules = Rules::default();
    rules.refer(0);
    while let Some(place) = rules.unwritten.pop() {
        let value = definitions
            .get(place)
            .map(|definition| rules.value(&definition.schema));
        let _ = writeln!(rules.text, "d{place}: {}", value.unwrap_or_default());
    }
    let space = if leading_space { r#" | " " d0"# } else { "" };
    format!("start: d0{space}\n{}", rules.text)
}

/// How many properties one rule has at most.
const RUN: usize = 16;

#[derive(Default)]
struct Rules {
    text: String,
    count: usize,
    /// The definitions that others refer to, and those of them that have no rule yet.
    referred: BTreeSet<usize>,
    unwritten: Vec<usize>,
}

impl Rules {
    /// Adds a rule and returns its name.
    fn add(&mut self, body: &str) -> String {
        let name = format!("r{}", self.count);
        self.count += 1;
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "{name}: {body}");
        name
    }

    /// Returns the name of a definition's rule, which will be written.
    fn refer(&mut self, definition: usize) -> String {
        if self.referred.insert(definition) {
            self.unwritten.push(definition);
        }
        format!("d{definition}")
    }

    fn value(&mut self, schema: &Schema) -> String {
        match schema {
            Schema::Reference(Reference { definition, .. }) => self.refer(*definition),
            Schema::Literals(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("({})", texts.join(" | "))
            }
            Schema::Regex(regex) => format!("/{}/", regex_to_lark(regex, "")),
            Schema::AnyOf(options) => {
                let options: Vec<String> = options.iter().map(|option| self.value(option)).collect();
                self.add(&options.join(" | "))
            }
            Schema::Array { items, least, most } => {
                let empty = quoted("[]");
                if *most == Some(0) {
                    return empty;
                }
                let item = self.value(items);
                let item = self.add(&item);
                let more = match most.map(|most| most - 1) {
                    Some(0) => String::new(),
                    Some(most) => format!(r#" ("," {item}){{{},{most}}}"#, least.saturating_sub(1)),
                    None => format!(r#" ("," {item}){{{},}}"#, least.saturating_sub(1)),
                };
                let full = format!(r#""[" {item}{more} "]""#);
                let body = if *least == 0 {
                    format!("{empty} | {full}")
                } else {
                    full
                };
                self.add(&body)
            }
            Schema::Object(properties) => self.object(properties),
        }
    }

    /// Adds an object: any of the properties up to the first required one is the first that is written, and
    /// then those behind it follow, each with a comma.
    fn object(&mut self, properties: &[Property]) -> String {
        let mut first = Vec::new();
        let mut rest = quoted("}");
        let leading = properties
            .iter()
            .take_while(|property| !property.is_required)
            .count();
        if leading == properties.len() {
            first.push(rest.clone());
        }
        for (index, property) in properties.iter().enumerate().rev() {
            let value = self.value(&property.schema);
            let pair = self.add(&format!("{} {value}", quoted(&property.key)));
            if index <= leading {
                first.push(format!("{pair} {rest}"));
            }
            let optional = if property.is_required { "" } else { "?" };
            rest = format!(r#"("," {pair}){optional} {rest}"#);
            // Rules that each refer to the next would nest as deep as there are properties.
            if index % RUN == 0 {
                rest = self.add(&rest);
            }
        }
        self.add(&format!(r#""{{" ({})"#, first.join(" | ")))
    }
}

/// Writes a text as Lark does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\x7f', "\\u007f")
}

/// Makes the language of the first definition's answers.
pub(super) fn language(language: &mut Language, definitions: &[Definition]) -> Result<Expression, String> {
    let mut values = Values {
        language,
        definitions,
        begun: BTreeSet::new(),
    };
    let start = values.definition(0)?;
    language.settle();
    Ok(start)
}

/// Makes the languages of values.
struct Values<'a> {
    language: &'a mut Language,
    definitions: &'a [Definition],
    /// The definitions whose languages are made, or are being made.
    begun: BTreeSet<usize>,
}

impl Values<'_> {
    /// Refers to a definition, however often: its language is made once.
    fn definition(&mut self, place: usize) -> Result<Expression, String> {
        if let Some(definition) = self.definitions.get(place)
            && self.begun.insert(place)
        {
            let meaning = self.value(&definition.schema)?;
            self.language.define(place, meaning);
        }
        Ok(self.language.reference(place))
    }

    fn value(&mut self, schema: &Schema) -> Result<Expression, String> {
        let expression = match schema {
            Schema::Literals(texts) => {
                let texts = texts.iter().map(|text| self.language.literal(text.as_bytes()));
                let texts: Vec<Expression> = texts.collect();
                self.language.or(texts)
            }
            Schema::Regex(regex) => {
                let hir = parse(regex)?;
                self.language.regex(&hir)?
            }
            Schema::AnyOf(options) => {
                let options: Result<Vec<Expression>, String> =
                    options.iter().map(|option| self.value(option)).collect();
                self.language.or(options?)
            }
            Schema::Array { items, least, most } => self.array(items, *least, *most)?,
            Schema::Object(properties) => self.object(properties)?,
            Schema::Reference(reference) => self.definition(reference.definition)?,
        };
        if self.language.is_too_large() {
            return Err("it is too large".to_owned());
        }
        Ok(expression)
    }

    fn array(&mut self, items: &Schema, least: u32, most: Option<u32>) -> Result<Expression, String> {
        let empty = self.language.literal(b"[]");
        if most == Some(0) {
            return Ok(empty);
        }
        let item = self.value(items)?;
        let language = &mut *self.language;
        let (open, comma, close) = (
            language.literal(b"["),
            language.literal(b","),
            language.literal(b"]"),
        );
        let next = language.concat(comma, item);
        let rest = language.repeat(next, least.saturating_sub(1), most.map(|most| most - 1));
        let full = language.sequence(&[open, item, rest, close]);
        Ok(if least == 0 {
            language.or([empty, full])
        } else {
            full
        })
    }

    fn object(&mut self, properties: &[Property]) -> Result<Expression, String> {
        let (open, comma, close) = (
            self.language.literal(b"{"),
            self.language.literal(b","),
            self.language.literal(b"}"),
        );
        let (mut none_yet, mut after) = (close, close);
        for property in properties.iter().rev() {
            let key = self.language.literal(property.key.as_bytes());
            let value = self.value(&property.schema)?;
            let language = &mut *self.language;
            let pair = language.concat(key, value);
            let first = language.concat(pair, after);
            let later = language.concat(comma, first);
            let skipped = (!property.is_required).then_some((none_yet, after));
            none_yet = language.or([Some(first), skipped.map(|(none_yet, _)| none_yet)]
                .into_iter()
                .flatten());
            after = language.or([Some(later), skipped.map(|(_, after)| after)]
                .into_iter()
                .flatten());
        }
        Ok(self.language.concat(open, none_yet))
    }
}
