"""Ray Data: the worker on batches of every format, broken rows, and actors that die."""

import contextlib
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drawings
import pytest
from multiway import Engine, InputError

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import numpy  # noqa: E402
import pyarrow  # noqa: E402
from multiway.ray import MultiwayWorker  # noqa: E402

CAPTION: dict[str, Any] = {"task": "caption", "columns": {"image": "image"}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # On a machine with few cores Ray has no place for its readers beside an actor, and waits.
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def texts(engine: Engine) -> dict[int, str | None]:
    good = [row for row in drawings.rows() if row["id"] not in drawings.BAD]
    answers = engine.batch("caption", [{"image": row["image"]} for row in good])
    return {row["id"]: answer.text for row, answer in zip(good, answers, strict=True)}


def answered(data: Any, size: int = 1, **worker: Any) -> Any:
    actors = ray.data.ActorPoolStrategy(size=size)
    return data.map_batches(
        MultiwayWorker, fn_constructor_kwargs={**CAPTION, **worker}, batch_size=16, compute=actors
    )


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_a_batch_of_each_format_gives_a_table(batch_format: str, texts: dict[int, str | None]) -> None:
    rows = drawings.rows()
    batch: Any = pyarrow.Table.from_pylist(rows)
    if batch_format == "pandas":
        batch = batch.to_pandas()
    if batch_format == "numpy":
        images = numpy.array([row["image"] for row in rows], object)
        batch = {"id": numpy.arange(drawings.ROWS), "image": images}
    table = MultiwayWorker(**CAPTION)(batch)
    assert table.column_names == ["id", "image", "text", "choices", "value", "embedding", "error"]
    drawings.check(table.to_pylist(), texts)


def test_types_of_columns_are_those_of_any_batch(engine: Engine) -> None:
    worker = MultiwayWorker("retrieve", {"images": "image"}, prefix="answer_")
    bad = worker(pyarrow.table({"image": pyarrow.array([None], pyarrow.binary())}))
    good = worker(pyarrow.table({"image": [drawings.picture(2)]}))
    assert bad.schema == good.schema and bad["answer_error"][0].as_py().startswith("InputError")
    assert good["answer_embedding"][0].as_py() == engine.embed(images=drawings.picture(2)).tolist()


def test_decoded_pictures_and_constants_are_read(engine: Engine) -> None:
    pixels = numpy.zeros((2, 8, 8, 3), numpy.uint8)
    worker = MultiwayWorker("classify", {"image": "pixels"}, constants={"choices": ["night", "day"]})
    table = worker({"pixels": pixels})
    expected = engine.run("classify", image=pixels[0], choices=["night", "day"])
    assert table["text"].to_pylist() == [expected.text] * 2
    assert table["choices"][0].as_py()[0]["probability"] == expected.choices[0].probability


def test_wrong_columns_are_raised() -> None:
    batch = {"image": [b""], "text": ["already there"]}
    with pytest.raises(InputError, match="columns: expected the name of a column for the input 'image'"):
        MultiwayWorker("caption", {"image": "picture"})(batch)
    with pytest.raises(InputError, match="prefix: the data has a column 'text' already"):
        MultiwayWorker(**CAPTION)(batch)
    with pytest.raises(InputError, match="expected the inputs"):
        MultiwayWorker("caption", {"imgae": "image"})


def test_each_row_comes_once_and_bad_rows_say_why(
    cluster: None, texts: dict[int, str | None], tmp_path: Path
) -> None:
    drawings.write_parquet(tmp_path)
    answers = answered(ray.data.read_parquet(str(tmp_path)))
    drawings.check(answers.take_all(), texts)


def test_archives_are_pictures(cluster: None, texts: dict[int, str | None], tmp_path: Path) -> None:
    contents = {"0": drawings.picture(0), "1": b"broken", "2": drawings.picture(2)}
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for key, content in contents.items():
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shard = ray.data.read_webdataset(str(tmp_path / "shard.tar"), decoder=None)
    found = {row["__key__"]: row for row in answered(shard, columns={"image": "png"}).take_all()}
    assert found["0"]["text"] == texts[0] and found["2"]["text"] == texts[2]
    assert found["1"]["text"] is None and found["1"]["error"].startswith("InputError: ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads of processes are not listed")
def test_an_actor_that_dies_loses_no_row(cluster: None, texts: dict[int, str | None], tmp_path: Path) -> None:
    for copy in range(20):
        (tmp_path / str(copy)).mkdir()
        drawings.write_parquet(tmp_path / str(copy))
    killed: list[int] = []
    killer = threading.Thread(target=_kill_an_actor, args=(killed,))
    killer.start()
    # Without the cache of pictures, so that it does not end before.
    answers = answered(ray.data.read_parquet(str(tmp_path)), size=2, reuse_budget=0).take_all()
    killer.join()
    assert killed, "no actor was found in time"
    # Copies of a row are the same, in whatever order they come.
    ordered = sorted(answers, key=lambda row: int(row["id"]))
    assert len(ordered) == 20 * drawings.ROWS
    for copy in range(20):
        drawings.check(ordered[copy::20], texts)


def _kill_an_actor(killed: list[int]) -> None:
    """Kills the first actor that has an engine."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not killed:
        for threads in Path("/proc").glob("[0-9]*/task"):
            pid = int(threads.parent.name)
            with contextlib.suppress(OSError):
                names = {name.read_text().strip() for name in threads.glob("*/comm")}
                if "multiway-engine" in names and pid != os.getpid() and _is_ours(pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
        time.sleep(0.1)


def _is_ours(pid: int) -> bool:
    """Says whether a process descends from this one: others may use an engine on this machine too."""
    while pid > 1 and pid != os.getpid():
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.partition("PPid:")[2].split()[0])
    return pid == os.getpid()
