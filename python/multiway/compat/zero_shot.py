"""The pipeline that chooses among labels for a text."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multiway import Engine, InputError
from multiway.compat.base import Pipeline, Record
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.pictures import labels_of, worded

#: How many texts are under way at a time.
_THREADS = 16

_TEMPLATE = "This example is {}."
_QUESTION = "Which one is right?"


class ZeroShotClassificationPipeline(Pipeline):
    """Chooses among labels of the caller's: `{"sequence": ..., "labels": [...], "scores": [...]}`.

    The model is asked which label is right, each with its `hypothesis_template`; with `multi_label` it is
    asked of each label by itself, and the scores need not sum to 1.
    """

    _own = ("candidate_labels", "hypothesis_template", "multi_label")
    _generates = False

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        super().__init__(task, engine, files, options)
        # BEiT-3 does not write, and cannot score a label.
        if not {"text2text", "closed-vqa"} & set(engine.tasks):
            raise InputError(
                f"pipeline '{task}': expected a checkpoint that reads and writes text, found "
                f"'{engine.name}': give another `model`"
            )

    def __call__(
        self, sequences: Any, candidate_labels: str | list[str] | None = None, **options: Any
    ) -> Any:
        """Answers a text, a list of texts, or the texts of a generator."""
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return self._run(sequences, options)

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[Record]:
        labels = labels_of(options)
        template = options.pop("hypothesis_template", _TEMPLATE)
        is_multiple = bool(options.pop("multi_label", False)) or len(labels) == 1
        hypotheses = {label: worded(template, label) for label in labels}
        for text in inputs:
            if not isinstance(text, str):
                found = type(text).__name__
                raise InputError(f"pipeline '{self.task}': expected a text or a list of texts, found {found}")
        decide = self._one_by_one if is_multiple else self._together
        # Threads, since a batch of decisions is that of the engine.
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda text: decide(text, hypotheses), inputs))

    def _together(self, text: str, hypotheses: Mapping[str, str]) -> Record:
        return _sorted(text, self.engine.decide(_QUESTION, hypotheses, text=text).probabilities)

    def _one_by_one(self, text: str, hypotheses: Mapping[str, str]) -> Record:
        decisions = {label: self.engine.decide(asked, text=text) for label, asked in hypotheses.items()}
        return _sorted(text, {label: decision.probabilities["yes"] for label, decision in decisions.items()})


def _sorted(text: str, scores: Mapping[str, float]) -> Record:
    labels = sorted(scores, key=lambda label: scores[label], reverse=True)
    return {"sequence": text, "labels": labels, "scores": [scores[label] for label in labels]}
