//! `multiway search query`: the pictures of an index that are nearest to texts, pictures, or both.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use multiway::index::{IndexMatch, SearchOptions, VectorIndex, combine};
use multiway::task::PreparedTask;
use multiway::tokenizer::Tokenizer;
use multiway::{Engine, ImageProcessor, Task, TaskInputs};
use serde::Serialize;

use super::rerank::{Hit, RerankArgs};
use crate::context::{Context, tokenizer};
use crate::embed::{embed, retrieve_task, vector};
use crate::engine::EngineArgs;
use crate::failure::{Failure, Outcome};
use crate::fingerprint::fingerprint;
use crate::interrupt::until_interrupted;
use crate::output::{note, print_json, print_line};
use crate::pictures;
use crate::usage::whole_number;

/// How many queries are embedded at a time.
const AT_A_TIME: usize = 32;

const AFTER_HELP: &str = "\
Examples:
  multiway search query pictures.index --text 'a red apple'
  multiway search query pictures.index --image cat.png --top 3
  multiway search query pictures.index --image apple.png --text 'green' --weight 0.7
  multiway search query pictures.index --text 'a cat' --text 'a dog' --json
  multiway search query pictures.index --text 'a red apple' --rerank 50

Prints the cosine similarity and the path of the nearest images, best match first.
Each text or image is a query. Where both are given they are paired in order (one that
is alone with each of the others), and a pair is one query: the weighted sum of the two
embeddings. With --rerank, the score of the model that sees image and text together
comes first, and decides the order.

With --json, one line: {results [{path, score}]}, and with --rerank {.., rerank}; of
several queries {queries [{text, image, results}]}.";

/// Names the index and the queries.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct QueryArgs {
    /// Index file
    #[arg(value_name = "FILE")]
    index: PathBuf,

    #[command(flatten)]
    sources: SourcesArgs,

    /// Weight of the text, from 0 to 1, where a query is an image and a text; the image has the rest
    #[arg(long, value_name = "W", default_value_t = 0.5, value_parser = share)]
    weight: f32,

    /// Number of images to print
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = whole_number::<usize>)]
    top: usize,

    /// Search only the lists nearest to the query, of an index built with --approximate
    #[arg(long)]
    approximate: bool,

    /// Number of lists that approximate search reads: more find more and take longer
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole_number::<usize>, requires = "approximate")]
    probes: usize,

    #[command(flatten)]
    rerank: RerankArgs,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Texts and pictures.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct SourcesArgs {
    /// Image query: PNG, JPEG, WebP, GIF or BMP; `-` reads it from standard input. Repeat for several
    #[arg(long, short, value_name = "PATH")]
    image: Vec<PathBuf>,

    /// Text query. Repeat for several
    #[arg(long, short, value_name = "TEXT")]
    text: Vec<String>,
}

/// Reads a number from 0 to 1.
fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("expected a number from 0 to 1, found '{text}'"))
}

/// A query: a text, a picture, or both, by their places on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Query {
    image: Option<usize>,
    text: Option<usize>,
}

/// Makes queries of so many pictures and texts.
fn queries(images: usize, texts: usize) -> Outcome<Vec<Query>> {
    let pair = |place: usize, count: usize| (count > 0).then_some(if count == 1 { 0 } else { place });
    if images.min(texts) > 1 && images != texts {
        return Err(Failure::Input(anyhow!(
            "{images} images and {texts} texts cannot be paired: give as many of each, or one of either"
        )));
    }
    let query = |place| Query {
        image: pair(place, images),
        text: pair(place, texts),
    };
    Ok((0..images.max(texts)).map(query).collect())
}

/// What was found by a query.
#[derive(Debug, Serialize)]
struct Answered<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    results: Vec<Hit>,
}

/// Runs the verb.
pub(super) fn run(context: &Context, args: &QueryArgs) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = retrieve_task(&library)?;
    let index = VectorIndex::open(&args.index).map_err(Failure::input)?;
    index
        .check_model(&fingerprint(&checkpoint)?)
        .map_err(Failure::input)?;
    let queries = queries(args.sources.image.len(), args.sources.text.len())?;
    let processor = task.image_processor(checkpoint.config());
    let tokenizer = tokenizer(&checkpoint)?;
    let prepared = prepare(args, task, &processor, &tokenizer)?;
    let reranker = args
        .rerank
        .reranker(&library, checkpoint.config(), &tokenizer, &args.sources.text)?;
    let engine = context.engine_with(&checkpoint, tokenizer, &args.engine)?;
    let found = context.block_on(until_interrupted(async {
        let embedded = Embedded::of(task, prepared, &engine).await?;
        let vectors: Vec<Vec<f32>> = queries
            .iter()
            .map(|query| embedded.vector(*query, args.weight))
            .collect::<Outcome<_>>()?;
        let mut found = search(context, args, &index, &vectors)?;
        if let Some(reranker) = &reranker {
            for (query, hits) in queries.iter().zip(&mut found) {
                let text = query.text.and_then(|text| args.sources.text.get(text));
                reranker
                    .order(&engine, text.map(String::as_str).unwrap_or_default(), hits)
                    .await?;
                hits.truncate(args.top);
            }
        }
        Ok(found)
    }))?;
    tell_where(&index);
    let answered = queries.iter().zip(found).map(|(query, results)| Answered {
        text: query
            .text
            .and_then(|text| args.sources.text.get(text))
            .map(String::as_str),
        image: query
            .image
            .and_then(|image| args.sources.image.get(image))
            .map(|image| image.display().to_string()),
        results,
    });
    print(args, answered.collect())
}

/// Prepares the pictures, then the texts.
fn prepare(
    args: &QueryArgs,
    task: &Task,
    processor: &ImageProcessor,
    tokenizer: &Tokenizer,
) -> Outcome<Vec<PreparedTask>> {
    let images = pictures::open_all(processor, &args.sources.image)?.into_iter();
    let images = images.map(|image| TaskInputs::new().with_image(image));
    let texts = args.sources.text.iter();
    let texts = texts.map(|text| TaskInputs::new().with("text", text.clone()));
    images
        .chain(texts)
        .map(|inputs| {
            let inputs = inputs.with_terms(args.engine.terms());
            task.prepare(tokenizer, &inputs).map_err(Failure::input)
        })
        .collect()
}

/// The embeddings of the pictures, then those of the texts.
struct Embedded {
    images: usize,
    vectors: Vec<Vec<f32>>,
}

impl Embedded {
    async fn of(task: &Task, prepared: Vec<PreparedTask>, engine: &Engine) -> Outcome<Self> {
        let images = prepared
            .iter()
            .filter(|one| one.prompt().images().next().is_some())
            .count();
        let vectors = stream::iter(prepared)
            .map(|prepared| async move {
                let outcome = embed(prepared, engine).await?;
                vector(task, &outcome).map(<[f32]>::to_vec)
            })
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(Self { images, vectors })
    }

    fn vector(&self, query: Query, weight: f32) -> Outcome<Vec<f32>> {
        let image = query.image.and_then(|image| self.vectors.get(image));
        let text = query.text.and_then(|text| self.vectors.get(self.images + text));
        match (image, text) {
            (Some(image), Some(text)) => {
                combine(&[(image, 1.0 - weight), (text, weight)]).map_err(Failure::input)
            }
            (one, other) => Ok(one.or(other).cloned().unwrap_or_default()),
        }
    }
}

fn search(
    context: &Context,
    args: &QueryArgs,
    index: &VectorIndex,
    vectors: &[Vec<f32>],
) -> Outcome<Vec<Vec<Hit>>> {
    let mut options = SearchOptions::new(args.rerank.count().unwrap_or(args.top));
    if let Some(threads) = context.threads() {
        options = options.with_threads(threads);
    }
    if args.approximate {
        options = options.approximate(args.probes);
    }
    let found = index.search(vectors, options).map_err(Failure::input)?;
    let hit = |found: &IndexMatch| {
        let key = index.entry(found.position).map_err(Failure::input)?.key;
        let path = index
            .root()
            .map_or_else(|| PathBuf::from(&key), |root| Path::new(root).join(&key));
        Ok(Hit {
            path: path.display().to_string(),
            score: found.score,
            rerank: None,
        })
    };
    found
        .iter()
        .map(|found| found.iter().map(hit).collect())
        .collect()
}

/// Says where the pictures were, if they are there no longer.
fn tell_where(index: &VectorIndex) {
    if let Some(root) = index.root()
        && !Path::new(root).is_dir()
    {
        note(&format!(
            "the pictures were in '{root}' when they were indexed, and are not there now: index them again where they are"
        ));
    }
}

fn print(args: &QueryArgs, mut answered: Vec<Answered<'_>>) -> Outcome {
    let is_alone = answered.len() == 1;
    if args.json {
        return match answered.pop() {
            Some(Answered { results, .. }) if is_alone => {
                print_json(&serde_json::json!({ "results": results }))
            }
            last => {
                answered.extend(last);
                print_json(&serde_json::json!({ "queries": answered }))
            }
        };
    }
    for Answered { text, image, results } in answered {
        if !is_alone {
            let both: Vec<String> = image
                .into_iter()
                .chain(text.map(|text| format!("'{text}'")))
                .collect();
            print_line(&format!("{}:", both.join(" and ")))?;
        }
        for Hit { path, score, rerank } in results {
            let rerank = match rerank {
                Some(rerank) => format!("{rerank:.3}  "),
                None if args.rerank.count().is_some() => "-  ".to_owned(),
                None => String::new(),
            };
            print_line(&format!("{rerank}{score:.3}  {path}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(images: usize, texts: usize) -> Vec<(Option<usize>, Option<usize>)> {
        queries(images, texts)
            .unwrap()
            .iter()
            .map(|query| (query.image, query.text))
            .collect()
    }

    #[test]
    fn images_and_texts_are_paired_in_order_and_one_alone_with_each() {
        assert_eq!(pairs(0, 2), [(None, Some(0)), (None, Some(1))]);
        assert_eq!(pairs(1, 0), [(Some(0), None)]);
        assert_eq!(pairs(2, 2), [(Some(0), Some(0)), (Some(1), Some(1))]);
        assert_eq!(pairs(1, 2), [(Some(0), Some(0)), (Some(0), Some(1))]);
        assert_eq!(pairs(2, 1), [(Some(0), Some(0)), (Some(1), Some(0))]);
        assert!(matches!(queries(2, 3), Err(Failure::Input(_))));
    }

    #[test]
    fn a_weight_is_a_share() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1.5").is_err() && share("NaN").is_err() && share("").is_err());
    }
}
