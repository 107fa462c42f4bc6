"""The engine from Python: answers, pictures, batches, scores, vectors, decisions, errors."""

import asyncio
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import multiway
import numpy
import pytest
from multiway import Engine, EngineError, InputError
from PIL import Image

QUESTION = {"question": "what shape is it?"}


def test_the_same_picture_in_every_form_gives_the_same_answer(engine: Engine, cat: Path) -> None:
    file = cat.read_bytes()
    pixels = Image.open(cat).convert("RGB")
    opaque = numpy.asarray(pixels)
    forms = [str(cat), file, bytearray(file), memoryview(file), Image.open(cat)]
    texts = {engine.run("caption", image=form).text for form in [cat, *forms]}
    assert len(texts) == 1
    plain = {engine.run("caption", image=form).text for form in [pixels, opaque, numpy.asfortranarray(opaque)]}
    assert len(plain) == 1
    grey = numpy.asarray(pixels.convert("L"))
    assert engine.run("caption", image=grey).text == engine.run("caption", image=pixels.convert("L")).text


def test_an_answer_has_its_text_usage_and_json(engine: Engine, cat: Path) -> None:
    answer = engine.run("caption", {"image": cat}, language="French")
    assert answer.task == "caption" and answer.value == answer.text == str(answer)
    assert answer.finish_reason == "stop" and answer.usage.new_tokens == len(answer.tokens)
    assert answer.usage.image_patches > 0 and answer.choices == [] and answer.embedding is None
    told = answer.to_dict()
    assert told["text"] == answer.text and json.loads(json.dumps(told)) == told
    assert engine.detokenize(answer.tokens) == answer.text


def test_a_choice_has_probabilities(engine: Engine, cat: Path) -> None:
    answer = engine.run("classify", image=cat, choices=["cat", "dog", "tree"])
    assert {choice.text for choice in answer.choices} == {"cat", "dog", "tree"}
    assert math.isclose(sum(choice.probability for choice in answer.choices), 1.0, rel_tol=1e-9)
    assert answer.text == answer.choices[0].text


def test_the_pieces_of_a_stream_are_the_answer(engine: Engine, cat: Path) -> None:
    stream = engine.stream("caption", image=cat)
    assert stream.answer is None
    text = "".join(stream)
    assert text == engine.run("caption", image=cat).text
    assert stream.answer is not None and stream.answer.text == text
    with engine.stream("caption", image=cat) as closed:
        pass
    assert list(closed) == [] and closed.answer is None


def test_answers_are_awaited_together(engine: Engine, cat: Path) -> None:
    async def ask() -> tuple[list[multiway.Answer], str]:
        answers = await asyncio.gather(*(engine.run_async("caption", image=cat) for _ in range(8)))
        pieces = [piece async for piece in engine.stream("caption", image=cat)]
        return answers, "".join(pieces)

    answers, streamed = asyncio.run(ask())
    assert {answer.text for answer in answers} == {streamed}


def test_an_answer_that_is_awaited_can_be_cancelled(engine: Engine, cat: Path) -> None:
    async def ask() -> None:
        await asyncio.wait_for(engine.run_async("caption", image=cat, sampling={"min_new_tokens": 30}), 1e-9)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(ask())


def test_a_batch_keeps_its_order_and_names_bad_rows(engine: Engine, cat: Path) -> None:
    names = ["cat", "missing", "dog"]
    rows = [{"image": cat.with_name(f"{name}.png")} for name in names] * 60
    answers = engine.batch("caption", rows, return_errors=True)
    alone = {name: engine.run("caption", image=cat.with_name(f"{name}.png")).text for name in ("cat", "dog")}
    for answer, name in zip(answers, names * 60, strict=True):
        if name == "missing":
            assert isinstance(answer, InputError) and "missing.png" in str(answer)
        else:
            assert answer.text == alone[name]
    with pytest.raises(InputError, match="missing.png"):
        engine.batch("caption", rows)
    with pytest.raises(InputError, match="did you mean 'caption'"):
        engine.batch("captoin", rows, return_errors=True)


def test_scores_are_the_log_likelihoods_of_greedy_text(engine: Engine) -> None:
    best, other = engine.score("a cat is an animal.", ["cat", "xylophone concert"])
    assert math.isclose(best.log_probability, sum(best.log_probabilities), rel_tol=1e-4)
    assert len(best.tokens) == len(best.log_probabilities) and best.log_probability < 0
    assert best.log_probability != other.log_probability


def test_vectors_have_unit_length_and_lie_in_one_space(engine: Engine, cat: Path) -> None:
    texts = engine.embed(["a cat", "a tree", "a cat"])
    assert texts.dtype == numpy.float32 and texts.shape[0] == 3
    assert numpy.allclose(numpy.linalg.norm(texts, axis=1), 1, atol=1e-4)
    assert numpy.array_equal(texts[0], texts[2])
    picture = engine.embed(images=cat)
    assert picture.shape == texts.shape[1:]
    assert numpy.array_equal(engine.embed(images=[cat])[0], picture)
    picture[0] = 0.0
    with pytest.raises(InputError, match="one of them"):
        engine.embed()


def test_a_decision_gives_every_answer_its_probability(engine: Engine, cat: Path) -> None:
    decision = engine.decide("what is it?", ["cat", "tree"], images=cat)
    assert list(decision.probabilities) == ["cat", "tree"]
    assert math.isclose(sum(decision.probabilities.values()), 1.0, rel_tol=1e-9)
    assert decision.answer == max(decision.probabilities, key=lambda answer: decision.probabilities[answer])
    assert 0 <= decision.confidence <= 1 and 0 <= decision.label_mass <= 1 and not decision.is_calibrated
    assert list(engine.decide("is it red?", text="It is blue.").probabilities) == ["yes", "no"]
    meant = engine.decide("how is it?", {"good": "as it should be", "bad": "worse"}, text="fine")
    assert math.isclose(meant.expected, meant.probabilities["bad"], rel_tol=1e-9)
    with pytest.raises(InputError, match="twice"):
        engine.decide("which?", ["a", "a"])


def test_a_constraint_is_kept(engine: Engine, cat: Path) -> None:
    answer = engine.run("prompt", images=[cat], text="", constraint={"regex": "[0-9]{3}"})
    assert answer.text is not None and len(answer.text) == 3 and answer.text.isdigit()
    with pytest.raises(InputError, match="constraint"):
        engine.run("prompt", text="a", constraint={"regexp": "a"})


def test_task_files_of_the_user_are_tasks(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "greet.task"
    header = "description: Greets.\ninputs: {name: {type: text}}\noutput: {kind: text}"
    file.write_text(f"---\n{header}\n---\nhello {{{{ name }}}} <extra_id_0>")
    greeting = Engine.open(task_files=[file])
    assert greeting.run("greet", name="cat").text is not None
    assert "greet" in greeting.tasks and "greet" not in engine.tasks
    assert greeting.task("greet")["inputs"]["name"]["type"] == "text"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "image"),
        ({"image": 3}, "found int"),
        ({"image": b"no picture"}, "input 'image'"),
        ({"image": "https://example.org/a.png"}, "found a URL"),
        ({"image": numpy.zeros((4, 4, 3))}, "float64"),
        ({"image": numpy.zeros((4, 4, 7), dtype=numpy.uint8)}, "uint8"),
        ({"picture": "a.png"}, "picture"),
    ],
)
def test_wrong_inputs_say_what_was_expected(engine: Engine, fields: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        engine.run("caption", **fields)


def test_wrong_options_say_what_was_expected(engine: Engine, cat: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="temprature"):
        engine.run("caption", image=cat, sampling={"temprature": 1})
    with pytest.raises(InputError, match="timeout"):
        engine.run("caption", image=cat, timeout=-1)
    with pytest.raises(InputError, match="given twice"):
        engine.run("caption", {"image": cat}, image=cat)
    with pytest.raises(InputError, match="dtype: expected one of"):
        Engine.open(dtype="f16")
    with pytest.raises(InputError, match="no-such"):
        Engine.open(tmp_path / "no-such")
    with pytest.raises(TimeoutError):
        engine.run("caption", image=cat, timeout=1e-9)


def test_a_process_has_one_engine_for_a_checkpoint(engine: Engine) -> None:
    assert Engine.open().name == engine.name
    with pytest.raises(InputError, match="with another threads"):
        Engine.open(threads=7)


def test_threads_share_an_engine(engine: Engine, cat: Path) -> None:
    texts: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: texts.append(engine.run("caption", image=cat).text)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8 and len(set(texts)) == 1


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_a_fork_raises_rather_than_hangs(cat: Path) -> None:
    program = f"""
import multiprocessing, multiway
engine = multiway.Engine.open()
engine.run("caption", image={str(cat)!r})
def work(queue):
    for attempt in (lambda: engine.run("caption", image={str(cat)!r}), multiway.Engine.open):
        try:
            attempt()
        except multiway.EngineError as error:
            queue.put("forked" in str(error))
    globals().pop("engine")
fork = multiprocessing.get_context("fork")
queue = fork.SimpleQueue()
process = fork.Process(target=work, args=(queue,))
process.start()
process.join(60)
assert process.exitcode == 0, process.exitcode
assert queue.get() and queue.get()
"""
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_a_call_that_waits(cat: Path) -> None:
    program = f"""
import signal, time, multiway
engine = multiway.Engine.open()
signal.setitimer(signal.ITIMER_REAL, 0.2)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
rows = ({{"image": {str(cat)!r}}} for _ in range(10**9))
start = time.monotonic()
try:
    engine.batch("caption", rows)
except KeyboardInterrupt:
    assert time.monotonic() - start < 30
    print(engine.run("caption", image={str(cat)!r}).text)
"""
    done = run(program)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_an_engine_is_not_pickled(engine: Engine) -> None:
    import pickle

    with pytest.raises(EngineError, match="cannot be pickled"):
        pickle.dumps(engine)
