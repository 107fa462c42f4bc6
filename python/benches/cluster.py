"""Measures rows a second of a task by `multiway batch`, Daft, Daft on Ray and Ray Data, on the same Parquet.

    python cluster.py --pictures ../../examples/pictures --cli ../../target/release/multiway

Ten rows are bad, and each run is checked: every good row comes exactly once, with a text, and every bad row
exactly once, with an error. The time is from the start of the query to its last row, and includes loading the
model, but not starting Ray. The cache of encoded pictures is off, since the pictures repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet

BAD = 10

#: The thread by which a process with an engine is known, on Linux.
_ENGINE_THREAD = "multiway-engine"


@dataclass(frozen=True)
class Options:
    """What all runs have in common."""

    data: str
    rows: int
    files: int
    task: str
    checkpoint: str | None
    cli: str
    cores: int
    workers: int
    kill: bool


@dataclass(frozen=True)
class Run:
    """What a run took, and whether all rows came."""

    name: str
    rows: int
    seconds: float
    rows_per_second: float
    killed: int
    problem: str | None


#: The id, the text and the error of a row.
Row = tuple[int, str | None, str | None]


def by_cli(options: Options) -> Iterator[Row]:
    """Answers by `multiway batch`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answers.parquet"
        checkpoint = ["--checkpoint", options.checkpoint] if options.checkpoint else []
        command = [options.cli, "--quiet", *checkpoint, "batch", options.task, "--reuse-budget", "0"]
        command += ["--data", f"{options.data}/*.parquet", "--out", str(out)]
        subprocess.run(command, check=True)
        table = parquet.read_table(out, columns=["id", "text", "error"])
        for row in table.to_pylist():
            # Its own names of rows: the file, and the number from 1.
            part, number = row["id"].removeprefix("part-").split(".parquet#")
            first = int(part) * options.rows // options.files
            yield first + int(number) - 1, row["text"], row["error"]


def by_daft(options: Options) -> Iterator[Row]:
    """Answers by Daft, in this process."""
    import daft
    from daft import col
    from multiway.daft import Task

    task = Task(options.task, checkpoint=options.checkpoint, reuse_budget=0)
    answers = daft.read_parquet(f"{options.data}/*.parquet").with_column("answer", task(image=col("image")))
    fields = answers.select("id", col("answer")["text"].alias("text"), col("answer")["error"].alias("error"))
    yield from ((row["id"], row["text"], row["error"]) for row in fields.to_pylist())


def by_daft_on_ray(options: Options) -> Iterator[Row]:
    """Answers by Daft, in its workers on Ray."""
    import daft

    daft.set_runner_ray(noop_if_initialized=True)
    yield from by_daft(options)


def by_ray(options: Options) -> Iterator[Row]:
    """Answers by Ray Data."""
    import ray
    from multiway.ray import MultiwayWorker

    worker = {
        "task": options.task,
        "columns": {"image": "image"},
        "checkpoint": options.checkpoint,
        "reuse_budget": 0,
        "threads": max(1, (os.cpu_count() or 1) // options.workers),
    }
    answers = ray.data.read_parquet(options.data).map_batches(
        MultiwayWorker,
        fn_constructor_kwargs=worker,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        batch_size=128,
    )
    fields = answers.select_columns(["id", "text", "error"])
    yield from ((row["id"], row["text"], row["error"]) for row in fields.iter_rows())


RUNS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "batch": by_cli,
    "daft": by_daft,
    "daft-ray": by_daft_on_ray,
    "ray": by_ray,
}


def measured(name: str, options: Options) -> Run:
    """Runs once, and checks the rows."""
    os.environ.update(DO_NOT_TRACK="1", RAY_USAGE_STATS_ENABLED="0", DAFT_PROGRESS_BAR="0")
    is_on_ray = name in ("ray", "daft-ray")
    if is_on_ray:
        import ray

        ray.init(
            num_cpus=options.cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
    with killing(options.kill and is_on_ray) as killed:
        start = time.monotonic()
        rows = list(RUNS[name](options))
        seconds = time.monotonic() - start
    problem = problem_of(rows, options.rows)
    if options.kill and is_on_ray and not killed:
        problem = problem or "no worker was killed: the run ended before, give more --rows"
    return Run(name, len(rows), round(seconds, 2), round(len(rows) / seconds, 1), len(killed), problem)


def problem_of(rows: list[Row], expected: int) -> str | None:
    """Says what is wrong with the rows of a run, if anything is."""
    ids = sorted(row[0] for row in rows)
    if ids != list(range(expected)):
        missing = sorted(set(range(expected)) - set(ids))
        return f"expected {expected} rows once, found {len(ids)}; missing are {missing[:5]}"
    is_bad = bad_rows(expected)
    for index, text, error in rows:
        if (index in is_bad) != (error is not None) or (error is None) != (text is not None):
            found = "bad" if index in is_bad else "good"
            return f"row {index}, which is {found}, has the text {text!r} and the error {error!r}"
    return None


def bad_rows(count: int) -> set[int]:
    """Returns the ids of bad rows, spread over all."""
    return {(2 * place + 1) * count // (2 * BAD) for place in range(BAD)}


def write_rows(folder: Path, pictures: Path, count: int, files: int) -> None:
    """Writes rows of an id and a picture to Parquet files."""
    suffixes = {".png", ".jpg", ".jpeg", ".webp"}
    found = [path.read_bytes() for path in sorted(pictures.iterdir()) if path.suffix.lower() in suffixes]
    if not found:
        sys.exit(f"--pictures: expected pictures ({', '.join(sorted(suffixes))}), found none in '{pictures}'")
    is_bad = bad_rows(count)
    for part in range(files):
        ids = range(part * count // files, (part + 1) * count // files)
        images = [b"no picture" if index in is_bad else found[index % len(found)] for index in ids]
        table = pyarrow.table({"id": list(ids), "image": pyarrow.array(images, pyarrow.binary())})
        parquet.write_table(table, folder / f"part-{part}.parquet", row_group_size=256)


@contextlib.contextmanager
def killing(is_wanted: bool) -> Iterator[list[int]]:
    """Kills one process with an engine, two seconds after it is there."""
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.2):
            workers = [pid for pid in descendants() if has_engine(pid)]
            if workers and not done.wait(2):
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])
                return

    thread = threading.Thread(target=kill, daemon=True)
    if is_wanted:
        thread.start()
    try:
        yield killed
    finally:
        done.set()
        if is_wanted:
            thread.join()


def descendants() -> list[int]:
    """Lists the processes below this one: others may use an engine on this machine too."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines():
        pid, parent = (int(number) for number in line.split())
        children.setdefault(parent, []).append(pid)
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found += children.get(pid, [])
    return found


def has_engine(pid: int) -> bool:
    """Says whether a process has opened an engine."""
    with contextlib.suppress(OSError):
        threads = Path(f"/proc/{pid}/task").glob("*/comm")
        return any(thread.read_text().strip() == _ENGINE_THREAD for thread in threads)
    return False


def main() -> int:
    """Measures the runs, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pictures", type=Path, required=True, metavar="FOLDER", help="pictures, which rows take in turn")
    add("--rows", type=int, default=2000, metavar="N", help="rows, ten of them bad [default: 2000]")
    add("--files", type=int, default=4, metavar="N", help="Parquet files [default: 4]")
    add("--task", default="caption", help="task whose one required input is `image` [default: caption]")
    add("--checkpoint", metavar="PATH", help="folder of a checkpoint [default: the one of the package]")
    add("--cli", default="multiway", metavar="PATH", help="the program `multiway` [default: of the path]")
    add("--runs", default=",".join(RUNS), metavar="NAMES", help="what is measured [default: %(default)s]")
    # On two, Ray has no place for its readers beside actors, and waits.
    cores = max(8, os.cpu_count() or 1)
    add(
        "--cores",
        type=int,
        default=cores,
        metavar="N",
        help="cores that Ray counts on [default: %(default)s]",
    )
    add(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="actors of Ray Data, which share the cores [default: 1]",
    )
    add("--kill", action="store_true", help="kill one worker during each run on Ray")
    add("--json", action="store_true", help="print a line of JSON for each run")
    given = parser.parse_args()
    names = given.runs.split(",")
    for name in names:
        if name not in RUNS:
            parser.error(f"--runs: expected some of {', '.join(RUNS)}, found '{name}'")
    if given.rows < 2 * BAD:
        parser.error(f"--rows: expected {2 * BAD} or more, found {given.rows}")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), given.pictures, given.rows, given.files)
        shared = {name: value for name, value in vars(given).items() if name in Options.__annotations__}
        options = Options(data=folder, **shared)
        if not given.json:
            print(f"{'run':10} {'rows':>7} {'seconds':>9} {'rows/s':>9} {'killed':>7}  rows that came")
        for name in names:
            # Daft has one runner in a process, and an engine one set of options.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                run = process.submit(measured, name, options).result()
            runs.append(run)
            print(json.dumps(asdict(run)) if given.json else line_of(run), flush=True)
    return 1 if any(run.problem for run in runs) else 0


def line_of(run: Run) -> str:
    """Formats a run as a line of the table."""
    took = f"{run.seconds:9.2f} {run.rows_per_second:9.1f} {run.killed:7}"
    return f"{run.name:10} {run.rows:7} {took}  {run.problem or 'all, once'}"


if __name__ == "__main__":
    sys.exit(main())
