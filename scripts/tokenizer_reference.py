#!/usr/bin/env python3
"""Token ids of PyPI's `sentencepiece` and `tokenizers` for a corpus of many scripts.

usage: tokenizer_reference.py OUT NAME SPM JSON [NAME SPM JSON ...]

Writes OUT/NAME.json: {"spm": path, "json": path, "texts": [[text, ids by sentencepiece, ids by tokenizers], ...],
"decoded": the text that sentencepiece makes of each id alone}.
The corpus is made from Unicode blocks with a fixed seed: words of letters of one script, emoji, controls, long words, and spellings of
special tokens.
"""
import json
import pathlib
import random
import sys
import unicodedata

import sentencepiece
import tokenizers

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
             "https://example.org/a?b=c#d", "3.14159 1,000,000 ½ ① ㍿ ﬁ Å"]
    for letters in (assigned(*block) for block in BLOCKS.values()):
        for _ in range(LINES):
            words = ("".join(rng.choice(letters) for _ in range(rng.randint(1, 14))) for _ in range(rng.randint(1, 9)))
            texts.append(rng.choice([" ", " ", "  ", ", ", ""]).join(words))
    every = [letter for block in BLOCKS.values() for letter in assigned(*block)]
    for _ in range(200):
        texts.append("".join(rng.choice(every + [" "] * 200) for _ in range(rng.randint(1, 60))))
    return texts


def main():
    out, rest = pathlib.Path(sys.argv[1]), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    texts = corpus()
    for name, spm, file in zip(rest[::3], rest[1::3], rest[2::3]):
        pieces = sentencepiece.SentencePieceProcessor(model_file=spm)
        fast = tokenizers.Tokenizer.from_file(file)
        rows = [[text, pieces.encode(text), fast.encode(text, add_special_tokens=False).ids] for text in texts]
        decoded = [pieces.decode([id]) for id in range(pieces.vocab_size())]
        record = {"spm": spm, "json": file, "texts": rows, "decoded": decoded}
        (out / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False))
        same = sum(a == b for _, a, b in rows)
        print(f"{name}: {len(rows)} texts, {len(BLOCKS)} scripts and kinds; sentencepiece and tokenizers agree on {same}")


main()
