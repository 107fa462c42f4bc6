#!/usr/bin/env python3
"""Answers by `transformers` for random generation settings.

usage: generation_reference.py OUT TOKENIZER_JSON [COUNT=320] [SEED=1]

Writes a small random T5 into OUT/model (its weights and config.json) and OUT/cases.json: {"cases": [{"file": which file holds the keys, "keys": how to generate,
"text": prompt, "ids": what is written, the start token first}, ...]}. tests/fixtures/generation is what COUNT 320 and SEED 1 make. Every setting is drawn by the seed: greedy or with beams, and any of the keys that are followed. Most are in
generation_config.json; every fifth checkpoint has none, and the keys are in its config.json, as before 2023.
"""
import json
import pathlib
import random
import sys
import warnings

import torch
import transformers

VOCAB = 160
SENTINELS = 100
WORDS = ["the", "house", "is", "wonderful", "a", "red", "small", "on", "in", "green", "of", "it"]


def make_model(folder, tokenizer):
    torch.manual_seed(5)
    config = transformers.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.0 if "embed" in name or "shared" in name or "lm_head" in name else 0.35)
        # Ends are likely enough to come by themselves.
        model.lm_head.weight[1] *= 2.0
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))


def some(rng, share):
    return rng.random() < share


def draw(rng):
    """Draws settings."""
    token = lambda: rng.randrange(2, VOCAB)
    keys = {}
    if some(rng, 0.7):
        keys["max_new_tokens"] = rng.randrange(2, 14)
    elif some(rng, 0.7):
        keys["max_length"] = rng.choice([5, 9, 13, 20, 21])
    else:
        keys["max_new_tokens"] = 6
    if some(rng, 0.55):
        keys["num_beams"] = rng.randrange(2, 6)
        if some(rng, 0.6):
            keys["length_penalty"] = rng.choice([-1.0, 0.0, 0.4, 1.0, 2.0])
        if some(rng, 0.5):
            keys["early_stopping"] = rng.choice([True, False, "never"])
    if some(rng, 0.3):
        keys["no_repeat_ngram_size"] = rng.randrange(1, 4)
    if some(rng, 0.3):
        keys["repetition_penalty"] = rng.choice([0.7, 1.2, 1.7])
    if some(rng, 0.25):
        keys["min_new_tokens"] = rng.randrange(1, 4)
    elif some(rng, 0.2):
        keys["min_length"] = rng.randrange(1, 5)
    if some(rng, 0.35):
        keys["bad_words_ids"] = [[token() for _ in range(rng.choice([1, 1, 1, 2, 3]))] for _ in range(rng.randrange(1, 30))]
        if some(rng, 0.2):
            keys["bad_words_ids"].append([1])
    if some(rng, 0.3):
        biased = {tuple(token() for _ in range(rng.choice([1, 1, 2]))): rng.choice([-8.0, -2.5, 1.5, 6.0]) for _ in range(rng.randrange(1, 20))}
        keys["sequence_bias"] = [[list(sequence), bias] for sequence, bias in biased.items()]
    if some(rng, 0.3):
        keys["suppress_tokens"] = [token() for _ in range(rng.randrange(1, 40))]
    if some(rng, 0.3):
        keys["begin_suppress_tokens"] = [rng.randrange(1, VOCAB) for _ in range(rng.randrange(1, 60))]
    if some(rng, 0.2):
        keys["forced_bos_token_id"] = token()
    if some(rng, 0.25):
        # With beams, two forced tokens have the same score, and torch's order of equal ones is its own.
        keys["forced_eos_token_id"] = rng.choice([1, 1, [1, token()]]) if "num_beams" not in keys else 1
    # An end that is banned and made likelier at once has no score (-inf + inf) in transformers.
    if some(rng, 0.25) and "min_length" not in keys and "min_new_tokens" not in keys:
        keys["exponential_decay_length_penalty"] = [rng.randrange(1, 5), rng.choice([1.05, 1.3, 1.8])]
    if some(rng, 0.25):
        keys["decoder_start_token_id"] = rng.choice([3, 7, 40, VOCAB - 1])
    if some(rng, 0.15):
        keys["eos_token_id"] = [1, token()]
    return keys


def main():
    out, tokenizer_json = pathlib.Path(sys.argv[1]), sys.argv[2]
    count, seed = int(sys.argv[3]) if len(sys.argv) > 3 else 320, int(sys.argv[4]) if len(sys.argv) > 4 else 1
    out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    folder = out / "model"
    tokenizer = make_model(folder, tokenizer_json)
    plain = json.loads((folder / "config.json").read_text())
    rng = random.Random(seed)
    cases, differing = [], set()
    for number in range(count):
        keys = draw(rng)
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 9)))
        if number % 5 == 4:
            keys.pop("eos_token_id", None)
            file = "config.json"
        else:
            file = "generation_config.json"
            keys = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, **keys}
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "config.json").write_text(json.dumps(plain))
        (folder / file).write_text(json.dumps({**plain, **keys} if file == "config.json" else keys))
        model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
        with torch.no_grad():
            ids = model.generate(torch.tensor([tokenizer(text)["input_ids"]]))[0].tolist()
        # Beams that ended are filled with padding.
        ends = keys.get("eos_token_id", 1)
        ends = ends if isinstance(ends, list) else [ends]
        while len(ids) > 1 and ids[-1] == 0 and any(end in ids[1:] for end in ends):
            ids.pop()
        differing.add(tuple(ids[1:]))
        cases.append({"file": file, "keys": keys, "text": text, "ids": ids})
    (folder / "config.json").write_text(json.dumps(plain, indent=1) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (out / "cases.json").write_text(f'{{"transformers": "{transformers.__version__}", "seed": {seed}, "cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} settings by transformers {transformers.__version__}, seed {seed}; {len(differing)} different answers")


main()
