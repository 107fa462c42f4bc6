//! Boxes, points and polygons, written as location tokens in the dialects of several models.
//!
//! A location token names a bin of a side of the picture that the model saw. Reading gives the bin's middle,
//! so that a coordinate that was written is read back within half a bin.

use std::fmt::Write as _;

use multiway_prompts::LocationDialect;
use serde::Serialize;
use thiserror::Error;

use super::view::PictureView;

/// The most objects of an answer that are read.
const MAX_OBJECTS: usize = 10_000;

/// Names a form in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Two corners: top left, bottom right.
    Box,
    /// One point.
    Point,
    /// At least three points.
    Polygon,
}

impl Form {
    /// Says how many locations the form has.
    fn expected(self) -> &'static str {
        match self {
            Self::Box => "4 locations",
            Self::Point => "2 locations",
            Self::Polygon => "an even number of at least 6 locations",
        }
    }

    /// Returns the number of locations of one form; a polygon has all that there are.
    fn arity(self) -> Option<usize> {
        match self {
            Self::Box => Some(4),
            Self::Point => Some(2),
            Self::Polygon => None,
        }
    }

    fn fits(self, locations: usize) -> bool {
        match self.arity() {
            Some(arity) => locations == arity,
            None => locations >= 6 && locations.is_multiple_of(2),
        }
    }
}

/// Holds one labelled form in a picture, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LocatedObject {
    /// The label.
    pub label: String,
    /// The coordinates in pixels of the original picture: x, y, x, y, ...; empty if there is a problem. A box
    /// is its top left and its bottom right corner.
    pub pixels: Vec<f64>,
    /// The same as fractions of the original picture's width and height.
    pub fractions: Vec<f64>,
    /// Segmentation tokens, as they were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// The text of the object, as it was written.
    pub raw: String,
    /// What is wrong with the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a dialect spells locations.
struct Spelling {
    prefix: &'static str,
    /// The number of the first location.
    first: u32,
    bins: u32,
    /// The digits that numbers are padded to.
    width: usize,
    y_first: bool,
    label_first: bool,
    /// Whether a location is the middle of a bin, rather than a point of a grid from 0 to 1.
    is_middle: bool,
}

fn spelling(dialect: LocationDialect) -> Spelling {
    let florence = Spelling {
        prefix: "<loc_",
        first: 0,
        bins: 1000,
        width: 1,
        y_first: false,
        label_first: true,
        is_middle: true,
    };
    match dialect {
        LocationDialect::Florence2 => florence,
        LocationDialect::Paligemma => Spelling {
            prefix: "<loc",
            bins: 1024,
            width: 4,
            y_first: true,
            label_first: false,
            is_middle: false,
            ..florence
        },
        LocationDialect::UnifiedIo => Spelling {
            prefix: "<extra_id_",
            first: 200,
            y_first: true,
            label_first: false,
            is_middle: false,
            ..florence
        },
        _ => Spelling {
            bins: 1024,
            ..florence
        },
    }
}

impl Spelling {
    fn fraction(&self, bin: u32) -> f64 {
        if self.is_middle {
            (f64::from(bin) + 0.5) / f64::from(self.bins)
        } else {
            f64::from(bin) / f64::from(self.bins - 1)
        }
    }

    fn bin(&self, fraction: f64) -> u32 {
        let fraction = fraction.clamp(0.0, 1.0);
        let bin = if self.is_middle {
            (fraction * f64::from(self.bins)).floor()
        } else {
            (fraction * f64::from(self.bins - 1)).round()
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of bins"
        )]
        let bin = bin as u32;
        bin.min(self.bins - 1)
    }

    fn token(&self, fraction: f64) -> String {
        let number = self.first + self.bin(fraction);
        format!("{}{number:0width$}>", self.prefix, width = self.width)
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    /// The number of a location, counted from the first; negative or too large if there is no such location.
    Location(&'t str, i64),
    Segment(&'t str),
    /// Florence-2's marks of polygons.
    Mark(&'t str),
}

impl<'t> Piece<'t> {
    fn raw(self) -> &'t str {
        match self {
            Self::Text(raw) | Self::Location(raw, _) | Self::Segment(raw) | Self::Mark(raw) => raw,
        }
    }
}

/// Cuts an answer into texts and tokens.
fn pieces<'t>(text: &'t str, spelling: &Spelling) -> Vec<Piece<'t>> {
    let mut pieces = Vec::new();
    let (mut start, mut position) = (0, 0);
    while let Some(found) = text.get(position..).and_then(|rest| rest.find('<')) {
        let at = position + found;
        let rest = text.get(at..).unwrap_or_default();
        let Some(token) = token(rest, spelling) else {
            position = at + 1;
            continue;
        };
        pieces.extend(
            text.get(start..at)
                .filter(|text| !text.is_empty())
                .map(Piece::Text),
        );
        start = at + token.raw().len();
        position = start;
        pieces.push(token);
    }
    pieces.extend(text.get(start..).filter(|text| !text.is_empty()).map(Piece::Text));
    pieces
}

fn token<'t>(text: &'t str, spelling: &Spelling) -> Option<Piece<'t>> {
    if let Some(mark) = ["<poly>", "</poly>", "<sep>"]
        .iter()
        .find(|mark| text.starts_with(**mark))
    {
        return text.get(..mark.len()).map(Piece::Mark);
    }
    let number = |prefix: &str| {
        let rest = text.strip_prefix(prefix)?;
        let end = rest.find('>').filter(|end| (1..=5).contains(end))?;
        let digits = rest.get(..end)?;
        let number: i64 = digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())??;
        Some((text.get(..prefix.len() + end + 1)?, number))
    };
    if let Some((raw, number)) = number(spelling.prefix) {
        return Some(Piece::Location(raw, number - i64::from(spelling.first)));
    }
    number("<seg").map(|(raw, _)| Piece::Segment(raw))
}

/// Reads the objects of an answer. Nothing is guessed: an object with missing, spare or wrong locations has a
/// problem and no coordinates.
///
/// # Examples
///
/// ```
/// use multiway_prompts::LocationDialect;
/// use multiway_tasks::parse::{Form, PictureView, parse_locations};
///
/// let view = PictureView::whole(1024, 512);
/// let text = "<loc0256><loc0000><loc1023><loc0512> 猫";
/// let objects = parse_locations(text, Form::Box, LocationDialect::Paligemma, &view);
/// assert_eq!(objects[0].label, "猫");
/// assert_eq!(objects[0].pixels.iter().map(|x| x.round()).collect::<Vec<_>>(), [0.0, 128.0, 513.0, 512.0]);
/// ```
pub fn parse_locations(
    text: &str,
    form: Form,
    dialect: LocationDialect,
    view: &PictureView,
) -> Vec<LocatedObject> {
    let spelling = spelling(dialect);
    let mut reading = Reading {
        spelling: &spelling,
        form,
        view,
        draft: Draft::default(),
        objects: Vec::new(),
    };
    if dialect == LocationDialect::Paligemma {
        for part in text.split(';').take(MAX_OBJECTS) {
            pieces(part, &spelling)
                .into_iter()
                .for_each(|piece| reading.add(piece));
            reading.finish();
        }
    } else {
        pieces(text, &spelling)
            .into_iter()
            .for_each(|piece| reading.add(piece));
    }
    reading.finish();
    reading.objects
}

/// An object as far as it was read.
#[derive(Debug, Default)]
struct Draft {
    label: String,
    bins: Vec<i64>,
    segments: Vec<String>,
    raw: String,
}

struct Reading<'a> {
    spelling: &'a Spelling,
    form: Form,
    view: &'a PictureView,
    draft: Draft,
    objects: Vec<LocatedObject>,
}

impl Reading<'_> {
    fn add(&mut self, piece: Piece<'_>) {
        let has_locations = !self.draft.bins.is_empty();
        match piece {
            Piece::Text(text) if self.spelling.label_first && has_locations && !text.trim().is_empty() => {
                self.finish();
            }
            // The label follows the locations, so that locations behind a label are of the next object.
            Piece::Location(..) if !self.spelling.label_first && !self.draft.label.trim().is_empty() => {
                self.finish();
            }
            // One label for several forms.
            Piece::Location(..) if self.spelling.label_first && self.is_full() => self.finish_form(),
            Piece::Mark("<sep>" | "<poly>") if has_locations => self.finish_form(),
            _ => {}
        }
        self.draft.raw.push_str(piece.raw());
        match piece {
            Piece::Text(text) => self.draft.label.push_str(text),
            Piece::Location(_, bin) => self.draft.bins.push(bin),
            Piece::Segment(raw) => self.draft.segments.push(raw.to_owned()),
            Piece::Mark(_) => {}
        }
    }

    fn is_full(&self) -> bool {
        self.form.arity() == Some(self.draft.bins.len())
    }

    /// Ends one of several forms with the same label.
    fn finish_form(&mut self) {
        let label = self.draft.label.clone();
        self.finish();
        self.draft.label = label;
    }

    fn finish(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        let is_nothing = draft.bins.is_empty() && draft.segments.is_empty() && draft.raw.trim().is_empty();
        if is_nothing || self.objects.len() == MAX_OBJECTS {
            return;
        }
        let fractions = self.fractions(&draft.bins);
        let (seen, problem) = match fractions {
            Ok(seen) => (seen, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        self.objects.push(LocatedObject {
            label: draft.label.trim().to_owned(),
            pixels: self.view.pixels(&seen),
            fractions: self.view.fractions(&seen),
            segments: draft.segments,
            raw: draft.raw.trim().to_owned(),
            problem,
        });
    }

    /// Turns bins into fractions of the picture that the model saw, x before y.
    fn fractions(&self, bins: &[i64]) -> Result<Vec<f64>, String> {
        let (form, spelling) = (self.form, self.spelling);
        if !form.fits(bins.len()) {
            return Err(format!("expected {}, found {}", form.expected(), bins.len()));
        }
        let mut fractions = Vec::with_capacity(bins.len());
        for pair in bins.chunks(2) {
            let mut pair = pair.to_vec();
            if spelling.y_first {
                pair.reverse();
            }
            for bin in pair {
                let known = u32::try_from(bin).ok().filter(|bin| *bin < spelling.bins);
                let bin = known.ok_or_else(|| {
                    format!("expected locations from 0 to {}, found {bin}", spelling.bins - 1)
                })?;
                fractions.push(spelling.fraction(bin));
            }
        }
        match (form, fractions.as_slice()) {
            (Form::Box, [left, _, right, _]) if left > right => {
                Err("its left edge is to the right of its right edge".to_owned())
            }
            (Form::Box, [_, top, _, bottom]) if top > bottom => {
                Err("its top edge is below its bottom edge".to_owned())
            }
            _ => Ok(fractions),
        }
    }
}

/// Reports why objects cannot be written in a dialect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A label would be read as something else.
    #[error(
        "the label {label:?} cannot be written: expected a text that is not empty, without '<', '>' and ';'"
    )]
    Label {
        /// The label.
        label: String,
    },
    /// The coordinates make no such form.
    #[error("the object {label:?} cannot be written: expected {expected}, found {found}")]
    Count {
        /// Its label.
        label: String,
        /// What was expected.
        expected: &'static str,
        /// The number of coordinates.
        found: usize,
    },
}

/// Writes labelled forms, whose coordinates are pixels of the original picture, as a model's answer would.
///
/// # Errors
///
/// When a label holds what the dialect uses itself, or the number of coordinates does not make the form.
///
/// # Examples
///
/// ```
/// use multiway_prompts::LocationDialect;
/// use multiway_tasks::parse::{Form, PictureView, write_locations};
///
/// let view = PictureView::whole(100, 100);
/// let boxes = [("cat", vec![0.0, 10.0, 50.0, 100.0])];
/// let text = write_locations(&boxes, Form::Box, LocationDialect::Florence2, &view)?;
/// assert_eq!(text, "cat<loc_0><loc_100><loc_500><loc_999>");
/// # Ok::<(), multiway_tasks::parse::EncodeError>(())
/// ```
pub fn write_locations<S: AsRef<str>>(
    objects: &[(S, Vec<f64>)],
    form: Form,
    dialect: LocationDialect,
    view: &PictureView,
) -> Result<String, EncodeError> {
    let spelling = spelling(dialect);
    let mut text = String::new();
    for (index, (label, pixels)) in objects.iter().enumerate() {
        let label = label.as_ref();
        if label.trim() != label || label.is_empty() || label.contains(['<', '>', ';']) {
            return Err(EncodeError::Label {
                label: label.to_owned(),
            });
        }
        if !form.fits(pixels.len()) {
            let (expected, found) = (form.expected(), pixels.len());
            return Err(EncodeError::Count {
                label: label.to_owned(),
                expected,
                found,
            });
        }
        let mut tokens = String::new();
        for pair in view.seen(pixels).chunks(2) {
            let mut pair: Vec<String> = pair.iter().map(|fraction| spelling.token(*fraction)).collect();
            if spelling.y_first {
                pair.reverse();
            }
            tokens.extend(pair);
        }
        let between = match dialect {
            _ if index == 0 => "",
            LocationDialect::Paligemma => " ; ",
            LocationDialect::UnifiedIo => " ",
            _ => "",
        };
        let _ = match spelling.label_first {
            true => write!(text, "{between}{label}{tokens}"),
            false => write!(text, "{between}{tokens} {label}"),
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABELS: [&str; 4] = ["cat", "一只猫", "قطة صغيرة", "Katze, groß"];

    fn read(text: &str, form: Form, dialect: LocationDialect) -> Vec<LocatedObject> {
        parse_locations(text, form, dialect, &PictureView::whole(1000, 1000))
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_reported_for_its_object_alone() {
        let text = "<loc0001><loc0002><loc0003> a ; <loc0500><loc0000><loc0400><loc1023> b ; \
                    <loc0000><loc0000><loc1024><loc0001> c ; <loc0000><loc0000><loc1023><loc1023><seg007> d";
        let objects = read(text, Form::Box, LocationDialect::Paligemma);
        let problems: Vec<_> = objects.iter().map(|object| object.problem.as_deref()).collect();
        assert_eq!(
            problems,
            [
                Some("expected 4 locations, found 3"),
                Some("its top edge is below its bottom edge"),
                Some("expected locations from 0 to 1023, found 1024"),
                None
            ]
        );
        assert!(objects[..3].iter().all(|object| object.pixels.is_empty()));
        assert_eq!(objects[3].pixels, [0.0, 0.0, 1000.0, 1000.0]);
        assert_eq!(objects[3].segments, ["<seg007>"]);
        assert_eq!(objects[1].raw, "<loc0500><loc0000><loc0400><loc1023> b");
    }

    #[test]
    fn a_label_of_florence_may_have_several_boxes_and_polygons() {
        let boxes =
            "car<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>door<loc_0><loc_0><loc_9><loc_9>";
        let labels: Vec<_> = read(boxes, Form::Box, LocationDialect::Florence2)
            .into_iter()
            .map(|object| (object.label, object.problem))
            .collect();
        let of = |label: &str| (label.to_owned(), None);
        assert_eq!(labels, [of("car"), of("car"), of("door")]);
        let polygons = "leaf<loc_0><loc_0><loc_9><loc_0><loc_9><loc_9><sep><loc_1><loc_1><loc_2><loc_1><loc_2><loc_2><loc_1><loc_2>";
        let read = read(polygons, Form::Polygon, LocationDialect::Florence2);
        assert_eq!(
            read.iter().map(|object| object.pixels.len()).collect::<Vec<_>>(),
            [6, 8]
        );
    }

    #[test]
    fn text_without_locations_is_an_object_with_a_problem() {
        let objects = read("no cat", Form::Box, LocationDialect::Native);
        assert_eq!(
            objects[0].problem.as_deref(),
            Some("expected 4 locations, found 0")
        );
        assert!(read(" ; ", Form::Box, LocationDialect::Paligemma).is_empty());
    }

    #[test]
    fn a_label_that_would_be_read_as_something_else_is_not_written() {
        let view = PictureView::whole(9, 9);
        for label in ["", " a", "a;b", "<loc_1>"] {
            let boxes = [(label, vec![0.0; 4])];
            assert!(write_locations(&boxes, Form::Box, LocationDialect::Native, &view).is_err());
        }
        assert!(write_locations(&[("a", vec![0.0; 5])], Form::Box, LocationDialect::Native, &view).is_err());
    }

    proptest! {
        #[test]
        fn forms_are_read_back_within_half_a_bin_in_every_dialect(
            (width, height) in (1_u32..5000, 1_u32..5000),
            crops in any::<bool>(),
            corners in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64, 0.0..1.0_f64, 0.0..1.0_f64), 1..6),
            form in prop::sample::select(vec![Form::Box, Form::Point, Form::Polygon]),
        ) {
            let view = if crops { PictureView::cropped(width, height) } else { PictureView::whole(width, height) };
            let object = |(index, (a, b, c, d)): (usize, &(f64, f64, f64, f64))| {
                let seen = match form {
                    Form::Point => vec![*a, *b],
                    Form::Box => vec![a.min(*c), b.min(*d), a.max(*c), b.max(*d)],
                    Form::Polygon => vec![*a, *b, *c, *d, *a, *d],
                };
                (LABELS[index % LABELS.len()], view.pixels(&seen))
            };
            let objects: Vec<_> = corners.iter().enumerate().map(object).collect();
            for (_, dialect) in LocationDialect::ALL {
                let text = write_locations(&objects, form, dialect, &view).unwrap();
                let read = parse_locations(&text, form, dialect, &view);
                prop_assert_eq!(read.len(), objects.len());
                let bins = spelling(dialect).bins;
                for (read, (label, pixels)) in read.iter().zip(&objects) {
                    prop_assert_eq!(&read.label, label);
                    prop_assert_eq!(&read.problem, &None);
                    let half = |side: f64| 0.5 * side / f64::from(bins - 1) + 1e-6;
                    let (seen_width, seen_height) = view.size();
                    for (pair, wanted) in read.pixels.chunks(2).zip(pixels.chunks(2)) {
                        prop_assert!((pair[0] - wanted[0]).abs() <= half(seen_width));
                        prop_assert!((pair[1] - wanted[1]).abs() <= half(seen_height));
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_without_losing_a_character(text in "[a猫;<>loc_0-9segextraid ]{0,80}") {
            for (_, dialect) in LocationDialect::ALL {
                for form in [Form::Box, Form::Point, Form::Polygon] {
                    for object in read(&text, form, dialect) {
                        prop_assert!(text.contains(&object.raw));
                        prop_assert!(object.problem.is_some() == object.pixels.is_empty());
                    }
                }
            }
        }
    }
}
