"""Times CTranslate2 on the cases of `multiway bench`. A call encodes and decodes in one; `encoding_time` tells both apart."""

import json

import ctranslate2

from cases import END, WARM_TOKENS, encoding_time, options, print_line, prompts, timed

COMPUTE = {"f32": "float32", "int8": "int8"}


def main():
    args = options(__doc__, list(COMPUTE))
    folder = args.checkpoint / f"ctranslate2-{args.dtype}"
    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type=COMPUTE[args.dtype], inter_threads=1, intra_threads=args.threads
    )
    vocabulary = json.loads((folder / "shared_vocabulary.json").read_text())
    sources = [[vocabulary[token] for token in prompt] for prompt in prompts(args)]

    def write(tokens, beams=1):
        results = translator.translate_batch(
            sources,
            beam_size=beams,
            max_batch_size=0,
            max_input_length=0,
            min_decoding_length=tokens,
            max_decoding_length=tokens,
            return_scores=False,
        )
        return [result.hypotheses[0] for result in results]

    write(WARM_TOKENS, args.beams)
    decodes = args.verb == "decode"
    new_tokens = args.new_tokens if decodes else WARM_TOKENS
    encode_times, decode_times, answers = [], [], []
    for _ in range(args.repeats):
        encoding = encoding_time(write)
        whole, answers = timed(lambda: write(new_tokens, args.beams))
        encode_times.append(encoding)
        decode_times.append(whole - encoding)
    ids = {token: place for place, token in enumerate(vocabulary)}
    tokens = [[ids[token] for token in answer] for answer in answers]
    assert all(len(answer) == new_tokens and END not in answer for answer in tokens), "an answer has another length"
    print_line("CTranslate2", args, encode_times, decode_times if decodes else None, tokens)


main()
