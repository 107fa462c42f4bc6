//! JSON schemas, read into what an answer may look like.
//!
//! Only keywords whose every answer can be completed in time are known; others are refused by name rather
//! than ignored. What is read may be narrower than the schema: an answer has no white space, names properties
//! in the order of the schema and no others, and its numbers have at most [`MAX_DIGITS`] digits and
//! [`MAX_ZEROS`] zeros behind them.
//!
//! What a `$ref` points to is read once, as a definition of its own, however often it is referred to.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use super::definitions::{Definition, Property, Reference, Schema};
use super::numbers::{Bounds, Decimal, MAX_DIGITS, MAX_ZEROS, multiple, number};
use super::pattern::{CHARACTER, quoted};
use super::references;

/// The deepest nesting of schemas, from the definition that they are in.
const MAX_DEPTH: usize = 32;
/// The most schemas that a schema and all that it refers to may have inside.
const MAX_NODES: usize = 1024;
/// The most that minimum lengths and counts may be; larger maximum ones are read as this.
const MAX_COUNT: u32 = u16::MAX as u32;
/// The most properties of one object.
const MAX_PROPERTIES: usize = 256;
/// The most bytes of a value that is written literally.
const MAX_LITERAL_BYTES: usize = 1024;

/// Keywords that do not constrain values: annotations.
const ANNOTATIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    // Annotations unless a validator is told otherwise.
    "format",
    "contentMediaType",
];

/// Keywords of each type.
const KEYWORDS: [(&str, &[&str]); 5] = [
    ("string", &["minLength", "maxLength", "pattern"]),
    ("integer", NUMBER),
    ("number", NUMBER),
    ("array", &["items", "minItems", "maxItems"]),
    ("object", &["properties", "required", "additionalProperties"]),
];
const NUMBER: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

impl Schema {
    fn literal(value: &Value) -> Self {
        Self::Literals(vec![value.to_string()])
    }

    fn boolean() -> Self {
        Self::Literals(vec!["true".to_owned(), "false".to_owned()])
    }

    /// Text, a number, true, false or null: what stands for a value of which a schema says nothing.
    fn scalar() -> Result<Self, String> {
        let (nothing, root) = (Map::new(), SchemaLocation::root());
        Ok(Self::AnyOf(vec![
            string(&nothing, &root)?,
            numeric(&nothing, false, &root)?,
            Self::boolean(),
            Self::literal(&Value::Null),
        ]))
    }
}

/// Reads a schema and what it refers to; the first definition is the schema itself. No definition refers to
/// itself except from within an object or array, and each has finite answers.
///
/// # Errors
/// A message with the location in the schema, what was found there, and what is supported.
pub(super) fn parse(schema: &Value) -> Result<Vec<Definition>, String> {
    let mut reader = Reader {
        root: schema,
        nodes: 0,
        pointers: vec![String::new()],
        exclusive: Vec::new(),
    };
    let mut definitions: Vec<Definition> = Vec::new();
    while let Some(pointer) = reader.pointers.get(definitions.len()).cloned() {
        let target = schema.pointer(&pointer).unwrap_or(&Value::Null);
        let place = SchemaLocation {
            path: format!("#{pointer}"),
            depth: 0,
        };
        definitions.push(Definition {
            schema: reader.read(target, &place)?,
            path: place.path,
        });
    }
    for (place, options) in &reader.exclusive {
        if !are_disjoint(options, &definitions) {
            return place.wrong("an answer could fit two of these; write anyOf, or give each another type");
        }
    }
    references::resolve(definitions)
}

/// A location in a schema.
#[derive(Clone, Debug)]
struct SchemaLocation {
    path: String,
    depth: usize,
}

impl SchemaLocation {
    fn root() -> Self {
        Self {
            path: "#".to_owned(),
            depth: 0,
        }
    }

    fn at(&self, key: &str) -> Self {
        Self {
            path: format!("{}/{key}", self.path),
            depth: self.depth + 1,
        }
    }

    fn wrong<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{}: {message}", self.path))
    }
}

struct Reader<'a> {
    root: &'a Value,
    nodes: usize,
    /// Where the definitions stand, by their numbers.
    pointers: Vec<String>,
    /// Of what at most one option may fit, and where.
    exclusive: Vec<(SchemaLocation, Vec<Beginning>)>,
}

impl Reader<'_> {
    fn read(&mut self, schema: &Value, place: &SchemaLocation) -> Result<Schema, String> {
        self.nodes += 1;
        if place.depth > MAX_DEPTH {
            return place.wrong(format_args!("nested deeper than {MAX_DEPTH}"));
        }
        if self.nodes > MAX_NODES {
            return place.wrong(format_args!("more than {MAX_NODES} schemas"));
        }
        let schema = match schema {
            Value::Bool(true) => return Schema::scalar(),
            Value::Object(schema) => schema,
            other => return place.wrong(format_args!("expected a schema, found {}", short(other))),
        };
        if let Some(reference) = schema.get("$ref") {
            return self.reference(schema, reference, place);
        }
        for (keyword, literal) in [("const", true), ("enum", false)] {
            if let Some(value) = schema.get(keyword) {
                check_keywords(schema, &[keyword, "type"], place)?;
                let value = match (schema.get("type"), value) {
                    (Some(types), Value::Array(values)) if !literal => {
                        let fitting = values.iter().filter(|value| is_of(value, types));
                        &Value::Array(fitting.cloned().collect())
                    }
                    (Some(types), value) if literal && !is_of(value, types) => {
                        return place.at("type").wrong("the value of const is of another type");
                    }
                    _ => value,
                };
                return literals(value, literal, &place.at(keyword));
            }
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(keyword) {
                check_keywords(schema, &[keyword], place)?;
                return self.options(options, keyword == "oneOf", &place.at(keyword));
            }
        }
        self.typed(schema, place)
    }

    fn reference(
        &mut self,
        schema: &Map<String, Value>,
        reference: &Value,
        place: &SchemaLocation,
    ) -> Result<Schema, String> {
        check_keywords(schema, &["$ref"], place)?;
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let place = place.at("$ref");
        let Some(pointer) = pointer.filter(|pointer| self.root.pointer(pointer).is_some()) else {
            return place.wrong(format_args!(
                "expected a place in this schema such as \"#/$defs/name\", found {}",
                short(reference)
            ));
        };
        let known = self.pointers.iter().position(|known| known == pointer);
        let definition = known.unwrap_or_else(|| {
            self.pointers.push(pointer.to_owned());
            self.pointers.len() - 1
        });
        Ok(Schema::Reference(Reference {
            definition,
            path: place.path,
        }))
    }

    fn options(
        &mut self,
        options: &Value,
        exclusive: bool,
        place: &SchemaLocation,
    ) -> Result<Schema, String> {
        let Some(options) = options.as_array().filter(|options| !options.is_empty()) else {
            return place.wrong("expected a list of schemas");
        };
        let read = |(index, option): (usize, &Value)| self.read(option, &place.at(&index.to_string()));
        let schemas: Vec<Schema> = options.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        if exclusive {
            let beginnings = schemas.iter().map(Beginning::of).collect();
            self.exclusive.push((place.clone(), beginnings));
        }
        Ok(Schema::AnyOf(schemas))
    }

    fn typed(&mut self, schema: &Map<String, Value>, place: &SchemaLocation) -> Result<Schema, String> {
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) if !names.is_empty() => {
                let texts: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                match texts {
                    Some(texts) => texts,
                    None => return place.at("type").wrong("expected names of types"),
                }
            }
            Some(other) => {
                return place.at("type").wrong(format_args!(
                    "expected the name of a type, found {}",
                    short(other)
                ));
            }
            None => {
                let implied = KEYWORDS
                    .iter()
                    .filter(|(_, own)| own.iter().any(|key| schema.contains_key(*key)));
                match implied.map(|(name, _)| *name).next() {
                    Some("integer") => vec!["number"],
                    Some(name) => vec![name],
                    None => {
                        check_keywords(schema, &[], place)?;
                        return Schema::scalar();
                    }
                }
            }
        };
        let own = KEYWORDS.iter().filter(|(name, _)| names.contains(name));
        let known: Vec<&str> = own
            .flat_map(|(_, keys)| keys.iter().copied())
            .chain(["type"])
            .collect();
        check_keywords(schema, &known, place)?;
        let mut schemas = Vec::with_capacity(names.len());
        for name in names {
            schemas.push(of_type(name, schema, place, self)?);
        }
        Ok(match schemas.len() {
            1 => schemas.remove(0),
            _ => Schema::AnyOf(schemas),
        })
    }

    fn object(&mut self, schema: &Map<String, Value>, place: &SchemaLocation) -> Result<Schema, String> {
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(_)) => {}
            Some(_) => {
                return place.at("additionalProperties").wrong(
                    "expected true or false: an answer has the properties that are named, and no others",
                );
            }
        }
        let required = required(schema, place)?;
        let mut properties = Vec::new();
        let named = match schema.get("properties") {
            None => None,
            Some(Value::Object(named)) => Some(named),
            Some(other) => {
                return place
                    .at("properties")
                    .wrong(format_args!("expected schemas by name, found {}", short(other)));
            }
        };
        let under = place.at("properties");
        let count = named.map_or(0, Map::len) + required.len();
        if count > 2 * MAX_PROPERTIES || named.is_some_and(|named| named.len() > MAX_PROPERTIES) {
            return under.wrong(format_args!(
                "{count} properties, expected at most {MAX_PROPERTIES}"
            ));
        }
        for (name, schema) in named.into_iter().flatten() {
            properties.push(Property {
                key: key(name, &under)?,
                schema: self.read(schema, &under.at(name))?,
                is_required: required.contains(&name.as_str()),
            });
        }
        for name in required {
            if named.is_none_or(|named| !named.contains_key(name)) {
                let key = key(name, &under)?;
                if properties.iter().all(|property| property.key != key) {
                    properties.push(Property {
                        key,
                        schema: Schema::scalar()?,
                        is_required: true,
                    });
                }
            }
        }
        Ok(Schema::Object(properties))
    }

    fn array(&mut self, schema: &Map<String, Value>, place: &SchemaLocation) -> Result<Schema, String> {
        let (least, most) = counts(schema, "minItems", "maxItems", place)?;
        let items = match schema.get("items") {
            Some(items) => self.read(items, &place.at("items"))?,
            None => Schema::scalar()?,
        };
        Ok(Schema::Array {
            items: Box::new(items),
            least,
            most,
        })
    }
}

fn of_type(
    name: &str,
    schema: &Map<String, Value>,
    place: &SchemaLocation,
    reader: &mut Reader<'_>,
) -> Result<Schema, String> {
    match name {
        "null" => Ok(Schema::literal(&Value::Null)),
        "boolean" => Ok(Schema::boolean()),
        "string" => string(schema, place),
        "integer" | "number" => numeric(schema, name == "integer", place),
        "array" => reader.array(schema, place),
        "object" => reader.object(schema, place),
        other => place.at("type").wrong(format_args!(
            "expected null, boolean, integer, number, string, array or object, found '{other}'"
        )),
    }
}

fn string(schema: &Map<String, Value>, place: &SchemaLocation) -> Result<Schema, String> {
    let (least, most) = counts(schema, "minLength", "maxLength", place)?;
    let Some(pattern) = schema.get("pattern") else {
        let most = most.map_or_else(String::new, |most| most.to_string());
        return Ok(Schema::Regex(format!(r#""{CHARACTER}{{{least},{most}}}""#)));
    };
    let place = place.at("pattern");
    let Some(pattern) = pattern.as_str() else {
        return place.wrong(format_args!(
            "expected a regular expression, found {}",
            short(pattern)
        ));
    };
    if schema.contains_key("minLength") || schema.contains_key("maxLength") {
        return place.wrong("a pattern together with minLength or maxLength: say the length in the pattern, as in ^[a-z]{1,9}$");
    }
    match quoted(pattern) {
        Ok(regex) => Ok(Schema::Regex(regex)),
        Err(problem) => place.wrong(format_args!("/{pattern}/: {problem}")),
    }
}

fn numeric(schema: &Map<String, Value>, integer: bool, place: &SchemaLocation) -> Result<Schema, String> {
    let read = |keyword: &str| {
        let Some(value) = schema.get(keyword) else {
            return Ok(None);
        };
        let decimal = value
            .as_number()
            .and_then(|number| Decimal::parse(&number.to_string()));
        match decimal {
            Some(decimal) => Ok(Some(decimal)),
            None => place
                .at(keyword)
                .wrong(format_args!("expected a number, found {}", short(value))),
        }
    };
    let bounds = Bounds {
        minimum: read("minimum")?,
        maximum: read("maximum")?,
        exclusive_minimum: read("exclusiveMinimum")?,
        exclusive_maximum: read("exclusiveMaximum")?,
    };
    let zeros = match read("multipleOf")?.map(Decimal::as_zeros) {
        Some(None) => {
            return place.at("multipleOf").wrong(format_args!(
                "expected 1, 10, 100, 1000, 10000 or 100000, found {}",
                short(schema.get("multipleOf").unwrap_or(&Value::Null))
            ));
        }
        Some(zeros) => zeros,
        None => integer.then_some(0),
    };
    let regex = match zeros {
        Some(zeros) => multiple(&bounds, zeros),
        None => number(&bounds),
    };
    match regex {
        Some(regex) => Ok(Schema::Regex(regex)),
        None => place.wrong(format_args!(
            "no {} that can be written lies between these bounds: of at most {MAX_DIGITS} digits, and {MAX_ZEROS} zeros \
             behind them",
            match zeros {
                None => "number".to_owned(),
                Some(0) => "whole number".to_owned(),
                Some(zeros) => format!("multiple of {}", 10_u32.pow(zeros.unsigned_abs())),
            }
        )),
    }
}

/// Returns whether a value has one of the types of `type`.
fn is_of(value: &Value, types: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    match types {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

fn literals(value: &Value, single: bool, place: &SchemaLocation) -> Result<Schema, String> {
    let values = match value {
        value if single => std::slice::from_ref(value),
        Value::Array(values) if !values.is_empty() => values,
        other => return place.wrong(format_args!("expected a list of values, found {}", short(other))),
    };
    let texts: Vec<String> = values.iter().map(Value::to_string).collect();
    match texts.iter().find(|text| text.len() > MAX_LITERAL_BYTES) {
        Some(long) => place.wrong(format_args!(
            "a value of {} bytes, expected at most {MAX_LITERAL_BYTES}",
            long.len()
        )),
        None => Ok(Schema::Literals(texts)),
    }
}

fn key(name: &str, place: &SchemaLocation) -> Result<String, String> {
    if name.len() > MAX_LITERAL_BYTES {
        return place.wrong(format_args!(
            "a name of {} bytes, expected at most {MAX_LITERAL_BYTES}",
            name.len()
        ));
    }
    Ok(format!("{}:", Value::from(name)))
}

fn required<'a>(schema: &'a Map<String, Value>, place: &SchemaLocation) -> Result<Vec<&'a str>, String> {
    let Some(required) = schema.get("required") else {
        return Ok(Vec::new());
    };
    let names = required
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect());
    match names {
        Some(names) => Ok(names),
        None => place.at("required").wrong(format_args!(
            "expected a list of names, found {}",
            short(required)
        )),
    }
}

fn counts(
    schema: &Map<String, Value>,
    least: &str,
    most: &str,
    place: &SchemaLocation,
) -> Result<(u32, Option<u32>), String> {
    let count = |keyword: &str, limit: u64, expected: &str| match schema.get(keyword) {
        None => Ok(None),
        Some(value) => match value.as_number().and_then(whole).filter(|count| *count <= limit) {
            Some(count) => Ok(Some(
                u32::try_from(count).map_or(MAX_COUNT, |count| count.min(MAX_COUNT)),
            )),
            None => place.at(keyword).wrong(format_args!(
                "expected a whole number {expected}, found {}",
                short(value)
            )),
        },
    };
    let fewest = count(least, u64::from(MAX_COUNT), "up to 65535")?.unwrap_or(0);
    let largest = count(most, u64::MAX, "of 0 or more")?;
    if largest.is_some_and(|largest| largest < fewest) {
        return place.wrong(format_args!("{least} is larger than {most}"));
    }
    Ok((fewest, largest))
}

/// Reads a number that is not negative and whole, as `3` and `3.0` are; saturates.
fn whole(number: &Number) -> Option<u64> {
    let decimal = Decimal::parse(&number.to_string())?;
    let (floor, ceil) = (decimal.floor(0), decimal.ceil(0));
    (floor == ceil && floor >= 0).then(|| u64::try_from(floor).unwrap_or(u64::MAX))
}

/// Refuses keywords that are not known here.
fn check_keywords(schema: &Map<String, Value>, known: &[&str], place: &SchemaLocation) -> Result<(), String> {
    let all: Vec<&str> = known.iter().copied().chain(ANNOTATIONS).collect();
    let Some(unknown) = schema.keys().find(|key| !all.contains(&key.as_str())) else {
        return Ok(());
    };
    let beside: Vec<&str> = known
        .iter()
        .copied()
        .filter(|key| schema.contains_key(*key))
        .collect();
    let beside = match beside.as_slice() {
        [] => String::new(),
        keys => format!(" beside {}", keys.join(", ")),
    };
    place.wrong(format_args!("the keyword '{unknown}' is not supported{beside}"))
}

/// With what the answers of a schema may begin.
#[derive(Debug, Default)]
struct Beginning {
    /// A number begins with `0`.
    characters: BTreeSet<char>,
    /// They may also begin as those of these definitions do.
    definitions: BTreeSet<usize>,
}

impl Beginning {
    fn of(schema: &Schema) -> Self {
        let mut beginning = Self::default();
        beginning.add(schema);
        beginning
    }

    fn add(&mut self, schema: &Schema) {
        let literal = |text: &String| match text.chars().next() {
            Some('-' | '0'..='9') => '0',
            first => first.unwrap_or_default(),
        };
        match schema {
            Schema::Literals(texts) => self.characters.extend(texts.iter().map(literal)),
            Schema::Regex(regex) => {
                self.characters
                    .insert(if regex.starts_with('"') { '"' } else { '0' });
            }
            Schema::Object(_) => {
                self.characters.insert('{');
            }
            Schema::Array { .. } => {
                self.characters.insert('[');
            }
            Schema::AnyOf(options) => options.iter().for_each(|option| self.add(option)),
            Schema::Reference(reference) => {
                self.definitions.insert(reference.definition);
            }
        }
    }

    /// Lists the characters, those of definitions included.
    fn characters(&self, definitions: &[Definition]) -> BTreeSet<char> {
        let mut found = self.characters.clone();
        let mut seen = BTreeSet::new();
        let mut unseen: Vec<usize> = self.definitions.iter().copied().collect();
        while let Some(place) = unseen.pop() {
            if let Some(definition) = definitions.get(place)
                && seen.insert(place)
            {
                let beginning = Self::of(&definition.schema);
                found.extend(beginning.characters);
                unseen.extend(beginning.definitions);
            }
        }
        found
    }
}

/// Returns whether the options are disjoint by their first characters.
fn are_disjoint(options: &[Beginning], definitions: &[Definition]) -> bool {
    let mut seen = BTreeSet::new();
    options.iter().all(|option| {
        let own = option.characters(definitions);
        let is_new = seen.is_disjoint(&own);
        seen.extend(own);
        is_new
    })
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
