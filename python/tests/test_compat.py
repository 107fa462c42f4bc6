"""The pipelines of transformers 4: their inputs, their outputs, and what they are made of."""

import base64
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from multiway import Engine, InputError
from multiway.compat import pipeline
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PLAIN = FIXTURES / "cases" / "checkpoints" / "plain"
REFERENCE = FIXTURES / "generation"
TEXT = "the house is wonderful"

TASK_PARAMS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 9, "min_length": 4},
    "translation_en_to_de": {
        "prefix": "translate English to German: ",
        "max_length": 7,
        "early_stopping": True,
    },
}


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small T5 with what the released ones say of their tasks."""
    folder = tmp_path_factory.mktemp("t5")
    shutil.copytree(PLAIN, folder, dirs_exist_ok=True)
    config = json.loads((PLAIN / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "task_specific_params": TASK_PARAMS}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 6}))
    return folder


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model whose answers transformers recorded."""
    folder = tmp_path_factory.mktemp("reference")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(REFERENCE / "model" / name, folder)
    shutil.copy(PLAIN / "tokenizer.json", folder)
    return folder


def beit3(folder: Path, head: str, classes: int) -> Path:
    """A small BEiT-3 with names for its classes."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURES / "parity" / head / name, folder)
    shutil.copy(ROOT / "runtime" / "tests" / "fixtures" / "numbering" / "beit3.spm", folder)
    (folder / "labels.txt").write_text("".join(f"class {number}\n" for number in range(classes)))
    return folder


@pytest.mark.filterwarnings("ignore:.*counts:UserWarning")
def test_the_keywords_of_generate_mean_what_they_mean_in_transformers(reference: Path) -> None:
    generate = pipeline("text2text-generation", reference)
    taken = 0
    for case in json.loads((REFERENCE / "cases.json").read_text())["cases"]:
        keys = {name: value for name, value in case["keys"].items() if value is not None}
        start, end = keys.pop("decoder_start_token_id", 0), keys.pop("eos_token_id", 1)
        if start != 0 or end != 1:
            continue
        if "max_new_tokens" not in keys and keys.get("max_length", 20) == 20:
            # The default length of transformers counts new tokens.
            keys["max_new_tokens"] = 20
        expected = generate.engine.detokenize(case["ids"][1:])
        found = generate(case["text"], **{"num_beams": 1, **keys})
        assert found == [{"generated_text": expected}], case
        taken += 1
    assert taken > 100


def test_a_text_gives_a_list_and_texts_give_a_list_of_the_same(t5: Path) -> None:
    generate = pipeline("text2text-generation", t5, max_new_tokens=6)
    alone = generate(TEXT)
    assert [list(record) for record in alone] == [["generated_text"]]
    assert generate([TEXT, "a house"]) == [*alone, *generate("a house")]
    assert generate([TEXT]) == alone and generate([]) == []
    assert list(generate(text for text in (TEXT, "a house"))) == [alone, generate("a house")]
    several: dict[str, Any] = {"do_sample": True, "num_return_sequences": 3, "seed": 1}
    assert [len(records) for records in generate([TEXT, TEXT], **several)] == [3, 3]
    assert len(generate(TEXT, **several)) == 3


def test_prefix_and_parameters_are_those_of_the_checkpoint(t5: Path) -> None:
    engine = Engine.open(t5)

    def written(text: str, **sampling: Any) -> str | None:
        return engine.run("prompt", text=text, sampling=sampling).text

    bounds = {"beams": 2, "max_new_tokens": 8, "min_new_tokens": 3}
    summarize = pipeline("summarization", t5)
    assert summarize(TEXT) == [{"summary_text": written(f"summarize: {TEXT}", **bounds)}]
    short = written(f"summarize: {TEXT}", beams=2, max_new_tokens=2, min_new_tokens=2)
    assert summarize([TEXT], max_length=3) == [{"summary_text": short}]
    german = {"beams": 4, "max_new_tokens": 6, "early_stopping": "at_once"}
    expected = [{"translation_text": written(f"translate English to German: {TEXT}", **german)}]
    assert pipeline("translation_en_to_de", t5)(TEXT) == expected
    with pytest.warns(UserWarning, match="translation_en_to_de"):
        assert pipeline("translation", t5)(TEXT) == expected
    named = pipeline("translation_xx_to_yy", t5, max_new_tokens=6)
    french = written(f"translate English to French: {TEXT}", beams=4, max_new_tokens=6)
    assert named(TEXT, src_lang="en", tgt_lang="fr") == [{"translation_text": french}]
    assert named(TEXT) == [{"translation_text": written(TEXT, beams=4, max_new_tokens=6)}]
    assert named(TEXT, prefix="a ") == [{"translation_text": written(f"a {TEXT}", beams=4, max_new_tokens=6)}]


def test_truncation_is_to_the_length_of_the_tokenizer(t5: Path) -> None:
    generate = pipeline("text2text-generation", t5, max_new_tokens=6)
    first = generate.engine.detokenize(generate.engine.tokenize(TEXT)[:5])
    assert generate(TEXT, truncation=True) == generate(first)
    assert generate(TEXT, truncation=False) == generate(TEXT) != generate(first)


def test_the_embedded_model_has_pipelines_by_its_own_tasks(engine: Engine) -> None:
    text = engine.run("translate", text="a cat", source="English", language="German").text
    assert pipeline("translation_en_to_de")("a cat") == [{"translation_text": text}]
    summary = engine.run("summarize", text="a cat", sampling={"max_new_tokens": 4}).text
    assert pipeline("summarization", max_new_tokens=4)(["a cat"]) == [{"summary_text": summary}]


def test_pictures_in_every_form_are_captioned(engine: Engine, cat: Path) -> None:
    caption = pipeline("image-to-text")
    alone = [{"generated_text": engine.run("caption", image=cat).text}]
    url = "data:image/png;base64," + base64.b64encode(cat.read_bytes()).decode()
    assert caption(str(cat)) == caption(images=str(cat)) == alone
    assert caption([str(cat), Image.open(cat), url]) == [alone] * 3
    cut = engine.run("caption", image=cat, sampling={"max_new_tokens": 1}).text
    for options in ({"max_new_tokens": 1}, {"generate_kwargs": {"max_new_tokens": 1}}):
        assert caption(str(cat), **options) == [{"generated_text": cut}]
    for wrong in ("data:image/png,a", "data:image/png;base64,#"):
        with pytest.raises(InputError, match="base64"):
            caption(wrong)


def test_every_question_is_asked_about_every_picture(engine: Engine, cat: Path) -> None:
    ask = pipeline("visual-question-answering")
    dog = cat.with_name("dog.png")
    questions = ["what is it?", "what color is it?"]

    def answer(image: Path, question: str) -> list[dict[str, str | None]]:
        return [{"answer": engine.run("vqa", image=image, question=question).text}]

    first = answer(cat, questions[0])
    assert ask(image=cat, question=questions[0]) == ask({"image": cat, "question": questions[0]}) == first
    assert ask([{"image": cat, "question": questions[0]}]) == [first]
    expected = [answer(image, question) for question in questions for image in (cat, dog)]
    assert ask(image=[cat, dog], question=questions) == expected
    assert ask([cat], question=questions[0], top_k=1) == [first]


def test_models_with_classes_rank_them(cat: Path, tmp_path: Path) -> None:
    names = beit3(tmp_path, "beit3_imageclassification", 11)
    classify = pipeline("image-classification", names)
    records = classify(str(cat))
    scores = [record["score"] for record in records]
    assert len(records) == 5 and scores == sorted(scores, reverse=True)
    assert all(record["label"].startswith("class ") for record in records)
    assert math.isclose(sum(record["score"] for record in classify([cat], top_k=11)[0]), 1.0, rel_tol=1e-6)
    with pytest.raises(InputError, match="'image-classification' names them"):
        pipeline("zero-shot-image-classification", names)


def test_models_with_classes_rank_answers(cat: Path, tmp_path: Path) -> None:
    ask = pipeline("vqa", beit3(tmp_path, "beit3_vqa", 37))
    records = ask(image=cat, question="a", top_k=3)
    assert len(records) == 3 and set(records[0]) == {"score", "answer"}
    assert len(ask(image=[cat], question="a")[0]) == 5
    with pytest.raises(InputError, match="unknown option 'num_beams'"):
        ask(image=cat, question="a", num_beams=2)


def test_labels_of_the_caller_are_ranked_for_a_picture(engine: Engine, cat: Path) -> None:
    classify = pipeline("zero-shot-image-classification", candidate_labels=["dog", "cat"])
    records = classify(cat)
    expected = engine.run("classify", image=cat, choices=["dog", "cat"]).choices
    assert records == [{"score": choice.probability, "label": choice.text} for choice in expected]
    assert classify([cat, cat], candidate_labels=["tree"]) == [[{"score": 1.0, "label": "tree"}]] * 2
    worded = classify(cat, hypothesis_template="a drawing of {}.")
    assert {record["label"] for record in worded} == {"dog", "cat"} and worded != records
    with pytest.raises(InputError, match="where the label goes"):
        classify(cat, hypothesis_template="a drawing")


def test_labels_of_the_caller_are_ranked_for_a_text(t5: Path) -> None:
    classify = pipeline("zero-shot-classification", t5)
    one = classify(TEXT, "house, green")
    assert list(one) == ["sequence", "labels", "scores"] and one["sequence"] == TEXT
    assert sorted(one["labels"]) == ["green", "house"] and one["scores"] == sorted(
        one["scores"], reverse=True
    )
    assert math.isclose(sum(one["scores"]), 1.0, rel_tol=1e-6)
    assert classify([TEXT], candidate_labels=["house", "green"]) == [one]
    each = classify(TEXT, candidate_labels=["house", "green"], multi_label=True)
    for label, score in zip(each["labels"], each["scores"], strict=True):
        asked = classify.engine.decide(f"This example is {label}.", text=TEXT)
        assert math.isclose(score, asked.probabilities["yes"], rel_tol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_beam": 2}, "did you mean 'num_beams'"),
        ({"stop_strings": ["a"]}, "sampling={'stop'"),
        ({"do_sample": True, "num_beams": 2}, "num_beams: expected 1"),
        ({"do_sample": True, "temperature": 0.0}, "temperature: expected a number above 0"),
        ({"num_return_sequences": 2}, "num_return_sequences: expected 1"),
        ({"num_beam_groups": 2}, "num_beam_groups: expected 1 or nothing, found 2"),
        ({"early_stopping": "now"}, "early_stopping: expected True"),
        ({"return_tensors": True}, "return_tensors: expected False"),
        ({"truncation": "left"}, "truncation: expected True or False"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(t5: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        pipeline("text2text-generation", t5, **options)(TEXT)
    with pytest.raises(InputError, match=expected):
        pipeline("text2text-generation", t5)([TEXT], **options)


def test_what_changes_nothing_is_taken(t5: Path) -> None:
    generate = pipeline(
        "text2text-generation", t5, device=-1, framework="pt", tokenizer=str(t5), batch_size=2
    )
    alone = generate(TEXT, max_new_tokens=6)
    assert alone == generate(TEXT, max_new_tokens=6, use_cache=True, num_beam_groups=1, pad_token_id=0)
    with pytest.warns(UserWarning, match="top_p changes nothing"):
        assert alone == generate(TEXT, max_new_tokens=6, top_p=0.5)
    with pytest.warns(UserWarning, match="max_new_tokens counts"):
        assert alone == generate(TEXT, max_new_tokens=6, max_length=4)


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        ("captions", {}, "pipeline 'captions': expected one of"),
        ("question-answering", {}, "Engine.run\\('answer'"),
        ("feature-extraction", {}, "Engine.embed"),
        ("image-to-text", {"device": 0}, "runs on the CPU"),
        ("image-to-text", {"torch_dtype": "float16"}, "dtype: expected one of"),
        ("image-to-text", {"model": "google/flan-t5-small"}, "snapshot_download"),
        ("image-to-text", {"model": PLAIN}, "the task 'caption'"),
        ("image-to-text", {"num_beam": 2}, "did you mean 'num_beams'"),
        ("image-classification", {}, "'zero-shot-image-classification'"),
        ("zero-shot-image-classification", {"num_beams": 2}, "unknown option 'num_beams'"),
    ],
)
def test_a_pipeline_that_cannot_be_made_says_why(task: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        pipeline(task, **options)


def test_wrong_inputs_say_what_was_expected(t5: Path, cat: Path) -> None:
    with pytest.raises(InputError, match="expected a text, or a list of texts, found int"):
        pipeline("text2text-generation", t5)([3])
    with pytest.raises(InputError, match="expected two languages"):
        pipeline("translation")("a cat")
    with pytest.raises(InputError, match="expected one of de"):
        pipeline("translation")("a cat", src_lang="en", tgt_lang="xx")
    with pytest.raises(InputError, match="mappings with both"):
        pipeline("vqa")([cat])
    with pytest.raises(InputError, match="candidate_labels: expected"):
        pipeline("zero-shot-image-classification")(cat)
    with pytest.raises(InputError, match="timeout: expected nothing"):
        pipeline("image-to-text")(cat, timeout=3)
