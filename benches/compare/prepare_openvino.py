"""Adds what OpenVINO reads to what `prepare.py` made: `prepare_openvino.py FOLDER`, in OpenVINO's own environment.

For T5, FOLDER/openvino-f32 holds what optimum exports, with the cache of decoding inside the model, and FOLDER/openvino-int8 the
same with weights that nncf rounds to int8. For BEiT-3, FOLDER/openvino-f32 holds torchscale's encoder, converted for a picture,
and once more for a picture and a text.
"""

import json
import shutil
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"


def export_t5(folder, out):
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    main_export(str(folder), output=out, task="text2text-generation-with-past", ov_config=OVConfig(dtype="fp32"))


def compress(folder, out):
    """Rounds the weights of each model in a folder to int8, a scale for each row."""
    import nncf
    import openvino

    for model in folder.glob("*.xml"):
        compressed = nncf.compress_weights(openvino.Core().read_model(model))
        openvino.save_model(compressed, out / model.name, compress_to_fp16=False)


def convert_beit3(folder, out):
    import openvino
    import torch

    sys.path.insert(0, str(PEERS))
    from torchscale_beit3 import load

    class Encoder(torch.nn.Module):
        """The encoder without what else it returns."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, pictures, text=None):
            return self.model(textual_tokens=text, visual_tokens=pictures)["encoder_out"]

    model, config = load(folder, torch.float32)
    # Two of each: a dimension that is 1 when it is traced may be taken for fixed.
    pictures = torch.zeros(2, 3, config["img_size"], config["img_size"])
    text = torch.zeros(2, 8, dtype=torch.int64)
    sides = [-1, *pictures.shape[1:]]
    for name, inputs, shapes in [
        ("picture", {"pictures": pictures}, {"pictures": sides}),
        ("picture-text", {"pictures": pictures, "text": text}, {"pictures": sides, "text": [-1, -1]}),
    ]:
        with torch.inference_mode():
            converted = openvino.convert_model(Encoder(model).eval(), example_input=inputs, input=shapes)
        openvino.save_model(converted, out / f"{name}.xml", compress_to_fp16=False)


def make(target, work):
    """Makes a folder unless it is there, under its own name only once it is whole."""
    if target.exists():
        return
    part = target.with_name("openvino.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    work(part)
    part.rename(target)


def main():
    folder = Path(sys.argv[1])
    full, small = folder / "openvino-f32", folder / "openvino-int8"
    if json.loads((folder / "config.json").read_text())["model_type"] == "t5":
        make(full, lambda out: export_t5(folder, out))
        make(small, lambda out: compress(full, out))
    else:
        make(full, lambda out: convert_beit3(folder, out))


main()
