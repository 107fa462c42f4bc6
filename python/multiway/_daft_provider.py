"""The provider for Daft's functions of AI, which `multiway.daft` exports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy
from daft import DataType
from daft.ai import protocols, provider
from daft.ai.typing import EmbeddingDimensions, UDFOptions
from numpy.typing import NDArray
from typing_extensions import Unpack

from multiway import InputError
from multiway._rows import EngineOptions, TaskRows, is_missing, picture_of

__all__ = ["Provider"]

_log = logging.getLogger(__name__)

#: Requests of `prompt` that are in the engine at a time: Daft starts all that it has.
_IN_FLIGHT = 128

#: Threads that ask questions about texts, of which the engine has no batches.
_THREADS = 16

_QUESTION = "Which one is right?"

_OF_DAFT = {option.name for option in fields(UDFOptions)}

#: What the first request of a process reads, to know the size of vectors.
_SOME_TEXT = "."


class Provider(provider.Provider):  # type: ignore[misc,unused-ignore]
    """Runs Daft's `prompt`, `classify_text`, `classify_image`, `embed_text` and `embed_image` on an engine.

        from daft.functions import embed_image

        pictures.with_column("vector", embed_image(col("image"), provider=Provider()))

    `model` of these functions is the folder of another checkpoint. `prompt` has the sampling parameters
    beside Daft's own options, such as `max_new_tokens=16`, and `timeout`; its `return_format` is a class of
    pydantic or a JSON Schema. The size of vectors is that of the model, which is opened to know it unless
    `dimensions` says it.

    A row whose input is null or cannot be read is null, and the log says why; `multiway.daft.Task` has a
    field for that. Daft itself fails on nulls in `classify_image`, where `Task("classify")` does not.
    `max_retries` and `on_error` are about failures of the engine.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        checkpoint: str | PathLike[str] | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        self._name = name or "multiway"
        self._checkpoint = checkpoint
        self._options = options

    @property
    def name(self) -> str:
        """The name of the provider in a session."""
        return self._name

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> _EmbedderDescriptor:
        """Describes the model of `embed_text`."""
        return _EmbedderDescriptor(self._model(model), options, dimensions)

    def get_image_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> _EmbedderDescriptor:
        """Describes the model of `embed_image`."""
        return _EmbedderDescriptor(self._model(model), options, dimensions)

    def get_text_classifier(self, model: str | None = None, **options: Any) -> _ClassifierDescriptor:
        """Describes the model of `classify_text`, which is asked which label is right."""
        return _ClassifierDescriptor(self._model(model), options)

    def get_image_classifier(self, model: str | None = None, **options: Any) -> _ClassifierDescriptor:
        """Describes the model of `classify_image`, by the task `classify`."""
        return _ClassifierDescriptor(self._model(model), options)

    def get_prompter(
        self,
        model: str | None = None,
        return_format: Any | None = None,
        system_message: str | None = None,
        **options: Any,
    ) -> _PrompterDescriptor:
        """Describes the model of `prompt`, whose texts begin with the system message."""
        return _PrompterDescriptor(self._model(model), options, return_format, system_message)

    def _model(self, model: str | None) -> _Model:
        return _Model(self._name, model or self._checkpoint, self._options)


@dataclass
class _Model:
    """Names an engine, for the process that opens it."""

    provider: str
    checkpoint: str | PathLike[str] | None
    options: EngineOptions

    def rows(self, task: str) -> TaskRows:
        return TaskRows(task, self.checkpoint, **self.options)


@dataclass
class _Described:
    """What Daft asks of every descriptor."""

    model: _Model
    options: dict[str, Any]

    def get_provider(self) -> str:
        return self.model.provider

    def get_model(self) -> str:
        return str(self.model.checkpoint or "default")

    def get_options(self) -> dict[str, Any]:
        return self.options

    def get_udf_options(self) -> UDFOptions:
        return UDFOptions(**{name: value for name, value in self.options.items() if name in _OF_DAFT})

    def _refuse_others(self, function: str) -> None:
        for name in self.options.keys() - _OF_DAFT:
            raise InputError(
                f"{function}: unknown option '{name}', expected one of {', '.join(sorted(_OF_DAFT))}: "
                "Provider(...) has the options of the engine, and multiway.daft.Task those of a task"
            )


@dataclass
class _EmbedderDescriptor(
    _Described,
    protocols.TextEmbedderDescriptor,  # type: ignore[misc,unused-ignore]
    protocols.ImageEmbedderDescriptor,  # type: ignore[misc,unused-ignore]
):
    dimensions: int | None

    def get_dimensions(self) -> EmbeddingDimensions:
        self._refuse_others("embed_text and embed_image")
        size = self.dimensions or _Embedder(self.model, None).size
        return EmbeddingDimensions(size, DataType.float32())

    def is_async(self) -> bool:
        return False

    def instantiate(self) -> Any:
        return _Embedder(self.model, self.dimensions)


class _Embedder:
    def __init__(self, model: _Model, dimensions: int | None) -> None:
        self._rows = model.rows("retrieve")
        self.size: int = self._rows.answer([{"text": _SOME_TEXT}])[0]["embedding"].size
        if dimensions not in (None, self.size):
            raise InputError(
                f"dimensions: expected {self.size}, as vectors of '{self._rows.engine.name}' have, found "
                f"{dimensions}: leave them out"
            )

    def embed_text(self, text: list[str | None]) -> list[NDArray[numpy.float32] | None]:
        return _answers(self._rows, "embedding", [{"text": one} for one in text])

    def embed_image(self, images: list[Any]) -> list[NDArray[numpy.float32] | None]:
        return _answers(self._rows, "embedding", [{"images": image} for image in images])


@dataclass
class _ClassifierDescriptor(
    _Described,
    protocols.TextClassifierDescriptor,  # type: ignore[misc,unused-ignore]
    protocols.ImageClassifierDescriptor,  # type: ignore[misc,unused-ignore]
):
    def get_udf_options(self) -> UDFOptions:
        self._refuse_others("classify_text and classify_image")
        return super().get_udf_options()

    def instantiate(self) -> Any:
        return _Classifier(self.model)


class _Classifier:
    def __init__(self, model: _Model) -> None:
        self._rows = model.rows("classify")

    def classify_text(self, text: list[str | None], labels: str | list[str]) -> list[str | None]:
        def choose(one: str | None) -> str | None:
            if is_missing(one):
                return None
            try:
                return self._rows.engine.decide(_QUESTION, labels, text=one).answer
            except InputError as error:
                _warn(error)
                return None

        if isinstance(labels, str) or len(labels) < 2:
            raise InputError(f"labels: expected two or more to choose from, found {labels!r}")
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(choose, text))

    def classify_image(self, image: list[Any], labels: str | list[str]) -> list[str | None]:
        self._rows.check(["image", "choices"])
        choices = [labels] if isinstance(labels, str) else labels
        return _answers(self._rows, "text", [{"image": one, "choices": choices} for one in image])


@dataclass
class _PrompterDescriptor(_Described, protocols.PrompterDescriptor):  # type: ignore[misc,unused-ignore]
    return_format: Any | None
    system: str | None

    def instantiate(self) -> Any:
        return _Prompter(self)


class _Prompter:
    def __init__(self, of: _PrompterDescriptor) -> None:
        self._engine = of.model.rows("prompt").engine
        self._system = of.system
        self._format = of.return_format
        options = {name: value for name, value in of.options.items() if name not in _OF_DAFT}
        self._options: dict[str, Any] = {"timeout": options.pop("timeout", None), "sampling": options}
        if self._format is not None:
            is_schema = isinstance(self._format, Mapping)
            schema = self._format if is_schema else self._format.model_json_schema()
            self._options["constraint"] = {"json_schema": schema}
        # Without rows, it checks the options: a wrong one is no fault of a row.
        self._engine.batch("prompt", [], **self._options)
        self._places = asyncio.Semaphore(_IN_FLIGHT)

    async def prompt(self, messages: tuple[Any, ...]) -> Any:
        if any(is_missing(message) for message in messages):
            return None
        texts = [message for message in messages if isinstance(message, str)]
        try:
            images = [picture_of(message) for message in messages if not isinstance(message, str)]
            async with self._places:
                answer = await self._engine.run_async(
                    "prompt",
                    {"text": "\n".join([self._system, *texts] if self._system else texts), "images": images},
                    **self._options,
                )
            return self._formed(answer.text or "")
        except (InputError, TimeoutError) as error:
            _warn(error)
            return None

    def _formed(self, text: str) -> Any:
        if self._format is None or isinstance(self._format, Mapping):
            return text
        try:
            return self._format.model_validate_json(text)
        except ValueError as error:
            raise InputError(f"return_format: the answer '{text}' is not of this form: {error}") from None


def _answers(rows: TaskRows, name: str, inputs: Iterable[dict[str, Any]]) -> list[Any]:
    """Returns a field of the answers; why it is null is logged."""
    results = rows.answer(inputs)
    for error in {result["error"] for result in results} - {None}:
        _warn(error)
    return [result[name] for result in results]


def _warn(error: Any) -> None:
    _log.warning("a row is null: %s", error)
