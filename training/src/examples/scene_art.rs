//! The pictures that scenes are pasted from.

use std::borrow::Cow;

use rand_chacha::ChaCha8Rng;

use super::classes::{Class, Classes};
use crate::data::{PreparedData, Source};
use crate::scenes::{Art, LetterSplit, Letters, is_plain};

/// Things of the training pictures.
#[derive(Debug)]
pub struct TrainingArt<'a> {
    data: &'a PreparedData,
    classes: Cow<'a, Classes>,
    /// Indices of classes.
    things: Cow<'a, [usize]>,
    letters: Option<Cow<'a, Letters>>,
    styles: bool,
}

impl<'a> TrainingArt<'a> {
    /// Lists what the training pictures of prepared data show; they are drawn as they are. Words are those of
    /// validation.
    #[must_use]
    pub fn plain(data: &'a PreparedData) -> Self {
        let classes = Classes::of(data);
        Self {
            things: Cow::Owned(things(&classes)),
            classes: Cow::Owned(classes),
            letters: Letters::of(data, LetterSplit::Validation).map(Cow::Owned),
            data,
            styles: false,
        }
    }

    /// The same, restyled as training wants it.
    pub(super) fn styled(
        data: &'a PreparedData,
        classes: &'a Classes,
        things: &'a [usize],
        letters: Option<&'a Letters>,
    ) -> Self {
        Self {
            data,
            classes: Cow::Borrowed(classes),
            things: Cow::Borrowed(things),
            letters: letters.map(Cow::Borrowed),
            styles: true,
        }
    }

    fn class(&self, thing: usize) -> Option<&Class> {
        self.things.get(thing).and_then(|index| self.classes.get(*index))
    }
}

/// Lists the classes that scenes can show: drawn concepts and photographed things with plain names. Of the
/// photographs only those that show one thing each: a box of limes is not one lime.
pub(super) fn things(classes: &Classes) -> Vec<usize> {
    let plain = classes.iter().enumerate().filter(|(_, class)| {
        class.mirrors
            && (class.is_concept() || class.set == Some(Source::Caltech))
            && is_plain(class.english())
    });
    plain.map(|(index, _)| index).collect()
}

impl Art for TrainingArt<'_> {
    fn things(&self) -> usize {
        self.things.len()
    }

    fn name(&self, thing: usize) -> &str {
        self.class(thing).map_or("", Class::english)
    }

    fn draw(&self, thing: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let picture = self
            .class(thing)
            .and_then(|class| self.data.rgba(class.picture(rng)));
        picture.unwrap_or_default().to_vec()
    }

    fn letters(&self) -> Option<&Letters> {
        self.letters.as_deref()
    }

    fn styles(&self) -> bool {
        self.styles
    }
}
