"""Makes of a random checkpoint what the peers read: `prepare.py FROM OUT`.

For T5, OUT holds the same weights, a full configuration, a tokenizer whose tokens are the ids' names, and what CTranslate2's own
converter makes of them, in f32 and int8; where optimum is installed, also what it exports for ONNX Runtime. For BEiT-3, OUT holds
the same files as FROM. What OpenVINO reads, `prepare_openvino.py` adds.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path


def make_tokenizer(folder, size):
    """Writes a tokenizer in which the token of id 123 is `t123`: the peers take ids, but the converter wants names."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {token: place for place, token in enumerate(special)}
    vocabulary |= {f"t{place}": place for place in range(len(special), size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


def export_onnx(out):
    """Exports the model for ONNX Runtime, and quantises what was exported as its own tool does."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from optimum.exporters.onnx import main_export
    except ImportError:
        return
    full, small = out / "onnx-f32", out / "onnx-int8"
    main_export(str(out), output=str(full), task="text2text-generation-with-past", do_validation=False)
    # The merged decoder does the work of these two.
    for part in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        (full / part).unlink()
    shutil.copytree(full, small, ignore=shutil.ignore_patterns("*.onnx"))
    for graph in full.glob("*.onnx"):
        # The merged decoder is two graphs in one.
        options = {"EnableSubgraph": True}
        quantize_dynamic(graph, small / graph.name, weight_type=QuantType.QInt8, per_channel=True, extra_options=options)


def prepare_t5(out, config):
    from transformers import GenerationConfig, T5Config

    full = T5Config(**config, architectures=["T5ForConditionalGeneration"])
    full.save_pretrained(out)
    GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(out)
    make_tokenizer(out, config["vocab_size"])
    converter = Path(sys.executable).parent / "ct2-transformers-converter"
    for name, options in [("f32", []), ("int8", ["--quantization", "int8"])]:
        target = out / f"ctranslate2-{name}"
        subprocess.run([converter, "--model", out, "--output_dir", target, "--force", *options], check=True)
    export_onnx(out)


def main():
    source, out = map(Path, sys.argv[1:])
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    weights = "model.safetensors"
    (part / weights).symlink_to((source / weights).resolve())
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] == "t5":
        prepare_t5(part, config)
    else:
        shutil.copy(source / "config.json", part)
    # Under its own name only once it is whole.
    part.rename(out)


main()
