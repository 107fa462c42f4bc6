//! Chooses what masked modelling hides: spans of text and blocks of image patches.
//!
//! Both are pure functions of their input and a random number generator.

use std::ops::RangeInclusive;

use rand_chacha::rand_core::Rng;

use crate::random::{below, between, shuffle};

/// The most spans that one text is cut into: a vocabulary has this many sentinels.
pub const MAX_SPANS: usize = 100;

/// Width to height of a masked block of patches, at least.
const MIN_BLOCK_ASPECT: f32 = 0.3;

/// Hides random spans of a text behind sentinels: what the encoder reads, and what the decoder has to write.
///
/// Every hidden span is one sentinel in the encoder's text; the target names each sentinel and then the
/// span's tokens. Neither ends with an end-of-text token. The count of hidden tokens is `ratio` of the text,
/// rounded, at least one; spans have `mean_span_length` tokens on average and never touch, so at a ratio of 1
/// the whole text is one span. An empty text gives two empty lists.
///
/// Source: Raffel et al. 2020, section 3.1.4, and `random_spans_noise_mask` in
/// google-research/text-to-text-transfer-transformer; different from there, a text may begin with a hidden
/// span and end with a visible token.
///
/// # Examples
///
/// ```
/// use multiway_training::{masking::corrupt_spans, random::fork};
///
/// let (encoder, target) = corrupt_spans(&[10, 11, 12], 1.0, 3.0, |n| 99 - n as u32, &mut fork(0, &[]));
/// assert_eq!(encoder, [99]);
/// assert_eq!(target, [99, 10, 11, 12]);
/// ```
pub fn corrupt_spans(
    tokens: &[u32],
    ratio: f32,
    mean_span_length: f32,
    sentinel: impl Fn(usize) -> u32,
    rng: &mut impl Rng,
) -> (Vec<u32>, Vec<u32>) {
    let mut encoder = Vec::with_capacity(tokens.len() + 1);
    let mut target = Vec::with_capacity(tokens.len() + 1);
    let mut rest = tokens;
    for (index, (visible, hidden)) in choose_spans(tokens.len(), ratio, mean_span_length, rng).enumerate() {
        let (shown, after) = rest.split_at(visible.min(rest.len()));
        let (span, after) = after.split_at(hidden.min(after.len()));
        encoder.extend_from_slice(shown);
        encoder.push(sentinel(index));
        target.push(sentinel(index));
        target.extend_from_slice(span);
        rest = after;
    }
    encoder.extend_from_slice(rest);
    (encoder, target)
}

/// Chooses, span by span, how many tokens stay visible before it and how many it hides.
fn choose_spans<R: Rng>(
    length: usize,
    ratio: f32,
    mean_span_length: f32,
    rng: &mut R,
) -> impl Iterator<Item = (usize, usize)> + use<R> {
    let hidden = fraction_of(length, ratio).max(1).min(length);
    let visible = length - hidden;
    let spans = fraction_of(hidden, 1.0 / mean_span_length.max(1.0)).max(1);
    // Between two spans stands at least one visible token.
    let spans = spans.min(hidden).min(visible + 1).min(MAX_SPANS);
    let lengths = compose(hidden, spans, rng);
    // The outer gaps may be empty: they get one token more here and lose it below.
    let mut gaps = if spans == 0 {
        Vec::new()
    } else {
        compose(visible + 2, spans + 1, rng)
    };
    if let Some(first) = gaps.first_mut() {
        *first -= 1;
    }
    gaps.into_iter().zip(lengths)
}

/// Divides `total` into `parts` positive whole numbers, every division equally likely.
fn compose(total: usize, parts: usize, rng: &mut impl Rng) -> Vec<usize> {
    if parts == 0 || total < parts {
        return Vec::new();
    }
    // Chooses parts - 1 of the total - 1 places between neighbours.
    let mut cut: Vec<bool> = (0..total - 1).map(|place| place < parts - 1).collect();
    shuffle(rng, &mut cut);
    let mut lengths = Vec::with_capacity(parts);
    let mut current = 1;
    for is_cut in cut {
        if is_cut {
            lengths.push(current);
            current = 0;
        }
        current += 1;
    }
    lengths.push(current);
    lengths
}

/// Rounds `ratio` of `count`; a ratio outside of 0 to 1 is clamped, one that is no number is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to count just before"
)]
fn fraction_of(count: usize, ratio: f32) -> usize {
    let ratio = if ratio.is_nan() {
        0.0
    } else {
        f64::from(ratio.clamp(0.0, 1.0))
    };
    ((count as f64 * ratio).round() as usize).min(count)
}

/// Counts the patches of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// From top to bottom.
    pub rows: usize,
    /// From left to right.
    pub columns: usize,
}

/// Hides a share of an image's patches in blocks: `true` is hidden; row by row.
///
/// Exactly `ratio` of the patches, rounded, are hidden.
///
/// # Shapes
///
/// The mask has rows x columns entries.
///
/// # Examples
///
/// ```
/// use multiway_training::{masking::{PatchGrid, mask_patches}, random::fork};
///
/// let mask = mask_patches(PatchGrid { rows: 4, columns: 5 }, 0.4, &mut fork(0, &[]));
/// assert_eq!(mask.iter().filter(|&&hidden| hidden).count(), 8);
/// ```
///
/// Source: Bao et al. 2022 (BEiT), algorithm 1. The smallest block there has 16 of 196 patches; here the same
/// share of the grid. Patches that no block of that size fits any more are filled next to hidden ones.
pub fn mask_patches(grid: PatchGrid, ratio: f32, rng: &mut impl Rng) -> Vec<bool> {
    let patches = grid.rows.saturating_mul(grid.columns);
    let mut mask = vec![false; patches];
    let mut remaining = fraction_of(patches, ratio);
    let smallest = (patches * 16).div_ceil(196).max(1);
    let mut failures = 0;
    while remaining >= smallest && failures < 10 {
        match hide_block(&mut mask, grid, smallest..=remaining, rng) {
            0 => failures += 1,
            hidden => remaining -= hidden,
        }
    }
    fill_beside_hidden(&mut mask, grid, remaining, rng);
    mask
}

/// Hides one random block with an area in `areas`, unless more patches than the largest area are new in it;
/// returns how many are.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers; `as` saturates"
)]
fn hide_block(
    mask: &mut [bool],
    PatchGrid { rows, columns }: PatchGrid,
    areas: RangeInclusive<usize>,
    rng: &mut impl Rng,
) -> usize {
    let area = between(rng, *areas.start() as f32, *areas.end() as f32);
    let bound = -MIN_BLOCK_ASPECT.ln();
    let aspect = between(rng, -bound, bound).exp();
    let height = ((area * aspect).sqrt().round() as usize).clamp(1, rows);
    let width = ((area / aspect).sqrt().round() as usize).clamp(1, columns);
    let top = below(rng, rows - height + 1);
    let left = below(rng, columns - width + 1);
    let block =
        || (top..top + height).flat_map(|row| (left..left + width).map(move |column| row * columns + column));
    let fresh = block().filter(|&patch| mask.get(patch) == Some(&false)).count();
    if fresh > *areas.end() {
        return 0;
    }
    for patch in block() {
        if let Some(hidden) = mask.get_mut(patch) {
            *hidden = true;
        }
    }
    fresh
}

/// Hides `count` more patches, one at a time, next to a hidden one where there is one.
fn fill_beside_hidden(mask: &mut [bool], grid: PatchGrid, count: usize, rng: &mut impl Rng) {
    let PatchGrid { rows, columns } = grid;
    for _ in 0..count {
        let is_hidden = |row: usize, column: usize| mask.get(row * columns + column) == Some(&true);
        let touches = |patch: usize| {
            let (row, column) = (patch / columns, patch % columns);
            (row > 0 && is_hidden(row - 1, column))
                || (row + 1 < rows && is_hidden(row + 1, column))
                || (column > 0 && is_hidden(row, column - 1))
                || (column + 1 < columns && is_hidden(row, column + 1))
        };
        let visible: Vec<usize> = (0..mask.len())
            .filter(|&patch| mask.get(patch) == Some(&false))
            .collect();
        let touching: Vec<usize> = visible.iter().copied().filter(|&patch| touches(patch)).collect();
        let candidates = if touching.is_empty() { visible } else { touching };
        let chosen = candidates.get(below(rng, candidates.len())).copied();
        if let Some(hidden) = chosen.and_then(|patch| mask.get_mut(patch)) {
            *hidden = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::fork;
    use proptest::prelude::*;

    const FIRST_SENTINEL: u32 = 1_000_000;
    const EIGHT_BY_EIGHT: PatchGrid = PatchGrid { rows: 8, columns: 8 };

    fn sentinel(index: usize) -> u32 {
        FIRST_SENTINEL - u32::try_from(index).unwrap()
    }

    fn is_sentinel(token: u32) -> bool {
        token > FIRST_SENTINEL - 200
    }

    /// Puts the target's spans back into the encoder's text.
    fn reassemble(encoder: &[u32], target: &[u32]) -> Vec<u32> {
        let mut spans = target.split(|&token| is_sentinel(token)).skip(1);
        let mut text = Vec::new();
        for &token in encoder {
            match is_sentinel(token) {
                true => text.extend_from_slice(spans.next().expect("a span for each sentinel")),
                false => text.push(token),
            }
        }
        assert_eq!(spans.next(), None, "every span has its place");
        text
    }

    proptest! {
        #[test]
        fn putting_the_spans_back_gives_the_text(
            tokens in proptest::collection::vec(0_u32..5000, 0..300),
            ratio in 0.0_f32..=1.0,
            mean in 0.0_f32..12.0,
            seed in any::<u64>(),
        ) {
            let (encoder, target) = corrupt_spans(&tokens, ratio, mean, sentinel, &mut fork(seed, &[]));
            prop_assert_eq!(reassemble(&encoder, &target), tokens);
        }

        #[test]
        fn the_hidden_share_is_exact_and_spans_do_not_touch(
            length in 1_usize..300,
            ratio in 0.0_f32..=1.0,
            mean in 1.0_f32..12.0,
            seed in any::<u64>(),
        ) {
            let tokens = vec![7; length];
            let (encoder, target) = corrupt_spans(&tokens, ratio, mean, sentinel, &mut fork(seed, &[]));
            let hidden = target.iter().filter(|&&token| !is_sentinel(token)).count();
            let wanted = (length as f64 * f64::from(ratio)).max(1.0);
            prop_assert!((hidden as f64 - wanted).abs() <= 0.5, "{} hidden, {} wanted", hidden, wanted);
            prop_assert!(encoder.windows(2).all(|pair| !(is_sentinel(pair[0]) && is_sentinel(pair[1]))));
            let order: Vec<u32> = encoder.iter().copied().filter(|&token| is_sentinel(token)).collect();
            prop_assert!(!order.is_empty() && order.len() <= MAX_SPANS);
            prop_assert!(order.iter().enumerate().all(|(index, &token)| token == sentinel(index)));
        }

        #[test]
        fn the_count_of_hidden_patches_is_exact(
            rows in 0_usize..20, columns in 0_usize..20, ratio in -0.1_f32..=1.1, seed in any::<u64>(),
        ) {
            let mask = mask_patches(PatchGrid { rows, columns }, ratio, &mut fork(seed, &[]));
            let wanted = (rows * columns) as f64 * f64::from(ratio.clamp(0.0, 1.0));
            let hidden = mask.iter().filter(|&&hidden| hidden).count();
            prop_assert_eq!(mask.len(), rows * columns);
            prop_assert!((hidden as f64 - wanted).abs() <= 0.5, "{} hidden, {} wanted", hidden, wanted);
        }
    }

    #[test]
    fn a_ratio_of_one_hides_the_whole_text_in_one_span() {
        let (encoder, target) = corrupt_spans(&[1, 2, 3, 4], 1.0, 3.0, sentinel, &mut fork(1, &[]));
        assert_eq!(encoder, [sentinel(0)]);
        assert_eq!(target, [sentinel(0), 1, 2, 3, 4]);
    }

    #[test]
    fn a_ratio_of_zero_still_hides_one_token() {
        let (encoder, target) = corrupt_spans(&[1, 2, 3, 4], 0.0, 3.0, sentinel, &mut fork(1, &[]));
        assert_eq!((encoder.len(), target.len()), (4, 2));
    }

    #[test]
    fn a_ratio_that_is_no_number_hides_one_token_and_no_patch() {
        let (_, target) = corrupt_spans(&[1, 2, 3], f32::NAN, f32::NAN, sentinel, &mut fork(1, &[]));
        assert_eq!(target.len(), 2);
        assert!(
            mask_patches(EIGHT_BY_EIGHT, f32::NAN, &mut fork(1, &[]))
                .iter()
                .all(|hidden| !hidden)
        );
    }

    #[test]
    fn an_empty_text_stays_empty() {
        assert_eq!(
            corrupt_spans(&[], 0.5, 3.0, sentinel, &mut fork(1, &[])),
            (vec![], vec![])
        );
    }

    #[test]
    fn spans_begin_at_every_place_and_have_the_mean_length() {
        let tokens: Vec<u32> = (0..100).collect();
        let (mut spans, mut first, mut last) = (0, 0, 0);
        for seed in 0..2000 {
            let (encoder, target) = corrupt_spans(&tokens, 0.3, 3.0, sentinel, &mut fork(seed, &[]));
            spans += target.iter().filter(|&&token| is_sentinel(token)).count();
            first += usize::from(is_sentinel(encoder[0]));
            last += usize::from(is_sentinel(encoder[encoder.len() - 1]));
        }
        assert_eq!(spans, 2000 * 10);
        assert!(first > 150 && last > 150, "{first} {last}");
    }

    #[test]
    fn hidden_patches_stand_together() {
        let (mut beside, mut pairs) = (0_u32, 0_u32);
        for seed in 0..200 {
            let mask = mask_patches(EIGHT_BY_EIGHT, 0.4, &mut fork(seed, &[]));
            for patch in (0..63).filter(|patch| patch % 8 != 7 && mask[*patch]) {
                pairs += 1;
                beside += u32::from(mask[patch + 1]);
            }
        }
        // Patches hidden one by one would have a hidden right neighbour in 40 % of the cases.
        assert!(f64::from(beside) / f64::from(pairs) > 0.6, "{beside} of {pairs}");
    }

    #[test]
    fn every_patch_is_hidden_now_and_then() {
        let mut counts = [0_u32; 64];
        for seed in 0..500 {
            for (count, hidden) in
                counts
                    .iter_mut()
                    .zip(mask_patches(EIGHT_BY_EIGHT, 0.4, &mut fork(seed, &[])))
            {
                *count += u32::from(hidden);
            }
        }
        assert!(counts.iter().all(|&count| count > 25), "{counts:?}");
    }
}
