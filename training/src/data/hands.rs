//! Finds what further hands drew: sets of icons by name, fonts, sketches, and photographs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::drawings::{Art, Drawing};
use super::glyphs::Glyphs;
use super::iconify::IconSet;
use super::names::{NameIndex, words};
use super::packages::{Packages, file_names};
use super::photographs::read_photographs;
use super::sketches::read_sketches;
use super::split::concept_characters;
use super::{ConceptRecord, DataError, PictureRecord, Source, Split};

/// Shortest name of a silhouette that is taken without a concept: shorter ones are fragments.
const SHORTEST_NAME: usize = 3;

/// Folders of line icons in their packages: package, folder, source.
const LINE_ICONS: [(&str, &str, Source); 3] = [
    ("icons", "icons/outline", Source::Tabler),
    ("lucide-static", "icons", Source::Lucide),
    ("core", "assets/regular", Source::Phosphor),
];

/// How a set writes the names of its icons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// Words joined with hyphens.
    Words,
    /// The same, with a number behind where there are several drawings; a country's name is its flag.
    Numbered,
    /// Words run together.
    Letters,
}

/// Lists the drawings of concepts by further sets of icons and by fonts.
pub(super) fn further_drawings(
    packages: Packages<'_>,
    concepts: &[ConceptRecord],
    index: &NameIndex,
) -> Result<Vec<Drawing>, DataError> {
    let mut drawings = Vec::new();
    for (package, source, naming) in [
        ("emojione", Source::EmojiOne, Naming::Words),
        ("fxemoji", Source::FxEmoji, Naming::Letters),
        ("streamline-emojis", Source::Streamline, Naming::Numbered),
    ] {
        let set = IconSet::read(packages, package)?;
        for name in set.names() {
            if let Some(concept) = concept_of(name, naming, index).and_then(|at| concepts.get(at)) {
                let art = icon(&set, package, name);
                drawings.extend(art.map(|art| Drawing::of_concept(source, concept, art)));
            }
        }
    }
    for (package, folder, source) in LINE_ICONS {
        drawings.extend(line_icons(packages, package, folder, source, (concepts, index))?);
    }
    drawings.extend(silhouettes(packages, concepts, index)?);
    let mono = packages.folder("noto-emoji")?.join("files");
    for (ending, source) in [
        ("-300-normal.woff", Source::NotoLight),
        ("-700-normal.woff", Source::NotoBold),
    ] {
        drawings.extend(glyphs(&Glyphs::open_pieces(&mono, ending)?, source, concepts));
    }
    let symbola = packages
        .folder("fonts-symbola")?
        .join("usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf");
    drawings.extend(glyphs(&Glyphs::open(&symbola)?, Source::Symbola, concepts));
    Ok(drawings)
}

fn icon(set: &IconSet, package: &str, name: &str) -> Option<Art> {
    Some(Art::Svg {
        document: set.document(name)?,
        name: format!("{package}:{name}"),
    })
}

fn concept_of(name: &str, naming: Naming, index: &NameIndex) -> Option<usize> {
    match naming {
        Naming::Words => index.find(name),
        Naming::Letters => index.find_by_letters(name),
        Naming::Numbered => {
            let numbered = name.rsplit_once('-');
            let name = numbered
                .filter(|(_, number)| number.parse::<u32>().is_ok())
                .map_or(name, |(name, _)| name);
            index.find(name).or_else(|| index.find(&format!("flag {name}")))
        }
    }
}

/// Finds line icons that are named as a concept is.
fn line_icons(
    packages: Packages<'_>,
    package: &'static str,
    folder: &str,
    source: Source,
    (concepts, index): (&[ConceptRecord], &NameIndex),
) -> Result<Vec<Drawing>, DataError> {
    let folder = packages.folder(package)?.join(folder);
    let mut drawings = Vec::new();
    for file in file_names(&folder)? {
        let concept = file.strip_suffix(".svg").and_then(|name| index.find(name));
        if let Some(concept) = concept.and_then(|at| concepts.get(at)) {
            let path = folder.join(&file);
            let document = fs::read_to_string(&path).map_err(DataError::file("read", &path))?;
            let name = path.display().to_string();
            drawings.push(Drawing::of_concept(source, concept, Art::Svg { document, name }));
        }
    }
    Ok(drawings)
}

/// Finds silhouettes: of concepts, and of things that one word names.
fn silhouettes(
    packages: Packages<'_>,
    concepts: &[ConceptRecord],
    index: &NameIndex,
) -> Result<Vec<Drawing>, DataError> {
    let set = IconSet::read(packages, "game-icons")?;
    let mut drawings = Vec::new();
    for name in set.names() {
        let Some(art) = icon(&set, "game-icons", name) else {
            continue;
        };
        if let Some(concept) = index.find(name).and_then(|at| concepts.get(at)) {
            drawings.push(Drawing::of_concept(Source::Silhouettes, concept, art));
        } else if name.len() >= SHORTEST_NAME
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
            && !index.is_held(name)
        {
            drawings.push(named(Source::Silhouettes, vec![name.to_owned()], art));
        }
    }
    Ok(drawings)
}

fn glyphs(fonts: &Glyphs, source: Source, concepts: &[ConceptRecord]) -> Vec<Drawing> {
    let drawing = |concept: &ConceptRecord| {
        let characters = concept_characters(&concept.concept)?;
        let mut characters = characters.chars();
        // A sequence of several characters is no glyph of its own.
        let (character, None) = (characters.next()?, characters.next()) else {
            return None;
        };
        let art = Art::Svg {
            document: fonts.document(character)?,
            name: format!("{} {}", source.name(), concept.concept),
        };
        Some(Drawing::of_concept(source, concept, art))
    };
    concepts.iter().filter_map(drawing).collect()
}

/// A training picture that shows no concept of the table.
pub(super) fn named(source: Source, names: Vec<String>, art: Art) -> Drawing {
    Drawing {
        record: PictureRecord {
            source,
            concept: None,
            label: None,
            names,
            split: Split::Train,
        },
        art,
    }
}

/// Lists the sketches of a folder that may be trained on: those that the game guessed, of its training part,
/// whose word is not held out.
pub(super) fn sketches(
    folder: &Path,
    concepts: &[ConceptRecord],
    index: &NameIndex,
) -> Result<Vec<Drawing>, DataError> {
    let mut drawings = Vec::new();
    for line in read_sketches(&folder.join("quickdraw.ndjson.gz"))? {
        let concept = index.find(&line.word).and_then(|at| concepts.get(at));
        let held = match concept {
            Some(concept) => concept.split != Split::Train,
            None => index.is_held(&line.word),
        };
        if held || !line.is_usable {
            continue;
        }
        let art = Art::Sketch(line.strokes);
        drawings.push(match concept {
            Some(concept) => Drawing::of_concept(Source::Sketches, concept, art),
            None => named(Source::Sketches, vec![words(&line.word)], art),
        });
    }
    Ok(drawings)
}

/// Lists the photographs of a folder, and what was passed over.
pub(super) fn photographs(folder: &Path) -> Result<(Vec<Drawing>, Vec<String>), DataError> {
    let (photographs, passed_over) = read_photographs(folder, "train")?;
    let drawings = photographs.into_iter().map(|photograph| {
        named(
            photograph.source,
            photograph.names,
            Art::Photograph(photograph.bytes),
        )
    });
    Ok((drawings.collect(), passed_over))
}

/// Lists other names of concepts: what two sets of icons call them.
pub(super) fn other_names(
    concepts: &[ConceptRecord],
    tables: [&BTreeMap<String, String>; 2],
) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (index, concept) in concepts.iter().enumerate() {
        let known = tables.into_iter().filter_map(|table| table.get(&concept.concept));
        names.extend(known.map(|name| (index, name.clone())));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icons_are_found_by_the_naming_of_their_set() {
        let concept = |key: &str, name: &str| ConceptRecord {
            concept: key.to_owned(),
            split: Split::Train,
            names: BTreeMap::from([("en".to_owned(), name.to_owned())]),
            keywords: BTreeMap::new(),
        };
        let concepts = [concept("1", "tram car"), concept("2", "flag: Fiji")];
        let index = NameIndex::new(&concepts, []);
        let found = |name, naming| concept_of(name, naming, &index);
        assert_eq!(found("tram-car", Naming::Words), Some(0));
        assert_eq!(found("tram-car-2", Naming::Words), None);
        assert_eq!(found("tram-car-2", Naming::Numbered), Some(0));
        assert_eq!(found("fiji", Naming::Numbered), Some(1));
        assert_eq!(found("tramcar", Naming::Letters), Some(0));
    }
}
