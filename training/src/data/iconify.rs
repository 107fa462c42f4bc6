//! Reads icon sets in the Iconify format: SVG bodies by name, aliases, and names by code points.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::packages::Packages;
use super::{DataError, concept_key};

/// Aliases of aliases are followed this far: sets use one step, and a cycle must end.
const MAX_ALIAS_DEPTH: usize = 4;

/// A set of icons; see <https://iconify.design/docs/types/iconify-json.html>.
#[derive(Debug, Deserialize)]
pub(super) struct IconSet {
    icons: BTreeMap<String, Icon>,
    #[serde(default)]
    aliases: BTreeMap<String, Alias>,
    #[serde(default = "default_side")]
    width: f64,
    #[serde(default = "default_side")]
    height: f64,
}

#[derive(Debug, Deserialize)]
struct Icon {
    body: String,
    #[serde(default)]
    left: f64,
    #[serde(default)]
    top: f64,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
    /// Clockwise quarter turns.
    #[serde(default)]
    rotate: u8,
}

/// The side of an icon where a set gives none.
fn default_side() -> f64 {
    16.0
}

impl IconSet {
    pub(super) fn read(packages: Packages<'_>, package: &'static str) -> Result<Self, DataError> {
        packages.json(package, "icons.json")
    }

    /// Lists the names of its icons, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.icons.keys().map(String::as_str)
    }

    /// Writes an icon as an SVG document, or nothing where the set has no icon of that name.
    pub(super) fn document(&self, name: &str) -> Option<String> {
        let mut name = name;
        let mut turns = Vec::new();
        for _ in 0..=MAX_ALIAS_DEPTH {
            if let Some(icon) = self.icons.get(name) {
                return Some(self.write(icon, &turns));
            }
            let alias = self.aliases.get(name)?;
            turns.push(alias);
            name = &alias.parent;
        }
        None
    }

    fn write(&self, icon: &Icon, turns: &[&Alias]) -> String {
        let (left, top) = (icon.left, icon.top);
        let (width, height) = (
            icon.width.unwrap_or(self.width),
            icon.height.unwrap_or(self.height),
        );
        let (middle, centre) = (left + width / 2.0, top + height / 2.0);
        let mut body = icon.body.clone();
        // The innermost transform belongs to the alias nearest to the icon.
        for turn in turns.iter().rev() {
            let sign = |flip: bool| if flip { -1.0 } else { 1.0 };
            let (x, y, angle) = (sign(turn.h_flip), sign(turn.v_flip), 90 * u32::from(turn.rotate));
            body = format!(
                "<g transform=\"translate({middle} {centre}) rotate({angle}) scale({x} {y}) \
                 translate({} {})\">{body}</g>",
                -middle, -centre
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             width=\"{width}\" height=\"{height}\" viewBox=\"{left} {top} {width} {height}\">{body}</svg>"
        )
    }
}

/// Reads which icon of a set draws which concept.
pub(super) fn icon_names(
    packages: Packages<'_>,
    package: &'static str,
) -> Result<BTreeMap<String, String>, DataError> {
    let names: BTreeMap<String, String> = packages.json(package, "chars.json")?;
    Ok(names
        .into_iter()
        .filter_map(|(code_points, name)| Some((concept_key(&code_points)?, name)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> IconSet {
        serde_json::from_str(
            r#"{"prefix": "test", "width": 10, "height": 20, "icons": {"left": {"body": "<path/>", "left": 2}},
                "aliases": {"right": {"parent": "left", "hFlip": true}, "again": {"parent": "right", "rotate": 1},
                            "cycle": {"parent": "cycle"}, "lost": {"parent": "nothing"}}}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_icon_becomes_a_document_with_the_sets_size() {
        let document = set().document("left").unwrap();
        assert!(document.contains(r#"viewBox="2 0 10 20""#), "{document}");
        assert!(document.ends_with("><path/></svg>"), "{document}");
    }

    #[test]
    fn an_alias_turns_its_parent_about_the_middle() {
        let document = set().document("again").unwrap();
        let outer = document.find("translate(7 10) rotate(90) scale(1 1)").unwrap();
        let inner = document.find("translate(7 10) rotate(0) scale(-1 1)").unwrap();
        assert!(outer < inner, "{document}");
    }

    #[test]
    fn an_unknown_or_endless_name_has_no_document() {
        for name in ["nothing", "lost", "cycle"] {
            assert_eq!(set().document(name), None, "{name}");
        }
    }
}
