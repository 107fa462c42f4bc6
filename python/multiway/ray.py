"""Answers the rows of Ray Data's datasets, with an engine in each actor.

    import ray
    from multiway.ray import MultiwayWorker

    pictures = ray.data.read_parquet("pictures")
    answers = pictures.map_batches(
        MultiwayWorker,
        fn_constructor_kwargs={"task": "caption", "columns": {"image": "image"}, "threads": 4},
        compute=ray.data.ActorPoolStrategy(size=8),
        num_cpus=4,
        batch_size=64,
    )
    answers.write_parquet("captions")

An actor that dies is started again, and its batches are repeated. Batches on which the engine failed are
repeated where `DataContext` says so: `retried_map_errors = ["EngineError"]`, `max_map_retries = 2`.
"""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import pyarrow

from multiway import Engine, InputError
from multiway._rows import answer_rows, check_inputs

__all__ = ["MultiwayWorker"]

#: Kinds of answers that are ranked.
_RANKED = ("choice", "predicate")

_VECTOR = pyarrow.list_(pyarrow.float32())


class MultiwayWorker:
    """Adds the columns `text`, `value` and `error` to batches of rows, for `Dataset.map_batches`.

    `columns` gives the column of each input of the task. Tasks with vectors add `embedding`, and tasks that
    rank candidates `choices`, as JSON; `value` is JSON too. A row that fails has its `error`, and null in the
    others. `prefix` is put before the names of these columns. `checkpoint`, `task_files` and `options` are as
    in `Engine.open`; `threads` is best what `num_cpus` is.
    """

    def __init__(
        self,
        task: str,
        *,
        columns: Mapping[str, str],
        checkpoint: str | PathLike[str] | None = None,
        task_files: Sequence[str | PathLike[str]] | None = None,
        sampling: Mapping[str, Any] | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        self._engine = Engine.open(checkpoint, task_files=task_files, **options)
        check_inputs(self._engine, task, columns)
        if not columns:
            raise InputError("columns: expected the column of each input, found none")
        self._task = task
        self._columns = dict(columns)
        self._sampling = sampling
        self._prefix = prefix
        self._kind = self._engine.task(task)["output"]["kind"]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answers the rows of a batch, which is a dictionary of arrays."""
        missing = sorted(set(self._columns.values()) - set(batch))
        if missing:
            raise InputError(f"columns: expected some of {', '.join(batch)}, found '{missing[0]}'")
        inputs = [batch[column] for column in self._columns.values()]
        rows = [dict(zip(self._columns, row, strict=True)) for row in zip(*inputs, strict=True)]
        records = answer_rows(self._engine, self._task, rows, sampling=self._sampling)
        added = {name: _texts([record[name] for record in records]) for name in ("text", "value", "error")}
        if self._kind == "embedding":
            added["embedding"] = pyarrow.array([record["embedding"] for record in records], _VECTOR)
        if self._kind in _RANKED:
            ranked = [record["choices"] for record in records]
            added["choices"] = _texts([of and json.dumps(of, ensure_ascii=False) for of in ranked])
        return {**batch, **{self._prefix + name: values for name, values in added.items()}}


def _texts(values: list[Any]) -> Any:
    # The type is said: a batch without errors has nulls alone, which are of no type.
    return pyarrow.array(values, pyarrow.string())
