"""What the tables of Daft and Ray Data share: rows in, a record for each of them out, its error included."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy

from multiway import Answer, Engine, InputError

__all__ = ["answer_rows", "check_inputs", "plain", "record_of"]

#: The fields of a record, in their order.
FIELDS = ("text", "choices", "value", "embedding", "error")


def answer_rows(
    engine: Engine,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    sampling: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Runs a task on rows, and gives a record for each: its text, choices, value, embedding, or its error.

    What is wrong with a row is its `error`. What would be wrong with every row, such as an input that the
    task does not have, and failures of the engine are raised.
    """
    check_inputs(engine, task, {name for row in rows for name in row})
    given = [{name: plain(value) for name, value in row.items()} for row in rows]
    records = [_missing(row) for row in given]
    asked = [place for place, record in enumerate(records) if record is None]
    answers = engine.batch(task, [given[place] for place in asked], sampling=sampling, return_errors=True)
    for place, answer in zip(asked, answers, strict=True):
        records[place] = record_of(answer)
    return [record for record in records if record is not None]


def record_of(answer: Answer | Exception) -> dict[str, Any]:
    """Makes the record of an answer, or of the error that took its place."""
    if isinstance(answer, (InputError, TimeoutError)):
        return _failed(f"{type(answer).__name__}: {answer}")
    if isinstance(answer, Exception):
        # Not the row's fault: another try, perhaps on another machine, may succeed.
        raise answer
    choices = [{"text": choice.text, "probability": choice.probability} for choice in answer.choices]
    value = answer.value
    return {
        "text": answer.text,
        "choices": choices or None,
        "value": None if value is None else json.dumps(value, ensure_ascii=False),
        "embedding": None if answer.embedding is None else answer.embedding.tolist(),
        "error": None,
    }


def check_inputs(engine: Engine, task: str, names: Iterable[str]) -> None:
    """Raises `InputError` where a task has no input of a name, before every row fails by it."""
    known = engine.task(task)["inputs"]
    for name in sorted(set(names) - set(known)):
        raise InputError(f"task '{task}': expected inputs among {', '.join(known)}, found '{name}'")


def plain(value: Any) -> Any:
    """Turns a cell of a table into what the engine takes: lists for arrays, 3 channels for pictures."""
    if isinstance(value, numpy.ndarray):
        if value.dtype == numpy.uint8 and value.ndim == 3:
            return _picture(value)
        if value.dtype == numpy.uint8 and value.ndim == 2:
            return value
        return [plain(item) for item in value] if value.ndim == 1 else value.tolist()
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _picture(pixels: Any) -> Any:
    """Leaves the engine to drop the transparency of pixels as it does for a file: by way of Pillow."""
    channels = pixels.shape[2]
    if channels == 1:
        return pixels[:, :, 0]
    if channels not in (2, 4):
        return pixels
    from PIL import Image

    return Image.fromarray(pixels, "LA" if channels == 2 else "RGBA")


def _missing(row: Mapping[str, Any]) -> dict[str, Any] | None:
    for name, value in row.items():
        if value is None:
            return _failed(f"InputError: {name}: expected a value, found none")
    return None


def _failed(error: str) -> dict[str, Any]:
    return {**dict.fromkeys(FIELDS), "error": error}
