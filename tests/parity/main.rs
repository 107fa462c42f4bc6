//! Checkpoints of other people's models give other people's numbers.
//!
//! Each case is a folder with `config.json`, `model.safetensors`, `inputs.json` and
//! `activations.safetensors`, made by the reference implementation. Every recorded tensor is compared in the
//! order in which it is computed; the first that differs is reported with its place. `MULTIWAY_PARITY_DIR`
//! names another folder of cases.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a broken fixture ends it"
)]

mod alone;
mod beit3;
mod case;
mod compatibility;
mod generate;
mod narrow;
mod pretraining;
mod t5;

use std::path::PathBuf;

use multiway_model::TokenizerKind;

fn cases() -> Vec<PathBuf> {
    let folder = std::env::var_os("MULTIWAY_PARITY_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity")),
        PathBuf::from,
    );
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert!(!cases.is_empty(), "{} holds no cases", folder.display());
    cases
}

/// Tells whether the cases are those of the repository.
fn are_ours() -> bool {
    std::env::var_os("MULTIWAY_PARITY_DIR").is_none()
}

/// Runs a check on every case of a family, which its kind of tokenizer tells.
fn each(tokenizer: TokenizerKind, check: impl Fn(&case::Case)) {
    let mut count = 0;
    for case in cases().iter().map(|path| case::Case::open(path)) {
        if case.model.config().tokenizer == tokenizer {
            check(&case);
            count += 1;
        }
    }
    assert!(count > 0 || !are_ours(), "no case of the family");
}

fn each_t5(check: impl Fn(&case::Case)) {
    each(TokenizerKind::T5, check);
}

#[test]
fn every_recorded_tensor_of_t5_is_the_references() {
    each_t5(t5::walk);
}

fn each_beit3(check: impl Fn(&case::Case)) {
    each(TokenizerKind::XlmRoberta, check);
}

#[test]
fn every_recorded_tensor_of_beit3_is_the_references() {
    each_beit3(beit3::walk);
}

#[test]
fn every_recorded_caption_of_beit3_is_the_references() {
    each_beit3(beit3::captions);
}

#[test]
fn a_sample_of_beit3_alone_gives_the_bits_that_it_gives_in_the_batch() {
    each_beit3(alone::rows_alone);
}

#[test]
fn a_row_alone_gives_the_bits_that_it_gives_in_the_batch() {
    each_t5(t5::rows_alone);
}

#[test]
fn the_differentiable_form_gives_the_references_logits() {
    each_t5(t5::differentiable);
}

#[test]
fn every_way_of_generating_writes_the_references_tokens() {
    each_t5(generate::every_variant);
}

#[test]
fn greedy_decoding_step_by_step_writes_the_references_tokens() {
    each_t5(t5::greedy);
}
