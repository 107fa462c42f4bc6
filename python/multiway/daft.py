"""Answers the rows of Daft's tables, in one process or on a cluster of Ray, without a server.

    import daft
    import multiway.daft
    from daft import col

    caption = multiway.daft.task("caption")
    pictures = daft.read_parquet("pictures/*.parquet")
    answers = pictures.with_column("answer", caption(image=col("image")))
    answers.select("id", col("answer")["text"], col("answer")["error"]).write_parquet("captions")

`Provider` is for `daft.functions.ai`: `prompt`, `classify_text`, `classify_image`, `embed_text` and
`embed_image`.

    daft.set_provider(multiway.daft.Provider())
    vectors = pictures.with_column("vector", embed_image(decode_image(col("image"))))
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any

import daft
import numpy
from daft import DataType, Series
from daft.ai import protocols
from daft.ai.provider import Provider as DaftProvider
from daft.ai.typing import EmbeddingDimensions, UDFOptions

from multiway import Engine, InputError
from multiway._rows import answer_rows, plain

__all__ = ["ANSWER", "Provider", "task"]

_log = logging.getLogger(__name__)

#: What a task gives for a row. A row that fails has its `error`, and null in all other fields.
ANSWER = DataType.struct(
    {
        "text": DataType.string(),
        "choices": DataType.list(
            DataType.struct({"text": DataType.string(), "probability": DataType.float64()})
        ),
        "value": DataType.string(),
        "embedding": DataType.list(DataType.float32()),
        "error": DataType.string(),
    }
)

#: How many decisions are under way at a time: the engine has no batches of them.
_THREADS = 16

#: What other providers call the most tokens of an answer.
_MOST_TOKENS = ("max_tokens", "max_output_tokens", "max_completion_tokens")

_QUESTION = "Which one is right?"

#: Options that are Daft's own.
_UDF_OPTIONS = {option.name for option in fields(UDFOptions)}


@dataclass(frozen=True)
class _Opening:
    """Opens the engine where it is used: an engine cannot be sent to another process, but this can."""

    checkpoint: str | PathLike[str] | None
    task_files: Sequence[str | PathLike[str]] | None
    options: Mapping[str, Any]

    def open(self) -> Engine:
        return Engine.open(self.checkpoint, task_files=self.task_files, **self.options)


def task(
    name: str,
    *,
    checkpoint: str | PathLike[str] | None = None,
    task_files: Sequence[str | PathLike[str]] | None = None,
    sampling: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    max_concurrency: int = 1,
    max_retries: int = 2,
    **options: Any,
) -> Any:
    """Makes a function of columns from a task; it is called with an expression or a constant for each input.

    The column that it gives is of type `ANSWER`. `checkpoint`, `task_files` and `options` are as in
    `Engine.open`, which each worker calls by itself. `max_concurrency` is the number of workers on Ray; a
    single process needs no more than one, since the engine has threads of its own. `max_retries` is how often
    a batch is repeated on which the engine failed.
    """
    workers = daft.cls(
        _Task,
        max_concurrency=max_concurrency,
        max_retries=max_retries,
        use_process=False,
        name_override=f"multiway {name}",
    )
    opening = _Opening(checkpoint, task_files, options)
    return replace(workers(opening, name, sampling).answer, batch_size=batch_size)


class _Task:
    """Answers batches of columns in a worker."""

    def __init__(self, opening: _Opening, name: str, sampling: Mapping[str, Any] | None) -> None:
        self._engine = opening.open()
        self._name = name
        self._sampling = sampling

    def answer(self, **inputs: Any) -> Any:
        columns = {name: value.to_pylist() for name, value in inputs.items() if isinstance(value, Series)}
        constants = {name: value for name, value in inputs.items() if name not in columns}
        if not columns:
            # Called outside of a query: a single row.
            return answer_rows(self._engine, self._name, [constants], sampling=self._sampling)[0]
        rows = [
            {**constants, **dict(zip(columns, row, strict=True))}
            for row in zip(*columns.values(), strict=True)
        ]
        records = answer_rows(self._engine, self._name, rows, sampling=self._sampling)
        # The type is said, since all errors of a batch may be null.
        return Series.from_pylist(records, dtype=ANSWER)


# Not by a decorator, which has no types where Daft is not installed.
daft.method.batch(_Task.answer, return_dtype=ANSWER)


class Provider(DaftProvider):  # type: ignore[misc, unused-ignore]
    """Answers `daft.functions.ai` by an engine in each worker.

    Give it as `provider=`, or attach it to the session: `daft.set_provider(Provider())`. The `model` of a
    function is a checkpoint, by default that of the provider; other options are those of Daft and the
    function's own: `task` for the task that answers, `question` for what `classify_text` asks of a text, and
    for `prompt` the fields of `sampling`, such as `temperature`.

    A null gives a null, but in `classify_image`, where Daft itself fails on it. A row that fails raises, or
    with `on_error="log"` or `"ignore"` it alone is null; `multiway.daft.task` keeps the reasons beside the
    answers.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        checkpoint: str | PathLike[str] | None = None,
        task_files: Sequence[str | PathLike[str]] | None = None,
        **options: Any,
    ) -> None:
        self._name = name or "multiway"
        self._opening = _Opening(checkpoint, task_files, options)

    @property
    def name(self) -> str:
        """The name of the provider in a session."""
        return self._name

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> Any:
        """Describes what `embed_text` runs."""
        return _Embedder(self._name, self._opened(model), options, "text", dimensions)

    def get_image_embedder(self, model: str | None = None, **options: Any) -> Any:
        """Describes what `embed_image` runs."""
        return _Embedder(self._name, self._opened(model), options, "images", None)

    def get_text_classifier(self, model: str | None = None, **options: Any) -> Any:
        """Describes what `classify_text` runs."""
        return _Classifier(self._name, self._opened(model), options)

    def get_image_classifier(self, model: str | None = None, **options: Any) -> Any:
        """Describes what `classify_image` runs."""
        return _Classifier(self._name, self._opened(model), options)

    def get_prompter(
        self,
        model: str | None = None,
        return_format: Any | None = None,
        system_message: str | None = None,
        **options: Any,
    ) -> Any:
        """Describes what `prompt` runs; `return_format` is a model of pydantic."""
        return _Prompter(self._name, self._opened(model), options, return_format, system_message)

    def _opened(self, model: str | None) -> _Opening:
        return self._opening if model is None else replace(self._opening, checkpoint=model)


@dataclass(frozen=True)
class _Described:
    """What Daft asks of any description; the model is opened once it is in its worker."""

    provider: str
    opening: _Opening
    options: Mapping[str, Any]

    def get_provider(self) -> str:
        return self.provider

    def get_model(self) -> str:
        return str(self.opening.checkpoint or "default")

    def get_options(self) -> dict[str, Any]:
        return dict(self.options)

    def get_udf_options(self) -> UDFOptions:
        # One instance in a worker, and no retries: a row that is wrong stays wrong.
        given = {name: value for name, value in self.options.items() if name in _UDF_OPTIONS}
        return UDFOptions(**{"concurrency": 1, "max_retries": 0, **given})

    @property
    def own(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in _UDF_OPTIONS}

    def on_row(self, error: Exception | str) -> None:
        """Raises the error of a row, or logs it, as `on_error` says."""
        wanted = self.options.get("on_error", "raise")
        if wanted == "raise":
            raise error if isinstance(error, Exception) else InputError(error.removeprefix("InputError: "))
        if wanted == "log":
            _log.warning("a row is null: %s", error)

    def answer(self, engine: Engine, name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        records = answer_rows(engine, name, rows)
        for row, record in zip(rows, records, strict=True):
            if record["error"] is not None and None not in row.values():
                self.on_row(record["error"])
        return records


@dataclass(frozen=True)
class _Embedder(
    _Described,
    protocols.TextEmbedderDescriptor,  # type: ignore[misc, unused-ignore]
    protocols.ImageEmbedderDescriptor,  # type: ignore[misc, unused-ignore]
):
    input: str
    dimensions: int | None

    def get_dimensions(self) -> EmbeddingDimensions:
        size = self.dimensions
        if size is None:
            # The vector of anything has the size of all.
            size = self.opening.open().embed("a", task=self.own.get("task", "retrieve")).shape[0]
        return EmbeddingDimensions(size, DataType.float32())

    def is_async(self) -> bool:
        return False

    def instantiate(self) -> Any:
        return _Embedding(self)


class _Embedding:
    def __init__(self, of: _Embedder) -> None:
        self._of = of
        self._engine = of.opening.open()
        self._task = of.own.get("task", "retrieve")

    def embed_text(self, text: list[Any]) -> list[Any]:
        return self._vectors(text)

    def embed_image(self, images: list[Any]) -> list[Any]:
        return self._vectors(images)

    def _vectors(self, values: list[Any]) -> list[Any]:
        of = self._of
        vectors = [
            record["embedding"]
            for record in of.answer(self._engine, self._task, [{of.input: value} for value in values])
        ]
        sizes = {len(vector) for vector in vectors if vector is not None}
        if of.dimensions is not None and sizes - {of.dimensions}:
            raise InputError(f"dimensions: expected {sizes.pop()} as the model has, found {of.dimensions}")
        return [None if vector is None else numpy.array(vector, numpy.float32) for vector in vectors]


@dataclass(frozen=True)
class _Classifier(
    _Described,
    protocols.TextClassifierDescriptor,  # type: ignore[misc, unused-ignore]
    protocols.ImageClassifierDescriptor,  # type: ignore[misc, unused-ignore]
):
    def instantiate(self) -> Any:
        return _Classification(self)


class _Classification:
    def __init__(self, of: _Classifier) -> None:
        self._of = of
        self._engine = of.opening.open()

    def classify_text(self, text: list[Any], labels: str | list[str]) -> list[Any]:
        names = [labels] if isinstance(labels, str) else list(labels)
        question = self._of.own.get("question", _QUESTION)

        def choose(value: str | None) -> str | None:
            if value is None:
                return None
            try:
                return self._engine.decide(question, names, text=value).answer
            except (InputError, TimeoutError) as error:
                self._of.on_row(error)
                return None

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(choose, text))

    def classify_image(self, image: list[Any], labels: str | list[str]) -> list[Any]:
        names = [labels] if isinstance(labels, str) else list(labels)
        rows = [{"image": value, "choices": names} for value in image]
        name = self._of.own.get("task", "classify")
        return [record["text"] for record in self._of.answer(self._engine, name, rows)]


@dataclass(frozen=True)
class _Prompter(_Described, protocols.PrompterDescriptor):  # type: ignore[misc, unused-ignore]
    return_format: Any
    system_message: str | None

    def instantiate(self) -> Any:
        return _Prompting(self)


class _Prompting:
    def __init__(self, of: _Prompter) -> None:
        self._of = of
        self._engine = of.opening.open()
        own = of.own
        self._task = own.pop("task", "prompt")
        self._sampling = {("max_new_tokens" if name in _MOST_TOKENS else name): own[name] for name in own}
        self._constraint = None
        if of.return_format is not None:
            self._constraint = {"json_schema": of.return_format.model_json_schema()}

    async def prompt(self, messages: tuple[Any, ...]) -> Any:
        if any(message is None for message in messages):
            return None
        try:
            answer = await self._engine.run_async(
                self._task,
                self._inputs(messages),
                sampling=self._sampling or None,
                constraint=self._constraint,
            )
            read: Callable[[str], Any] = str
            if self._of.return_format is not None:
                read = self._of.return_format.model_validate_json
            return read(answer.text or "")
        except (ValueError, TimeoutError) as error:
            # InputError is a ValueError, as is what pydantic raises of an answer that was cut short.
            self._of.on_row(error)
            return None

    def _inputs(self, messages: tuple[Any, ...]) -> dict[str, Any]:
        """Gives texts to the inputs that are texts, and all else to those that are pictures, in order."""
        system = [self._of.system_message] if self._of.system_message else []
        texts = system + [message for message in messages if isinstance(message, str)]
        pictures = [plain(_bytes_of(message)) for message in messages if not isinstance(message, str)]
        inputs: dict[str, Any] = {}
        for name, known in self._engine.task(self._task)["inputs"].items():
            if known["type"] == "images" and pictures:
                inputs[name], pictures = pictures, []
            elif known["type"] == "image" and pictures:
                inputs[name] = pictures.pop(0)
            elif known["type"] == "text" and texts:
                # A plain prompt is one text of all; other tasks have an input for each.
                taken = len(texts) if self._task == "prompt" else 1
                inputs[name], texts = "\n".join(texts[:taken]), texts[taken:]
        if texts or pictures:
            found = f"{len(texts)} texts and {len(pictures)} pictures more"
            raise InputError(f"task '{self._task}': expected messages for its inputs, found {found}")
        return inputs


def _bytes_of(message: Any) -> Any:
    if not isinstance(message, daft.File):
        return message
    with message.open() as file:
        return file.read()
