//! Files as `torch.save` writes them, and every way in which one can lie.

use std::fs;
use std::io::{Cursor, Write};

use candle_core::{DType, Device, Tensor};
use insta::assert_snapshot;
use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::config::ModelConfig;
use crate::init::initialise;
use crate::kernels::WeightType;

/// Writes the operations of a pickle, in the order in which PyTorch does.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap();
        self.op(b"X").op(&length.to_le_bytes()).op(text.as_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn int(self, value: usize) -> Self {
        let value = i32::try_from(value).unwrap();
        self.op(b"J").op(&value.to_le_bytes())
    }

    fn ints(self, values: &[usize]) -> Self {
        values
            .iter()
            .fold(self.op(b"("), |pickle, value| pickle.int(*value))
            .op(b"t")
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())`
    fn tensor(self, key: &str, class: &str, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let stride: Vec<usize> = (0..shape.len())
            .map(|axis| shape[axis + 1..].iter().product())
            .collect();
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", class)
            .text(key)
            .text("cpu")
            .int(count)
            .op(b"tQ")
            .int(0)
            .ints(shape)
            .ints(&stride)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    /// `{"model": OrderedDict(name=tensor, ...)}`, with each name remembered as Python does.
    fn state(tensors: &[(String, Tensor)], class: &str) -> Self {
        let mut pickle = Self::default()
            .op(b"\x80\x02}q\x00")
            .text("model")
            .op(b"q\x01")
            .global("collections", "OrderedDict")
            .op(b")R(");
        for (key, (name, tensor)) in tensors.iter().enumerate() {
            pickle = pickle
                .text(name)
                .op(b"q\x02")
                .tensor(&key.to_string(), class, tensor.dims());
        }
        // `state_dict()` has an attribute, which follows the items.
        pickle
            .op(b"u}")
            .text("_metadata")
            .global("collections", "OrderedDict")
            .op(b")R(")
            .text("")
            .op(b"}")
            .text("version")
            .op(b"K\x01susbs.")
    }
}

pub(super) fn archive(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages.iter().enumerate() {
        zip.start_file(format!("archive/data/{key}"), stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub(super) fn bytes(tensor: &Tensor) -> Vec<u8> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn config(task: &str) -> ModelConfig {
    let json = format!(
        r#"{{"model_type": "beit3", "task": "{task}", "num_classes": 3, "encoder_embed_dim": 64,
        "encoder_attention_heads": 1, "encoder_ffn_embed_dim": 32, "encoder_layers": 2, "max_source_positions": 20,
        "normalize_output": {}, "vocab_size": 30, "img_size": 16, "patch_size": 4}}"#,
        !["vqa", "imageclassification"].contains(&task)
    );
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

const TASKS: [&str; 7] = [
    "encoder",
    "vqa",
    "nlvr2",
    "imageclassification",
    "retrieval",
    "captioning",
    "pretraining",
];

pub(super) fn tensors(config: &ModelConfig) -> Vec<(String, Tensor)> {
    initialise(config, 5, &Device::Cpu).unwrap()
}

pub(super) fn file(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let storages: Vec<_> = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect();
    archive(&Pickle::state(tensors, "FloatStorage").0, &storages)
}

fn open(file: &[u8]) -> Result<Checkpoint, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    fs::write(&path, file).unwrap();
    Checkpoint::open(&path)
}

/// Says why a file is refused, without where it lies.
fn refusal(file: &[u8]) -> String {
    let error = open(file).unwrap_err().to_string();
    match error.split_once("model.pth'") {
        Some((_, rest)) => rest.to_owned(),
        None => error,
    }
}

#[test]
fn a_file_without_config_tells_what_it_is_for_every_task() {
    for task in TASKS {
        let config = config(task);
        let tensors = tensors(&config);
        let checkpoint = open(&file(&tensors)).unwrap();
        assert_eq!(*checkpoint.config(), config, "{task}");
        for (name, tensor) in &tensors {
            let loaded = checkpoint.load_tensor(name, &Device::Cpu, DType::F32).unwrap();
            assert_eq!(bytes(&loaded), bytes(tensor), "{task}: {name}");
        }
    }
}

#[test]
fn the_shared_attention_and_the_fusion_layers_of_the_giant_are_found() {
    let json: serde_json::Value = serde_json::from_str(&config("pretraining").to_json()).unwrap();
    for (shared, fusion) in [(true, 0), (true, 1), (false, 1), (true, 2)] {
        let mut json = json.clone();
        json["shared_attention"] = shared.into();
        json["fusion_layers"] = fusion.into();
        let mut expected = ModelConfig::from_json(json.to_string().as_bytes()).unwrap();
        let checkpoint = open(&file(&tensors(&expected))).unwrap();
        // Where every layer is fused there is no attention left to share.
        expected.shared_attention |= fusion == 2;
        assert_eq!(*checkpoint.config(), expected, "{shared} {fusion}");
        let model = crate::Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
        let sample = crate::EncoderSample {
            images: &[],
            tokens: &[0, 7, 2],
        };
        let batch = crate::EncoderBatch::new(model.config(), &[sample]).unwrap();
        let encoded = model.encode(&batch).unwrap();
        assert_eq!(model.word_logits(&encoded, &[1]).unwrap().dims(), [1, 30]);
    }
}

/// Packing compares the two, and fails where they differ.
#[test]
fn such_a_file_can_be_packed_for_every_task() {
    for task in TASKS {
        let (config, out) = (config(task), tempfile::tempdir().unwrap());
        let original = open(&file(&tensors(&config))).unwrap();
        original.pack(out.path(), WeightType::Bf16, &[]).unwrap();
        let packed = Checkpoint::open(out.path()).unwrap();
        assert_eq!(packed.config(), original.config(), "{task}");
        assert_eq!(packed.packed(), Some(WeightType::Bf16));
    }
}

#[test]
fn a_folder_with_one_such_file_is_a_checkpoint() {
    let config = config("vqa");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("beit3_tiny.pth"), file(&tensors(&config))).unwrap();
    assert_eq!(*Checkpoint::open(folder.path()).unwrap().config(), config);
    // With a second such file, neither is believed, but one can be named.
    fs::write(folder.path().join("other.pth"), b"").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    let error = error.replace(folder.path().to_str().unwrap(), "FOLDER");
    assert_snapshot!(error, @"'FOLDER' has several files with weights (beit3_tiny.pth, other.pth): name the one to use, such as 'FOLDER/beit3_tiny.pth', instead of the folder");
    assert_eq!(
        *Checkpoint::open(folder.path().join("beit3_tiny.pth"))
            .unwrap()
            .config(),
        config
    );
}

#[test]
fn what_pickles_can_do_beyond_describing_tensors_is_refused() {
    let mut refusals = Vec::new();
    let system = Pickle::default()
        .op(b"\x80\x02")
        .global("posix", "system")
        .text("true")
        .op(b"\x85R.");
    refusals.push(refusal(&archive(&system.0, &[])));
    // INST, which makes an object of a class.
    refusals.push(refusal(&archive(b"\x80\x02(iposix\nsystem\n.", &[])));
    let long = Pickle::default().op(b"X\xff\xff\xff\xff.");
    refusals.push(refusal(&archive(&long.0, &[])));
    // Each round remembers a pair of what was remembered before: a copy would double in size. Here nothing is
    // copied, so that it is refused for what it is not.
    let mut bomb = Pickle::default().op(b"Nq\x00");
    for _ in 0..40 {
        bomb = bomb.op(b"h\x00h\x00\x86q\x00");
    }
    refusals.push(refusal(&archive(&bomb.op(b".").0, &[])));
    // Nor does anything follow how deep objects lie in each other.
    let deep = (0..1000).fold(Pickle::default().op(b"N"), |pickle, _| pickle.op(b"\x85"));
    refusals.push(refusal(&archive(&deep.op(b".").0, &[])));
    // A long name, recalled again and again; marks; and an error that would repeat what it found.
    let name = "x".repeat(1 << 20);
    let names = (0..1000).fold(
        Pickle::default().global("torch", &name).op(b"q\x00"),
        |pickle, _| pickle.op(b"h\x00"),
    );
    refusals.push(refusal(&archive(&names.op(b".").0, &[])));
    refusals.push(refusal(&archive(&vec![b'('; 3 << 20], &[])));
    let text = Pickle::default().text(&"y".repeat(1 << 12)).op(b"Na.");
    refusals.push(refusal(&archive(&text.0, &[])));
    refusals.push(refusal(&archive(b"\x80\x02]s.", &[])));
    refusals.push(refusal(&archive(b"\x80\x02].", &[])));
    assert_snapshot!(refusals.join("\n"));
}

#[test]
fn names_through_which_python_would_reach_beyond_data_are_refused_wherever_they_stand() {
    let names = [
        ("os", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("types", "FunctionType"),
        ("importlib.util", "module_from_spec"),
        ("runpy", "_run_code"),
    ];
    for (module, name) in names {
        let beside = |pickle: Pickle| {
            pickle
                .op(b"\x80\x02}(")
                .text("weight")
                .tensor("0", "FloatStorage", &[2])
                .text("args")
        };
        let called = beside(Pickle::default())
            .global(module, name)
            .text("true")
            .op(b"\x85Ru.");
        let on_stack = beside(Pickle::default()).text(module).text(name).op(b"\x93u.");
        for pickle in [called, on_stack] {
            let refusal = refusal(&archive(&pickle.0, &[vec![0; 8]]));
            let expected = format!("names '{module}.{name}', which no checkpoint needs");
            assert!(refusal.contains(&expected), "{refusal}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_tensor_is_said_by_its_name() {
    let mut refusals = Vec::new();
    let all = tensors(&config("vqa"));
    let storages: Vec<_> = all.iter().map(|(_, tensor)| bytes(tensor)).collect();
    refusals.push(refusal(&archive(
        &Pickle::state(&all, "DoubleStorage").0,
        &storages,
    )));
    let mut short = storages.clone();
    short[3].truncate(8);
    refusals.push(refusal(&archive(&Pickle::state(&all, "FloatStorage").0, &short)));
    refusals.push(refusal(&archive(
        &Pickle::state(&all, "FloatStorage").0,
        &storages[..4],
    )));
    let expert = "beit3.encoder.layers.1.ffn.B.fc1.weight";
    let without: Vec<_> = all.iter().filter(|(name, _)| name != expert).cloned().collect();
    refusals.push(refusal(&file(&without)));
    let no_tensor = Pickle::default()
        .op(b"\x80\x02}")
        .text("model")
        .op(b"}")
        .text("weight")
        .text("none")
        .op(b"ss.");
    refusals.push(refusal(&archive(&no_tensor.0, &[])));
    let shared = (0..40).fold(Pickle::default().op(b"}("), |pickle, n| {
        pickle
            .text(&format!("weight{n}"))
            .tensor("0", "FloatStorage", &[100, 100])
    });
    refusals.push(refusal(&archive(&shared.op(b"u.").0, &[vec![0; 40_000]])));
    let other = [(
        "weight".to_owned(),
        Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap(),
    )];
    refusals.push(refusal(&file(&other)));
    assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_file_that_lacks_any_one_tensor_is_refused_by_its_name() {
    let mut models = TASKS.map(config).to_vec();
    let giant = serde_json::from_str(&config("retrieval").to_json());
    let mut giant: serde_json::Value = giant.unwrap();
    giant["shared_attention"] = true.into();
    giant["fusion_layers"] = 1.into();
    models.push(ModelConfig::from_json(giant.to_string().as_bytes()).unwrap());
    for config in models {
        let all = tensors(&config);
        for (lacking, _) in &all {
            let rest: Vec<_> = all.iter().filter(|(name, _)| name != lacking).cloned().collect();
            let refusal = refusal(&file(&rest));
            assert!(refusal.contains(&format!("'{lacking}'")), "{lacking}: {refusal}");
        }
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let mut refusals = Vec::new();
    let whole = file(&tensors(&config("encoder")));
    refusals.push(refusal(&whole[..whole.len() / 2]));
    refusals.push(refusal(&whole[..3]));
    refusals.push(refusal(b""));
    assert_snapshot!(refusals.join("\n"));
}

proptest! {
    #[test]
    fn a_damaged_file_is_an_error_or_a_checkpoint_and_never_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        of_pickle in any::<bool>(),
    ) {
        let tensors = tensors(&config("encoder"));
        let storages: Vec<_> = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect();
        let mut pickle = Pickle::state(&tensors, "FloatStorage").0;
        let hit = |bytes: &mut Vec<u8>, places: usize, first: usize| {
            for (place, value) in &damage {
                if let Some(byte) = bytes.get_mut(first + place.index(places)) {
                    *byte = *value;
                }
            }
        };
        if of_pickle {
            // The archive has a sum of its contents, so it is made of the damaged pickle.
            let length = pickle.len();
            hit(&mut pickle, length, 0);
        }
        let mut file = archive(&pickle, &storages);
        if !of_pickle {
            // Most bytes are numbers, which may be anything: the damage goes to the archive's table.
            let table = file.len() - 6000;
            hit(&mut file, 6000, table);
        }
        let _ = open(&file);
    }
}
