"""The engine, in Rust. Its names are those of the package `multiway`."""

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, final

import numpy
from numpy.typing import NDArray
from typing_extensions import Self, TypeAlias

#: A picture: a path, the bytes of a file, a PIL picture, or an array of height x width x 3 numbers of 8 bits.
_Picture: TypeAlias = Any

__all__ = [
    "Answer",
    "Choice",
    "Decision",
    "Engine",
    "EngineError",
    "InputError",
    "Score",
    "Stream",
    "Usage",
    "__version__",
]

__version__: str

class InputError(ValueError):
    """What was given is wrong: another task, input, picture or option would work."""

class EngineError(RuntimeError):
    """The engine failed on a request."""

@final
class Choice:
    """A candidate answer and its probability among all candidates."""

    @property
    def text(self) -> str: ...
    @property
    def probability(self) -> float: ...

@final
class Usage:
    """What a request took."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def image_patches(self) -> int: ...
    @property
    def new_tokens(self) -> int: ...

@final
class Answer:
    """The answer of a task."""

    @property
    def task(self) -> str: ...
    @property
    def text(self) -> str | None:
        """The text that was written, or the most probable choice; `None` for vectors and patches."""
    @property
    def choices(self) -> list[Choice]:
        """All candidates, the most probable first; empty where the task ranks none."""
    @property
    def embedding(self) -> NDArray[numpy.float32] | None:
        """The vector, of unit length; `None` for other kinds of answer."""
    @property
    def value(self) -> Any:
        """What was read from the text, by the kind of the answer: a number, labels, boxes, JSON; else the text."""
    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens that the decoder wrote, or scored for the most probable choice."""
    @property
    def finish_reason(self) -> str | None:
        """Why the text ended: `stop`, `stop_string` or `length`; `None` where no text was written."""
    @property
    def usage(self) -> Usage: ...
    def to_dict(self) -> dict[str, Any]:
        """All of the answer, as `multiway run --json` prints it."""

@final
class Score:
    """The log-likelihood of a text."""

    @property
    def log_probability(self) -> float:
        """The sum over the tokens, that of the end included."""
    @property
    def tokens(self) -> list[int]: ...
    @property
    def log_probabilities(self) -> list[float]: ...

@final
class Decision:
    """The answer to a question with closed answers."""

    @property
    def answer(self) -> str:
        """The most probable answer."""
    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each answer, in the order of the question; they sum to 1."""
    @property
    def confidence(self) -> float:
        """1 less the entropy of the probabilities, as a share of that of uniform ones."""
    @property
    def expected(self) -> float:
        """The mean place of the answers, counted from 0, weighted by their probabilities."""
    @property
    def label_mass(self) -> float:
        """The probability that the model gives any of the answers; low where it misses the question."""
    @property
    def is_calibrated(self) -> bool:
        """Whether the task file fits the probabilities to data."""

@final
class Stream:
    """The pieces of an answer, as they are written. Closing it frees its place in the engine."""

    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[str]: ...
    def __anext__(self) -> Awaitable[str]: ...
    @property
    def answer(self) -> Answer | None:
        """The whole answer, once all pieces were taken."""
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None: ...

@final
class Engine:
    """A checkpoint that is loaded, and what runs it.

    Many threads and tasks may use it at a time: requests are answered in one batch.
    """

    @staticmethod
    def open(
        path: str | PathLike[str] | None = None,
        *,
        dtype: str | None = None,
        cache_dtype: str | None = None,
        threads: int | None = None,
        memory_budget: int | None = None,
        reuse_budget: int | None = None,
        task_files: Sequence[str | PathLike[str]] | None = None,
    ) -> Engine:
        """Opens a checkpoint: a folder, or by default the one that the package carries.

        A process has one engine for a checkpoint: opening it again gives the same one, and with other options
        raises `InputError`. `task_files` are files and folders of task files, beside the built-in ones.
        """

    @property
    def name(self) -> str: ...
    @property
    def max_text_length(self) -> int:
        """The most tokens of a prompt, its end included."""
    @property
    def max_target_length(self) -> int:
        """The most tokens of an answer, a forced prefix and the end included."""
    @property
    def tasks(self) -> list[str]:
        """The names of the tasks; `prompt` continues a plain text, with pictures or without."""
    def task(self, name: str, /) -> dict[str, Any]:
        """The front matter of a task file: its inputs, its output, how it decodes."""
    def run(
        self,
        task: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        sampling: Mapping[str, Any] | None = None,
        constraint: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> Answer:
        """Runs a task on its inputs, which are given by name or, where a name is taken, as a mapping.

        `sampling` is as in a task file, such as `{"temperature": 0.8, "seed": 7}`; `constraint` is one of
        `{"regex": ...}`, `{"choices": [...]}`, `{"json_schema": {...}}`, `{"grammar": ...}`; `timeout` is in
        seconds.
        """
    def run_async(
        self,
        task: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        sampling: Mapping[str, Any] | None = None,
        constraint: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> Awaitable[Answer]:
        """As `run`, to be awaited; cancelling it frees its place in the engine."""
    def stream(
        self,
        task: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        sampling: Mapping[str, Any] | None = None,
        constraint: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> Stream:
        """As `run`, but the text comes in pieces: `for piece in ...` or `async for piece in ...`.

        It starts at once. What is wrong with a picture is raised where the first piece is asked for.
        """
    def batch(
        self,
        task: str,
        rows: Sequence[Mapping[str, Any]],
        /,
        *,
        sampling: Mapping[str, Any] | None = None,
        constraint: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        return_errors: bool = False,
    ) -> list[Any]:
        """Runs a task on many rows at a time; the answers are in their order.

        The first row that fails raises, unless `return_errors`: then its error takes the place of its answer.
        """
    def score(
        self,
        prompt: str,
        targets: Sequence[str],
        /,
        *,
        images: _Picture | Sequence[_Picture] | None = None,
        prefix: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> list[Score]:
        """The log-likelihood of each target as the decoder's answer to a prompt, which is the encoder's text.

        `prefix` lists special tokens that the answer begins with and that are not scored. Native models, and T5
        that is only pre-trained, answer at a mask: write `<extra_id_0>` where it is in the prompt, and give
        `["<extra_id_0>"]`.
        """
    def embed(
        self,
        texts: str | Sequence[str] | None = None,
        /,
        *,
        images: _Picture | Sequence[_Picture] | None = None,
        task: str = "retrieve",
    ) -> NDArray[numpy.float32]:
        """Vectors of texts or of pictures, of unit length and in one space, as an array with a row for each.

        A single text or picture gives a single vector.
        """
    def decide(
        self,
        question: str,
        answers: Sequence[str] | Mapping[str, str] | None = None,
        /,
        *,
        text: str | None = None,
        images: _Picture | Sequence[_Picture] | None = None,
        task: str | None = None,
        timeout: float | None = None,
    ) -> Decision:
        """Answers a question about a text or pictures with the probability of every answer.

        The answers are yes and no by default; a mapping of answers says what each one means.
        """
    def tokenize(self, text: str, /) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int], /) -> str: ...
