//! Top-k logits as log-probabilities.

use multiway_model::kernels::Ranking;

use crate::tokenizer::TokenId;

/// Ids with their log-probabilities, the highest first.
pub(crate) type TopK = Vec<(TokenId, f32)>;

/// Finds the top `k`; `None` if the logits are not finite.
pub(crate) fn top_k(logits: &[f32], k: usize) -> Option<TopK> {
    log_probabilities(&Ranking::of(logits, k))
}

/// Normalises top-k logits to log-probabilities; `None` if the logits are not finite.
pub(crate) fn log_probabilities(ranking: &Ranking) -> Option<TopK> {
    let one = |(id, logit): &(u32, f32)| Some((*id, ranking.log_probability(*logit)?));
    ranking.log_total?;
    ranking.highest.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_earlier_ids_before_equal_ones() {
        let ids = |logits: &[f32], count| {
            let best = top_k(logits, count).unwrap();
            best.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[0.0, 3.0, 1.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(ids(&[0.0, 3.0], 9), [1, 0]);
        assert_eq!(top_k(&[0.0, f32::NAN], 1), None);
    }
}
