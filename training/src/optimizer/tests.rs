use super::*;
use crate::random::{fork, normal};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut rng = fork(seed, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn parameters() -> Vec<(String, Var)> {
    let make = |name: &str, seed, shape: &[usize]| {
        (name.to_owned(), Var::from_tensor(&random(seed, shape)).unwrap())
    };
    vec![
        make("layers.0.weight", 1, &[7, 33]),
        make("norm.weight", 2, &[33]),
        make("text.embed.weight", 3, &[50, 16]),
    ]
}

/// Gradients of `sum(parameter * coefficient)`: the coefficients.
fn gradients(vars: &[(String, Var)], seed: u64) -> GradStore {
    let mut store = Tensor::zeros((), DType::F32, &Device::Cpu)
        .unwrap()
        .backward()
        .unwrap();
    for (index, (_, var)) in vars.iter().enumerate() {
        store.insert(var.as_tensor(), random(seed * 100 + index as u64, var.dims()));
    }
    store
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(vars: &[(String, Var)]) -> Vec<u32> {
    vars.iter()
        .flat_map(|(_, var)| values(var))
        .map(f32::to_bits)
        .collect()
}

/// AdamW as its paper writes it, in double precision, one number at a time.
struct ScalarAdamW {
    weight: f64,
    first: f64,
    second: f64,
    average: f64,
}

impl ScalarAdamW {
    fn step(&mut self, config: &AdamWConfig, gradient: f64, decays: bool, rate: f64, step: i32) {
        let (beta1, beta2) = (f64::from(config.beta1), f64::from(config.beta2));
        self.first = beta1 * self.first + (1.0 - beta1) * gradient;
        self.second = beta2 * self.second + (1.0 - beta2) * gradient * gradient;
        let first = self.first / (1.0 - beta1.powi(step));
        let second = self.second / (1.0 - beta2.powi(step));
        let decay = if decays {
            f64::from(config.weight_decay) * self.weight
        } else {
            0.0
        };
        self.weight -= rate * (first / (second.sqrt() + f64::from(config.eps)) + decay);
        let keep = f64::from(config.average_decay.unwrap()).min(f64::from(1 + step) / f64::from(10 + step));
        self.average = keep * self.average + (1.0 - keep) * self.weight;
    }
}

#[test]
fn steps_equal_the_scalar_formula() {
    let vars = parameters();
    let config = AdamWConfig {
        max_gradient_norm: Some(5.0),
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(config, &vars, decays_by_default).unwrap();
    let scalar = |weight: f32| ScalarAdamW {
        weight: weight.into(),
        first: 0.0,
        second: 0.0,
        average: weight.into(),
    };
    let mut expected: Vec<Vec<ScalarAdamW>> = vars
        .iter()
        .map(|(_, var)| values(var).into_iter().map(scalar).collect())
        .collect();

    for step in 1..=20_i32 {
        let stores = [
            gradients(&vars, step as u64 * 2),
            gradients(&vars, step as u64 * 2 + 1),
        ];
        let rate = 1e-2 / f64::from(step);
        let norm = optimizer.step(&vars, &[], &stores, &[3.0, 1.0], rate).unwrap();

        let mean = |var: &Var| -> Vec<f64> {
            let [a, b] = [0, 1].map(|worker: usize| values(stores[worker].get(var).unwrap()));
            a.iter()
                .zip(b)
                .map(|(a, b)| 0.75 * f64::from(*a) + 0.25 * f64::from(b))
                .collect()
        };
        let means: Vec<Vec<f64>> = vars.iter().map(|(_, var)| mean(var)).collect();
        let whole_norm = means
            .iter()
            .flatten()
            .map(|value| value * value)
            .sum::<f64>()
            .sqrt();
        assert!((f64::from(norm) - whole_norm).abs() < 1e-4 * whole_norm);
        assert!(whole_norm > 5.0, "the test clips");
        for ((scalars, gradient), (name, var)) in expected.iter_mut().zip(&means).zip(&vars) {
            let decays = name == "layers.0.weight";
            for ((scalar, gradient), found) in scalars.iter_mut().zip(gradient).zip(values(var)) {
                scalar.step(&config, gradient * 5.0 / whole_norm, decays, rate, step);
                assert!(
                    (scalar.weight - f64::from(found)).abs() < 2e-5,
                    "{name}: {} {found}",
                    scalar.weight
                );
            }
        }
    }
    for (scalars, state) in expected.iter().zip(optimizer.parameters()) {
        for (scalar, found) in scalars.iter().zip(state.average.unwrap()) {
            assert!((scalar.average - f64::from(*found)).abs() < 2e-5);
        }
    }
}

#[test]
fn a_frozen_parameter_stays_as_it_is() {
    let vars = parameters();
    let before: Vec<Vec<f32>> = vars.iter().map(|(_, var)| values(var)).collect();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
    let norm = |frozen: &[bool], optimizer: &mut AdamW| {
        optimizer
            .step(&vars, frozen, &[gradients(&vars, 1)], &[1.0], 1e-2)
            .unwrap()
    };
    let frozen = norm(&[true], &mut optimizer);
    for (at, ((_, var), before)) in vars.iter().zip(&before).enumerate() {
        assert_eq!(values(var) == *before, at == 0, "parameter {at}");
    }
    assert!(frozen < norm(&[], &mut optimizer), "its gradient does not count");
}

#[test]
fn a_missing_gradient_is_a_zero_gradient() {
    let run = |explicit_zero: bool| {
        let vars = parameters();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
        for step in 0..3 {
            let mut store = gradients(&vars, step);
            if step > 0 {
                store.remove(&vars[0].1);
            }
            if step > 0 && explicit_zero {
                store.insert(&vars[0].1, vars[0].1.zeros_like().unwrap());
            }
            optimizer.step(&vars, &[], &[store], &[1.0], 1e-3).unwrap();
        }
        bits(&vars)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn transposed_gradients_are_read_in_the_order_of_the_parameter() {
    let run = |transpose: bool| {
        let vars = parameters();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
        let mut store = gradients(&vars, 1);
        if transpose {
            let gradient = store.remove(&vars[0].1).unwrap();
            let turned = gradient.t().unwrap().contiguous().unwrap().t().unwrap();
            assert!(!turned.is_contiguous());
            store.insert(&vars[0].1, turned);
        }
        optimizer.step(&vars, &[], &[store], &[1.0], 1e-3).unwrap();
        bits(&vars)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let vars = parameters();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
    optimizer
        .step(&vars, &[], &[gradients(&vars, 1)], &[1.0], 1e-3)
        .unwrap();
    let before = bits(&vars);
    let moments: Vec<Vec<f32>> = optimizer
        .parameters()
        .map(|state| state.first_moment.to_vec())
        .collect();
    let mut store = gradients(&vars, 2);
    store.insert(&vars[1].1, Tensor::full(f32::NAN, 33, &Device::Cpu).unwrap());
    let error = optimizer.step(&vars, &[], &[store], &[1.0], 1e-3).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the gradient of 'norm.weight' is not finite at optimiser step 1")
    );
    assert_eq!(bits(&vars), before);
    assert_eq!(optimizer.steps(), 1);
    let after: Vec<Vec<f32>> = optimizer
        .parameters()
        .map(|state| state.first_moment.to_vec())
        .collect();
    assert_eq!(moments, after);
}

#[test]
fn other_parameters_workers_or_shapes_are_refused() {
    let vars = parameters();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
    let mut step = |vars: &[(String, Var)], stores: &[GradStore], weights: &[f64]| {
        optimizer.step(vars, &[], stores, weights, 1e-3).unwrap_err()
    };
    let store = gradients(&vars, 1);
    assert!(matches!(
        step(&vars[..2], &[], &[]),
        OptimizerError::Parameters { index: 2, .. }
    ));
    let mut more = vars.clone();
    more.push(("extra".to_owned(), vars[0].1.clone()));
    assert!(matches!(
        step(&more, &[], &[]),
        OptimizerError::Parameters { index: 3, .. }
    ));
    assert!(matches!(step(&vars, &[], &[]), OptimizerError::Workers { .. }));
    assert!(matches!(
        step(&vars, &[store], &[1.0, 1.0]),
        OptimizerError::Workers { .. }
    ));
    let mut store = gradients(&vars, 1);
    store.insert(&vars[0].1, random(1, &[3]));
    assert!(matches!(
        step(&vars, &[store], &[1.0]),
        OptimizerError::GradientShape { .. }
    ));
    let half = vec![(
        "half".to_owned(),
        Var::zeros(3, DType::F16, &Device::Cpu).unwrap(),
    )];
    assert!(matches!(
        AdamW::new(AdamWConfig::default(), &half, decays_by_default).unwrap_err(),
        OptimizerError::Layout { .. }
    ));
}

#[test]
fn the_average_can_be_written_into_variables() {
    let vars = parameters();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &vars, decays_by_default).unwrap();
    optimizer
        .step(&vars, &[], &[gradients(&vars, 1)], &[1.0], 1e-1)
        .unwrap();
    let copy = parameters();
    assert!(optimizer.write_average(&copy).unwrap());
    let average: Vec<u32> = optimizer
        .parameters()
        .flat_map(|state| state.average.unwrap().to_vec())
        .map(f32::to_bits)
        .collect();
    assert_eq!(bits(&copy), average);
    assert_ne!(bits(&copy), bits(&vars));

    let without = AdamWConfig {
        average_decay: None,
        ..AdamWConfig::default()
    };
    let optimizer = AdamW::new(without, &vars, decays_by_default).unwrap();
    assert!(!optimizer.write_average(&copy).unwrap());
}

#[test]
fn only_matrices_that_are_no_embeddings_decay() {
    assert!(decays_by_default(
        "encoder.layers.0.attention.query.weight",
        &[256, 256]
    ));
    assert!(!decays_by_default("encoder.layers.0.norm.weight", &[256]));
    assert!(!decays_by_default("text_embed.weight", &[5400, 256]));
    assert!(!decays_by_default("vision_positions.weight", &[65, 256]));
    assert!(!decays_by_default("class_token", &[1, 1, 256]));
}

#[test]
fn muon_steps_hidden_matrices_by_directions_of_one_size_and_leaves_the_rest_to_adamw() {
    let (plain, muon) = (parameters(), parameters());
    let config = AdamWConfig {
        max_gradient_norm: None,
        weight_decay: 0.0,
        ..AdamWConfig::default()
    };
    let with_muon = AdamWConfig {
        muon_momentum: Some(0.95),
        ..config
    };
    let before = values(&muon[0].1);
    let rate = 1e-2;
    for (vars, config) in [(&plain, config), (&muon, with_muon)] {
        let stores = [gradients(vars, 1)];
        let mut optimizer = AdamW::new(config, vars, decays_by_default).unwrap();
        optimizer.step(vars, &[], &stores, &[1.0], rate).unwrap();
    }
    assert!(values(&plain[1].1) == values(&muon[1].1) && values(&plain[2].1) == values(&muon[2].1));
    // A semi-orthogonal matrix [7, 33] has the norm sqrt(7).
    let moved: Vec<f32> = values(&muon[0].1)
        .iter()
        .zip(&before)
        .map(|(a, b)| a - b)
        .collect();
    let length = moved.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let expected = rate * 0.2 * 33.0_f64.sqrt() * 7.0_f64.sqrt();
    assert!((length / expected - 1.0).abs() < 0.25, "{length} of {expected}");
    let gradient = values(gradients(&muon, 1).get(&muon[0].1).unwrap());
    let along: f64 = moved.iter().zip(&gradient).map(|(a, b)| f64::from(a * b)).sum();
    assert!(along < 0.0, "a step goes down the gradient");
}
