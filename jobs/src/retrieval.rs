//! Retrieval both ways: pictures by texts, and texts by pictures.

use std::path::Path;

use indexmap::IndexMap;
use multiway_prompts::Metric;
use multiway_tasks::metrics::best_rank;

use crate::error::JobError;
use crate::figures::Figures;
use crate::journal::read_rows;
use crate::pairs::{Pair, Vector};
use crate::report::WorstCases;
use crate::row::Row;
use crate::scores::{Direction, MetricReport, mean, proportion};

/// The different pictures and texts of some records, and which belong together.
#[derive(Debug, Default)]
struct Gallery {
    pictures: IndexMap<String, Vec<f32>>,
    texts: IndexMap<String, Vec<f32>>,
    /// Places of pictures, each with the place of a text of it.
    pairs: Vec<(usize, usize)>,
}

impl Gallery {
    fn add(&mut self, pair: &Pair) {
        let picture = place(&mut self.pictures, &pair.picture, &pair.picture_vector);
        for (text, vector) in pair.texts.iter().zip(&pair.text_vectors) {
            let text = place(&mut self.texts, text, vector);
            self.pairs.push((picture, text));
        }
    }

    /// Ranks all of one side by each of the other: the rank of the first that belongs to it.
    fn ranks(&self, direction: Direction) -> Vec<Option<usize>> {
        let (queries, candidates) = match direction {
            Direction::TextToImage => (&self.texts, &self.pictures),
            Direction::ImageToText => (&self.pictures, &self.texts),
        };
        let mut matches = vec![Vec::new(); queries.len()];
        for (picture, text) in &self.pairs {
            let (query, candidate) = match direction {
                Direction::TextToImage => (*text, *picture),
                Direction::ImageToText => (*picture, *text),
            };
            if let Some(matches) = matches.get_mut(query) {
                matches.push(candidate);
            }
        }
        let ranked = queries.values().zip(&matches).map(|(query, matches)| {
            let scores: Vec<f32> = candidates
                .values()
                .map(|candidate| dot(query, candidate))
                .collect();
            best_rank(matches, &scores)
        });
        ranked.collect()
    }

    fn reports(&self, metrics: &[Metric]) -> Vec<MetricReport> {
        let directions = [Direction::TextToImage, Direction::ImageToText];
        let ranks = directions.map(|direction| (direction, self.ranks(direction)));
        let report = |metric: &Metric| {
            ranks
                .each_ref()
                .map(|(direction, ranks)| of_ranks(*metric, *direction, ranks))
        };
        metrics.iter().flat_map(report).collect()
    }
}

/// Finds the place of a key, and adds it if it is new.
fn place(vectors: &mut IndexMap<String, Vec<f32>>, key: &str, vector: &Vector) -> usize {
    if let Some(place) = vectors.get_index_of(key) {
        return place;
    }
    vectors.insert(key.to_owned(), vector.0.clone());
    vectors.len() - 1
}

/// Multiplies vectors of unit length: their cosine similarity. Eight sums side by side are what the compiler
/// makes SIMD of; their order is fixed, and so are the bits.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (left, right) in left.iter().zip(right) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += left * right;
        }
    }
    let rest: f32 = left_rest
        .iter()
        .zip(right_rest)
        .map(|(left, right)| left * right)
        .sum();
    sums.iter().sum::<f32>() + rest
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
    Ok(Figures {
        samples: all.pairs.len(),
        worst: worst_cases(results, &all)?,
        groups: groups
            .iter()
            .map(|(name, gallery)| (name.clone(), gallery.reports(metrics)))
            .collect(),
        all: all.reports(metrics),
    })
}

/// Reads the rows again for those whose texts find their picture last.
fn worst_cases(results: &Path, gallery: &Gallery) -> Result<WorstCases, JobError> {
    let ranks = gallery.ranks(Direction::TextToImage);
    let mut worst = WorstCases::default();
    for row in read_rows(results)? {
        let row = row?;
        let Some(pair) = row.pair() else {
            worst.add_failed(&row);
            continue;
        };
        let rank_of = |text: &String| ranks.get(gallery.texts.get_index_of(text)?).copied().flatten();
        let last = pair.texts.iter().filter_map(rank_of).max();
        let rank = last.unwrap_or(gallery.pictures.len().max(1));
        let shown = Row {
            text: Some(format!("rank {rank} of {}", gallery.pictures.len())),
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
        assert_eq!((gallery.pictures.len(), gallery.texts.len()), (2, 4));
        let by_text = gallery.ranks(Direction::TextToImage);
        assert_eq!(by_text, [Some(1), Some(2), Some(1), Some(1)]);
        let by_picture = gallery.ranks(Direction::ImageToText);
        assert_eq!(by_picture, [Some(1), Some(1)]);
        let reports = gallery.reports(&[Metric::RecallAt1, Metric::MeanRank]);
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
        assert_eq!(same.ranks(Direction::TextToImage), [Some(2), Some(2)]);
        let shared = gallery(&[
            pair("one", [1.0, 0.0], &[("a cat", [1.0, 0.0])]),
            pair("two", [1.0, 0.0], &[("a cat", [1.0, 0.0])]),
        ]);
        assert_eq!(shared.ranks(Direction::TextToImage), [Some(1)]);
    }

    #[test]
    fn products_of_long_vectors_are_those_of_short_ones() {
        let left: Vec<f32> = (0..19u8).map(f32::from).collect();
        assert!((dot(&left, &left) - 2109.0).abs() < f32::EPSILON);
        assert!(dot(&[], &left).abs() < f32::EPSILON);
    }
}
