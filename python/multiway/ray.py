"""A worker of Ray Data: a task on batches of rows.

    import ray
    from multiway.ray import MultiwayWorker

    pictures = ray.data.read_parquet("pictures/")
    answers = pictures.map_batches(
        MultiwayWorker,
        fn_constructor_kwargs={"task": "caption", "columns": {"image": "image"}},
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=4,
        batch_size=128,
    )
    answers.drop_columns(["image"]).write_parquet("captions/")

Each actor has an engine of its own, with as many threads as its `num_cpus`. An actor that dies is started
again and its batches are repeated; batches on which the engine failed are repeated too, if Ray is told so:

    ray.data.DataContext.get_current().retried_map_errors = ["EngineError"]

What `ray.data.read_webdataset` reads has a column for each suffix of the files in the archive, such as
`jpg`, `png` or `webp` for pictures and `txt` for texts, beside `__key__` and `__url__`. By default Ray
decodes pictures itself, and fails on broken ones: with `decoder=None` all arrive as the bytes of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import pyarrow
import ray
from ray.data.block import BlockAccessor, BlockType
from typing_extensions import Unpack

from multiway import InputError
from multiway._rows import FIELDS, RowOptions, TaskRows

__all__ = ["MultiwayWorker"]

_CHOICE = pyarrow.struct({"text": pyarrow.string(), "probability": pyarrow.float64()})

#: The types of result columns. They are said, since a batch may have nulls alone.
_TYPES = {
    "text": pyarrow.string(),
    "choices": pyarrow.list_(_CHOICE),
    "value": pyarrow.string(),
    "embedding": pyarrow.list_(pyarrow.float32()),
    "error": pyarrow.string(),
}


class MultiwayWorker:
    """Adds the columns `text`, `choices`, `value`, `embedding` and `error` to a batch.

    `columns` says which column each input of the task is read from, and `constants` are inputs that are the
    same for all rows. `text`, `choices`, `embedding` and `value` (JSON, where an answer is more than its
    text) are null where the kind of task has none. A row whose inputs are null or cannot be read has its
    `error`, and nulls beside it. `prefix` is what names of the new columns begin with, such as `answer_`.

    A batch may have any of Ray's formats, "numpy", "pandas" or "pyarrow"; what is returned is a table of
    Arrow, whose types are the same for all batches. The other options are those of `Engine.batch` and
    `Engine.open`.
    """

    def __init__(
        self,
        task: str,
        columns: Mapping[str, str],
        *,
        constants: Mapping[str, Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        prefix: str = "",
        **options: Unpack[RowOptions],
    ) -> None:
        threads = _assigned_cores()
        if threads is not None:
            options.setdefault("threads", threads)
        self._rows = TaskRows(task, checkpoint, **options)
        self._columns = dict(columns)
        self._constants = dict(constants or {})
        self._prefix = prefix
        self._rows.check([*self._columns, *self._constants])

    def __call__(self, batch: Any) -> pyarrow.Table:
        """Answers the rows of a batch."""
        table = BlockAccessor.batch_to_block(batch, BlockType.ARROW)
        self._check(table.column_names)
        results = self._rows.answer(self._inputs(table))
        for name in FIELDS:
            column = pyarrow.array([result[name] for result in results], _TYPES[name])
            table = table.append_column(self._prefix + name, column)
        return table

    def _inputs(self, table: pyarrow.Table) -> Iterator[dict[str, Any]]:
        # Ray's own reading of a table knows its tensors, which are what decoded pictures are.
        found = BlockAccessor.for_block(table).to_numpy(sorted(set(self._columns.values())))
        for index in range(table.num_rows):
            inputs = {name: found[column][index] for name, column in self._columns.items()}
            yield {**self._constants, **inputs}

    def _check(self, names: list[str]) -> None:
        for name, column in self._columns.items():
            if column not in names:
                raise InputError(
                    f"columns: expected the name of a column for the input '{name}', found '{column}': the "
                    f"data has {', '.join(names)}"
                )
        for name in FIELDS:
            if self._prefix + name in names:
                raise InputError(
                    f"prefix: the data has a column '{self._prefix}{name}' already, which the answers would "
                    "replace: give another prefix, such as 'answer_'"
                )


def _assigned_cores() -> int | None:
    """Returns the cores that Ray has set aside for this actor, if it is one and has whole cores."""
    if not ray.is_initialized():
        return None
    context: Any = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    return int(context.get_assigned_resources().get("CPU", 0.0)) or None
