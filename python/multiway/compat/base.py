"""What all pipelines have in common."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from multiway import Answer, Engine, InputError
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.generation import check_keywords, sampling_of

#: A result, such as `{"generated_text": "a cat"}`.
Record = dict[str, Any]

#: Options that every pipeline has, and that change no answer.
_SHARED = ("batch_size", "num_workers")

#: How many inputs of a generator are answered together, unless `batch_size` says it.
_BATCH = 16


class Pipeline(ABC):
    """Answers one input, a list of inputs, or the inputs of a generator.

    One input gives what a list gives for each of its inputs. All inputs of a list are answered in one batch.
    Options that are given here hold for all calls; those of a call win.
    """

    #: The options of the pipeline, beside the keywords of `generate`.
    _own: tuple[str, ...] = ()

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        self.task = task
        self.engine = engine
        self._files = files
        self._options = dict(options)
        self._check(options)

    @property
    def _generates(self) -> bool:
        """Whether answers are written, so that the keywords of `generate` are options too."""
        return True

    def _check(self, options: Mapping[str, Any]) -> None:
        more = {name: value for name, value in options.items() if name not in (*self._own, *_SHARED)}
        if self._generates:
            check_keywords(more)
        for name in () if self._generates else more:
            raise InputError(f"unknown option '{name}': expected one of {', '.join((*self._own, *_SHARED))}")

    @abstractmethod
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answers inputs."""

    @abstractmethod
    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[Any]:
        """Answers inputs in their order. It may take what it reads out of the options."""

    def _run(self, inputs: Any, options: Mapping[str, Any]) -> Any:
        """Answers one input, a list of them, or those of a generator, one after the other."""
        merged = {**self._options, **options}
        self._check(merged)
        size = merged.pop("batch_size", None) or _BATCH
        merged.pop("num_workers", None)
        if isinstance(inputs, list):
            return self._answer(inputs, merged)
        if isinstance(inputs, Iterator):
            return self._stream(inputs, size, merged)
        return self._answer([inputs], merged)[0]

    def _stream(self, inputs: Iterator[Any], size: int, options: dict[str, Any]) -> Iterator[Any]:
        while chunk := list(islice(inputs, size)):
            yield from self._answer(chunk, dict(options))

    def _sampling(self, given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
        return sampling_of(given, preset, self._files.generation)

    def _inputs_of(self, task: str) -> Mapping[str, Any]:
        """Returns the inputs of a task file, if the checkpoint has the task."""
        if task not in self.engine.tasks:
            known = ", ".join(self.engine.tasks)
            raise InputError(
                f"pipeline '{self.task}': expected a checkpoint with the task '{task}', found "
                f"'{self.engine.name}', which has {known}: give another `model`"
            )
        inputs: Mapping[str, Any] = self.engine.task(task)["inputs"]
        return inputs


def texts_of(answer: Answer) -> list[str]:
    """Lists the texts of an answer: several, where several were sampled."""
    samples = answer.to_dict().get("samples") or []
    return [sample["text"] for sample in samples] or [answer.text or ""]


def ranked(answer: Answer, name: str, top_k: int) -> list[Record]:
    """Lists the choices of an answer, the most probable first."""
    return [{"score": choice.probability, name: choice.text} for choice in answer.choices[:top_k]]


def picture_of(value: Any) -> Any:
    """Decodes a picture that is a data URL; all other forms are for the engine to read."""
    if not isinstance(value, str) or not value.startswith("data:"):
        return value
    head, _, body = value.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError(f"its head is '{head}'")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(
            f"picture: expected 'data:image/...;base64,' and base64, found else: {error}"
        ) from error


def take_images(inputs: Any, options: dict[str, Any]) -> Any:
    """Returns the pictures, which older programs give by the name `images`."""
    given = options.pop("images", None)
    if inputs is None:
        inputs = given
    if inputs is None:
        raise InputError("inputs: expected a picture or a list of pictures, found none: give it first")
    return inputs


def refuse_timeout(options: dict[str, Any]) -> None:
    """Refuses the timeout of pictures by URL, which are not fetched."""
    if options.pop("timeout", None) is not None:
        message = "pictures by URL are not fetched: fetch them, and give their bytes"
        raise InputError(f"timeout: expected nothing, since {message}")
