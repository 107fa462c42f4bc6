"""Daft: tasks as expressions, and the provider of its functions of AI."""

import io
import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import drawings
import numpy
import pytest
from multiway import Engine, InputError

os.environ["DO_NOT_TRACK"] = "1"
daft = pytest.importorskip("daft")

import daft.functions as ai  # noqa: E402
from daft import DataType, col  # noqa: E402
from daft.functions import classify_image, classify_text, decode_image, embed_image  # noqa: E402
from multiway.daft import ANSWER, Provider, Task  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "caption_parquet.py"

# Their types know the options of Daft's own providers alone.
prompt: Any = ai.prompt
embed_text: Any = ai.embed_text


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    drawings.write_parquet(folder)
    return daft.read_parquet(f"{folder}/*.parquet")


@pytest.fixture(scope="module")
def texts(engine: Engine) -> dict[int, str | None]:
    good = [row for row in drawings.rows() if row["id"] not in drawings.BAD]
    answers = engine.batch("caption", [{"image": row["image"]} for row in good])
    return {row["id"]: answer.text for row, answer in zip(good, answers, strict=True)}


def engine_threads() -> int:
    """Counts the threads that schedule, one for each engine of the process."""
    tasks = Path("/proc/self/task").glob("*/comm")
    return [task.read_text().strip() for task in tasks].count("multiway-engine")


def test_each_row_comes_once_and_bad_rows_say_why(pictures: Any, texts: dict[int, str | None]) -> None:
    answers = pictures.with_column("answer", Task("caption", batch_size=16)(image=col("image")))
    assert answers.schema()["answer"].dtype == ANSWER
    found = answers.select("id", col("answer")["text"], col("answer")["error"]).to_pylist()
    drawings.check(found, texts)


def test_two_expressions_of_a_query_open_one_engine(pictures: Any, engine: Engine) -> None:
    answers = pictures.where(col("id") == 2).select(
        Task("caption")(image=col("image")).alias("caption"),
        Task("classify")(image=col("image"), choices=["circle", "square"]).alias("shape"),
        Task("retrieve")(images=col("image")).alias("vector"),
    )
    (row,) = answers.to_pylist()
    assert row["caption"]["text"] is not None
    assert {choice["text"] for choice in row["shape"]["choices"]} == {"circle", "square"}
    expected = engine.embed(images=drawings.picture(2))
    assert numpy.array_equal(numpy.asarray(row["vector"]["embedding"], numpy.float32), expected)
    if Path("/proc/self/task").exists():
        assert engine_threads() == 1


def test_images_files_and_archives_are_pictures(
    pictures: Any, texts: dict[int, str | None], tmp_path: Path
) -> None:
    caption = Task("caption")
    decoded = decode_image(col("image"), on_error="null")
    answers = pictures.select("id", caption(image=decoded).alias("answer"))
    found = {row["id"]: row["answer"] for row in answers.to_pylist()}
    assert {key: answer["text"] for key, answer in found.items() if answer["error"] is None} == texts
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for index, content in ((0, drawings.picture(0)), (1, b"broken"), (2, drawings.picture(2))):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shard = daft.read_webdataset(str(tmp_path / "shard.tar")).with_column("answer", caption(image=col("png")))
    of_shard = {row["__key__"]: row["answer"] for row in shard.select("__key__", "answer").to_pylist()}
    assert of_shard["0"]["text"] == texts[0] and of_shard["2"]["text"] == texts[2]
    assert of_shard["1"]["error"].startswith("InputError: ")


def test_what_is_wrong_with_all_rows_fails_the_query(pictures: Any) -> None:
    for task, inputs, reason in (
        ("captoin", {"image": col("image")}, "did you mean 'caption'"),
        ("caption", {"imgae": col("image")}, "found 'imgae'"),
    ):
        with pytest.raises(InputError, match=reason):
            pictures.select(Task(task, max_retries=0)(**inputs)).collect()
    with pytest.raises(InputError, match="expected a column"):
        Task("caption")(image="cat.png")


def test_the_functions_of_ai_run_on_the_engine(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider()
    bad: dict[str, Any] = {"text": None, "image": b"this is no picture"}
    rows: list[dict[str, Any]] = [
        {"text": text, "image": drawings.picture(place)} for place, text in enumerate(["a cat", "a dog"])
    ]
    table = daft.from_pylist([*rows, bad])
    answers = table.select(
        prompt(col("text"), provider=provider, max_new_tokens=4).alias("written"),
        classify_text(col("text"), ["animal", "house"], provider=provider).alias("label"),
        embed_text(col("text"), provider=provider).alias("text"),
        embed_image(col("image"), provider=provider).alias("image"),
    )
    size = engine.embed("a cat").size
    assert answers.schema()["image"].dtype == DataType.embedding(DataType.float32(), size)
    with caplog.at_level(logging.WARNING, "multiway"):
        *good, last = answers.to_pylist()
    assert all(value is None for value in last.values())
    assert "not a picture" in caplog.text
    for row, found in zip(rows, good, strict=True):
        written = engine.run("prompt", text=row["text"], sampling={"max_new_tokens": 4}).text
        assert found["written"] == written and found["label"] in ("animal", "house")
        assert numpy.array_equal(found["text"], engine.embed(row["text"]))
        assert numpy.array_equal(found["image"], engine.embed(images=row["image"]))


def test_images_are_classified_and_prompted_with(engine: Engine) -> None:
    table = daft.from_pylist([{"image": drawings.picture(3)}]).select(decode_image(col("image")))
    daft.attach_provider(Provider("multiway-tests"))
    choices = ["circle", "square", "star"]
    answers = table.select(
        classify_image(col("image"), choices, provider="multiway-tests").alias("label"),
        prompt([daft.lit("caption English: <extra_id_0>"), col("image")], provider="multiway-tests").alias(
            "written"
        ),
    )
    (row,) = answers.to_pylist()
    assert row["label"] == engine.run("classify", image=drawings.picture(3), choices=choices).text
    text = "caption English: <extra_id_0>"
    assert row["written"] == engine.run("prompt", text=text, images=[drawings.picture(3)]).text


def test_answers_have_the_form_that_is_asked_for() -> None:
    schema = {
        "type": "object",
        "properties": {"is_red": {"type": "boolean"}},
        "required": ["is_red"],
        "additionalProperties": False,
    }
    table = daft.from_pydict({"text": ["is it red?"]})
    answers = table.select(prompt(col("text"), provider=Provider(), return_format=schema).alias("answer"))
    assert answers.to_pylist()[0]["answer"] in ('{"is_red":true}', '{"is_red":false}')


def test_wrong_options_of_the_provider_are_raised() -> None:
    table = daft.from_pydict({"text": ["a cat"]})
    with pytest.raises(InputError, match="unknown option 'temprature'"):
        embed_text(col("text"), provider=Provider(), temprature=1.0)
    with pytest.raises(InputError, match="dimensions: expected"):
        table.select(embed_text(col("text"), provider=Provider(), dimensions=3, max_retries=0)).collect()
    with pytest.raises(InputError, match="temprature"):
        table.select(prompt(col("text"), provider=Provider(), temprature=1.0, max_retries=0)).collect()


def test_the_example_goes_on_with_files_that_are_missing(
    texts: dict[int, str | None], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    drawings.write_parquet(tmp_path / "in")
    out = tmp_path / "out"
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "in"), str(out)]
    subprocess.run(command, check=True)
    first = (out / "part-0.parquet").stat()
    # As a process leaves it that was killed in the second file.
    (out / "part-1.parquet").rename(out / ".part-1.parquet.partial")
    subprocess.run(command, check=True)
    assert (out / "part-0.parquet").stat().st_mtime_ns == first.st_mtime_ns
    assert sorted(path.name for path in out.iterdir()) == ["part-0.parquet", "part-1.parquet"]
    drawings.check(daft.read_parquet(f"{out}/*.parquet").to_pylist(), texts)
