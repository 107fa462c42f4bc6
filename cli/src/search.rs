//! `multiway search`: a folder of pictures as an index, and pictures found by text, by picture, or by both.

mod folder;
mod index;
mod query;
mod rerank;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::Outcome;

const AFTER_HELP: &str = "\
Examples:
  multiway search index pictures/ --out pictures.index
  multiway search query pictures.index --text 'a red apple'
  multiway search query pictures.index --image cat.png --top 3 --json";

/// Indexes or searches.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SearchArgs {
    #[command(subcommand)]
    verb: SearchVerb,
}

#[derive(Debug, Subcommand)]
enum SearchVerb {
    /// Build or update the index of a folder of images
    Index(index::IndexArgs),
    /// Find the images in an index that are nearest to a text, an image, or both
    Query(query::QueryArgs),
}

impl SearchArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            SearchVerb::Index(args) => args.json,
            SearchVerb::Query(args) => args.json,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: SearchArgs) -> Outcome {
    match args.verb {
        SearchVerb::Index(args) => index::run(context, &args),
        SearchVerb::Query(args) => query::run(context, &args),
    }
}
