"""Times OpenVINO on the cases of `multiway bench encode`, on what its own converter makes of torchscale's BEiT-3 encoder."""

import json

import numpy as np

from cases import options, print_line, prompts, timed
from openvino_models import compile_model


def main():
    args = options(__doc__, ["f32", "bf16"])
    assert args.verb == "encode" and args.pictures == 1, "a picture is converted, and a picture with a text"
    name = "picture-text" if args.source_length else "picture"
    request = compile_model(args.checkpoint / "openvino-f32" / f"{name}.xml", args).create_infer_request()
    side = json.loads((args.checkpoint / "config.json").read_text())["img_size"]
    inputs = {"pictures": np.random.default_rng(0).uniform(-1, 1, (args.batch, 3, side, side)).astype(np.float32)}
    if args.source_length:
        inputs["text"] = np.array(prompts(args))

    def encode():
        return request.infer(inputs, share_outputs=True)[0]

    encode()
    times = [timed(encode)[0] for _ in range(args.repeats)]
    print_line("OpenVINO", args, times)


main()
