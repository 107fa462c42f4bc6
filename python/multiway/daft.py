"""Tasks as expressions of Daft, and a provider for Daft's functions of AI that needs no server.

    import daft
    from daft import col
    from multiway.daft import Task

    caption = Task("caption")
    pictures = daft.read_parquet("pictures/*.parquet")
    pictures.with_column("answer", caption(image=col("image"))).write_parquet("captions")

An answer is a struct `{text, choices, value, embedding, error}`, of which `text`, `choices`, `embedding` and
`value` (JSON, where an answer is more than its text) are null where the kind of task has none. A row whose
inputs are null or cannot be read has its `error`, and nulls beside it; a failure of the engine fails the
batch, which is repeated.

A picture is a column of type `Image`, `Binary`, `File` or string, which is a path, or a struct `{bytes,
path}`. What `daft.read_webdataset` reads has a column for each suffix of the files in the archive, such as
`jpg`, `png` or `webp` for pictures and `txt` for texts, beside `__key__` and `__url__`.

A process has one engine for a checkpoint, whatever the number of expressions, on all cores unless `threads`
says fewer. On Ray this is one engine for each node; `concurrency=n` starts n processes with an engine each
instead, which should then have their share of the cores as `threads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import daft
from daft import DataType, Expression, Series
from typing_extensions import Unpack

from multiway import InputError
from multiway._daft_provider import Provider
from multiway._rows import RowOptions, TaskRows

__all__ = ["ANSWER", "Provider", "Task"]

_CHOICE = DataType.struct({"text": DataType.string(), "probability": DataType.float64()})

#: The type of an answer.
ANSWER = DataType.struct(
    {
        "text": DataType.string(),
        "choices": DataType.list(_CHOICE),
        "value": DataType.string(),
        "embedding": DataType.list(DataType.float32()),
        "error": DataType.string(),
    }
)


class Task:
    """Makes expressions of a task: `Task("vqa")(image=col("image"), question="what is it?")`.

    `batch_size` is the most rows of a call, and `max_retries` how often a batch is repeated on which the
    engine failed. The other options are those of `Engine.batch` and `Engine.open`.
    """

    def __init__(
        self,
        task: str,
        *,
        checkpoint: str | PathLike[str] | None = None,
        batch_size: int = 128,
        concurrency: int | None = None,
        max_retries: int = 2,
        **options: Unpack[RowOptions],
    ) -> None:
        self.task = task
        columns = daft.cls(
            _columns(batch_size),
            # Threads suffice, since the engine works without the interpreter's lock.
            use_process=False,
            max_concurrency=concurrency,
            max_retries=max_retries,
            on_error="raise",
            name_override=task,
        )
        self._answer = columns(task, checkpoint, options).answer

    def __call__(self, **inputs: Any) -> Expression:
        """Returns the answers as an expression. An input that is no expression is the same for all rows."""
        columns = {name: value for name, value in inputs.items() if isinstance(value, Expression)}
        if not columns:
            raise InputError(
                f"task '{self.task}': expected a column among its inputs, such as image=col('image'), found "
                f"{', '.join(inputs) or 'no inputs'}: Engine.run answers without a table"
            )
        constants = {name: value for name, value in inputs.items() if name not in columns}
        answers: Expression = self._answer(constants, list(columns), *columns.values())
        return answers


def _columns(batch_size: int) -> type:
    """Makes the class of which Daft has an instance in each process."""

    class Columns:
        def __init__(self, task: str, checkpoint: str | PathLike[str] | None, options: RowOptions) -> None:
            self._rows = TaskRows(task, checkpoint, **options)

        @daft.method.batch(  # type: ignore[untyped-decorator,unused-ignore]
            return_dtype=ANSWER, batch_size=batch_size
        )
        def answer(self, constants: Mapping[str, Any], names: Sequence[str], *columns: Series) -> Series:
            self._rows.check([*constants, *names])
            values = zip(*(column.to_pylist() for column in columns), strict=True)
            rows = [{**constants, **dict(zip(names, row, strict=True))} for row in values]
            return Series.from_pylist(self._rows.answer(rows), dtype=ANSWER)

    return Columns
