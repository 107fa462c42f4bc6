"""Captions a folder of Parquet files of pictures, a file at a time, by Daft or by Ray Data.

    python caption_parquet.py pictures/ captions/
    python caption_parquet.py pictures/ keywords/ --engine ray --task keywords --column jpg

Each file of IN gives a file of the same name in OUT, with the columns of IN but the pictures, and `text`,
`value` and `error`, which says why a picture has no text. Run the same command again after it was killed:
files that are there are passed over, and what was begun is under a hidden name until it is whole.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet

ADDED = ("text", "value", "error")


def main(arguments: list[str] | None = None) -> int:
    """Captions the files that have no output yet."""
    given = read_arguments(arguments)
    sources = sorted(given.input.glob("*.parquet"))
    if not sources:
        print(f"{given.input}: expected files *.parquet, found none", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    waiting = [source for source in sources if not (given.out / source.name).exists()]
    print(f"{len(sources) - len(waiting)} of {len(sources)} files are done", file=sys.stderr)
    if not waiting:
        return 0
    answer = by_ray(given) if given.engine == "ray" else by_daft(given)
    for source in waiting:
        kept = columns_kept(source, given.column)
        # A hidden folder, which no reader of OUT takes for data, on the same disk as where it will be.
        work = given.out / f".{source.stem}.partial"
        shutil.rmtree(work, ignore_errors=True)
        answer(source, kept, work)
        failed = join_parts(work, given.out / source.name)
        print(f"{source.name}: {failed} rows failed", file=sys.stderr)
    return 0


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    whole = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=whole)
    parser.add_argument("input", metavar="IN", type=Path, help="a folder of Parquet files")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of the answers")
    parser.add_argument("--engine", choices=["daft", "ray"], default="daft")
    parser.add_argument("--column", default="image", help="the column of the pictures")
    parser.add_argument("--task", default="caption", help="a task whose one required input is `image`")
    parser.add_argument("--checkpoint", help="a checkpoint, by default that of the package")
    return parser.parse_args(arguments)


def columns_kept(source: Path, column: str) -> list[str]:
    """Lists the columns of a file but that of the pictures."""
    names = pyarrow.parquet.read_schema(source).names
    if column not in names:
        raise SystemExit(f"{source}: expected a column '{column}', found {', '.join(names)}: give --column")
    taken = sorted(set(names) & set(ADDED))
    if taken:
        raise SystemExit(f"{source}: has a column '{taken[0]}' already, which the answers would replace")
    return [name for name in names if name != column]


def by_daft(given: argparse.Namespace) -> Callable[[Path, list[str], Path], None]:
    """Answers a file by Daft."""
    import daft
    import multiway.daft

    task = multiway.daft.task(given.task, checkpoint=given.checkpoint)

    def answer(source: Path, kept: list[str], work: Path) -> None:
        answered = daft.read_parquet(str(source)).with_column("answer", task(image=daft.col(given.column)))
        fields = [daft.col("answer")[name].alias(name) for name in ADDED]
        answered.select(*kept, *fields).write_parquet(str(work))

    return answer


def by_ray(given: argparse.Namespace) -> Callable[[Path, list[str], Path], None]:
    """Answers a file by Ray Data."""
    import ray
    from multiway.ray import MultiwayWorker

    worker: dict[str, Any] = {"task": given.task, "columns": {"image": given.column}}
    # The rows of a file stay in their order.
    ray.data.DataContext.get_current().execution_options.preserve_order = True

    def answer(source: Path, kept: list[str], work: Path) -> None:
        answered = ray.data.read_parquet(str(source)).map_batches(
            MultiwayWorker,
            fn_constructor_kwargs={**worker, "checkpoint": given.checkpoint},
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=64,
        )
        answered.select_columns([*kept, *ADDED]).write_parquet(str(work))

    return answer


def join_parts(work: Path, out: Path) -> int:
    """Makes one file of the parts in a folder, and returns the number of rows that failed."""
    table = pyarrow.parquet.read_table(work)
    whole = work / "whole"
    pyarrow.parquet.write_table(table, whole)
    # At once, so that a file that is there is whole.
    os.replace(whole, out)
    shutil.rmtree(work)
    return table.num_rows - int(table["error"].null_count)


if __name__ == "__main__":
    sys.exit(main())
