"""Times ONNX Runtime on the cases of `multiway bench`, on what optimum exports, with the loop of transformers around it.

The first step of decoding also projects what cross-attention needs: `print_written` counts that as encoding, as for the others.
"""

import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from cases import options, print_written, prompts


@torch.inference_mode()
def main():
    args = options(__doc__, ["f32", "int8"])
    torch.set_num_threads(args.threads)
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads, session.inter_op_num_threads = args.threads, 1
    model = ORTModelForSeq2SeqLM.from_pretrained(
        args.checkpoint / f"onnx-{args.dtype}", use_cache=True, use_merged=True, session_options=session
    )
    # optimum divides the width by the heads, which in the small model is not a head's size.
    model.decoder.embed_size_per_head = model.config.d_kv
    source = torch.tensor(prompts(args))  # [B, S]
    mask = torch.ones_like(source)

    def write(tokens, beams=1):
        encoded = model.encoder(input_ids=source, attention_mask=mask).last_hidden_state  # [B, S, D]
        answers = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
        )
        return answers[:, 1:].tolist()  # without the start token

    print_written("ONNX Runtime", args, write)


main()
