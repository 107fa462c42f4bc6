"""lm-evaluation-harness: log-likelihoods, generation, and its own tasks."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from multiway import Engine

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate  # type: ignore[import-untyped]
from lm_eval.api.instance import Instance  # type: ignore[import-untyped]
from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]
from multiway.lm_eval import MultiwayLM, main

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "tests" / "fixtures" / "cases" / "checkpoints" / "plain"
CASES = ROOT / "tests" / "fixtures" / "generation" / "cases.json"
TASKS = Path(__file__).with_name("fixtures") / "lm_eval"
ROWS = [json.loads(line) for line in (TASKS / "animals.jsonl").read_text().splitlines()]
GREEDY = {"temperature": 0.0, "beams": 1}


@pytest.fixture(scope="module")
def t5() -> MultiwayLM:
    return MultiwayLM(PLAIN)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        monkeypatch.setenv(name, "1")


def scored(model: MultiwayLM, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    answers: list[tuple[float, bool]] = model.loglikelihood(requests, disable_tqdm=True)
    return answers


def written(model: MultiwayLM, contexts: list[str], **gen_kwargs: Any) -> list[str]:
    pairs = [(context, gen_kwargs) for context in contexts]
    requests = [Instance("generate_until", {}, pair, index) for index, pair in enumerate(pairs)]
    return model.generate_until(requests, disable_tqdm=True)


def evaluated(model: MultiwayLM, **options: Any) -> dict[str, Any]:
    tasks = TaskManager(include_path=TASKS, include_defaults=False)
    names = ["animals_choice", "animals_written"]
    results: dict[str, Any] = simple_evaluate(model=model, tasks=names, task_manager=tasks, **options)
    return results


def test_a_likelihood_is_the_sum_over_the_tokens_without_the_end(t5: MultiwayLM) -> None:
    pairs = [("the house", "green"), ("it is", "a house"), ("the house", "it"), ("the house ", "is")]
    for (context, continuation), (sum_, _) in zip(pairs, scored(t5, pairs), strict=True):
        (score,) = t5.engine.score(context.strip(), [continuation])
        assert math.isclose(sum_, sum(score.log_probabilities[:-1]), rel_tol=1e-5)
    with_end = MultiwayLM(PLAIN, score_end=True, batch_size="auto")
    for (context, continuation), (sum_, _) in zip(pairs, scored(with_end, pairs), strict=True):
        (score,) = t5.engine.score(context.strip(), [continuation])
        assert math.isclose(sum_, score.log_probability, rel_tol=1e-5)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> MultiwayLM:
    """A model that writes words alone: left to itself, one with random weights writes sentinels."""
    folder = tmp_path_factory.mktemp("writer")
    shutil.copytree(PLAIN, folder, dirs_exist_ok=True)
    vocabulary = json.loads((PLAIN / "tokenizer.json").read_text())["model"]["vocab"]
    pieces = [piece for piece, _ in vocabulary]
    sentinels = [number for number, piece in enumerate(pieces) if piece.startswith("<")]
    inner = [number for number, piece in enumerate(pieces) if not piece.startswith("▁")]
    bans = {"suppress_tokens": sentinels, "begin_suppress_tokens": inner}
    generation = json.loads((PLAIN / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, **bans}))
    return MultiwayLM(folder)


def test_a_continuation_is_greedy_if_greedy_decoding_writes_it(
    writer: MultiwayLM, caplog: pytest.LogCaptureFixture
) -> None:
    engine = writer.engine
    pairs, expected = [], []
    for context in dict.fromkeys(case["text"] for case in json.loads(CASES.read_text())["cases"][:40]):
        tokens = engine.run("prompt", text=context, sampling={**GREEDY, "max_new_tokens": 4}).tokens
        written = [engine.detokenize(tokens[:count]) for count in (1, 2, 3)]
        for text in [*written, f"{written[0]} house", "house"]:
            read = engine.tokenize(text)
            pairs.append((context, text))
            expected.append(read == tokens[: len(read)])
    assert [is_greedy for _, is_greedy in scored(writer, pairs)] == expected
    assert True in expected and False in expected
    assert [record.message.count("suppress_tokens") for record in caplog.records] == [2]


def test_a_context_may_be_empty_or_longer_than_is_read(t5: MultiwayLM) -> None:
    ((alone, _),) = scored(t5, [("", "house")])
    (score,) = t5.engine.score(".", ["house"])
    assert math.isclose(alone, sum(score.log_probabilities[:-1]), rel_tol=1e-5)
    cut = MultiwayLM(PLAIN, max_length=4)
    last = t5.engine.detokenize(t5.engine.tokenize("the small house")[-3:])
    assert scored(cut, [("the small house", "green")]) == scored(t5, [(last, "green")])


def test_answers_end_before_stop_texts_and_at_the_most_tokens(engine: Engine) -> None:
    model = MultiwayLM(batch_size=2)
    contexts = ["a cat is", "a dog is", "a tree is"]
    texts = [
        engine.run("prompt", text=text, sampling={**GREEDY, "max_new_tokens": 8}).text for text in contexts
    ]
    assert written(model, contexts, until=[], max_gen_toks=8) == texts
    assert written(model, contexts, until="\n", max_new_tokens=8, temperature=0.0) == texts
    stops = [f"never {number}" for number in range(20)] + ["x" * 300]
    for context, text in zip(contexts, texts, strict=True):
        assert text is not None
        stop = text[1:2] or "?"
        assert written(model, [context], until=[*stops, stop], max_gen_toks=8) == [text.split(stop)[0]]
    short = MultiwayLM(max_gen_toks=2)
    texts = [
        engine.run("prompt", text=text, sampling={**GREEDY, "max_new_tokens": 2}).text for text in contexts
    ]
    assert written(short, contexts, until=[], max_gen_toks=99) == texts
    drawn = written(model, contexts, until=[], max_gen_toks=4, do_sample=True, temperature=1.0, seed=3)
    assert drawn == written(
        model, contexts, until=[], max_gen_toks=4, do_sample=True, temperature=1.0, seed=3
    )
    with pytest.raises(ValueError, match="unknown option 'temprature'"):
        written(model, contexts, until=[], temprature=1.0)


def test_a_rolling_likelihood_is_not_defined(t5: MultiwayLM) -> None:
    with pytest.raises(NotImplementedError, match="encoder-decoder"):
        t5.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("a text",), 0)])


def test_tasks_of_the_harness_are_evaluated(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = 0
    for row in ROWS:
        # The harness puts a space before an option.
        scores = engine.score(
            f"question: {row['question']} answer:", [f" {option}" for option in row["options"]]
        )
        sums = [sum(score.log_probabilities[:-1]) for score in scores]
        right += sums.index(max(sums)) == row["label"]
    cache = str(tmp_path / "cache")
    first = evaluated(MultiwayLM(), use_cache=cache)
    assert first["results"]["animals_choice"]["acc,none"] == right / len(ROWS)
    assert 0 <= first["results"]["animals_written"]["exact_match,none"] <= 1
    assert len(first["samples"]["animals_written"]) == len(ROWS)
    cached = MultiwayLM()
    for name in ("_loglikelihood_tokens", "generate_until"):
        monkeypatch.setattr(cached, name, None)
    assert evaluated(cached, use_cache=cache)["results"] == first["results"]


def test_the_command_line_prints_and_writes_results(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--model_args", f"checkpoint={PLAIN},batch_size=4", "--include_path", str(TASKS)]
    options += ["--tasks", "animals_choice,animals_written", "--limit", "2"]
    assert main([*options, "--output_path", str(tmp_path), "--log_samples"]) == 0
    assert "|animals_choice" in capsys.readouterr().out
    files = sorted(path.name.split("_20")[0] for path in tmp_path.rglob("*.json*"))
    assert files == ["results", "samples_animals_choice", "samples_animals_written"]
    assert main([*options, "--json", "--num_fewshot", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["n-samples"]["animals_choice"]["effective"] == 2


def test_a_wrong_command_line_says_what_was_expected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "no-such"
    assert main(["--model_args", f"checkpoint={missing}", "--tasks", "animals_choice"]) == 2
    assert "no-such" in capsys.readouterr().err
    assert main(["--model_args", "device=cuda", "--tasks", "animals_choice"]) == 2
    assert "runs on the CPU" in capsys.readouterr().err
    assert main(["--tasks", "animals_choice"]) == 2
    assert "'animals_choice'" in capsys.readouterr().err
    assert main(["--tasks", "animals_choice", "--log_samples"]) == 2
    assert "--output_path" in capsys.readouterr().err
