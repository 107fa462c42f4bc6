"""Rows of tables as inputs of a task, and its answers as rows, for `multiway.daft` and `multiway.ray`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy
from typing_extensions import TypedDict, Unpack

from multiway import Answer, Engine, InputError

__all__ = ["FIELDS", "EngineOptions", "RowOptions", "TaskRows", "is_missing", "picture_of"]

#: The fields of a row's result, in their order.
FIELDS = ("text", "choices", "value", "embedding", "error")

#: What a row's own inputs cause. Everything else is raised, so that a cluster repeats the batch.
_OF_ROW = (InputError, TimeoutError)

_PIXELS = {"data", "height", "width", "channel"}

#: The modes of arrays with transparency, by their number of channels.
_TRANSPARENT = {2: "LA", 4: "RGBA"}


class EngineOptions(TypedDict, total=False):
    """The options of `Engine.open`."""

    dtype: str
    cache_dtype: str
    threads: int
    memory_budget: int
    reuse_budget: int
    task_files: Sequence[str | PathLike[str]]


class RowOptions(EngineOptions, total=False):
    """How rows are answered: the options of `Engine.batch`, beside those of `Engine.open`."""

    sampling: Mapping[str, Any]
    constraint: Mapping[str, Any]
    timeout: float
    priority: int


class TaskRows:
    """Answers rows of a table with a task: each row gives one result, whatever its inputs are."""

    def __init__(
        self,
        task: str,
        checkpoint: str | PathLike[str] | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        of_engine = EngineOptions.__annotations__
        opening: Any = {name: value for name, value in options.items() if name in of_engine}
        self._options: Any = {name: value for name, value in options.items() if name not in of_engine}
        self.engine = Engine.open(checkpoint, **opening)
        self.task = task
        self._inputs: Mapping[str, Mapping[str, Any]] = self.engine.task(task)["inputs"]
        # Without rows, it checks the options: a wrong one is no fault of a row.
        self.engine.batch(task, [], **self._options)

    def check(self, names: Iterable[str]) -> None:
        """Checks the names of inputs, so that a wrong one is an error instead of a column of nulls."""
        given = set(names)
        needed = {name for name, spec in self._inputs.items() if _is_required(spec)}
        if given <= self._inputs.keys() and needed <= given:
            return
        known = [f"'{name}' (required)" if name in needed else f"'{name}'" for name in self._inputs]
        raise InputError(
            f"task '{self.task}': expected the inputs {', '.join(known)}, found {_listed(given)}: rename "
            "those that it does not have, and give those that are required"
        )

    def answer(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answers rows, in their order, each by a mapping with all of `FIELDS`.

        An input that is null or that the task cannot read is the `error` of its row, of which the other
        fields are null. Errors of the engine are raised.
        """
        read = [self._read(row) for row in rows]
        asked = [row for row in read if isinstance(row, dict)]
        answers = iter(self.engine.batch(self.task, asked, return_errors=True, **self._options))
        return [_result(next(answers) if isinstance(row, dict) else row) for row in read]

    def _read(self, row: Mapping[str, Any]) -> dict[str, Any] | InputError:
        inputs = {}
        for name, value in row.items():
            kind = self._inputs[name]["type"] if name in self._inputs else "input of the task"
            try:
                inputs[name] = _input(kind, value)
            except (InputError, FileNotFoundError) as error:
                return InputError(f"input '{name}': {error}")
            if is_missing(inputs[name]):
                return InputError(f"input '{name}': expected a value of type {kind}, found null")
        return inputs


def is_missing(value: Any) -> bool:
    """Says whether a value is null, as tables of any kind have it."""
    if value is None or isinstance(value, float):
        return value is None or value != value
    return type(value).__name__ in ("NAType", "NaTType")


def picture_of(value: Any) -> Any:
    """Returns a picture as the engine takes it.

    Beside those that the engine takes, a picture is a struct `{bytes, path}`, as data sets of Hugging Face
    have it in Parquet, a struct of pixels, as Daft writes images to Parquet, a file of Daft, or an array of
    height x width x 4 numbers of 8 bits, whose last channel is opacity.
    """
    if isinstance(value, Mapping):
        return _picture_of_struct(value)
    if isinstance(value, numpy.ndarray) and value.ndim == 3 and value.shape[2] in _TRANSPARENT:
        # Pillow, since transparency means there what it means in files.
        from PIL import Image

        if value.dtype != numpy.uint8:
            raise InputError(f"expected an array of uint8, found {value.dtype} of shape {value.shape}")
        mode, (height, width, _) = _TRANSPARENT[value.shape[2]], value.shape
        return Image.frombytes(mode, (width, height), numpy.ascontiguousarray(value).tobytes())
    if hasattr(value, "open") and not hasattr(value, "__fspath__") and not hasattr(value, "mode"):
        with value.open() as file:
            return file.read()
    return value


def _picture_of_struct(struct: Mapping[str, Any]) -> Any:
    if struct.keys() >= _PIXELS:
        if is_missing(struct["data"]):
            return None
        shape = tuple(struct[name] for name in ("height", "width", "channel"))
        pixels = numpy.asarray(struct["data"])
        if pixels.size != math.prod(shape):
            raise InputError(f"expected a picture of shape {shape}, found {pixels.size} numbers")
        if numpy.any((pixels < 0) | (pixels > 255)):
            raise InputError("expected a picture of numbers of 8 bits, found others: convert it to RGB first")
        return picture_of(pixels.astype(numpy.uint8).reshape(shape))
    if "bytes" in struct or "path" in struct:
        found = struct.get("bytes")
        return struct.get("path") if is_missing(found) else found
    raise InputError(
        "expected a picture as bytes, an array, a path, or a struct {bytes, path} or {data, height, width, "
        f"channel}}, found a struct of {_listed(struct)}: give one of its fields"
    )


def _input(kind: str, value: Any) -> Any:
    if kind == "image":
        return picture_of(value)
    if kind == "images":
        is_list = isinstance(value, (list, tuple))
        if isinstance(value, numpy.ndarray):
            # An array of pixels has 2 or 3 dimensions; of pictures, 1 if they differ in size and 4 if not.
            is_list = value.dtype == object or value.ndim == 4
        return [picture_of(one) for one in value] if is_list else picture_of(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Returns a value without types of numpy, as deep as it goes, and its bytes as texts."""
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        value = value.tolist()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"expected text in UTF-8, found other bytes: {error}") from None
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _result(outcome: Answer | BaseException) -> dict[str, Any]:
    result: dict[str, Any] = dict.fromkeys(FIELDS)
    if isinstance(outcome, _OF_ROW):
        result["error"] = f"{type(outcome).__name__}: {outcome}"
        return result
    if isinstance(outcome, BaseException):
        raise outcome
    result["text"] = outcome.text
    if outcome.choices:
        result["choices"] = [{"text": one.text, "probability": one.probability} for one in outcome.choices]
    if outcome.value != outcome.text:
        result["value"] = json.dumps(outcome.value, ensure_ascii=False)
    result["embedding"] = outcome.embedding
    return result


def _is_required(spec: Mapping[str, Any]) -> bool:
    return "default" not in spec and not (spec["type"] == "images" and spec.get("min") == 0)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
