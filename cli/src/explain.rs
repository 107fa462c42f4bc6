//! `multiway run --explain`: where the model looked, drawn over the pictures, word by word.

mod heat;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use multiway::checkpoint::ModelConfig;
use multiway::engine::{AttendedWord, Explanation, WordPatchAlignment};
use multiway::image::Rgb8Picture;
use multiway::prompt::InputKind;
use multiway::task::{PreparedTask, TaskOutcome};
use multiway::{Engine, Task, TaskInputs};

use super::context::Context;
use super::draw::original;
use super::failure::{Failure, Outcome, task_failure};
use super::interrupt::until_interrupted;
use super::output::note;
use heat::Visible;
use sheet::{MAX_TILES, Section, Sheet, ShownPicture, Tile};

/// The options of an explanation.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Draw which patches of the image the cross-attention of each word of the answer looked at, and which
    /// patches each word of the prompt is aligned with, and write it as PNG
    #[arg(long = "explain", value_name = "PATH")]
    path: Option<PathBuf>,

    /// Decoder layer whose cross-attention --explain draws, counted from 0 [default: the mean of all layers]
    #[arg(long = "explain-layer", value_name = "N", requires = "path")]
    layer: Option<usize>,
}

/// What is kept of a request to explain its answer.
pub(crate) struct Explaining<'a> {
    path: &'a Path,
    layer: Option<usize>,
    task: &'a Task,
    prepared: PreparedTask,
    /// The pictures of the request as they were given, and the part of each that the encoder sees.
    pictures: Vec<(Rgb8Picture, Visible)>,
}

impl ExplainArgs {
    /// Reads the pictures to draw on, if the answer is to be explained. It comes before the model is loaded.
    pub(crate) fn begin<'a>(
        &'a self,
        task: &'a Task,
        prepared: &PreparedTask,
        config: &ModelConfig,
        (paths, inputs): (&[PathBuf], &TaskInputs),
    ) -> Outcome<Option<Explaining<'a>>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        if paths.is_empty() {
            return Err(Failure::Input(anyhow!("--explain: {}", no_picture(task))));
        }
        let layers = layers(config);
        if let Some(layer) = self.layer.filter(|layer| *layer >= layers) {
            return Err(Failure::Input(anyhow!(
                "--explain-layer: the model has {layers} decoder layers, counted from 0; found {layer}"
            )));
        }
        let processor = task.image_processor(config);
        let visible = inputs.images.iter().map(|image| {
            let (width, height) = image.original_size();
            let [left, top, right, bottom] = image.visible();
            let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
            [left / width, top / height, right / width, bottom / height]
        });
        let open = |(path, visible): (&PathBuf, Visible)| match path.as_path() == Path::new("-") {
            true => Err(Failure::Input(anyhow!(
                "--explain: expected the image as a file, `--image PATH`; standard input is read once"
            ))),
            false => Ok((original(&processor, path)?, visible)),
        };
        Ok(Some(Explaining {
            path,
            layer: self.layer,
            task,
            prepared: prepared.clone(),
            pictures: paths.iter().zip(visible).map(open).collect::<Outcome<_>>()?,
        }))
    }
}

/// Counts the layers that have cross-attention.
fn layers(config: &ModelConfig) -> usize {
    config.decoder.map_or(0, |decoder| decoder.layers)
}

/// Says what to do where there is no picture to draw on.
fn no_picture(task: &Task) -> String {
    let mut inputs = task.file().inputs.values();
    match inputs.any(|input| matches!(input.kind, InputKind::Image | InputKind::Images)) {
        true => "expected an image to draw on, `--image PATH`".to_owned(),
        false => format!(
            "the task '{}' takes no image, and attention is drawn over one",
            task.name()
        ),
    }
}

impl Explaining<'_> {
    /// Explains an answer, draws it, and writes the picture.
    pub(crate) fn finish(
        self,
        context: &Context,
        engine: &Engine,
        outcome: &TaskOutcome,
    ) -> Outcome<Explanation> {
        let tokens = outcome.answer_tokens.clone();
        let shown = self.prepared.pictures();
        let (prepared, layer) = (self.prepared.clone(), self.layer);
        let explanation = context.block_on(until_interrupted(async move {
            let explained = prepared.explain(engine, tokens, layer).await;
            explained.map_err(task_failure)
        }))?;
        let layers = layers(engine.config());
        if !context.quiet() {
            note_words(&explanation, layers);
        }
        let answer = outcome.answer.text().unwrap_or_default();
        let png = self.sheet(&explanation, &shown, answer, layers).to_png();
        let png = png.map_err(Failure::Runtime)?;
        fs::write(self.path, png)
            .with_context(|| format!("cannot write '{}'", self.path.display()))
            .map_err(Failure::Runtime)?;
        Ok(explanation)
    }

    fn sheet(
        &self,
        explanation: &Explanation,
        shown: &[Option<usize>],
        answer: &str,
        layers: usize,
    ) -> Sheet {
        let given = |index: &Option<usize>| self.pictures.get((*index)?);
        let picture = |(picture, visible): &(Rgb8Picture, Visible)| ShownPicture {
            picture: picture.clone(),
            visible: *visible,
        };
        let mut lines = vec![
            "Bright patches have most of what a word looked at, dark ones none; each tile has its own scale."
                .to_owned(),
            "This says where numbers came from, not why the answer is what it is.".to_owned(),
        ];
        if shown.iter().any(|index| given(index).is_none()) {
            lines.push("Images of few-shot examples are counted, and not shown.".to_owned());
        }
        if explanation.answer.is_empty() {
            lines.push(only_alignment(layers).to_owned());
        }
        let attention = (!explanation.answer.is_empty())
            .then(|| attention(&explanation.answer, shown, self.layer, layers));
        let alignment = explanation.alignment.as_ref();
        let alignment = alignment.map(|alignment| aligned(alignment, shown));
        Sheet {
            title: format!("{}: {answer}", self.task.name()),
            lines,
            grid: explanation.grid,
            pictures: shown.iter().filter_map(given).map(picture).collect(),
            sections: attention.into_iter().chain(alignment).collect(),
        }
    }
}

/// Takes the pictures that are shown out of all that the prompt has.
fn of_shown(patches: &[Vec<f32>], shown: &[Option<usize>]) -> Vec<Vec<f32>> {
    let all = patches.iter().zip(shown);
    let given = all.filter(|(_, index)| index.is_some());
    given.map(|(patches, _)| patches.clone()).collect()
}

fn percent(share: f32) -> String {
    format!("{:.1}%", share * 100.0)
}

fn peak(patches: &[Vec<f32>]) -> String {
    let most = patches.iter().flatten().copied().fold(0.0, f32::max);
    format!("brightest patch {}", percent(most))
}

fn heading(name: &str, words: usize) -> String {
    match words > MAX_TILES {
        true => format!("{name}: the first {MAX_TILES} of {words} words"),
        false => name.to_owned(),
    }
}

/// Makes the tiles of the words of an answer.
fn attention(
    words: &[AttendedWord],
    shown: &[Option<usize>],
    layer: Option<usize>,
    layers: usize,
) -> Section {
    let tile = |word: &AttendedWord| {
        let (image, text) = (percent(word.picture_share()), percent(word.text_share));
        Tile {
            word: word.text.clone(),
            lines: vec![
                format!("image {image}  text {text}"),
                format!("class rows {}", percent(word.class_share)),
                peak(&word.patches),
            ],
            pictures: of_shown(&word.patches, shown),
        }
    };
    let of = match layer {
        Some(layer) => format!("the heads of layer {layer} of {layers} (counted from 0)"),
        None => format!("the heads of all {layers} decoder layers"),
    };
    Section {
        heading: heading("Words of the answer: cross-attention", words.len()),
        lines: vec![format!(
            "Where the decoder looked as it wrote each word: the mean over its tokens and {of}. Shares of the image's \
             patches, of the prompt's text and of the rows that stand for a whole image add up to 100%."
        )],
        tiles: words.iter().map(tile).collect(),
    }
}

/// Makes the tiles of the words of a prompt.
fn aligned(alignment: &WordPatchAlignment, shown: &[Option<usize>]) -> Section {
    let tiles = alignment.words.iter().map(|word| Tile {
        word: word.text.clone(),
        lines: vec![peak(&word.patches)],
        pictures: of_shown(&word.patches, shown),
    });
    Section {
        heading: heading("Words of the prompt: word-patch alignment", alignment.words.len()),
        lines: vec![format!(
            "Optimal transport between the encoder's words and patches; each token of a word has an equal share of the patches. Mean \
             cosine distance {:.3}.",
            alignment.distance
        )],
        tiles: tiles.collect(),
    }
}

/// Says why there is no cross-attention to draw.
fn only_alignment(layers: usize) -> &'static str {
    match layers {
        0 => "The model has no cross-attention: the word-patch alignment of the prompt alone is drawn.",
        _ => "The answer has no words: the word-patch alignment of the prompt alone is drawn.",
    }
}

/// Lists what the tiles show, on standard error.
fn note_words(explanation: &Explanation, layers: usize) {
    if explanation.answer.is_empty() {
        note(&format!("note: {}", only_alignment(layers)));
    }
    for (index, word) in explanation.answer.iter().enumerate() {
        let (image, text) = (word.picture_share(), word.text_share);
        note(&format!(
            "  {:>2}  image {image:.3}  text {text:.3}  {}",
            index + 1,
            word.text
        ));
    }
}
