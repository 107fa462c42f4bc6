"""Trains the SentencePiece tokenizer of the native model on training text, and checks it.

Run by scripts/train_tokenizer.sh, which provides the environment:

    train_tokenizer.py TEXTS.jsonl OUT.model

The vocabulary: <pad> 0, </s> 1, <unk> 2, the 256 byte pieces, unigram pieces, <loc_0> .. <loc_1023> for boxes, and last
<extra_id_99> .. <extra_id_0>.
SentencePiece would put control symbols first; T5 wants them last, so they are appended to the trained model.
"""

import json
import sys
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as schema

VOCABULARY = 7000
LOCATIONS = 1024
EXTRA_IDS = 100


def train(texts: list[str], prefix: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(prefix),
        model_type="unigram",
        vocab_size=VOCABULARY - LOCATIONS - EXTRA_IDS,
        # Han and kana make a long tail that names of things need: it is cut later than is usual.
        character_coverage=0.9995,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="nmt_nfkc",
        pad_id=0, pad_piece="<pad>",
        eos_id=1, eos_piece="</s>",
        unk_id=2, unk_piece="<unk>",
        bos_id=-1,
        max_sentence_length=8192,
        shuffle_input_sentence=False,
        num_threads=1,  # more threads sum in another order: the same texts should give the same model
        minloglevel=1,
    )


def append_specials(model: schema.ModelProto) -> None:
    names = [f"<loc_{index}>" for index in range(LOCATIONS)]
    names += [f"<extra_id_{index}>" for index in reversed(range(EXTRA_IDS))]
    for name in names:
        model.pieces.add(piece=name, score=0.0, type=schema.ModelProto.SentencePiece.CONTROL)
    model.trainer_spec.vocab_size = len(model.pieces)
    # Names of files of the machine that trained have no place in a model.
    model.trainer_spec.ClearField("input")
    model.trainer_spec.model_prefix = "tokenizer"


def check(path: Path, texts: list[str]) -> dict:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    size = processor.get_piece_size()
    assert size == VOCABULARY, f"expected {VOCABULARY} pieces, found {size}"
    for identifier, piece in enumerate(["<pad>", "</s>", "<unk>"]):
        assert processor.piece_to_id(piece) == identifier, f"{piece} is {processor.piece_to_id(piece)}"
    assert processor.bos_id() == -1
    for index in range(EXTRA_IDS):
        identifier = processor.piece_to_id(f"<extra_id_{index}>")
        assert identifier == VOCABULARY - 1 - index, f"<extra_id_{index}> is {identifier}"
        assert processor.is_control(identifier)
    for index in range(LOCATIONS):
        identifier = processor.piece_to_id(f"<loc_{index}>")
        assert identifier == VOCABULARY - EXTRA_IDS - LOCATIONS + index, f"<loc_{index}> is {identifier}"
    for text in ["<extra_id_0>", "<loc_7>", "a <extra_id_7></s><pad> b", "<unk><extra_id_99>"]:
        found = [i for i in processor.encode(text) if processor.is_control(i) or processor.is_unknown(i)]
        assert not found, f"'{text}' became the control symbols {found}"
    hostile = "a\u0000b \U0001f98a \u200d ᚠᛇᚻ \t x"
    assert not any(processor.is_unknown(i) for i in processor.encode(hostile)), "bytes must cover everything"
    tokens = [processor.encode(text) for text in texts]
    total = sum(map(len, tokens))
    return {
        "pieces": size,
        "training texts": len(texts),
        "tokens a text": round(total / len(texts), 2),
        "characters a token": round(sum(map(len, texts)) / total, 2),
        "share of byte tokens": round(sum(map(processor.is_byte, sum(tokens, []))) / total, 5),
    }


def byte_share_by_language(path: Path, records: list[dict]) -> dict:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    counts: dict[str, list[int]] = {}
    for record in records:
        tokens = processor.encode(record["text"])
        bytes_and_all = counts.setdefault(record["lang"], [0, 0])
        bytes_and_all[0] += sum(map(processor.is_byte, tokens))
        bytes_and_all[1] += len(tokens)
    return {language: round(found / total, 5) for language, (found, total) in sorted(counts.items())}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    records = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    texts = [record["text"] for record in records]
    out.parent.mkdir(parents=True, exist_ok=True)
    trained = out.with_suffix(".partial")
    train(texts, trained)
    model = schema.ModelProto()
    model.ParseFromString(trained.with_suffix(".partial.model").read_bytes())
    append_specials(model)
    complete = out.with_suffix(".complete")
    complete.write_bytes(model.SerializeToString())
    for leftover in (".partial.model", ".partial.vocab"):
        trained.with_suffix(leftover).unlink(missing_ok=True)
    report = check(complete, texts)
    complete.replace(out)
    for key, value in report.items():
        print(f"{key}: {value}")
    print(f"share of byte tokens by language: {byte_share_by_language(out, records)}")


main()
