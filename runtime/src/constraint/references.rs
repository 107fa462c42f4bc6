//! Recursive schemas: which definitions have finite answers, and circles of bare references.
//!
//! An answer is finite, so parts without a finite value are dropped. A schema without a finite answer is
//! refused.

use std::collections::BTreeSet;

use super::definitions::{Definition, Property, Reference, Schema};

/// Drops parts without a finite value, and merges definitions that refer to each other in a circle.
///
/// # Errors
/// If the first definition has no finite answer: the reference that makes it infinite.
pub(super) fn resolve(definitions: Vec<Definition>) -> Result<Vec<Definition>, String> {
    let ending = Ending::of(&definitions);
    if let Some(problem) = ending.problem(&definitions) {
        return Err(problem);
    }
    let pruned = definitions.into_iter().map(|definition| Definition {
        schema: ending
            .prune(definition.schema)
            .unwrap_or(Schema::AnyOf(Vec::new())),
        ..definition
    });
    Ok(without_circles(pruned.collect()))
}

/// Which definitions have a finite answer.
struct Ending(Vec<bool>);

impl Ending {
    /// A fixpoint: a definition has a finite answer if the definitions that it requires have one.
    fn of(definitions: &[Definition]) -> Self {
        let mut ending = Self(vec![false; definitions.len()]);
        loop {
            let found = definitions
                .iter()
                .map(|definition| ending.ends(&definition.schema));
            let found: Vec<bool> = found.collect();
            if found == ending.0 {
                return ending;
            }
            ending = Self(found);
        }
    }

    fn ends(&self, schema: &Schema) -> bool {
        match schema {
            Schema::Literals(_) | Schema::Regex(_) => true,
            Schema::Reference(reference) => self.0.get(reference.definition) == Some(&true),
            Schema::AnyOf(options) => options.iter().any(|option| self.ends(option)),
            Schema::Array { items, least, .. } => *least == 0 || self.ends(items),
            Schema::Object(properties) => {
                let mut required = properties.iter().filter(|property| property.is_required);
                required.all(|property| self.ends(&property.schema))
            }
        }
    }

    /// Returns why the first definition has no finite answer, if so.
    fn problem(&self, definitions: &[Definition]) -> Option<String> {
        if self.0.first() != Some(&false) {
            return None;
        }
        let (mut at, mut seen) = (0, BTreeSet::from([0]));
        loop {
            let Definition { path, schema } = definitions.get(at)?;
            let mut references = Vec::new();
            self.endless(schema, &mut references);
            let unseen = references
                .iter()
                .find(|reference| !seen.contains(&reference.definition));
            if let Some(unseen) = unseen {
                at = unseen.definition;
                seen.insert(at);
                continue;
            }
            let Some(reference) = references.first() else {
                return Some(format!("{path}: no answer ends"));
            };
            let again = definitions.get(reference.definition);
            return Some(format!(
                "{}: no answer ends: each value of {} must hold another one here; let it be left out, or allow something \
                 else in its place, such as null",
                reference.path,
                again.map_or("#", |definition| &definition.path)
            ));
        }
    }

    /// Lists the references that make a schema infinite: the first of each alternative.
    fn endless<'a>(&self, schema: &'a Schema, found: &mut Vec<&'a Reference>) {
        match schema {
            Schema::Literals(_) | Schema::Regex(_) => {}
            Schema::Reference(reference) => found.push(reference),
            Schema::AnyOf(options) => options.iter().for_each(|option| self.endless(option, found)),
            Schema::Array { items, .. } => self.endless(items, found),
            Schema::Object(properties) => {
                let mut required = properties.iter().filter(|property| property.is_required);
                if let Some(property) = required.find(|property| !self.ends(&property.schema)) {
                    self.endless(&property.schema, found);
                }
            }
        }
    }

    /// Keeps the parts with finite values; `None` if there is no finite answer.
    fn prune(&self, schema: Schema) -> Option<Schema> {
        match schema {
            Schema::Literals(_) | Schema::Regex(_) => Some(schema),
            Schema::Reference(_) => self.ends(&schema).then_some(schema),
            Schema::AnyOf(options) => {
                let options = options.into_iter().filter_map(|option| self.prune(option));
                let options: Vec<Schema> = options.collect();
                (!options.is_empty()).then_some(Schema::AnyOf(options))
            }
            Schema::Array { items, least, most } => match self.prune(*items) {
                Some(items) => Some(Schema::Array {
                    items: Box::new(items),
                    least,
                    most,
                }),
                None if least == 0 => Some(Schema::Literals(vec!["[]".to_owned()])),
                None => None,
            },
            Schema::Object(properties) => {
                let mut kept = Vec::with_capacity(properties.len());
                for property in properties {
                    match self.prune(property.schema) {
                        Some(schema) => kept.push(Property { schema, ..property }),
                        None if property.is_required => return None,
                        None => {}
                    }
                }
                Some(Schema::Object(kept))
            }
        }
    }
}

/// Merges definitions that refer to each other in a circle of bare references: each is the union of all.
fn without_circles(mut definitions: Vec<Definition>) -> Vec<Definition> {
    let reached = reached(&definitions);
    let reaches = |from: usize, to: usize| reached.get(from).is_some_and(|reached| reached.contains(&to));
    for first in 0..definitions.len() {
        let circle: Vec<usize> = (first..definitions.len())
            .filter(|other| reaches(first, *other) && reaches(*other, first))
            .collect();
        // The first definition of a circle holds the union.
        let is_first = circle.first() == Some(&first);
        if !is_first || (0..first).any(|other| reaches(first, other) && reaches(other, first)) {
            continue;
        }
        let mut options = Vec::new();
        for place in &circle {
            let Some(definition) = definitions.get_mut(*place) else {
                continue;
            };
            let reference = Schema::Reference(Reference {
                definition: first,
                path: definition.path.clone(),
            });
            spread(
                std::mem::replace(&mut definition.schema, reference),
                &circle,
                &mut options,
            );
        }
        if let Some(definition) = definitions.get_mut(first) {
            definition.schema = Schema::AnyOf(options);
        }
    }
    definitions
}

/// Adds the options of a schema, but for references into a circle.
fn spread(schema: Schema, circle: &[usize], options: &mut Vec<Schema>) {
    match schema {
        Schema::AnyOf(inner) => inner
            .into_iter()
            .for_each(|option| spread(option, circle, options)),
        Schema::Reference(reference) if circle.contains(&reference.definition) => {}
        other => options.push(other),
    }
}

/// Lists for each definition those whose answers are among its own.
fn reached(definitions: &[Definition]) -> Vec<BTreeSet<usize>> {
    let direct: Vec<Vec<usize>> = definitions
        .iter()
        .map(|definition| {
            let mut found = Vec::new();
            bare(&definition.schema, &mut found);
            found
        })
        .collect();
    let from = |start: &Vec<usize>| {
        let (mut seen, mut unseen) = (BTreeSet::new(), start.clone());
        while let Some(place) = unseen.pop() {
            if seen.insert(place) {
                unseen.extend(direct.get(place).into_iter().flatten());
            }
        }
        seen
    };
    direct.iter().map(from).collect()
}

/// Adds the definitions that a schema refers to with nothing around.
fn bare(schema: &Schema, found: &mut Vec<usize>) {
    match schema {
        Schema::Reference(reference) => found.push(reference.definition),
        Schema::AnyOf(options) => options.iter().for_each(|option| bare(option, found)),
        Schema::Literals(_) | Schema::Regex(_) | Schema::Object(_) | Schema::Array { .. } => {}
    }
}
