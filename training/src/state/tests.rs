use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::Rng;

use super::*;
use crate::optimizer::{AdamWConfig, decays_by_default};
use crate::random::{fork, normal};

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal(rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

struct Run {
    vars: Vec<(String, Var)>,
    optimizer: AdamW,
    rng: ChaCha8Rng,
    step: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fork(seed, &[]);
        let mut var = |name: &str, shape: &[usize]| {
            (
                name.to_owned(),
                Var::from_tensor(&random(&mut rng, shape)).unwrap(),
            )
        };
        let vars = vec![var("layer.weight", &[5, 7]), var("layer.bias", &[7])];
        let optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
        Self {
            vars,
            optimizer,
            rng,
            step: 0,
        }
    }

    fn advance(&mut self, steps: u64) {
        for _ in 0..steps {
            let mut store: GradStore = Tensor::zeros((), DType::F32, &Device::Cpu)
                .unwrap()
                .backward()
                .unwrap();
            for (_, var) in &self.vars {
                store.insert(var.as_tensor(), random(&mut self.rng, var.dims()));
            }
            self.optimizer
                .step(&self.vars, &[], &[store], &[1.0], 1e-2)
                .unwrap();
            self.step += 1;
        }
    }

    fn capture(&self) -> TrainingState {
        let progress = Progress {
            step: self.step,
            seed: 7,
            generators: BTreeMap::from([("batches".to_owned(), RngState::of(&self.rng))]),
            best: None,
            data_position: BTreeMap::from([("pictures".to_owned(), 42)]),
            settings: "{\"width\": 7}".to_owned(),
        };
        TrainingState::capture(progress, &self.vars, &self.optimizer).unwrap()
    }

    fn resume(state: &TrainingState) -> Self {
        let mut run = Self::new(999);
        state.restore(&run.vars, &mut run.optimizer).unwrap();
        run.rng = state.progress().generators["batches"].generator();
        run.step = state.progress().step;
        run
    }
}

#[test]
fn a_resumed_run_goes_on_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = Run::new(1);
    whole.advance(5);
    let path = whole.capture().save(folder.path()).unwrap();
    assert_eq!(TrainingState::load(&path).unwrap(), whole.capture());
    whole.advance(4);

    let state = TrainingState::load_latest(folder.path()).unwrap().unwrap();
    let mut resumed = Run::resume(&state);
    assert_eq!(resumed.capture(), state);
    resumed.advance(4);
    assert_eq!(resumed.capture(), whole.capture());
}

#[test]
fn an_interrupted_write_leaves_the_earlier_state_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::new(1);
    run.advance(1);
    let path = run.capture().save(folder.path()).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(
        folder.path().join("state-unfinished.tmp"),
        &bytes[..bytes.len() / 2],
    )
    .unwrap();
    assert_eq!(
        TrainingState::load_latest(folder.path()).unwrap(),
        Some(run.capture())
    );
    run.advance(1);
    run.capture().save(folder.path()).unwrap();
    assert_eq!(
        TrainingState::load_latest(folder.path()).unwrap(),
        Some(run.capture())
    );
}

#[test]
fn the_two_newest_states_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::new(1);
    for _ in 0..4 {
        run.advance(3);
        run.capture().save(folder.path()).unwrap();
    }
    let names: Vec<String> = saved_states(folder.path())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        ["state-000000000009.safetensors", "state-000000000012.safetensors"]
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_damaged_state_is_passed_over_and_told_about_when_it_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::new(1);
    run.advance(1);
    let first = run.capture();
    let first_path = first.save(folder.path()).unwrap();
    run.advance(1);
    let path = run.capture().save(folder.path()).unwrap();
    let good = fs::read(&path).unwrap();
    for place in [0, 9, 200, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        assert!(TrainingState::load(&path).is_err(), "byte {place}");
        assert_eq!(
            TrainingState::load_latest(folder.path()).unwrap(),
            Some(first.clone())
        );
    }
    for length in [0, 7, 8, 100, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(TrainingState::load(&path).is_err(), "length {length}");
    }
    fs::remove_file(first_path).unwrap();
    assert!(TrainingState::load_latest(folder.path()).is_err());
}

#[test]
fn a_folder_without_states_has_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(TrainingState::load_latest(folder.path()).unwrap(), None);
    assert_eq!(
        TrainingState::load_latest(&folder.path().join("missing")).unwrap(),
        None
    );
}

#[test]
fn a_state_of_another_model_is_refused_and_changes_nothing() {
    let mut run = Run::new(1);
    run.advance(2);
    let state = run.capture();
    let vars = vec![(
        "layer.weight".to_owned(),
        Var::zeros((5, 8), DType::F32, &Device::Cpu).unwrap(),
    )];
    let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
    let error = state.restore(&vars, &mut optimizer).unwrap_err();
    assert!(error.to_string().starts_with("the state does not fit the model"));
    assert_eq!(optimizer.steps(), 0);
}

#[test]
fn a_foreign_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state-000000000001.safetensors");
    let tensors: Vec<(&str, safetensors::tensor::TensorView<'_>)> = Vec::new();
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let error = TrainingState::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("expected the format 'multiway-training-state/1' in the metadata, found 'none'"),
        "{error}"
    );
}

#[test]
fn a_noted_generator_goes_on_in_the_middle_of_a_block() {
    let mut rng = fork(3, &[1]);
    rng.set_stream(5);
    for _ in 0..37 {
        rng.next_u32();
    }
    let mut again = RngState::of(&rng).generator();
    assert_eq!(
        (0..100).map(|_| rng.next_u64()).collect::<Vec<_>>(),
        (0..100).map(|_| again.next_u64()).collect::<Vec<_>>()
    );
}
