"""Times torchscale's BEiT-3 encoder, on PyTorch, on the cases of `multiway bench encode`."""

import json

import torch
from safetensors.torch import load_file
from torchscale.architecture.config import EncoderConfig
from torchscale.model.BEiT3 import BEiT3

from cases import options, print_line, prompts, timed

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def load(folder, dtype):
    """Loads our checkpoint into torchscale's model; every weight of it must be there."""
    config = json.loads((folder / "config.json").read_text())
    names = [
        "encoder_embed_dim", "encoder_attention_heads", "encoder_ffn_embed_dim", "encoder_layers", "normalize_output",
        "vocab_size", "img_size", "patch_size", "max_source_positions",
    ]
    # Without memory, so that only the checkpoint's weights take any.
    with torch.device("meta"):
        model = BEiT3(
            EncoderConfig(
                **{name: config[name] for name in names},
                multiway=True, layernorm_embedding=False, no_output_layer=True, drop_path_rate=0.0, dropout=0.0,
            )
        )
    prefix = "beit3."
    weights = load_file(folder / "model.safetensors")
    weights = {name.removeprefix(prefix): value.to(dtype) for name, value in weights.items() if name.startswith(prefix)}
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    missing = [name for name in missing if "mask_token" not in name]
    assert not missing and not unexpected, f"missing {missing}, unexpected {unexpected}"
    return model.eval(), config


@torch.inference_mode()
def main():
    args = options(__doc__, list(DTYPES))
    assert args.verb == "encode" and args.pictures in (0, 1), "torchscale encodes a picture and a text"
    torch.set_num_threads(args.threads)
    dtype = DTYPES[args.dtype]
    model, config = load(args.checkpoint, dtype)
    side = config["img_size"]
    pictures = torch.rand(args.batch, 3, side, side).mul(2).sub(1).to(dtype) if args.pictures else None
    text = torch.tensor(prompts(args)) if args.source_length else None

    def encode():
        return model(textual_tokens=text, visual_tokens=pictures)["encoder_out"]

    encode()
    times = [timed(encode)[0] for _ in range(args.repeats)]
    print_line("torchscale", args, times)


if __name__ == "__main__":
    main()
