//! Indexes as programs use them: built, killed, damaged, searched.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};

use multiway_index::{
    BuildReport, ElementType, IndexBuilder, IndexEntry, IndexError, IndexMatch, IndexSpec, SearchOptions,
    VectorIndex,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tempfile::TempDir;

/// A folder with an index in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("my.index")
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("my.index.journal")
    }

    fn open(&self) -> VectorIndex {
        VectorIndex::open(self.path()).unwrap()
    }

    /// Builds an index of numbered vectors, those that are known reused.
    fn build(&self, vectors: &[Vec<f32>], spec: IndexSpec) -> BuildReport {
        let mut builder = IndexBuilder::open(self.path(), spec).unwrap();
        add(&mut builder, vectors);
        builder.finish().unwrap()
    }
}

fn spec(vectors: &[Vec<f32>], element: ElementType) -> IndexSpec {
    IndexSpec::new("model", vectors[0].len(), element)
}

fn entry(number: usize) -> IndexEntry {
    IndexEntry {
        bytes: number as u64,
        modified_ns: 7,
        text: number.is_multiple_of(2).then(|| format!("the text of {number}")),
        ..IndexEntry::new(format!("{number}.png"))
    }
}

fn add(builder: &mut IndexBuilder, vectors: &[Vec<f32>]) {
    for (number, vector) in vectors.iter().enumerate() {
        if !builder.reuse(&entry(number)).unwrap() {
            builder.push(&entry(number), vector).unwrap();
        }
    }
}

fn random(rng: &mut ChaCha8Rng, width: usize) -> Vec<f32> {
    (0..width)
        .map(|_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn randoms(seed: u64, count: usize, width: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random(&mut rng, width)).collect()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= length);
    vector
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The definition: every stored vector in sums of 16 lanes that are halved, the best first.
fn brute_force(index: &VectorIndex, query: &[f32]) -> Vec<IndexMatch> {
    let mut all: Vec<IndexMatch> = (0..index.len())
        .map(|position| {
            let vector = index.vector(position).unwrap();
            let mut lanes = [0.0_f32; 16];
            for (i, (value, query)) in vector.iter().zip(query).enumerate() {
                lanes[i % 16] = value.mul_add(*query, lanes[i % 16]);
            }
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
            }
            let score = lanes[0] + 0.0;
            IndexMatch { position, score }
        })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.iter_mut()
        .for_each(|found| found.score = found.score.clamp(-1.0, 1.0));
    all
}

/// Vectors of few different numbers, so that many are equally near.
fn vectors() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<Vec<f32>>)> {
    let number = prop::sample::select(vec![-1.0_f32, -0.5, 0.0, 0.3, 1.0]);
    (1..80_usize).prop_flat_map(move |width| {
        let vector = prop::collection::vec(number.clone(), width)
            .prop_filter("a direction", |vector| vector.iter().any(|value| *value != 0.0));
        (
            prop::collection::vec(vector.clone(), 1..90),
            prop::collection::vec(vector.prop_map(unit), 1..4),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn exact_search_is_brute_force_over_what_is_stored((vectors, queries) in vectors(), count in 0..100_usize) {
        for element in ElementType::ALL {
            let place = Place::new();
            place.build(&vectors, spec(&vectors, element).approximate(true));
            let index = place.open();
            let options = SearchOptions::new(count);
            let found = index.search(&queries, options.with_threads(1)).unwrap();
            for (query, found) in queries.iter().zip(&found) {
                let mut expected = brute_force(&index, query);
                if element == ElementType::F16 {
                    expected.truncate(count);
                    prop_assert_eq!(found, &expected);
                }
                // The scale of int8 is applied to the sum: rounding may order what is equally near otherwise.
                prop_assert_eq!(found.len(), count.min(index.len()));
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert!((found.score - expected.score).abs() < 1e-5);
                    let vector = index.vector(found.position).unwrap();
                    prop_assert!((f64::from(found.score) - dot(&vector, query).clamp(-1.0, 1.0)).abs() < 1e-5);
                }
                prop_assert!(found.is_sorted_by(|a, b| (b.score, a.position) < (a.score, b.position)
                    || (a.score.to_bits() == b.score.to_bits() && (a.position < b.position || a.score.abs() >= 1.0))));
                // Alone, on more threads, and in all of the lists.
                prop_assert_eq!(&index.search(&[query], options.with_threads(3)).unwrap()[0], found);
                let all_lists = options.approximate(usize::MAX);
                prop_assert_eq!(&index.search(&[query], all_lists).unwrap()[0], found);
            }
        }
    }
}

#[test]
fn what_is_found_does_not_depend_on_threads_and_other_queries() {
    let vectors = randoms(1, 5000, 70);
    let queries: Vec<Vec<f32>> = randoms(2, 5, 70).into_iter().map(unit).collect();
    for element in ElementType::ALL {
        let place = Place::new();
        place.build(&vectors, spec(&vectors, element).approximate(true));
        let index = place.open();
        let options = SearchOptions::new(50).with_threads(1);
        let expected: Vec<_> = queries
            .iter()
            .map(|query| index.search(&[query], options).unwrap().concat())
            .collect();
        for threads in [1, 2, 3, 7] {
            assert_eq!(
                index.search(&queries, options.with_threads(threads)).unwrap(),
                expected
            );
        }
        let all_lists = options.approximate(index.lists());
        assert_eq!(index.search(&queries, all_lists).unwrap(), expected);
    }
}

#[test]
fn approximate_search_finds_95_of_100_in_clusters() {
    let (count, width) = (20_000, 64);
    let centers = randoms(3, 400, width);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut around = || {
        let center = &centers[rng.next_u32() as usize % centers.len()];
        let noise = random(&mut rng, width);
        unit(
            center
                .iter()
                .zip(noise)
                .map(|(center, noise)| center + 0.8 * noise)
                .collect(),
        )
    };
    let vectors: Vec<Vec<f32>> = (0..count).map(|_| around()).collect();
    let queries: Vec<Vec<f32>> = (0..100).map(|_| around()).collect();
    for element in ElementType::ALL {
        let place = Place::new();
        place.build(&vectors, spec(&vectors, element).approximate(true));
        let index = place.open();
        assert_eq!(index.lists(), 141, "the square root");
        let options = SearchOptions::new(10);
        let exact = index.search(&queries, options).unwrap();
        let recall = |probes| {
            let found = index.search(&queries, options.approximate(probes)).unwrap();
            let hits: usize = exact
                .iter()
                .zip(&found)
                .map(|(exact, found)| {
                    exact
                        .iter()
                        .filter(|hit| found.iter().any(|other| other.position == hit.position))
                        .count()
                })
                .sum();
            hits as f64 / (10 * queries.len()) as f64
        };
        assert!(recall(8) >= 0.95, "{element}: {}", recall(8));
        assert!(
            recall(1) < 1.0 && recall(1) <= recall(8),
            "{element}: {}",
            recall(1)
        );
    }
}

#[test]
fn a_search_of_lists_that_were_not_built_is_refused() {
    let place = Place::new();
    let vectors = randoms(1, 3, 4);
    place.build(&vectors, spec(&vectors, ElementType::F16));
    let error = place
        .open()
        .search(&vectors, SearchOptions::new(1).approximate(1))
        .unwrap_err();
    insta::assert_snapshot!(error, @"the index was built for exact search only: index again with lists for approximate search");
}

#[test]
fn rounding_makes_no_similarity_of_more_than_one() {
    let place = Place::new();
    let vectors = randoms(9, 200, 33);
    place.build(&vectors, spec(&vectors, ElementType::F16));
    let index = place.open();
    let stored: Vec<Vec<f32>> = (0..200)
        .map(|position| unit(index.vector(position).unwrap()))
        .collect();
    for found in index.search(&stored, SearchOptions::new(200)).unwrap().concat() {
        assert!((-1.0..=1.0).contains(&found.score), "{found:?}");
    }
}

#[test]
fn a_build_that_is_killed_at_any_byte_goes_on_and_writes_the_same_bytes() {
    let vectors = randoms(5, 3, 6);
    for element in ElementType::ALL {
        let spec = spec(&vectors, element).approximate(true);
        let whole = Place::new();
        assert_eq!(whole.build(&vectors, spec.clone()).reused, 0);
        let expected = fs::read(whole.path()).unwrap();
        // A build that is dropped leaves what a killed one does.
        let mut builder = IndexBuilder::open(whole.path().with_file_name("cut"), spec.clone()).unwrap();
        add(&mut builder, &vectors);
        drop(builder);
        let journal = fs::read(whole.path().with_file_name("cut.journal")).unwrap();
        let record = (journal.len() - 40) / vectors.len();
        let mut most = 0;
        for cut in 0..=journal.len() {
            let place = Place::new();
            fs::write(place.journal(), &journal[..cut]).unwrap();
            let report = place.build(&vectors, spec.clone());
            assert!(
                report.reused >= most && report.reused <= cut / record,
                "cut at {cut}: {report:?}"
            );
            most = report.reused;
            assert!(fs::read(place.path()).unwrap() == expected, "cut at {cut}");
            assert!(!place.journal().exists());
        }
        assert_eq!(most, vectors.len());
    }
}

#[test]
fn a_damaged_journal_is_used_up_to_the_damage() {
    let vectors = randoms(5, 6, 6);
    let spec = spec(&vectors, ElementType::Int8);
    let place = Place::new();
    let mut builder = IndexBuilder::open(place.path(), spec.clone()).unwrap();
    add(&mut builder, &vectors);
    drop(builder);
    let mut journal = fs::read(place.journal()).unwrap();
    let last = journal.len() - 50;
    journal[last] ^= 1;
    fs::write(place.journal(), &journal).unwrap();
    assert_eq!(place.build(&vectors, spec).reused, 5);
    assert!(place.open().verify().is_ok());
}

#[test]
fn a_journal_of_another_index_is_not_used_and_another_file_is_not_touched() {
    let vectors = randoms(5, 6, 6);
    let place = Place::new();
    let mut builder = IndexBuilder::open(place.path(), spec(&vectors, ElementType::F16)).unwrap();
    add(&mut builder, &vectors);
    let busy = IndexBuilder::open(place.path(), spec(&vectors, ElementType::F16)).unwrap_err();
    assert!(matches!(busy, IndexError::Busy { .. }), "{busy}");
    drop(builder);
    assert_eq!(
        place
            .build(&vectors, IndexSpec::new("another", 6, ElementType::F16))
            .reused,
        0
    );
    fs::write(place.journal(), "my diary").unwrap();
    let error = IndexBuilder::open(place.path(), spec(&vectors, ElementType::F16)).unwrap_err();
    assert!(matches!(error, IndexError::NoJournal { .. }), "{error}");
    assert_eq!(fs::read(place.journal()).unwrap(), b"my diary");
}

#[test]
fn an_update_reuses_what_is_unchanged_and_drops_what_is_gone() {
    let vectors = randoms(6, 30, 20);
    for element in ElementType::ALL {
        let (place, fresh) = (Place::new(), Place::new());
        place.build(&vectors[..20], spec(&vectors, element));
        let update = |place: &Place| {
            let mut builder = IndexBuilder::open(place.path(), spec(&vectors, element)).unwrap();
            for (number, vector) in vectors.iter().enumerate().skip(5) {
                // One of the files has changed.
                let changed = IndexEntry {
                    modified_ns: 8 + u64::from(number == 7),
                    ..entry(number)
                };
                let entry = if number == 7 { changed } else { entry(number) };
                assert_eq!(
                    builder.knows(&entry),
                    place.path().exists() && number < 20 && number != 7
                );
                if !builder.reuse(&entry).unwrap() {
                    builder.push(&entry, vector).unwrap();
                }
            }
            builder.finish().unwrap()
        };
        let report = update(&place);
        assert_eq!(
            report,
            BuildReport {
                vectors: 25,
                reused: 14,
                removed: 5
            }
        );
        update(&fresh);
        assert!(fs::read(place.path()).unwrap() == fs::read(fresh.path()).unwrap());
        assert_eq!(place.open().entry(2).unwrap().modified_ns, 9);
    }
}

#[test]
fn vectors_of_another_model_width_or_type_are_not_reused() {
    let vectors = randoms(6, 3, 20);
    let place = Place::new();
    place.build(&vectors, spec(&vectors, ElementType::F16));
    for spec in [
        IndexSpec::new("another", 20, ElementType::F16),
        IndexSpec::new("model", 21, ElementType::F16),
        IndexSpec::new("model", 20, ElementType::Int8),
        IndexSpec::new("model", 20, ElementType::F16).with_root("."),
    ] {
        let builder = IndexBuilder::open(place.path(), spec.clone()).unwrap();
        assert!(!builder.knows(&entry(0)), "{spec:?}");
        drop(builder);
        fs::remove_file(place.journal()).unwrap();
    }
    assert!(place.open().check_model("model").is_ok());
    let error = place.open().check_model("another").unwrap_err();
    assert!(error.to_string().contains("index again"), "{error}");
}

#[test]
fn an_index_of_nothing_is_not_written() {
    let place = Place::new();
    let builder = IndexBuilder::open(place.path(), IndexSpec::new("model", 3, ElementType::F16)).unwrap();
    assert_eq!(builder.finish().unwrap(), BuildReport::default());
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn entries_are_read_as_they_were_written() {
    let vectors = randoms(6, 12, 20);
    for element in ElementType::ALL {
        let place = Place::new();
        place.build(&vectors, spec(&vectors, element));
        let index = place.open();
        assert_eq!((index.len(), index.width(), index.element()), (12, 20, element));
        for (number, vector) in vectors.iter().enumerate() {
            assert_eq!(index.entry(number).unwrap(), entry(number));
            let near = dot(&index.vector(number).unwrap(), &unit(vector.clone()));
            assert!(near > 0.999, "{near}");
        }
        assert!(index.entry(12).is_err() && index.vector(usize::MAX).is_err());
    }
}

#[test]
fn a_vector_of_other_width_or_not_finite_is_refused() {
    let place = Place::new();
    let vectors = randoms(6, 3, 3);
    let mut builder = IndexBuilder::open(place.path(), spec(&vectors, ElementType::F16)).unwrap();
    for (vector, found) in [
        (vec![1.0], "of 1"),
        (vec![0.0; 3], "of zeros"),
        (vec![0.0, f32::NAN, 1.0], "with NaN"),
    ] {
        let error = builder.push(&entry(0), &vector).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("found one {found}")),
            "{error}"
        );
    }
    assert!(builder.is_empty());
    drop(builder);
    place.build(&vectors, spec(&vectors, ElementType::F16));
    assert!(place.open().search(&[[1.0]], SearchOptions::new(1)).is_err());
    assert!(
        place
            .open()
            .search(&[[f32::INFINITY; 3]], SearchOptions::new(1))
            .is_err()
    );
    assert!(IndexBuilder::open(place.path(), IndexSpec::new("model", 0, ElementType::F16)).is_err());
}

/// Opens bytes, and reads all that there is if they are an index.
fn use_all(bytes: Vec<u8>) -> Result<(), IndexError> {
    let index = VectorIndex::from_bytes("x.index", bytes)?;
    index.verify()?;
    for position in 0..index.len() {
        index.entry(position)?;
    }
    let queries = [vec![0.5; index.width()]];
    index.search(&queries, SearchOptions::new(3))?;
    index
        .search(&queries, SearchOptions::new(3).approximate(9))
        .map(drop)
}

#[test]
fn no_single_damaged_byte_and_no_cut_goes_unnoticed() {
    let vectors = randoms(7, 5, 3);
    for element in ElementType::ALL {
        let place = Place::new();
        place.build(&vectors, spec(&vectors, element).approximate(true));
        let bytes = fs::read(place.path()).unwrap();
        use_all(bytes.clone()).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(use_all(damaged).is_err(), "byte {at}");
            assert!(
                VectorIndex::from_bytes("x", bytes[..at].to_vec()).is_err(),
                "cut at {at}"
            );
        }
        assert!(VectorIndex::from_bytes("x", [bytes, vec![0]].concat()).is_err());
    }
}

#[test]
fn damage_that_is_not_looked_for_is_no_danger() {
    let vectors = randoms(7, 40, 3);
    let place = Place::new();
    place.build(&vectors, spec(&vectors, ElementType::Int8).approximate(true));
    let bytes = fs::read(place.path()).unwrap();
    let mut refused = 0;
    for at in 128..bytes.len() - 8 {
        let mut damaged = bytes.clone();
        damaged[at..at + 8].fill(0xff);
        // Without a look at the checksum of the contents.
        let Ok(index) = VectorIndex::from_bytes("x", damaged) else {
            continue;
        };
        let queries = [vec![0.5; 3], vec![-0.5; 3]];
        index.search(&queries, SearchOptions::new(50)).unwrap();
        refused += usize::from(
            index
                .search(&queries, SearchOptions::new(50).approximate(9))
                .is_err(),
        );
        refused += (0..index.len())
            .filter(|position| index.entry(*position).is_err())
            .count();
    }
    assert!(refused > 100, "{refused}");
}

fn refusal(bytes: &[u8]) -> String {
    VectorIndex::from_bytes("x.index", bytes.to_vec())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_header_that_lies_is_refused_before_anything_is_allocated() {
    let place = Place::new();
    let vectors = randoms(7, 5, 3);
    place.build(&vectors, spec(&vectors, ElementType::F16));
    let bytes = fs::read(place.path()).unwrap();
    let patched = |at: usize, word: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + word.len()].copy_from_slice(word);
        refusal(&bytes)
    };
    assert!(patched(8, &9_u32.to_le_bytes()).contains("format 9"));
    assert!(patched(12, &0_u32.to_le_bytes()).contains("vectors of 0"));
    assert!(patched(12, &u32::MAX.to_le_bytes()).contains("vectors of 4294967295"));
    assert!(patched(16, &7_u32.to_le_bytes()).contains("found 7"));
    assert!(patched(20, &u32::MAX.to_le_bytes()).contains("no more lists than vectors"));
    assert!(patched(24, &u64::MAX.to_le_bytes()).contains("vectors"));
    assert!(patched(24, &u64::from(u32::MAX).to_le_bytes()).contains("its header lies"));
    assert!(patched(32, &u64::MAX.to_le_bytes()).contains("a description"));
    assert!(patched(40, &u64::MAX.to_le_bytes()).contains("a file that fits into memory"));
    assert!(patched(100, b"?").contains("a header that matches its checksum"));
    assert!(patched(130, b"?").contains("a header that matches its checksum"));
}

#[test]
fn another_file_is_told_from_an_index_and_an_old_index_from_a_new_one() {
    insta::assert_snapshot!(refusal(b"\x89PNG"), @"'x.index' is not a usable index: expected a file that starts with 'MWINDEX', found 4 bytes that do not; index again");
    insta::assert_snapshot!(refusal(b"MWINDEX\n\x02\0\0\0and more"), @"'x.index' is an index of format 2, and this program reads format 3: remove it, and index again");
    assert!(refusal(b"").contains("0 bytes") && refusal(b"MWINDEX\n").contains("the end of the file"));
    let missing = VectorIndex::open("no/such.index").unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the index 'no/such.index'");
}

#[test]
fn an_index_that_is_moved_with_its_files_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = fs::canonicalize(folder.path()).unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.join(name));
    fs::create_dir_all(old.join("a/pictures")).unwrap();
    fs::create_dir_all(old.join("b")).unwrap();
    let vectors = randoms(7, 5, 3);
    let root = old.join("a/pictures").to_str().unwrap().to_owned();
    let name = Path::new("b/my.index");
    let spec = spec(&vectors, ElementType::F16).with_root(&root);
    let mut builder = IndexBuilder::open(old.join(name), spec).unwrap();
    add(&mut builder, &vectors);
    builder.finish().unwrap();
    let root_of = |path: PathBuf| VectorIndex::open(path).unwrap().root().unwrap().to_owned();
    assert_eq!(root_of(old.join(name)), root);
    // The index alone: its files are where they were.
    fs::copy(old.join(name), folder.join("copy.index")).unwrap();
    assert_eq!(root_of(folder.join("copy.index")), root);
    fs::rename(&old, &new).unwrap();
    assert_eq!(Path::new(&root_of(new.join(name))), new.join("a/pictures"));
    // Where they are nowhere, the index still says where they were.
    fs::remove_dir_all(new.join("a")).unwrap();
    assert_eq!(root_of(new.join(name)), root);
}
