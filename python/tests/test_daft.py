"""Tables of Daft: good rows as `Engine.run` answers them, bad ones with a reason, the provider."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from multiway import Engine, InputError
from multiway._rows import answer_rows
from PIL import Image, ImageDraw

daft = pytest.importorskip("daft")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

import multiway.daft  # noqa: E402
from daft import col  # noqa: E402
from daft.functions import decode_image  # noqa: E402
from daft.functions.ai import classify_image, classify_text, embed_image, embed_text, prompt  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "caption_parquet.py"
BAD = {7: None, 19: b"not a picture", 31: b""}


def drawing(index: int) -> bytes:
    """Draws a picture that differs by its index."""
    picture = Image.new("RGB", (64, 64), (240, 240, 240))
    color = (index * 37 % 256, index * 91 % 256, index * 53 % 256)
    shape = ImageDraw.Draw(picture)
    (shape.ellipse if index % 2 else shape.rectangle)((8, 8, 24 + index, 24 + index), fill=color)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[bytes | None]:
    return [BAD[index] if index in BAD else drawing(index) for index in range(40)]


@pytest.fixture(scope="module")
def texts(engine: Engine, pictures: list[bytes | None]) -> dict[int, str | None]:
    good = {index: picture for index, picture in enumerate(pictures) if index not in BAD}
    return {index: engine.run("caption", image=picture).text for index, picture in good.items()}


@pytest.fixture
def folder(tmp_path: Path, pictures: list[bytes | None]) -> Path:
    """Writes the pictures as four files of Parquet."""
    (tmp_path / "in").mkdir()
    for part in range(4):
        rows = range(part * 10, part * 10 + 10)
        columns = {
            "id": pyarrow.array(list(rows), pyarrow.int64()),
            "image": pyarrow.array([pictures[row] for row in rows], pyarrow.binary()),
        }
        parquet.write_table(pyarrow.table(columns), tmp_path / "in" / f"{part}.parquet")
    return tmp_path / "in"


def check(rows: list[dict[str, Any]], texts: dict[int, str | None]) -> None:
    """Checks that every row is there once, with its text or with the reason why it has none."""
    assert sorted(row["id"] for row in rows) == list(range(40))
    assert {row["id"]: row["text"] for row in rows if row["error"] is None} == texts
    failed = {row["id"]: row for row in rows if row["error"] is not None}
    assert set(failed) == set(BAD) and all(row["text"] is None for row in failed.values())
    assert failed[7]["error"] == "InputError: image: expected a value, found none"
    assert all(row["error"].startswith("InputError: ") for row in failed.values())
    assert "empty" in failed[31]["error"] and "picture" in failed[19]["error"]


def test_rows_are_records(engine: Engine, cat: Path) -> None:
    pixels = numpy.asarray(Image.open(cat).convert("RGBA"))
    forms = [cat, str(cat), cat.read_bytes(), Image.open(cat), pixels]
    records = answer_rows(engine, "caption", [{"image": form} for form in forms])
    assert {record["text"] for record in records} == {engine.run("caption", image=cat).text}
    assert json.loads(records[0]["value"]) == records[0]["text"] and records[0]["embedding"] is None
    names = numpy.array(["cat", "dog"], object)
    record = answer_rows(engine, "classify", [{"image": cat, "choices": names}])[0]
    assert {choice["text"] for choice in record["choices"]} == {"cat", "dog"}
    assert len(answer_rows(engine, "retrieve", [{"text": "a cat"}])[0]["embedding"]) == 256
    assert answer_rows(engine, "caption", []) == []
    with pytest.raises(InputError, match="found 'picture'"):
        answer_rows(engine, "caption", [{"picture": cat}])
    with pytest.raises(InputError, match="unknown task"):
        answer_rows(engine, "nothing", [{"image": cat}])


def test_a_task_answers_a_column(folder: Path, texts: dict[int, str | None]) -> None:
    caption = multiway.daft.task("caption", batch_size=8)
    answered = daft.read_parquet(str(folder)).with_column("answer", caption(image=col("image")))
    rows = answered.select("id", col("answer")["text"], col("answer")["error"]).to_pylist()
    check(rows, texts)


def test_decoded_pictures_constants_and_tasks_in_one_query(engine: Engine, cat: Path) -> None:
    file = cat.read_bytes()
    table = daft.from_pydict({"image": [file, None], "question": ["what is it?", "what shape is it?"]})
    table = table.with_column("decoded", decode_image(col("image")))
    caption, vqa = multiway.daft.task("caption"), multiway.daft.task("vqa")
    classify, vector = multiway.daft.task("classify"), multiway.daft.task("retrieve")
    row, bad = table.select(
        caption(image=col("decoded"), language="German").alias("caption"),
        vqa(image=col("image"), question=col("question")).alias("vqa"),
        classify(image=col("image"), choices=["cat", "dog"]).alias("classify"),
        vector(text=col("question")).alias("vector"),
    ).to_pylist()
    pixels = Image.open(cat).convert("RGB")
    assert row["caption"]["text"] == engine.run("caption", image=pixels, language="German").text
    assert row["vqa"]["text"] == engine.run("vqa", image=cat, question="what is it?").text
    choices = engine.run("classify", image=cat, choices=["cat", "dog"]).choices
    assert [choice["text"] for choice in row["classify"]["choices"]] == [choice.text for choice in choices]
    assert numpy.allclose(row["vector"]["embedding"], engine.embed("what is it?"))
    assert bad["caption"]["error"] == bad["vqa"]["error"] == "InputError: image: expected a value, found none"
    assert bad["vector"]["error"] is None
    assert caption(image=cat)["text"] == engine.run("caption", image=cat).text


def test_what_is_wrong_with_every_row_fails_the_query(cat: Path) -> None:
    table = daft.from_pydict({"image": [str(cat)]})
    with pytest.raises(Exception, match="found 'picture'"):
        table.select(multiway.daft.task("caption")(picture=col("image"))).collect()
    with pytest.raises(Exception, match="unknown field `heat`"):
        table.select(multiway.daft.task("caption", sampling={"heat": 1})(image=col("image"))).collect()


def test_the_provider_runs_the_functions_of_daft(engine: Engine, cat: Path) -> None:
    provider = multiway.daft.Provider()
    table = daft.from_pydict({"image": [cat.read_bytes()], "text": ["a red cat on a mat"]})
    table = table.with_column("pixels", decode_image(col("image")))
    task = "caption English: <extra_id_0>\n"
    row = table.select(
        embed_text(col("text"), provider=provider).alias("text_vector"),
        embed_image(col("pixels"), provider=provider).alias("picture_vector"),
        classify_text(col("text"), labels=["animals", "money"], provider=provider).alias("topic"),
        classify_image(col("pixels"), labels=["cat", "dog"], provider=provider).alias("label"),
        prompt([col("image"), daft.lit(task)], provider=provider, max_tokens=8).alias("caption"),
        prompt([col("image"), col("text")], provider=provider, task="vqa").alias("answer"),
    ).to_pylist()[0]
    pixels = Image.open(cat).convert("RGB")
    assert numpy.allclose(row["text_vector"], engine.embed("a red cat on a mat"))
    assert numpy.allclose(row["picture_vector"], engine.embed(images=pixels))
    assert row["topic"] in ("animals", "money")
    assert row["label"] == engine.run("classify", image=pixels, choices=["cat", "dog"]).text
    sampling = {"max_new_tokens": 8}
    assert row["caption"] == engine.run("prompt", images=[cat], text=task, sampling=sampling).text
    assert row["answer"] == engine.run("vqa", image=cat, question="a red cat on a mat").text


def test_the_provider_of_a_session_needs_no_name(engine: Engine) -> None:
    daft.attach_provider(multiway.daft.Provider(), "mine")
    try:
        daft.set_provider("mine")
        table = daft.from_pydict({"text": ["a cat", None]})
        vectors = table.select(embed_text(col("text")).alias("vector")).to_pylist()
        assert numpy.allclose(vectors[0]["vector"], engine.embed("a cat")) and vectors[1]["vector"] is None
        named = table.select(embed_text(col("text"), provider="mine").alias("vector")).to_pylist()
        assert numpy.allclose(named[0]["vector"], vectors[0]["vector"])
    finally:
        daft.set_provider(None)
        daft.detach_provider("mine")


def test_rows_that_fail_raise_or_are_null_as_on_error_says(cat: Path) -> None:
    provider = multiway.daft.Provider()
    table = daft.from_pydict({"image": [cat.read_bytes(), b"broken", None]})
    with pytest.raises(Exception, match="picture"):
        table.select(prompt(col("image"), provider=provider, max_tokens=4)).collect()
    with pytest.raises(Exception, match="picture"):
        table.select(embed_image(col("image"), provider=provider)).collect()
    rows = table.select(
        prompt(col("image"), provider=provider, max_tokens=4, on_error="log").alias("text"),
        embed_image(col("image"), provider=provider, on_error="log").alias("vector"),
    ).to_pylist()
    assert [row["text"] is None for row in rows] == [False, True, True]
    assert [row["vector"] is None for row in rows] == [False, True, True]


def test_answers_have_the_form_of_a_model_of_pydantic(cat: Path) -> None:
    pydantic = pytest.importorskip("pydantic")
    form = pydantic.create_model("Seen", is_animal=(bool, ...))
    table = daft.from_pydict({"image": [cat.read_bytes()]})
    asked = prompt(col("image"), form, provider=multiway.daft.Provider(), max_tokens=32)
    assert table.select(asked.alias("seen")).to_pylist()[0]["seen"]["is_animal"] in (True, False)


def read(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def test_the_example_goes_on_after_a_kill(folder: Path, texts: dict[int, str | None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(EXAMPLE), str(folder), str(out)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.parquet")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert done
    # As a kill leaves it: a file that is not whole, under its hidden name.
    (out / ".3.partial").mkdir(exist_ok=True)
    (out / ".3.partial" / "part.parquet").write_bytes(b"PAR1")
    subprocess.run(command, env=environment, check=True)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert sorted(path.name for path in out.iterdir()) == [f"{part}.parquet" for part in range(4)]
    check(read(out), texts)
    # Nothing is left to do.
    whole = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    subprocess.run(command, env=environment, check=True)
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == whole
