//! The fixed split of concepts into training and held-out ones.
//!
//! About one concept in ten is held out of training, by every vendor that draws it. The split is a pure
//! function of the concept's code points, so it never moves when a package, a vendor or a language is added.
//! It is drawn by *group*: concepts whose drawings or names differ only in skin tone, gender, age of a
//! gendered pair, or direction share one group, and so do flags that are one and the same drawing. Otherwise
//! the model would be tested on what it has seen.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Says what a record may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Split {
    /// Training, tuning and model selection.
    Train,
    /// Evaluation on concepts that no training record shows, names or describes.
    Held,
    /// Evaluation on new pictures of known answers (shapes, digits).
    Test,
}

/// Joins the elements of an emoji sequence.
const JOINER: &str = "200d";
/// Asks for the coloured form of the character before it; carries no meaning of its own.
const VARIATION_SELECTOR: &str = "fe0f";
const SKIN_TONES: [&str; 5] = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"];
/// Elements that only change who is drawn, or which way they look: female, male, facing right.
const QUALIFIERS: [&str; 3] = ["2640", "2642", "27a1"];
const PERSON: &str = "1f9d1";
const CHILD: &str = "1f9d2";
const FAMILY: &str = "1f46a";

/// Groups whose members are not found by the rules on sequences: (member, group).
const SAME_GROUP: [(&str, &str); 29] = [
    ("1f474", "1f9d3"),                                 // old man, older person
    ("1f475", "1f9d3"),                                 // old woman
    ("1f934", "1fac5"),                                 // prince, person with crown
    ("1f478", "1fac5"),                                 // princess
    ("1f385", "1f9d1-200d-1f384"),                      // Santa Claus, Mx Claus
    ("1f936", "1f9d1-200d-1f384"),                      // Mrs. Claus
    ("1f57a", "1f483"),                                 // man dancing, woman dancing
    ("1f930", "1fac4"),                                 // pregnant woman, pregnant person
    ("1fac3", "1fac4"),                                 // pregnant man
    ("1f46b", "1f9d1-200d-1f91d-200d-1f9d1"),           // woman and man holding hands, people
    ("1f46c", "1f9d1-200d-1f91d-200d-1f9d1"),           // men holding hands
    ("1f46d", "1f9d1-200d-1f91d-200d-1f9d1"),           // women holding hands
    ("1f9d1-200d-2764-200d-1f9d1", "1f491"),            // couple with heart
    ("1f9d1-200d-2764-200d-1f48b-200d-1f9d1", "1f48f"), // kiss
    ("1faf1-200d-1faf2", "1f91d"),                      // handshake of two skin tones
    ("1f6b9", "1f6bb"),                                 // men's room, restroom
    ("1f6ba", "1f6bb"),                                 // women's room
    ("1f1e7-1f1fb", "1f1f3-1f1f4"),                     // Bouvet Island flies Norway's flag
    ("1f1f8-1f1ef", "1f1f3-1f1f4"),                     // Svalbard and Jan Mayen: Norway
    ("1f1ed-1f1f2", "1f1e6-1f1fa"),                     // Heard and McDonald Islands: Australia
    ("1f1e8-1f1f5", "1f1eb-1f1f7"),                     // Clipperton Island: France
    ("1f1f2-1f1eb", "1f1eb-1f1f7"),                     // Saint Martin: France
    ("1f1e7-1f1f1", "1f1eb-1f1f7"),                     // Saint Barthélemy: France, by some vendors
    ("1f1ec-1f1eb", "1f1eb-1f1f7"),                     // French Guiana: France, by some vendors
    ("1f1f5-1f1f2", "1f1eb-1f1f7"),                     // Saint Pierre and Miquelon: France, by some
    ("1f1ea-1f1e6", "1f1ea-1f1f8"),                     // Ceuta and Melilla: Spain
    ("1f1fa-1f1f2", "1f1fa-1f1f8"),                     // US outlying islands: United States
    ("1f1e9-1f1ec", "1f1ee-1f1f4"),                     // Diego Garcia: British Indian Ocean Territory
    ("1f1f9-1f1e6", "1f1f8-1f1ed"),                     // Tristan da Cunha: Saint Helena, by some vendors
];

/// Writes code points as a concept's key: lowercase hexadecimal joined with `-`, without variation selectors.
///
/// Accepts what packages use as names of files and keys of tables, such as `0023-FE0F-20E3`. Leading zeros
/// beyond four digits never occur in them; shorter forms (`23-fe0f-20e3`) are padded to four. Returns nothing
/// where the text is not a sequence of code points.
///
/// ```
/// use multiway_training::data::concept_key;
/// assert_eq!(concept_key("0023-FE0F-20E3").as_deref(), Some("0023-20e3"));
/// assert_eq!(concept_key("a9-fe0f").as_deref(), Some("00a9"));
/// assert_eq!(concept_key("cat-face"), None);
/// ```
pub fn concept_key(code_points: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in code_points.split('-') {
        let code_point = u32::from_str_radix(part, 16).ok().and_then(char::from_u32)?;
        let part = format!("{:04x}", u32::from(code_point));
        if part != VARIATION_SELECTOR {
            parts.push(part);
        }
    }
    (!parts.is_empty()).then(|| parts.join("-"))
}

/// Spells a concept's key as the characters that it names, or nothing where it is not a key.
pub fn concept_characters(concept_key: &str) -> Option<String> {
    concept_key
        .split('-')
        .map(|part| u32::from_str_radix(part, 16).ok().and_then(char::from_u32))
        .collect()
}

/// Finds the group of a concept: the key that all its variants in skin tone, gender and direction share.
///
/// The rules, in order: variation selectors are dropped; skin tones are dropped where they modify something;
/// gender signs and "facing right" are dropped where they follow a joiner; man and woman become person, boy
/// and girl become child; a sequence of persons and children only is the family; the rest is a table of
/// pairs.
///
/// ```
/// use multiway_training::data::split::group_key;
/// assert_eq!(group_key("1f468-200d-1f680"), group_key("1f469-1f3fd-200d-1f680")); // two astronauts
/// assert_ne!(group_key("1f431"), group_key("1f408")); // cat face, cat
/// ```
pub fn group_key(concept_key: &str) -> String {
    let lowercase = concept_key.to_ascii_lowercase();
    let parts: Vec<&str> = lowercase
        .split('-')
        .filter(|part| *part != VARIATION_SELECTOR)
        .collect();
    let is_sequence = parts.len() > 1;
    let parts: Vec<&str> = parts
        .into_iter()
        .filter(|part| !(is_sequence && SKIN_TONES.contains(part)))
        .map(without_gender)
        .collect();
    let mut elements: Vec<String> = parts
        .split(|part| *part == JOINER)
        .map(|element| element.join("-"))
        .collect();
    let mut is_first = true;
    elements.retain(|element| {
        let keep = is_first || !QUALIFIERS.contains(&element.as_str());
        is_first = false;
        keep
    });
    if elements.len() > 1
        && elements
            .iter()
            .all(|element| element == PERSON || element == CHILD)
    {
        return FAMILY.to_owned();
    }
    let sequence = elements.join("-200d-");
    let group = SAME_GROUP
        .iter()
        .find(|(member, _)| *member == sequence)
        .map(|(_, group)| *group);
    group.map_or(sequence, str::to_owned)
}

fn without_gender(code_point: &str) -> &str {
    match code_point {
        "1f468" | "1f469" => PERSON,
        "1f466" | "1f467" => CHILD,
        other => other,
    }
}

/// Assigns a concept to training or to the held-out tenth, by the SHA-256 of its group.
///
/// ```
/// use multiway_training::data::{Split, split_of};
/// assert_eq!(split_of("1f600"), split_of("1f600-fe0f"));
/// assert_ne!(split_of("1f600"), Split::Test); // concepts are trained on or held out
/// ```
pub fn split_of(concept_key: &str) -> Split {
    if rank(&group_key(concept_key)).is_multiple_of(10) {
        Split::Held
    } else {
        Split::Train
    }
}

/// Ranks a name in an order that is fixed for ever and looks random: the first eight bytes of its SHA-256.
pub(crate) fn rank(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |rank, byte| (rank << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lowercase_code_points_without_variation_selectors() {
        assert_eq!(
            concept_key("1F468-200D-2764-FE0F-200D-1F468").unwrap(),
            "1f468-200d-2764-200d-1f468"
        );
        assert_eq!(concept_key("37-fe0f-20e3").unwrap(), "0037-20e3");
        for not_a_key in ["", "fe0f", "grinning", "1f600-", "110000", "d800", "-"] {
            assert_eq!(concept_key(not_a_key), None, "{not_a_key}");
        }
        assert_eq!(concept_characters("0023-20e3").unwrap(), "#\u{20e3}");
        assert_eq!(concept_characters("zz"), None);
    }

    #[test]
    fn the_split_never_moves() {
        let held = [
            "0034-20e3",
            "1f30b",
            "1f363",
            "2693",
            "1f1e9-1f1ea",
            "1f1f3-1f1f4",
            "2764",
            "1f468-200d-1f527",
        ];
        let train = [
            "0023-20e3",
            "1f600",
            "1f431",
            "1f408",
            "1f680",
            "1f46a",
            "1f1eb-1f1f7",
            "1f1ef-1f1f5",
            "1f3fb",
        ];
        assert!(held.iter().all(|key| split_of(key) == Split::Held));
        assert!(train.iter().all(|key| split_of(key) == Split::Train));
        assert_eq!(rank("1f600"), 0x308e_7b21_949d_2e74);
    }

    #[test]
    fn about_a_tenth_is_held_out() {
        let held = (0x1f300..0x1f700)
            .filter(|point| split_of(&format!("{point:04x}")) == Split::Held)
            .count();
        assert!((75..=130).contains(&held), "{held} of 1024");
    }

    #[test]
    fn variants_of_a_concept_share_its_group() {
        let groups: [&[&str]; 12] = [
            &["1f44b", "1f44b-1f3fb", "1f44b-1f3ff"],
            &["1f468", "1f469", "1f9d1", "1f469-1f3fd"],
            &["1f466", "1f467", "1f9d2"],
            &["1f474", "1f475", "1f9d3", "1f475-1f3fb"],
            &["1f468-200d-2695", "1f469-200d-2695-fe0f", "1f9d1-1f3fc-200d-2695"],
            &[
                "1f3c3",
                "1f3c3-200d-2642",
                "1f3c3-200d-2640-200d-27a1",
                "1f3c3-1f3fb-200d-27a1",
            ],
            &[
                "1f46a",
                "1f468-200d-1f469-200d-1f466",
                "1f9d1-200d-1f9d1-200d-1f9d2",
                "1f469-200d-1f467-200d-1f467",
            ],
            &[
                "1f491",
                "1f469-200d-2764-200d-1f468",
                "1f468-200d-2764-fe0f-200d-1f468",
            ],
            &["1f48f", "1f469-200d-2764-200d-1f48b-200d-1f469"],
            &[
                "1f46b",
                "1f46c",
                "1f46d",
                "1f9d1-200d-1f91d-200d-1f9d1",
                "1f469-1f3fb-200d-1f91d-200d-1f468-1f3ff",
            ],
            &["1f91d", "1faf1-1f3fb-200d-1faf2-1f3ff"],
            &["1f1f3-1f1f4", "1f1e7-1f1fb", "1f1f8-1f1ef"],
        ];
        for group in groups {
            let expected = group_key(group[0]);
            for member in group {
                assert_eq!(group_key(member), expected, "{member}");
                assert_eq!(split_of(member), split_of(group[0]), "{member}");
            }
        }
    }

    #[test]
    fn different_concepts_keep_different_groups() {
        let keys = [
            "1f431",
            "1f408",
            "1f3fb",
            "1f3ff",
            "2640",
            "2642",
            "27a1",
            "1f642",
            "1f642-200d-2194",
            "0023-20e3",
        ];
        for (index, key) in keys.iter().enumerate() {
            for other in &keys[..index] {
                assert_ne!(group_key(key), group_key(other));
            }
        }
    }

    #[test]
    fn a_group_is_its_own_group() {
        for (member, group) in SAME_GROUP {
            assert_eq!(group_key(member), group);
            assert_eq!(group_key(group), group, "{group} is the group of {member}");
        }
    }
}
