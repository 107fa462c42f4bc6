"""Captions the pictures of a folder of Parquet files, on Daft or on Ray Data.

Each file gives one file of the same name, with all of its columns but the pictures, and the answers. It gets
its name when it is complete: run the same command again after a crash, and it goes on with what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
from multiway import EngineError, InputError

#: Answers the rows of a file, as tables.
Answering = Callable[[Path], Iterator[pyarrow.Table]]


def daft_answering(options: argparse.Namespace) -> Answering:
    """Answers by a query of Daft, in this process or, after `daft.set_runner_ray()`, on a cluster."""
    import daft
    from daft import col
    from multiway.daft import Task

    task = Task(options.task, checkpoint=options.checkpoint)

    def answer(path: Path) -> Iterator[pyarrow.Table]:
        answers = daft.read_parquet(str(path)).with_column("answer", task(image=col(options.column)))
        fields = [col("answer")[name].alias(name) for name in ("text", "value", "error")]
        kept = [name for name in answers.column_names if name not in ("answer", options.column)]
        yield from (
            pyarrow.Table.from_batches([batch]) for batch in answers.select(*kept, *fields).to_arrow_iter()
        )

    return answer


def ray_answering(options: argparse.Namespace) -> Answering:
    """Answers by Ray Data, on the cluster that RAY_ADDRESS names, or on this machine."""
    import ray
    from multiway.ray import MultiwayWorker

    ray.init(ignore_reinit_error=True)
    workers = ray.data.ActorPoolStrategy(size=options.workers)
    worker = {"task": options.task, "columns": {"image": options.column}, "checkpoint": options.checkpoint}

    def answer(path: Path) -> Iterator[pyarrow.Table]:
        rows = ray.data.read_parquet(str(path))
        answers = rows.map_batches(
            MultiwayWorker, fn_constructor_kwargs=worker, compute=workers, batch_size=128
        )
        left_out = [options.column, "choices", "embedding"]
        yield from answers.drop_columns(left_out).iter_batches(batch_format="pyarrow", batch_size=None)

    return answer


ENGINES = {"daft": daft_answering, "ray": ray_answering}


def write_part(tables: Iterator[pyarrow.Table], path: Path) -> tuple[int, int]:
    """Writes tables to a file which gets its name at the end, and counts its rows and their errors."""
    partial = path.with_name(f".{path.name}.partial")
    rows = errors = 0
    writer: parquet.ParquetWriter | None = None
    try:
        for table in tables:
            writer = writer or parquet.ParquetWriter(partial, table.schema)
            writer.write_table(table.cast(writer.schema))
            rows += table.num_rows
            errors += table.num_rows - table["error"].null_count
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        partial.replace(path)
    return rows, errors


def main() -> int:
    """Answers the files that have no part yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN_FOLDER", help="folder of .parquet files")
    add("output", type=Path, metavar="OUT_FOLDER", help="folder for the answers; it is made if it is missing")
    add("--engine", choices=ENGINES, default="daft", help="what runs the batches [default: daft]")
    pictures = "column of pictures: bytes of files, paths, or structs {bytes, path} [default: image]"
    add("--column", default="image", help=pictures)
    add("--task", default="caption", help="task whose one required input is `image` [default: caption]")
    add("--checkpoint", metavar="PATH", help="folder of a checkpoint [default: the one of the package]")
    add("--workers", type=int, default=1, metavar="N", help="actors of Ray, each with an engine [default: 1]")
    options = parser.parse_args()
    paths = sorted(options.input.glob("*.parquet"))
    if not paths:
        parser.error(f"IN_FOLDER: expected .parquet files, found none in '{options.input}'")
    for path in paths:
        if options.column not in parquet.read_schema(path).names:
            parser.error(
                f"--column: '{path}' has no column '{options.column}': name the one with the pictures"
            )
    options.output.mkdir(parents=True, exist_ok=True)
    left = [path for path in paths if not (options.output / path.name).exists()]
    print(f"{len(paths)} files, {len(paths) - len(left)} of them done", file=sys.stderr)
    if not left:
        return 0
    answer = ENGINES[options.engine](options)
    for path in left:
        try:
            rows, errors = write_part(answer(path), options.output / path.name)
        except (InputError, EngineError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        print(f"{path.name}: {rows} rows, {errors} with an error", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
