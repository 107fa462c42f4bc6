"""Times OpenVINO on the cases of `multiway bench`, on what optimum exports, in a loop of its own: that of transformers is slower.

The first step of decoding also projects what cross-attention needs: `print_written` counts that as encoding, as for the others.
"""

import numpy as np

from cases import END, PAD, options, print_written, prompts
from openvino_models import PRECISIONS, compile_model


def best(logits, scores):
    """Extends beams: returns the best scores [B, K], and of which rows and with which ids [B * K] they come, best first."""
    batch, beams = scores.shape
    logits = logits - logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    logits[:, END] = -np.inf
    all_scores = (logits.reshape(batch, beams, -1) + scores[..., None]).reshape(batch, -1)
    places = np.argpartition(all_scores, -beams)[:, -beams:]
    found = np.take_along_axis(all_scores, places, axis=-1)
    order = np.argsort(-found)
    scores, places = (np.take_along_axis(values, order, axis=-1) for values in (found, places))
    parents, ids = np.divmod(places, logits.shape[-1])
    return scores, (parents + beams * np.arange(batch)[:, None]).reshape(-1), ids.reshape(-1)


def main():
    args = options(__doc__, list(PRECISIONS))
    folder = args.checkpoint / f"openvino-{'int8' if args.dtype == 'int8' else 'f32'}"
    parts = [compile_model(folder / f"openvino_{part}_model.xml", args) for part in ("encoder", "decoder")]
    encoder, decoder = (part.create_infer_request() for part in parts)
    source = np.array(prompts(args))  # [B, S]
    mask = np.ones_like(source)

    def infer(request, **inputs):
        # Copies the inputs: with shared ones 2026.4.1 crashes in bf16 and int8, or writes other tokens.
        return request.infer(inputs, share_outputs=True)[0]

    def write(tokens, beams=1):
        encoded = infer(encoder, input_ids=source, attention_mask=mask)  # [B, S, D]
        # Given once: a request keeps what it was given.
        given = {"encoder_hidden_states": encoded.repeat(beams, 0), "encoder_attention_mask": mask.repeat(beams, 0)}
        rows = np.arange(args.batch * beams)
        answers = np.full((len(rows), 1), PAD)
        # All beams begin alike: only the first counts.
        scores = np.full((args.batch, beams), -np.inf, dtype=np.float32)
        scores[:, 0] = 0
        decoder.reset_state()
        for _ in range(tokens):
            logits = infer(decoder, input_ids=answers[:, -1:], beam_idx=rows.astype(np.int32), **given)[:, -1]  # [B * K, V]
            given = {}
            if beams > 1:
                scores, rows, ids = best(logits, scores)
            else:
                logits[:, END] = -np.inf
                ids = logits.argmax(axis=-1)
            answers = np.concatenate([answers[rows], ids[:, None]], axis=1)
        return answers[::beams, 1:].tolist()  # without the start token

    print_written("OpenVINO", args, write)


main()
