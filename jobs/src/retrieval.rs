//! Retrieval both ways: pictures by texts, and texts by pictures.

use std::iter::repeat;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use multiway_model::kernels::dot_rows;
use multiway_prompts::Metric;
use multiway_tasks::metrics::best_rank;

use crate::error::JobError;
use crate::figures::Figures;
use crate::journal::read_rows;
use crate::pairs::{Pair, Vector};
use crate::report::WorstCases;
use crate::row::Row;
use crate::scores::{Direction, MetricReport, mean, proportion};

/// Vectors of one kind, each with what it is of, one after the other.
#[derive(Debug, Default)]
struct Side {
    keys: IndexSet<String>,
    /// `[keys, width]`.
    vectors: Vec<f32>,
}

impl Side {
    /// Finds the place of a key, which gets the vector if it is new.
    fn place(&mut self, key: &str, vector: &Vector) -> usize {
        let width = self.width().unwrap_or(vector.0.len());
        let (place, is_new) = self.keys.insert_full(key.to_owned());
        if is_new {
            let padded = vector.0.iter().copied().chain(repeat(0.0));
            self.vectors.extend(padded.take(width));
        }
        place
    }

    /// Returns the length of a vector; none where there is no vector.
    fn width(&self) -> Option<usize> {
        self.vectors.len().checked_div(self.keys.len())
    }

    fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.vectors.chunks_exact(self.width().unwrap_or(1).max(1))
    }
}

/// Different pictures and texts, and which belong together.
#[derive(Debug, Default)]
struct Gallery {
    pictures: Side,
    texts: Side,
    /// Places of pictures, each with the place of a text of it.
    pairs: Vec<(usize, usize)>,
}

/// The ranks of a gallery: of each query, that of the first candidate that belongs to it.
#[derive(Debug)]
struct Ranks {
    by_text: Vec<Option<usize>>,
    by_picture: Vec<Option<usize>>,
}

impl Gallery {
    fn add(&mut self, pair: &Pair) {
        let picture = self.pictures.place(&pair.picture, &pair.picture_vector);
        for (text, vector) in pair.texts.iter().zip(&pair.text_vectors) {
            self.pairs.push((picture, self.texts.place(text, vector)));
        }
    }

    /// Ranks each side by the other.
    fn ranks(&self) -> Ranks {
        let by_text = self.pairs.iter().map(|(picture, text)| (*text, *picture));
        Ranks {
            by_text: ranks(&self.texts, &self.pictures, by_text),
            by_picture: ranks(&self.pictures, &self.texts, self.pairs.iter().copied()),
        }
    }
}

/// Ranks candidates by each query. `pairs` are places of queries, each with that of a candidate that belongs
/// to it.
fn ranks(
    queries: &Side,
    candidates: &Side,
    pairs: impl Iterator<Item = (usize, usize)>,
) -> Vec<Option<usize>> {
    let mut matches = vec![Vec::new(); queries.keys.len()];
    for (query, candidate) in pairs {
        if let Some(matches) = matches.get_mut(query) {
            matches.push(candidate);
        }
    }
    let mut scores = vec![0.0; candidates.keys.len()];
    let ranked = queries.vectors().zip(&matches).map(|(query, matches)| {
        dot_rows(query, &candidates.vectors, &mut scores);
        best_rank(matches, &scores)
    });
    ranked.collect()
}

impl Ranks {
    fn reports(&self, metrics: &[Metric]) -> Vec<MetricReport> {
        let report = |metric: &Metric| {
            [
                of_ranks(*metric, Direction::TextToImage, &self.by_text),
                of_ranks(*metric, Direction::ImageToText, &self.by_picture),
            ]
        };
        metrics.iter().flat_map(report).collect()
    }
}

fn of_ranks(metric: Metric, direction: Direction, ranks: &[Option<usize>]) -> MetricReport {
    let within = |most| proportion(ranks.iter().map(|rank| rank.is_some_and(|rank| rank <= most)));
    let (value, interval, samples) = match metric {
        Metric::RecallAt1 => within(1),
        Metric::RecallAt5 => within(5),
        Metric::RecallAt10 => within(10),
        _ => {
            let ranks: Vec<f64> = ranks.iter().flatten().map(|rank| *rank as f64).collect();
            mean(&ranks)
        }
    };
    MetricReport {
        metric,
        direction: Some(direction),
        value,
        interval,
        samples,
    }
}

/// Computes the figures of rows that hold vectors. Each group is searched by itself.
pub(crate) fn retrieval_figures(results: &Path, metrics: &[Metric]) -> Result<Figures, JobError> {
    let mut all = Gallery::default();
    let mut groups: IndexMap<String, Gallery> = IndexMap::new();
    for row in read_rows(results)? {
        let row = row?;
        let Some(pair) = row.pair() else {
            continue;
        };
        if let Some(group) = &row.group {
            groups.entry(group.clone()).or_default().add(&pair);
        }
        all.add(&pair);
    }
    groups.sort_keys();
    let ranks = all.ranks();
    Ok(Figures {
        samples: all.pairs.len(),
        worst: worst_cases(results, &all, &ranks.by_text)?,
        groups: groups
            .iter()
            .map(|(name, gallery)| (name.clone(), gallery.ranks().reports(metrics)))
            .collect(),
        all: ranks.reports(metrics),
    })
}

/// Reads the rows again for those whose texts find their picture last.
fn worst_cases(results: &Path, gallery: &Gallery, ranks: &[Option<usize>]) -> Result<WorstCases, JobError> {
    let mut worst = WorstCases::default();
    for row in read_rows(results)? {
        let row = row?;
        let Some(pair) = row.pair() else {
            worst.add_failed(&row);
            continue;
        };
        let rank_of = |text: &String| {
            ranks
                .get(gallery.texts.keys.get_index_of(text)?)
                .copied()
                .flatten()
        };
        let last = pair.texts.iter().filter_map(rank_of).max();
        let rank = last.unwrap_or(gallery.pictures.keys.len().max(1));
        let shown = Row {
            text: Some(format!("rank {rank} of {}", gallery.pictures.keys.len())),
            references: pair.texts,
            ..row
        };
        worst.add(shown, 1.0 / rank as f64);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(picture: &str, vector: [f32; 2], texts: &[(&str, [f32; 2])]) -> Pair {
        Pair {
            picture: picture.to_owned(),
            picture_vector: Vector(vector.to_vec()),
            texts: texts.iter().map(|(text, _)| (*text).to_owned()).collect(),
            text_vectors: texts.iter().map(|(_, vector)| Vector(vector.to_vec())).collect(),
        }
    }

    fn gallery(pairs: &[Pair]) -> Gallery {
        let mut gallery = Gallery::default();
        pairs.iter().for_each(|pair| gallery.add(pair));
        gallery
    }

    #[test]
    fn each_caption_is_a_query_and_a_picture_is_found_by_its_best_one() {
        let gallery = gallery(&[
            pair(
                "cat",
                [1.0, 0.0],
                &[("a cat", [0.9, 0.1]), ("an animal", [0.4, 0.6])],
            ),
            pair("dog", [0.0, 1.0], &[("a dog", [0.1, 0.8])]),
            // The same picture again, with one more text.
            pair("cat", [1.0, 0.0], &[("a pet", [0.6, 0.4])]),
        ]);
        assert_eq!((gallery.pictures.keys.len(), gallery.texts.keys.len()), (2, 4));
        let by_text = gallery.ranks().by_text;
        assert_eq!(by_text, [Some(1), Some(2), Some(1), Some(1)]);
        let by_picture = gallery.ranks().by_picture;
        assert_eq!(by_picture, [Some(1), Some(1)]);
        let reports = gallery.ranks().reports(&[Metric::RecallAt1, Metric::MeanRank]);
        let values: Vec<(String, f64, usize)> = reports
            .iter()
            .map(|report| (report.label(), report.value, report.samples))
            .collect();
        assert_eq!(
            values,
            [
                ("recall_at_1 text_to_image".to_owned(), 0.75, 4),
                ("recall_at_1 image_to_text".to_owned(), 1.0, 2),
                ("mean_rank text_to_image".to_owned(), 1.25, 4),
                ("mean_rank image_to_text".to_owned(), 1.0, 2),
            ]
        );
    }

    #[test]
    fn pictures_that_tie_rank_before_the_match_and_one_text_of_two_pictures_finds_either() {
        let same = gallery(&[
            pair("one", [1.0, 0.0], &[("first", [1.0, 0.0])]),
            pair("two", [1.0, 0.0], &[("second", [1.0, 0.0])]),
        ]);
        assert_eq!(same.ranks().by_text, [Some(2), Some(2)]);
        let shared = gallery(&[
            pair("one", [1.0, 0.0], &[("a cat", [1.0, 0.0])]),
            pair("two", [1.0, 0.0], &[("a cat", [1.0, 0.0])]),
        ]);
        assert_eq!(shared.ranks().by_text, [Some(1)]);
    }
}
