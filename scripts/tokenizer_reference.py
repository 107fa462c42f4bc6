#!/usr/bin/env python3
"""Token ids and texts back, by PyPI's `tokenizers` and by the slow classes of `transformers`, for a corpus of many scripts.

usage: tokenizer_reference.py OUT FOLDER [FOLDER ...]

For each folder with a tokenizer.json, writes OUT/NAME-json.json; for each with a spiece.model or a beit3.spm, OUT/NAME-spm.json, and beside it a
folder OUT/NAME-spm with the files that the slow class reads. Each record is {"folder": path, "kind": ..., "texts": [[text, ids, closed ids, text back],
...]}. Texts that spell a special token of the file are left out: there they are text, which these libraries do not promise.
The corpus is made from Unicode blocks with a fixed seed: words of letters of one script, emoji, controls, long words, code, and spaces.
"""
import json
import pathlib
import random
import shutil
import sys
import unicodedata

import tokenizers
import transformers

# First and last code point of a part of each script that has letters.
BLOCKS = {
    "Latin": (0x41, 0x24F), "Greek": (0x370, 0x3FF), "Cyrillic": (0x400, 0x4FF), "Armenian": (0x531, 0x587), "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x620, 0x6D3), "Syriac": (0x710, 0x72F), "Thaana": (0x780, 0x7B1), "Devanagari": (0x900, 0x97F), "Bengali": (0x980, 0x9FB),
    "Gurmukhi": (0xA01, 0xA74), "Gujarati": (0xA81, 0xAF1), "Oriya": (0xB01, 0xB77), "Tamil": (0xB82, 0xBFA), "Telugu": (0xC00, 0xC7F),
    "Kannada": (0xC80, 0xCF2), "Malayalam": (0xD00, 0xD7F), "Sinhala": (0xD82, 0xDF4), "Thai": (0xE01, 0xE5B), "Lao": (0xE81, 0xEDF),
    "Tibetan": (0xF00, 0xFBC), "Burmese": (0x1000, 0x109F), "Georgian": (0x10A0, 0x10FF), "Hangul": (0xAC00, 0xD7A3),
    "Ethiopic": (0x1200, 0x137C), "Cherokee": (0x13A0, 0x13F5), "Khmer": (0x1780, 0x17F9), "Mongolian": (0x1820, 0x18AA),
    "Kana": (0x3041, 0x30FF), "Han": (0x4E00, 0x9FFF), "Half and full width": (0xFF01, 0xFFEE), "Emoji": (0x1F300, 0x1FAFF),
    "Mathematical": (0x1D400, 0x1D7FF), "Combining": (0x300, 0x36F),
}
LINES = 24


def assigned(first, last):
    return [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def corpus():
    rng = random.Random(20240101)
    texts = ["", " ", "  two  spaces ", "</s>", "<unk> <s> </s> <pad>", "<extra_id_0>", "\u2581\u2581lower\u2581", "a" * 300, "Donaudampfschiff" * 12,
             "controls \x00\x01\x07\x7f\x85\u00ad\u200b\u200d\u2060\ufeff end", "tabs\tand\nlines\r\n", "\u202eright\u202c", "👩‍👩‍👧‍👦👍🏽🏳️‍🌈🇵🇹",
             "def f(x):\n    return {\"a\": [x, 1]}  # {} <b> [c]", " leading", "trailing ", "\n\nlines\n\n",
             "https://example.org/a?b=c#d", "3.14159 1,000,000 ½ ① ㍿ ﬁ Å"]
    for letters in (assigned(*block) for block in BLOCKS.values()):
        for _ in range(LINES):
            words = ("".join(rng.choice(letters) for _ in range(rng.randint(1, 14))) for _ in range(rng.randint(1, 9)))
            texts.append(rng.choice([" ", " ", "  ", ", ", ""]).join(words))
    every = [letter for block in BLOCKS.values() for letter in assigned(*block)]
    for _ in range(200):
        texts.append("".join(rng.choice(every + [" "] * 200) for _ in range(rng.randint(1, 60))))
    return texts


def record(out, name, folder, kind, encode, decode, special, texts):
    texts = [text for text in texts if not any(token in text for token in special)]
    rows = []
    for text in texts:
        ids = encode(text, False)
        rows.append([text, ids, encode(text, True), decode(ids)])
    (out / f"{name}.json").write_text(json.dumps({"folder": str(folder), "kind": kind, "texts": rows}, ensure_ascii=False))
    print(f"{name}: {len(rows)} texts, {len(BLOCKS)} scripts and kinds, by {kind}")


def fast(out, name, folder, texts):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    # What the model's own vocabulary spells as special tokens are spelled.
    special += ["</s>", "<s>", "<pad>", "<unk>", "<extra_id_"]
    encode = lambda text, closed: tokenizer.encode(text, add_special_tokens=closed).ids
    record(out, f"{name}-json", folder, f"tokenizers {tokenizers.__version__}", encode, tokenizer.decode, special, texts)


def slow(out, name, folder, texts):
    # The slow class would read the added tokens of a tokenizer.json too.
    copy = out / f"{name}-spm"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for file in ("spiece.model", "beit3.spm", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        if (folder / file).exists():
            shutil.copyfile(folder / file, copy / file)
    if (copy / "spiece.model").exists():
        tokenizer = transformers.T5Tokenizer.from_pretrained(str(copy))
    else:
        tokenizer = transformers.XLMRobertaTokenizer(str(copy / "beit3.spm"))
    encode = lambda text, closed: tokenizer(text, add_special_tokens=closed)["input_ids"]
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    record(out, f"{name}-spm", copy, f"{type(tokenizer).__name__} of transformers {transformers.__version__}", encode, decode,
           tokenizer.all_special_tokens, texts)


def main():
    out, folders = pathlib.Path(sys.argv[1]), [pathlib.Path(folder).resolve() for folder in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    texts = corpus()
    for folder in folders:
        if (folder / "tokenizer.json").exists():
            fast(out, folder.name, folder, texts)
        if (folder / "spiece.model").exists() or (folder / "beit3.spm").exists():
            slow(out, folder.name, folder, texts)


main()
