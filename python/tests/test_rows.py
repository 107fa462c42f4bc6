"""Rows of tables: each gives one result, and what a row's inputs cause is no error of the others."""

import json
from pathlib import Path
from typing import Any

import drawings
import multiway
import numpy
import pytest
from multiway import Engine, InputError
from multiway._rows import FIELDS, TaskRows, _result, picture_of
from PIL import Image


@pytest.fixture(scope="module")
def caption() -> TaskRows:
    return TaskRows("caption")


def test_each_row_gives_one_result(engine: Engine, caption: TaskRows) -> None:
    rows = drawings.rows()
    results = caption.answer({"image": row["image"]} for row in rows)
    good = [row for row in rows if row["id"] not in drawings.BAD]
    answers = engine.batch("caption", [{"image": row["image"]} for row in good])
    texts = {row["id"]: answer.text for row, answer in zip(good, answers, strict=True)}
    drawings.check([{**row, **result} for row, result in zip(rows, results, strict=True)], texts)
    assert all(tuple(result) == FIELDS for result in results)


def test_the_same_picture_in_every_form_gives_the_same_answer(caption: TaskRows, cat: Path) -> None:
    pixels = numpy.asarray(Image.open(cat))
    height, width, channels = pixels.shape
    file = cat.read_bytes()
    struct = {"data": pixels.ravel(), "height": height, "width": width, "channel": channels, "mode": 4}
    forms = [
        cat,
        str(cat),
        file,
        Image.open(cat),
        pixels,
        {"bytes": file, "path": None},
        {"bytes": None, "path": str(cat)},
        struct,
        {**struct, "data": pixels.ravel().tolist()},
    ]
    assert channels == 4
    results = caption.answer({"image": form} for form in forms)
    assert {result["text"] for result in results} == {results[0]["text"]}
    assert results[0]["text"] is not None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "expected a value of type image, found null"),
        (float("nan"), "found null"),
        ({"bytes": None, "path": None}, "found null"),
        ({"width": 3}, "found a struct of 'width'"),
        ({"data": [1, 2], "height": 2, "width": 2, "channel": 3}, "expected a picture of shape"),
        ({"data": [300], "height": 1, "width": 1, "channel": 1}, "numbers of 8 bits"),
        (numpy.zeros((4, 4, 4), numpy.float32), "expected an array of uint8"),
        (3, "found int"),
        ("missing.png", "missing.png"),
    ],
)
def test_a_bad_picture_is_null_with_the_reason(caption: TaskRows, value: Any, reason: str) -> None:
    (result,) = caption.answer([{"image": value}])
    assert result["text"] is None
    assert result["error"].startswith("InputError: input 'image': ") and reason in result["error"]


def test_fields_follow_the_kind_of_the_answer(cat: Path) -> None:
    (ranked,) = TaskRows("classify").answer([{"image": cat, "choices": numpy.array(["cat", "dog"], object)}])
    assert {choice["text"] for choice in ranked["choices"]} == {"cat", "dog"}
    assert ranked["text"] == ranked["choices"][0]["text"] and ranked["value"] is None
    (counted,) = TaskRows("count").answer([{"image": cat, "object": numpy.str_("cats")}])
    assert isinstance(json.loads(counted["value"]), float)
    (vector, of_text) = TaskRows("retrieve").answer([{"images": [cat]}, {"text": b"a cat"}])
    assert vector["embedding"].shape == of_text["embedding"].shape and vector["text"] is None


def test_several_pictures_come_as_a_list_or_as_an_array(cat: Path) -> None:
    pixels = numpy.asarray(Image.open(cat).convert("RGB"))
    objects = numpy.empty(2, object)
    objects[:] = [pixels, pixels]
    forms: list[Any] = [[pixels, pixels], objects, numpy.stack([pixels, pixels])]
    results = TaskRows("verify").answer({"images": form, "sentence": "a cat"} for form in forms)
    assert all(result["choices"] == results[0]["choices"] for result in results)
    assert results[0]["error"] is None


def test_wrong_inputs_and_options_of_all_rows_are_raised(caption: TaskRows) -> None:
    caption.check(["image", "language"])
    for names in (["imgae"], ["image", "size"], ["language"], []):
        with pytest.raises(InputError, match=r"task 'caption': expected the inputs 'image' \(required\)"):
            caption.check(names)
    with pytest.raises(InputError, match="did you mean 'caption'"):
        TaskRows("captoin")
    with pytest.raises(InputError, match="sampling"):
        TaskRows("caption", sampling={"temprature": 1.0})


def test_a_row_that_takes_too_long_is_null_with_the_reason(cat: Path) -> None:
    (result,) = TaskRows("caption", timeout=1e-6).answer([{"image": cat}])
    assert result["text"] is None and result["error"].startswith("TimeoutError: ")


def test_failures_of_the_engine_are_raised() -> None:
    with pytest.raises(multiway.EngineError, match="out of memory"):
        _result(multiway.EngineError("out of memory"))


def test_other_values_are_left_to_the_engine() -> None:
    assert picture_of("a.png") == "a.png" and picture_of(b"x") == b"x" and picture_of(None) is None
