"""Times transformers' T5, on PyTorch, on the cases of `multiway bench`."""

import torch
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from cases import END, WARM_TOKENS, options, print_line, prompts, timed

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@torch.inference_mode()
def main():
    args = options(__doc__, list(DTYPES))
    torch.set_num_threads(args.threads)
    model = T5ForConditionalGeneration.from_pretrained(args.checkpoint, dtype=DTYPES[args.dtype]).eval()
    source = torch.tensor(prompts(args))  # [B, S]
    mask = torch.ones_like(source)
    cross = [block.layer[1].EncDecAttention for block in model.decoder.block]

    def encode():
        return model.encoder(input_ids=source, attention_mask=mask)[0]  # [B, S, D]

    def project(encoded):
        # What the first step does once a prompt: it counts as encoding, as it does for the others.
        return [(layer.k(encoded), layer.v(encoded)) for layer in cross]

    def write(encoded, tokens):
        answers = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            num_beams=args.beams,
            do_sample=False,
            use_cache=True,
        )
        return answers[:, 1:].tolist()  # without the start token

    encoded = encode()
    project(encoded)
    decodes = args.verb == "decode"
    if decodes:
        write(encoded, min(WARM_TOKENS, args.new_tokens))
    encode_times, decode_times, tokens = [], [], None
    for _ in range(args.repeats):
        encoding, encoded = timed(encode)
        projecting, _ = timed(lambda: project(encoded))
        encode_times.append(encoding + projecting)
        if decodes:
            writing, tokens = timed(lambda: write(encoded, args.new_tokens))
            decode_times.append(writing - projecting)
    if decodes:
        assert all(len(answer) == args.new_tokens and END not in answer for answer in tokens), "another length"
    print_line("transformers", args, encode_times, decode_times if decodes else None, tokens)


main()
