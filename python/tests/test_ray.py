"""Ray Data: good rows as `Engine.run` answers them, bad ones with their reason, a worker that is killed."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from multiway import Engine, InputError
from PIL import Image

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from multiway.ray import MultiwayWorker  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "caption_parquet.py"
BAD = {7: None, 19: b"not a picture", 31: b""}
SCHEMA = pyarrow.schema({"id": pyarrow.int64(), "image": pyarrow.binary()})


def drawing(index: int) -> bytes:
    """Makes a picture of one color that differs by its index."""
    color = (index * 37 % 256, index * 91 % 256, index * 53 % 256)
    file = io.BytesIO()
    Image.new("RGB", (48, 64), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the pictures as four files of Parquet."""
    path = tmp_path_factory.mktemp("pictures")
    for part in range(4):
        rows = range(part * 10, part * 10 + 10)
        records = [{"id": row, "image": BAD[row] if row in BAD else drawing(row)} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(records, SCHEMA), path / f"{part}.parquet")
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # More than the machine may have: Ray sets aside a core for each task, and waits where none is left.
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def check(rows: list[dict[str, Any]], engine: Engine, prefix: str = "") -> None:
    """Checks that every row is there once, with its text or with the reason why it has none."""
    assert sorted(row["id"] for row in rows) == list(range(40))
    for row in rows:
        text, error = row[f"{prefix}text"], row[f"{prefix}error"]
        if row["id"] in BAD:
            assert text is None and error.startswith("InputError: ")
        else:
            assert error is None and text == engine.run("caption", image=drawing(row["id"])).text
            assert json.loads(row[f"{prefix}value"]) == text


def test_a_worker_adds_columns_to_a_batch(engine: Engine, cat: Path) -> None:
    batch = {"picture": numpy.array([cat.read_bytes(), None], object), "id": numpy.arange(2)}
    answered = MultiwayWorker("caption", columns={"image": "picture"}, prefix="caption_")(batch)
    assert list(answered) == ["picture", "id", "caption_text", "caption_value", "caption_error"]
    assert answered["caption_text"].to_pylist() == [engine.run("caption", image=cat).text, None]
    error = "InputError: image: expected a value, found none"
    assert answered["caption_error"].to_pylist() == [None, error]
    texts = {"text": numpy.array(["a cat", None], object)}
    vectors = MultiwayWorker("retrieve", columns={"text": "text"})(texts)["embedding"].to_pylist()
    assert numpy.allclose(vectors[0], engine.embed("a cat")) and vectors[1] is None
    names = numpy.array([["cat", "dog"], ["cat", "dog"]], object)
    columns = {"image": "picture", "choices": "names"}
    ranked = MultiwayWorker("classify", columns=columns)({**batch, "names": names})["choices"].to_pylist()
    assert {choice["text"] for choice in json.loads(ranked[0])} == {"cat", "dog"} and ranked[1] is None


def test_wrong_columns_are_refused(cat: Path) -> None:
    with pytest.raises(InputError, match="found 'picture'"):
        MultiwayWorker("caption", columns={"picture": "image"})
    with pytest.raises(InputError, match="found 'jpg'"):
        MultiwayWorker("caption", columns={"image": "jpg"})({"image": numpy.array([str(cat)], object)})


def test_a_dataset_is_answered(folder: Path, cluster: None, engine: Engine, tmp_path: Path) -> None:
    answered = ray.data.read_parquet(str(folder)).map_batches(
        MultiwayWorker,
        fn_constructor_kwargs={"task": "caption", "columns": {"image": "image"}, "prefix": "a_"},
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=8,
    )
    answered.write_parquet(str(tmp_path / "out"))
    check(parquet.read_table(tmp_path / "out").to_pylist(), engine, "a_")


class KilledOnce(MultiwayWorker):
    """Kills its own process at the first batch that any worker is given."""

    def __init__(self, mark: str, **options: Any) -> None:
        super().__init__(**options)
        self._mark = Path(mark)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            self._mark.touch(exist_ok=False)
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)
        return batch


@pytest.mark.slow
def test_batches_of_a_killed_worker_are_repeated(
    folder: Path, cluster: None, engine: Engine, tmp_path: Path
) -> None:
    # The class is not among the modules that workers can import.
    ray.cloudpickle.register_pickle_by_value(__import__(KilledOnce.__module__))
    mark = tmp_path / "killed"
    answered = ray.data.read_parquet(str(folder)).map_batches(
        KilledOnce,
        fn_constructor_kwargs={"mark": str(mark), "task": "caption", "columns": {"image": "image"}},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=8,
    )
    rows = answered.take_all()
    assert mark.exists()
    check(rows, engine)


@pytest.mark.slow
def test_the_example_answers_what_is_not_there_yet(folder: Path, engine: Engine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(EXAMPLE), str(folder), str(out), "--engine", "ray"]
    subprocess.run(command, check=True)
    check(parquet.read_table(out).to_pylist(), engine)
    kept = (out / "0.parquet").stat().st_mtime_ns
    (out / "2.parquet").unlink()
    subprocess.run(command, check=True)
    assert sorted(path.name for path in out.iterdir()) == [f"{part}.parquet" for part in range(4)]
    assert (out / "0.parquet").stat().st_mtime_ns == kept
