//! How queries score keys: a scale, and a bias that depends on the distance between query and key.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

/// How queries score keys.
#[derive(Clone, Debug)]
pub(crate) struct ScoreRule {
    pub(crate) heads: usize,
    /// Factor on the products of queries and keys.
    pub(crate) scale: f32,
    /// Added to the scaled products; a constant, also where the rest is differentiated.
    pub(crate) bias: Option<Arc<RelativeBias>>,
}

impl ScoreRule {
    /// Scores by the scaled products alone, as Vaswani et al. 2017 do.
    pub(crate) fn scaled(heads: usize, head_size: usize) -> Self {
        Self {
            heads,
            scale: 1.0 / (head_size as f32).sqrt(),
            bias: None,
        }
    }
}

/// One value a head and distance, beyond the reach the outermost.
#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// `[H, 2 R + 1]`, for key minus query from `-R` to `R`.
    by_distance: Vec<f32>,
    reach: usize,
}

impl RelativeBias {
    /// Spreads a table of buckets `[buckets, H]` over the distances.
    pub(crate) fn new(table: &Tensor, max_distance: usize, bidirectional: bool) -> Result<Self> {
        let (buckets, heads) = table.dims2()?;
        let table = table
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .to_vec2::<f32>()?;
        let reach = max_distance;
        let distances = (0..=2 * reach).map(|place| place as i64 - reach as i64);
        let rows: Vec<&Vec<f32>> = distances
            .filter_map(|distance| table.get(bucket(distance, bidirectional, buckets, max_distance)))
            .collect();
        let by_distance = (0..heads).flat_map(|head| rows.iter().filter_map(move |row| row.get(head)));
        Ok(Self {
            by_distance: by_distance.copied().collect(),
            reach,
        })
    }

    /// Returns the values of one head for keys `0..keys` as a query sees them that stands at key `at`.
    pub(crate) fn row(&self, head: usize, at: usize, keys: usize) -> impl Iterator<Item = f32> + '_ {
        let width = 2 * self.reach + 1;
        let head = self
            .by_distance
            .get(head * width..(head + 1) * width)
            .unwrap_or_default();
        // Key minus query plus reach, kept inside the table.
        let place = move |key: usize| (key + self.reach).saturating_sub(at).min(width - 1);
        (0..keys).map(move |key| head.get(place(key)).copied().unwrap_or(0.0))
    }

    /// Writes the values of one head for keys from `first` on, as a query sees them that stands at key `at`.
    pub(crate) fn fill(&self, head: usize, first: usize, at: usize, out: &mut [f32]) {
        let width = 2 * self.reach + 1;
        let head = self
            .by_distance
            .get(head * width..(head + 1) * width)
            .unwrap_or_default();
        let (Some(&lowest), Some(&highest)) = (head.first(), head.last()) else {
            return out.fill(0.0);
        };
        // Keys before `start` are out of reach behind the query, and those from `end` on before it.
        let start = at.saturating_sub(first + self.reach).min(out.len());
        let end = (at + self.reach + 1)
            .saturating_sub(first)
            .clamp(start, out.len());
        let (behind, rest) = out.split_at_mut(start);
        let (within, before) = rest.split_at_mut(end - start);
        behind.fill(lowest);
        before.fill(highest);
        let place = (first + start + self.reach).saturating_sub(at);
        if let Some(values) = head.get(place..place + within.len()) {
            within.copy_from_slice(values);
        }
    }

    /// Lays the bias of a block out as a tensor `[H, Lq, Lk]`, the last query standing at the last key.
    pub(crate) fn block(&self, heads: usize, queries: usize, keys: usize, device: &Device) -> Result<Tensor> {
        let first = keys.saturating_sub(queries);
        let rows = (0..heads).flat_map(|head| (0..queries).map(move |query| (head, first + query)));
        let values: Vec<f32> = rows.flat_map(|(head, at)| self.row(head, at, keys)).collect();
        Tensor::from_vec(values, (heads, queries, keys), device)
    }
}

/// Finds the bucket of a distance, key minus query.
///
/// Half of the buckets are exact, the others grow logarithmically up to `max_distance`; bidirectionally, keys
/// behind the query have the lower half of the buckets and keys before it the upper. Computed in f32, as the
/// reference does.
///
/// Source: Raffel et al. 2020, section 2.1; `T5Attention._relative_position_bucket` of `transformers`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers: a bucket is below the number of buckets"
)]
pub(crate) fn bucket(distance: i64, bidirectional: bool, buckets: usize, max_distance: usize) -> usize {
    let (buckets, offset, distance) = if bidirectional {
        let half = buckets / 2;
        (half, if distance > 0 { half } else { 0 }, distance.unsigned_abs())
    } else {
        (buckets, 0, (-distance).max(0) as u64)
    };
    let exact = buckets / 2;
    if distance < exact as u64 {
        return offset + distance as usize;
    }
    let ratio = (distance as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
    let far = exact + (ratio * (buckets - exact) as f32) as usize;
    offset + far.min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_reference() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/parity/t5_v1_0");
        let recorded =
            candle_core::safetensors::load(format!("{folder}/activations.safetensors"), &Device::Cpu)
                .unwrap();
        let read = |name: &str| {
            recorded[name]
                .to_dtype(DType::I64)
                .unwrap()
                .to_vec1::<i64>()
                .unwrap()
        };
        let positions = read("rel_bucket_positions");
        for (name, bidirectional) in [("rel_bucket_bidirectional", true), ("rel_bucket_causal", false)] {
            for (distance, expected) in positions.iter().zip(read(name)) {
                let found = bucket(*distance, bidirectional, 32, 128);
                assert_eq!(i64::try_from(found).unwrap(), expected, "{name} at {distance}");
            }
        }
    }

    #[test]
    fn a_filled_row_is_the_same_from_any_key_on() {
        let bias = RelativeBias::new(&crate::testing::random(&[8, 2], 1), 6, true).unwrap();
        for at in [0, 3, 20, 47] {
            let row: Vec<f32> = bias.row(1, at, 48).collect();
            for first in [0, 1, 5, 14, 15, 30, 47] {
                let mut filled = vec![f32::NAN; 48 - first];
                bias.fill(1, first, at, &mut filled);
                assert_eq!(filled, row[first..], "from {first} at {at}");
            }
        }
    }

    #[test]
    fn beyond_its_reach_the_outermost_value_holds() {
        let table = crate::testing::random(&[8, 2], 1);
        let bias = RelativeBias::new(&table, 6, true).unwrap();
        let row: Vec<u32> = bias.row(1, 30, 60).map(f32::to_bits).collect();
        assert!(row[0] == row[24] && row[36] == row[59] && row[30] != row[31]);
    }
}
