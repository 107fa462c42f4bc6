"""The pipelines that take pictures."""

from collections.abc import Iterator, Mapping
from typing import Any

from multiway import Engine, InputError
from multiway.compat.base import (
    Pipeline,
    Record,
    picture_of,
    ranked,
    refuse_timeout,
    take_images,
    texts_of,
)
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.generation import check_keywords

#: How many answers of a model with classes are returned, unless `top_k` says it.
_TOP = 5


class ImageToTextPipeline(Pipeline):
    """Captions a picture: `[{"generated_text": ...}]`, and for a list of pictures a list of these."""

    _own = ("generate_kwargs", "prompt", "timeout")

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        super().__init__(task, engine, files, options)
        self._inputs_of("caption")

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answers a picture, a list of pictures, or the pictures of a generator."""
        return self._run(take_images(inputs, options), options)

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[list[Record]]:
        refuse_timeout(options)
        if options.pop("prompt", None) is not None:
            message = "Engine.run('prompt', images=[...], text=...) continues a prompt"
            raise InputError(f"prompt: expected nothing: captions have the words of their task; {message}")
        more = options.pop("generate_kwargs", None) or {}
        for name in more.keys() & options.keys():
            raise InputError(f"{name}: given twice, by name and in generate_kwargs: leave one of them out")
        check_keywords(more)
        rows = [{"image": picture_of(image)} for image in inputs]
        answers = self.engine.batch("caption", rows, sampling=self._sampling({**options, **more}, {}))
        return [[{"generated_text": text} for text in texts_of(answer)] for answer in answers]


class VisualQuestionAnsweringPipeline(Pipeline):
    """Answers questions about pictures.

    A model that writes answers gives `[{"answer": ...}]`; one that has a class for each answer gives the
    `top_k` most probable ones with their scores, `[{"score": ..., "answer": ...}, ...]`.
    """

    _own = ("padding", "timeout", "top_k", "truncation")

    @property
    def _generates(self) -> bool:
        self._inputs_of("vqa")
        return bool(self.engine.task("vqa")["output"]["kind"] == "text")

    def __call__(self, image: Any = None, question: str | list[str] | None = None, **options: Any) -> Any:
        """Answers each question about each picture.

        Instead of a picture and a question there may be a mapping with both, a list or a generator of such.
        """
        if image is None:
            raise InputError("image: expected a picture, or mappings with picture and question, found none")
        if question is None:
            return self._run(image, options)
        if isinstance(image, Iterator):
            image = list(image)
        if not isinstance(image, list) and not isinstance(question, list):
            return self._run({"image": image, "question": question}, options)
        images = image if isinstance(image, list) else [image]
        questions = question if isinstance(question, list) else [question]
        pairs = [{"image": one, "question": asked} for asked in questions for one in images]
        return self._run(pairs, options)

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[list[Record]]:
        refuse_timeout(options)
        for name in ("padding", "truncation"):
            # Questions are short, and rows of a batch are not padded.
            if options.pop(name, None):
                raise InputError(f"{name}: expected False or nothing: a question is read as it is")
        top_k = options.pop("top_k", None)
        rows = [self._row(pair) for pair in inputs]
        if not self._generates:
            answers = self.engine.batch("vqa", rows)
            return [ranked(answer, "answer", _TOP if top_k is None else top_k) for answer in answers]
        if top_k not in (None, 1):
            message = f"'{self.engine.name}' writes one answer, and has no classes to rank"
            raise InputError(f"top_k: expected 1 or nothing, found {top_k}: {message}")
        answers = self.engine.batch("vqa", rows, sampling=self._sampling(options, {}))
        return [[{"answer": text.strip()} for text in texts_of(answer)] for answer in answers]

    def _row(self, pair: Any) -> Record:
        if not isinstance(pair, Mapping) or not {"image", "question"} <= pair.keys():
            raise InputError(
                f"pipeline '{self.task}': expected image=... and question=..., or mappings with both, found "
                f"{sorted(pair) if isinstance(pair, Mapping) else type(pair).__name__}"
            )
        return {"image": picture_of(pair["image"]), "question": pair["question"]}


class ImageClassificationPipeline(Pipeline):
    """Names what is in a picture by the classes of the model: `[{"label": ..., "score": ...}, ...]`."""

    _own = ("function_to_apply", "timeout", "top_k")
    _generates = False

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        super().__init__(task, engine, files, options)
        if "choices" in self._inputs_of("classify"):
            raise InputError(
                f"pipeline '{task}': expected a checkpoint with classes, found '{engine.name}', which has "
                "none: the pipeline 'zero-shot-image-classification' takes them as candidate_labels"
            )

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answers a picture, a list of pictures, or the pictures of a generator."""
        return self._run(take_images(inputs, options), options)

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[list[Record]]:
        refuse_timeout(options)
        function = options.pop("function_to_apply", None)
        if function not in (None, "default", "softmax"):
            message = "the scores are probabilities among all classes"
            raise InputError(f"function_to_apply: expected 'softmax', found {function!r}: {message}")
        top_k = options.pop("top_k", None)
        answers = self.engine.batch("classify", [{"image": picture_of(image)} for image in inputs])
        return [ranked(answer, "label", _TOP if top_k is None else top_k) for answer in answers]


class ZeroShotImageClassificationPipeline(Pipeline):
    """Chooses among labels of the caller's for a picture: `[{"score": ..., "label": ...}, ...]`.

    Unlike in transformers, a label stands for itself unless there is a `hypothesis_template`: the words
    around it are those of the task file.
    """

    _own = ("candidate_labels", "hypothesis_template", "timeout")
    _generates = False

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        super().__init__(task, engine, files, options)
        if "choices" not in self._inputs_of("classify"):
            raise InputError(
                f"pipeline '{task}': expected a checkpoint that takes any labels, found '{engine.name}', "
                "which has classes of its own: the pipeline 'image-classification' names them"
            )

    def __call__(self, image: Any = None, candidate_labels: list[str] | None = None, **options: Any) -> Any:
        """Answers a picture, a list of pictures, or the pictures of a generator."""
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return self._run(take_images(image, options), options)

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[list[Record]]:
        refuse_timeout(options)
        labels = labels_of(options)
        template = options.pop("hypothesis_template", "{}")
        names = {worded(template, label): label for label in labels}
        rows = [{"image": picture_of(image), "choices": list(names)} for image in inputs]
        answers = self.engine.batch("classify", rows)
        return [
            [{"score": choice.probability, "label": names[choice.text]} for choice in answer.choices]
            for answer in answers
        ]


def labels_of(options: dict[str, Any]) -> list[str]:
    """Takes the labels out of options: a list, or a text with commas between them."""
    labels = options.pop("candidate_labels", None)
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not labels:
        raise InputError("candidate_labels: expected a list of labels, or labels with commas, found none")
    return list(labels)


def worded(template: str, label: str) -> str:
    """Puts a label into the words of a template."""
    text = template.format(label)
    if text == template:
        raise InputError(f"hypothesis_template: expected '{{}}' where the label goes, found '{template}'")
    return text
