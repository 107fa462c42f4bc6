//! The things that pictures show, by name: what is drawn from, and how often.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use crate::data::{LANGUAGES, PreparedData, Source, Split};
use crate::random::{below, chance, unit};

/// How often each group of things is drawn, relative to the others: drawn concepts of the table, other drawn
/// things, and sets of photographs by how many names they tell apart.
const DRAWN: f32 = 52.0;
const DRAWN_WITHOUT_CONCEPT: f32 = 8.0;
const PHOTOGRAPHED: [(Source, f32); 6] = [
    (Source::Caltech, 12.0),
    (Source::Groceries, 11.0),
    (Source::Clothes, 6.0),
    (Source::Flowers, 3.0),
    (Source::Materials, 4.5),
    (Source::HandSigns, 3.5),
];

/// A thing with its pictures.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// The key of its concept, where it has one; that has names in many languages.
    concept: Option<String>,
    /// Its English name, and other names that are true of it.
    names: Vec<String>,
    /// Its pictures, by who made them.
    pictures: Vec<Vec<usize>>,
    /// Whether its pictures may be mirrored: an arrow, a flag or a letter may not.
    pub(super) mirrors: bool,
    /// The set of photographs that it belongs to; none of drawings.
    pub(super) set: Option<Source>,
}

/// Things that are drawn equally often.
#[derive(Debug, Clone)]
struct Group {
    weight: f32,
    classes: Vec<usize>,
}

/// All things that training shows.
#[derive(Debug, Clone)]
pub(super) struct Classes {
    classes: Vec<Class>,
    groups: Vec<Group>,
    /// Pictures that validation shows, with the index of their class.
    validation: Vec<(usize, usize)>,
}

/// What a picture is called in a language.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    /// Index in [`LANGUAGES`].
    pub(super) language: usize,
    pub(super) name: &'a str,
}

impl Classes {
    /// Sorts the training pictures by what they show.
    pub(super) fn of(data: &PreparedData) -> Self {
        let mut by_key: BTreeMap<(Option<Source>, String), BTreeMap<Source, Vec<usize>>> = BTreeMap::new();
        let mut kept = Vec::new();
        for (index, picture) in data.pictures().iter().enumerate() {
            let name = picture.concept.as_ref().or(picture.names.first());
            let (Split::Train, Some(name)) = (picture.split, name) else {
                continue;
            };
            // A photograph's name is told apart from the others of its set.
            let set = picture.source.is_photographs().then_some(picture.source);
            let key = (set, name.clone());
            if data.is_validation(index) {
                kept.push((key, index));
            } else {
                let sources = by_key.entry(key).or_default();
                sources.entry(picture.source).or_default().push(index);
            }
        }
        let mut groups: BTreeMap<Option<Source>, [Vec<usize>; 2]> = BTreeMap::new();
        let (mut classes, mut places) = (Vec::new(), BTreeMap::new());
        for ((set, name), pictures) in by_key {
            let Some(first) = pictures.values().flatten().next() else {
                continue;
            };
            let record = data.pictures().get(*first);
            let concept = record.and_then(|record| record.concept.clone());
            let names = match concept.as_deref().and_then(|key| data.concept(key)) {
                Some(concept) => vec![concept.name("en").unwrap_or_default().to_owned()],
                None => record.map(|record| record.names.clone()).unwrap_or_default(),
            };
            let [with, without] = groups.entry(set).or_default();
            if concept.is_some() { with } else { without }.push(classes.len());
            places.insert((set, name), classes.len());
            classes.push(Class {
                mirrors: set.is_some() || names.first().is_some_and(|name| mirrors(name)),
                set,
                concept,
                names,
                pictures: pictures.into_values().collect(),
            });
        }
        let validation = kept
            .into_iter()
            .filter_map(|(key, picture)| Some((picture, *places.get(&key)?)))
            .collect();
        Self {
            classes,
            groups: weighed(groups),
            validation,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Counts the things.
    pub(super) fn count(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Class> {
        self.classes.get(index)
    }

    /// Lists the pictures that validation shows, each with its class.
    pub(super) fn validation(&self) -> impl Iterator<Item = (usize, &Class)> {
        let pair = |(picture, class): &(usize, usize)| Some((*picture, self.classes.get(*class)?));
        self.validation.iter().filter_map(pair)
    }

    /// Draws a thing and returns its index with it.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Option<(usize, &Class)> {
        let total: f32 = self.groups.iter().map(|group| group.weight).sum();
        let mut at = unit(rng) * total;
        let group = self
            .groups
            .iter()
            .find(|group| {
                at -= group.weight;
                at < 0.0
            })
            .or(self.groups.last())?;
        let index = *group.classes.get(below(rng, group.classes.len()))?;
        Some((index, self.classes.get(index)?))
    }
}

impl Class {
    /// Draws one of its pictures: of each hand as often.
    pub(super) fn picture(&self, rng: &mut ChaCha8Rng) -> usize {
        let hand = self.pictures.get(below(rng, self.pictures.len()));
        let picture = hand.and_then(|pictures| pictures.get(below(rng, pictures.len())));
        picture.copied().unwrap_or(0)
    }

    /// Draws a language, mostly English, and its name in it; now and then another English name, if
    /// `synonyms` says so.
    pub(super) fn name<'a>(
        &'a self,
        data: &'a PreparedData,
        synonyms: f32,
        rng: &mut ChaCha8Rng,
    ) -> Name<'a> {
        let language = if chance(rng, 0.7) {
            0
        } else {
            below(rng, LANGUAGES.len())
        };
        let concept = self.concept.as_deref().and_then(|key| data.concept(key));
        if let Some(name) = concept.and_then(|concept| concept.name(LANGUAGES[language])) {
            return Name { language, name };
        }
        let other = self.names.len() > 1 && chance(rng, synonyms);
        let place = if other {
            1 + below(rng, self.names.len() - 1)
        } else {
            0
        };
        Name {
            language: 0,
            name: self.names.get(place).map_or("", String::as_str),
        }
    }

    /// Tells whether it is a concept of the table.
    pub(super) fn is_concept(&self) -> bool {
        self.concept.is_some()
    }

    /// Returns its English name.
    pub(super) fn english(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

fn weighed(groups: BTreeMap<Option<Source>, [Vec<usize>; 2]>) -> Vec<Group> {
    let mut weighed = Vec::new();
    for (set, [with, without]) in groups {
        let [weight, without_weight] = match set {
            None => [DRAWN, DRAWN_WITHOUT_CONCEPT],
            Some(set) => {
                let known = PHOTOGRAPHED.iter().find(|(source, _)| *source == set);
                [known.map_or(1.0, |(_, weight)| *weight); 2]
            }
        };
        for (classes, weight) in [(with, weight), (without, without_weight)] {
            if !classes.is_empty() {
                weighed.push(Group { weight, classes });
            }
        }
    }
    weighed
}

/// Tells whether a drawing of this name may be mirrored.
fn mirrors(name: &str) -> bool {
    const SIDED: [&str; 22] = [
        "flag",
        "left",
        "right",
        "arrow",
        "button",
        "keycap",
        "clock",
        "o’clock",
        "thirty",
        "sign",
        "symbol",
        "letter",
        "number",
        "input",
        "square",
        "mark",
        "calendar",
        "moon",
        "music",
        "musical",
        "paragraph",
        "copyright",
    ];
    let lowercase = name.to_lowercase();
    !lowercase
        .split(|c: char| !c.is_alphanumeric() && c != '’')
        .any(|word| SIDED.contains(&word))
}

/// The pictures that validation shows.
pub(crate) struct ValidationPictures {
    classes: Classes,
}

impl ValidationPictures {
    pub(crate) fn of(data: &PreparedData) -> Self {
        Self {
            classes: Classes::of(data),
        }
    }

    /// Lists drawings of concepts, each with its English name.
    pub(crate) fn drawings(&self) -> impl Iterator<Item = (usize, &str)> {
        let drawn = self.classes.validation().filter(|(_, class)| class.is_concept());
        drawn.map(|(picture, class)| (picture, class.english()))
    }

    /// Lists photographs, each with its set and the names that are true of it.
    pub(crate) fn photographs(&self) -> impl Iterator<Item = (usize, Source, &[String])> {
        let classes = self.classes.validation();
        classes.filter_map(|(picture, class)| Some((picture, class.set?, class.names.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_left_and_a_right_is_not_mirrored() {
        for sided in [
            "flag: Fiji",
            "left arrow",
            "OK button",
            "three o’clock",
            "keycap: 4",
            "last quarter moon",
        ] {
            assert!(!mirrors(sided), "{sided}");
        }
        for plain in ["cat face", "flagpole", "sheaf of rice", "beetle"] {
            assert!(mirrors(plain), "{plain}");
        }
    }
}
