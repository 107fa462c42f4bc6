//! Questions about scenes.

use multiway_prompts::{InputValue, Inputs, LocationDialect};
use multiway_tasks::parse::{Form, PictureView, write_locations};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Art;
use super::compose::{Frame, Scene, Thing, Wanted, compose, name};
use super::shapes::{Colour, Shape};
use super::wording::{article, counted, plural};
use crate::random::{below, chance, shuffle};

/// Levels that a coordinate of a box is rounded to: finer ones are not seen in a small picture, and fewer
/// are learnt sooner.
const LEVELS: f64 = 64.0;

/// What a scene is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SceneKind {
    /// How many there are of something: task `count`.
    Count,
    /// What is left of, right of, above or below something: task `vqa`.
    Position,
    /// What colour something has: task `vqa`.
    Colour,
    /// Of which there are more: task `vqa`.
    Compare,
    /// Where something is: tasks `refer` and `detect`.
    Box,
    /// Whether a sentence is true of two pictures: task `reason`.
    Pair,
    /// Whether a picture entails a sentence: task `entail`.
    Entail,
    /// What is written: task `read`.
    Read,
}

impl SceneKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Count,
        Self::Position,
        Self::Colour,
        Self::Compare,
        Self::Box,
        Self::Pair,
        Self::Entail,
        Self::Read,
    ];

    /// Names it as recipes do.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Position => "position",
            Self::Colour => "colour",
            Self::Compare => "compare",
            Self::Box => "box",
            Self::Pair => "pair",
            Self::Entail => "entail",
            Self::Read => "read",
        }
    }

    /// Says what counts as a right answer.
    #[must_use]
    pub const fn right(self) -> &'static str {
        match self {
            Self::Count => "the number of things is the right one",
            Self::Position => "the thing in that place is named",
            Self::Colour => "the colour is named",
            Self::Compare => "what there is more of is the right one",
            Self::Box => "every box overlaps the right one by half",
            Self::Pair => "true or false of two scenes is the right answer",
            Self::Entail => "entailment, neutral or contradiction is the right answer",
            Self::Read => "every letter is read, small or capital as it is written",
        }
    }
}

/// A question about one or two scenes.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneQuestion {
    /// The task that words it.
    pub task: &'static str,
    /// The task's inputs; pictures are numbered as in `pictures`.
    pub inputs: Inputs,
    /// The right answer.
    pub answer: String,
    /// Red, green and blue planes of each picture, from 0 to 1: `[3, S, S]`.
    pub pictures: Vec<Vec<f32>>,
}

/// Makes a scene of a kind, and asks about it. The same generator state gives the same question. None where
/// something is to be read and the art has no letters.
#[must_use]
pub fn ask(kind: SceneKind, art: &dyn Art, side: usize, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
    if kind == SceneKind::Read && art.letters().is_none() {
        return None;
    }
    let scenes = Maker { art, side };
    // Things are left out where there is no place for them; a scene that lost what it was to show is made
    // again.
    loop {
        let made = match kind {
            SceneKind::Count => scenes.count(rng),
            SceneKind::Position => scenes.position(rng),
            SceneKind::Colour => scenes.colour(rng),
            SceneKind::Compare => scenes.compare(rng),
            SceneKind::Box => scenes.frame(rng),
            SceneKind::Pair => scenes.pair(rng),
            SceneKind::Entail => scenes.entail(rng),
            SceneKind::Read => scenes.read(rng),
        };
        if made.is_some() {
            return made;
        }
    }
}

struct Maker<'a> {
    art: &'a dyn Art,
    side: usize,
}

fn text(value: impl Into<String>) -> InputValue {
    InputValue::Text(value.into())
}

fn one_picture<const N: usize>(
    task: &'static str,
    scene: Scene,
    inputs: [(&str, InputValue); N],
    answer: String,
) -> SceneQuestion {
    let picture = ("image".to_owned(), InputValue::Image(0));
    let named = inputs.into_iter().map(|(name, value)| (name.to_owned(), value));
    SceneQuestion {
        task,
        inputs: std::iter::once(picture).chain(named).collect(),
        answer,
        pictures: vec![scene.pixels],
    }
}

/// A relation of two places.
#[derive(Clone, Copy)]
struct Relation {
    words: &'static str,
    holds: fn(&Frame, &Frame) -> bool,
}

/// How far apart two middles have to be, as a share of the picture's side, for a relation to be clear.
const CLEAR: f32 = 0.12;

const RELATIONS: [Relation; 4] = [
    Relation {
        words: "left of",
        holds: |a, b| a.middle().0 < b.middle().0 - CLEAR,
    },
    Relation {
        words: "right of",
        holds: |a, b| a.middle().0 > b.middle().0 + CLEAR,
    },
    Relation {
        words: "above",
        holds: |a, b| a.middle().1 < b.middle().1 - CLEAR,
    },
    Relation {
        words: "below",
        holds: |a, b| a.middle().1 > b.middle().1 + CLEAR,
    },
];

impl Maker<'_> {
    /// Draws different things: of the art, or now and then plain shapes.
    fn different(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<Wanted> {
        let plain = self.art.things() < count || chance(rng, 0.3);
        let mut drawn: Vec<Wanted> = Vec::with_capacity(count);
        while drawn.len() < count {
            let wanted = if plain {
                random_shape(rng)
            } else {
                Wanted::Drawn(below(rng, self.art.things()))
            };
            if drawn
                .iter()
                .all(|other| name(other, self.art) != name(&wanted, self.art))
            {
                drawn.push(wanted);
            }
        }
        drawn
    }

    fn compose(&self, wanted: &[Wanted], rng: &mut ChaCha8Rng) -> Option<Scene> {
        let scene = compose(wanted, self.art, self.side, rng);
        (scene.things.len() == wanted.len()).then_some(scene)
    }

    /// Things of some names, each as often as is said.
    fn crowd(counts: &[(Wanted, usize)]) -> Vec<Wanted> {
        counts
            .iter()
            .flat_map(|(wanted, count)| std::iter::repeat_n(wanted.clone(), *count))
            .collect()
    }

    fn count(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let count = 1 + below(rng, 6);
        let others = below(rng, 4);
        let mut kinds = self.different(2, rng);
        let (asked, other) = (kinds.pop()?, kinds.pop()?);
        let object = plural(&name(&asked, self.art));
        let scene = self.compose(&Self::crowd(&[(asked, count), (other, others)]), rng)?;
        Some(one_picture(
            "count",
            scene,
            [("object", text(object))],
            count.to_string(),
        ))
    }

    fn position(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let wanted = self.different(2 + below(rng, 2), rng);
        let scene = self.compose(&wanted, rng)?;
        let (known, asked) = (&scene.things[0], &scene.things[1]);
        let relations = RELATIONS
            .iter()
            .filter(|relation| (relation.holds)(&asked.frame, &known.frame));
        let relations: Vec<&Relation> = relations.collect();
        let relation = *relations.get(below(rng, relations.len()))?;
        // Nothing else may stand there, not even nearly.
        let others = scene.things.get(2..).unwrap_or_default();
        let beside = |other: &Thing| {
            RELATIONS
                .iter()
                .any(|r| r.words == relation.words && (r.holds)(&other.frame, &known.frame))
                || !RELATIONS
                    .iter()
                    .any(|r| r.words == opposite(relation.words) && (r.holds)(&other.frame, &known.frame))
        };
        if others.iter().any(beside) {
            return None;
        }
        let question = if chance(rng, 0.5) {
            format!("what is {} the {}?", relation.words, known.name)
        } else {
            format!("which thing is {} the {}?", relation.words, known.name)
        };
        let answer = asked.name.clone();
        Some(one_picture("vqa", scene, [("question", text(question))], answer))
    }

    fn colour(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let Wanted::Plain(shape, colour) = random_shape(rng) else {
            return None;
        };
        let mut wanted = vec![Wanted::Plain(shape, colour)];
        for _ in 0..below(rng, 3) {
            let other = random_shape(rng);
            if matches!(other, Wanted::Plain(another, _) if another != shape) {
                wanted.push(other);
            }
        }
        if self.art.things() > 0 && chance(rng, 0.5) {
            wanted.push(Wanted::Drawn(below(rng, self.art.things())));
        }
        let scene = self.compose(&wanted, rng)?;
        let question = match below(rng, 3) {
            0 => format!("what colour is the {}?", shape.name()),
            1 => format!("what color is the {}?", shape.name()),
            _ => format!("what is the color of the {}?", shape.name()),
        };
        let answer = colour.name().to_owned();
        Some(one_picture("vqa", scene, [("question", text(question))], answer))
    }

    fn compare(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let mut kinds = self.different(2, rng);
        let (first, second) = (kinds.pop()?, kinds.pop()?);
        let (some, others) = (1 + below(rng, 5), 1 + below(rng, 4));
        if some == others {
            return None;
        }
        let names = [plural(&name(&first, self.art)), plural(&name(&second, self.art))];
        let scene = self.compose(&Self::crowd(&[(first, some), (second, others)]), rng)?;
        let more = some > others;
        let [one, other] = &names;
        let (question, answer) = match below(rng, 3) {
            0 => (
                format!("are there more {one} or {other}?"),
                if more { one.clone() } else { other.clone() },
            ),
            1 => (format!("are there more {one} than {other}?"), yes_or_no(more)),
            _ => (format!("are there fewer {one} than {other}?"), yes_or_no(!more)),
        };
        Some(one_picture("vqa", scene, [("question", text(question))], answer))
    }

    fn frame(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let scene = self.compose(&self.different(1 + below(rng, 4), rng), rng)?;
        let view = PictureView::whole(1024, 1024);
        if chance(rng, 0.5) {
            let thing = &scene.things[0];
            let answer = write_locations(
                &[(thing.name.as_str(), corners(&thing.frame))],
                Form::Box,
                LocationDialect::Native,
                &view,
            );
            let phrase = thing.name.clone();
            return Some(one_picture(
                "refer",
                scene,
                [("phrase", text(phrase))],
                answer.ok()?,
            ));
        }
        let asked = &scene.things[..1 + below(rng, scene.things.len())];
        let boxes: Vec<(&str, Vec<f64>)> = asked
            .iter()
            .map(|thing| (thing.name.as_str(), corners(&thing.frame)))
            .collect();
        let answer = write_locations(&boxes, Form::Box, LocationDialect::Native, &view).ok()?;
        let objects = asked.iter().map(|thing| thing.name.clone()).collect();
        Some(one_picture(
            "detect",
            scene,
            [("objects", InputValue::List(objects))],
            answer,
        ))
    }

    fn pair(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let mut kinds = self.different(3, rng);
        let (thing, other, third) = (kinds.pop()?, kinds.pop()?, kinds.pop()?);
        let counts = [below(rng, 5), below(rng, 5)];
        let fillers = [other, third];
        let mut scenes = Vec::new();
        for (count, filler) in counts.into_iter().zip(&fillers) {
            let filling = if count == 0 {
                1 + below(rng, 3)
            } else {
                below(rng, 3)
            };
            scenes.push(self.compose(
                &Self::crowd(&[(thing.clone(), count), (filler.clone(), filling)]),
                rng,
            )?);
        }
        let label = chance(rng, 0.5);
        let sentence = pair_sentence(&name(&thing, self.art), counts, label, rng)?;
        let inputs = [
            ("left", InputValue::Image(0)),
            ("right", InputValue::Image(1)),
            ("sentence", text(sentence)),
        ];
        Some(SceneQuestion {
            task: "reason",
            inputs: inputs
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
            answer: if label { "true" } else { "false" }.to_owned(),
            pictures: scenes.into_iter().map(|scene| scene.pixels).collect(),
        })
    }

    /// Something written, now and then beside things.
    fn read(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let letters = self.art.letters()?;
        let beside = if chance(rng, 0.3) { 1 + below(rng, 2) } else { 0 };
        let mut scene = compose(&self.different(beside, rng), self.art, self.side, rng);
        let written = letters.draw_text(rng);
        let written = letters.write(&written, &mut scene, self.side, rng)?;
        Some(one_picture("read", scene, [], written))
    }

    fn entail(&self, rng: &mut ChaCha8Rng) -> Option<SceneQuestion> {
        let kinds = self.different(4, rng);
        let count = 1 + below(rng, 3);
        let shown = [
            (kinds[0].clone(), count),
            (kinds[1].clone(), 1),
            (kinds[2].clone(), below(rng, 2)),
        ];
        let scene = self.compose(&Self::crowd(&shown), rng)?;
        let [first, second, absent] = [0, 1, 3].map(|at: usize| name(&kinds[at], self.art));
        let relation = || {
            let [a, b] = [&first, &second].map(|name| scene.things.iter().find(|thing| thing.name == *name));
            let (a, b) = (a?, b?);
            let holds: Vec<&Relation> = RELATIONS
                .iter()
                .filter(|r| (r.holds)(&a.frame, &b.frame))
                .collect();
            Some((holds.first().copied()?, count == 1))
        };
        let (label, hypothesis) = match below(rng, 3) {
            0 => (
                "entailment",
                match below(rng, 4) {
                    0 => format!("there is {} in the picture", article(&second)),
                    1 => format!("the picture shows {}", counted(count, &first)),
                    2 => format!("there is no {absent} in the picture"),
                    _ => match relation()? {
                        (relation, true) => {
                            format!("{} is {} {}", article(&first), relation.words, article(&second))
                        }
                        _ => return None,
                    },
                },
            ),
            1 => (
                "contradiction",
                match below(rng, 4) {
                    0 => format!("there is no {second} in the picture"),
                    1 => format!("the picture shows {}", counted(count + 1 + below(rng, 2), &first)),
                    2 => format!("there is {} in the picture", article(&absent)),
                    _ => match relation()? {
                        (relation, true) => {
                            format!(
                                "{} is {} {}",
                                article(&first),
                                opposite(relation.words),
                                article(&second)
                            )
                        }
                        _ => return None,
                    },
                },
            ),
            _ => ("neutral", neutral(&second, rng)),
        };
        Some(one_picture(
            "entail",
            scene,
            [("hypothesis", text(hypothesis))],
            label.to_owned(),
        ))
    }
}

fn random_shape(rng: &mut ChaCha8Rng) -> Wanted {
    let shape = Shape::ALL[below(rng, Shape::ALL.len())];
    Wanted::Plain(shape, Colour::ALL[below(rng, Colour::ALL.len())])
}

/// Words a sentence about how many there are of something in two pictures, which is true or is not.
fn pair_sentence(name: &str, [left, right]: [usize; 2], label: bool, rng: &mut ChaCha8Rng) -> Option<String> {
    let many = plural(name);
    let near = |count: usize, rng: &mut ChaCha8Rng| {
        let moved = if count > 0 && chance(rng, 0.5) {
            count - 1
        } else {
            count + 1
        };
        if label { count } else { moved }
    };
    let there = |count: usize| if count == 1 { "is" } else { "are" };
    let sentence = match below(rng, 7) {
        0 if (left > right) == label => {
            format!("there are more {many} in the left picture than in the right one")
        }
        1 if (right > left) == label => {
            format!("there are more {many} in the right picture than in the left one")
        }
        2 if (left == right) == label => format!("both pictures show the same number of {many}"),
        3 => {
            let total = near(left + right, rng);
            format!("there {} {} in total", there(total), counted(total, name))
        }
        4 if (left > 0 && right > 0) == label => format!("both pictures show {}", article(name)),
        5 if ((left > 0) != (right > 0)) == label => {
            format!("only one of the pictures shows {}", article(name))
        }
        6 => {
            let (side, count) = if chance(rng, 0.5) {
                ("left", left)
            } else {
                ("right", right)
            };
            let told = near(count, rng);
            format!(
                "there {} {} in the {side} picture",
                there(told),
                counted(told, name)
            )
        }
        _ => return None,
    };
    Some(sentence)
}

/// Says something that a picture of the thing does not tell.
fn neutral(name: &str, rng: &mut ChaCha8Rng) -> String {
    let endings = [
        "is older than it looks",
        "was bought last week",
        "belongs to a teacher",
        "was a present",
        "has been here for years",
        "is somebody's favourite",
        "will be gone tomorrow",
        "was found in a garden",
        "comes from another country",
        "is worth a lot of money",
        "was seen on television",
        "cost only three coins",
    ];
    let mut order = endings;
    shuffle(rng, &mut order);
    let [ending, ..] = order;
    format!("the {name} {ending}")
}

fn opposite(words: &str) -> &'static str {
    match words {
        "left of" => "right of",
        "right of" => "left of",
        "above" => "below",
        _ => "above",
    }
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Writes a frame in pixels of a picture of 1,024, rounded to the levels that are learnt.
fn corners(frame: &Frame) -> Vec<f64> {
    let level = |share: f32| {
        let level = (f64::from(share) * LEVELS).round();
        (level * 1024.0 / LEVELS).clamp(0.0, 1023.0)
    };
    [frame.left, frame.top, frame.right, frame.bottom]
        .map(level)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::letters::{Letters, tests::letters};
    use super::*;
    use crate::random::fork;
    use multiway_tasks::TaskLibrary;

    /// Squares of one grey each, which tell the things apart, and letters where there are any.
    struct Squares(Option<Letters>);

    impl Art for Squares {
        fn things(&self) -> usize {
            5
        }

        fn name(&self, thing: usize) -> &str {
            ["ant", "bee", "cow", "fox", "ox"][thing]
        }

        fn draw(&self, thing: usize, _: &mut ChaCha8Rng) -> Vec<u8> {
            let grey = u8::try_from(thing * 40).unwrap();
            [grey, grey, grey, 255].repeat(32 * 32)
        }

        fn letters(&self) -> Option<&Letters> {
            self.0.as_ref()
        }
    }

    #[test]
    fn nothing_is_read_where_there_are_no_letters() {
        assert!(ask(SceneKind::Read, &Squares(None), 96, &mut fork(1, &[])).is_none());
        assert!(ask(SceneKind::Count, &Squares(None), 96, &mut fork(1, &[])).is_some());
    }

    #[test]
    fn every_task_words_its_questions() {
        let tasks = TaskLibrary::builtin().unwrap();
        let art = Squares(Some(letters()));
        for kind in SceneKind::ALL {
            for index in 0..40 {
                let asked = ask(kind, &art, 96, &mut fork(3, &[index])).unwrap();
                let again = ask(kind, &art, 96, &mut fork(3, &[index]));
                assert_eq!(Some(&asked), again.as_ref());
                let file = tasks.get(asked.task).unwrap().file();
                let complete = file
                    .complete(&asked.inputs)
                    .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
                assert!(complete.render(&["<extra_id_0>"]).is_ok(), "{kind:?}");
                assert!(asked.pictures.iter().all(|picture| picture.len() == 3 * 96 * 96));
                assert!(!asked.answer.is_empty());
            }
        }
    }

    #[test]
    fn labels_are_about_as_common() {
        let share = |kind: SceneKind, label: &str| {
            let asked = (0..400).filter_map(|index| ask(kind, &Squares(None), 64, &mut fork(5, &[index])));
            asked.filter(|asked| asked.answer == label).count()
        };
        let entailed = share(SceneKind::Entail, "entailment");
        assert!((90..=180).contains(&entailed), "{entailed} of 400");
        let truths = share(SceneKind::Pair, "true");
        assert!((140..=260).contains(&truths), "{truths} of 400");
        for count in 1..=6 {
            let found = share(SceneKind::Count, &count.to_string());
            assert!((35..=110).contains(&found), "{count}: {found} of 400");
        }
    }
}
