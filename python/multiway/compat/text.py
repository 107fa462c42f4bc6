"""The pipelines from text to text."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiway import Engine, InputError
from multiway.compat.base import Pipeline, Record, texts_of
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.generation import KEYWORDS

#: What these pipelines of transformers say where a checkpoint does not.
_DEFAULTS = {"max_new_tokens": 256, "num_beams": 4}

#: A `max_length` in a generation config that says nothing: the default of transformers.
_DEFAULT_LENGTH = 20

#: Options of which one value is right: that which returns texts as they were written.
_TEXT_ALONE = {
    "return_tensors": False,
    "return_text": True,
    # An enumeration, in which this is text.
    "return_type": 1,
    "clean_up_tokenization_spaces": False,
}

_TRUNCATING = (True, "longest_first", "only_first")
_NOT_TRUNCATING = (None, False, "do_not_truncate")

_LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "tr": "Turkish",
    "zh": "Chinese",
}


@dataclass(frozen=True)
class Route:
    """Says how a text reaches the model: by which task, with which prefix and other inputs."""

    task: str
    prefix: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    #: Keywords of `generate` that the caller's win over.
    preset: Mapping[str, Any] = field(default_factory=dict)


class Text2TextGenerationPipeline(Pipeline):
    """Writes a text for a text: `[{"generated_text": ...}]`.

    A list of texts gives a list of records, and where `num_return_sequences` is above 1 a list of lists.
    """

    _name = "generated_text"
    _own = ("prefix", "truncation", *_TEXT_ALONE)

    def __call__(self, inputs: str | list[str] | Iterator[str], **options: Any) -> Any:
        """Answers a text, a list of texts, or the texts of a generator."""
        records = self._run(inputs, options)
        if isinstance(inputs, list) and all(len(one) == 1 for one in records):
            return [one[0] for one in records]
        return records

    def _answer(self, inputs: list[Any], options: dict[str, Any]) -> list[list[Record]]:
        _take_text_alone(options)
        prefix = options.pop("prefix", None)
        truncation = options.pop("truncation", None)
        if truncation not in (*_TRUNCATING, *_NOT_TRUNCATING):
            raise InputError(f"truncation: expected True or False, found {truncation!r}")
        route = self._route(options)
        prefix = route.prefix if prefix is None else prefix
        texts = [prefix + self._text(text) for text in inputs]
        if truncation in _TRUNCATING:
            texts = [self._truncated(text) for text in texts]
        sampling = self._sampling(options, route.preset)
        rows = [{"text": text, **route.fields} for text in texts]
        answers = self.engine.batch(route.task, rows, sampling=sampling)
        return [[{self._name: text} for text in texts_of(answer)] for answer in answers]

    def _route(self, options: dict[str, Any]) -> Route:
        """Takes the options that say how a text reaches the model out of the others."""
        return self._plain_route(self.task)

    def _plain_route(self, key: str) -> Route:
        """Finds what the checkpoint says of a pipeline; the text is what the encoder reads."""
        params = dict(self._files.task_params.get(key) or {})
        for name in params.keys() - KEYWORDS - {"prefix"}:
            message = "is not supported and changes nothing here"
            warnings.warn(f"config.json: '{name}' in task_specific_params['{key}'] {message}", stacklevel=2)
        prefix = params.pop("prefix", None) or self._files.config.get("prefix") or ""
        if not self._is_text_model:
            return Route("prompt", prefix, preset=params)
        generation = self._files.generation
        length = generation.get("max_length")
        defaults = {name: value for name, value in _DEFAULTS.items() if generation.get(name) is None}
        if "max_length" in params or length not in (None, _DEFAULT_LENGTH):
            defaults.pop("max_new_tokens", None)
        return Route("prompt", prefix, preset={**defaults, **params})

    @property
    def _is_text_model(self) -> bool:
        """Whether the checkpoint is of the family of T5, to which the defaults of transformers belong."""
        return "text2text" in self.engine.tasks

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            found = type(value).__name__
            raise InputError(f"pipeline '{self.task}': expected a text, or a list of texts, found {found}")
        return value

    def _truncated(self, text: str) -> str:
        limit = self._files.model_max_length
        if limit is None:
            return text
        tokens = self.engine.tokenize(text)
        # One place is for the end.
        return text if len(tokens) < limit else self.engine.detokenize(tokens[: limit - 1])


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Summarizes a text: `[{"summary_text": ...}]`."""

    _name = "summary_text"

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        super().__init__(task, engine, files, options)
        if not self._is_text_model:
            self._inputs_of("summarize")

    def _route(self, options: dict[str, Any]) -> Route:
        if self._is_text_model:
            return self._plain_route(self.task)
        return Route("summarize")


class TranslationPipeline(Text2TextGenerationPipeline):
    """Translates a text: `[{"translation_text": ...}]`.

    The languages are those of the name of the pipeline, `translation_en_to_de`, or `src_lang` and `tgt_lang`:
    codes of two letters, or names in English.
    """

    _name = "translation_text"
    _own = (*Text2TextGenerationPipeline._own, "src_lang", "tgt_lang")

    def __init__(self, task: str, engine: Engine, files: CheckpointFiles, options: Mapping[str, Any]) -> None:
        if task == "translation":
            known = [key for key in files.task_params if key.startswith("translation")]
            if known:
                message = f"pipeline 'translation': the checkpoint has '{known[0]}', which is used"
                warnings.warn(message, stacklevel=3)
                task = known[0]
        super().__init__(task, engine, files, options)
        if not self._is_text_model:
            self._inputs_of("translate")

    def _route(self, options: dict[str, Any]) -> Route:
        named = options.pop("src_lang", None), options.pop("tgt_lang", None)
        parts = self.task.split("_")
        of_task = (parts[1], parts[3]) if len(parts) == 4 else (None, None)
        source, target = (given or own for given, own in zip(named, of_task, strict=True))
        if self._is_text_model and named == (None, None):
            return self._plain_route(self.task)
        if source is None or target is None:
            raise InputError(
                f"pipeline '{self.task}': expected two languages, found {source!r} and {target!r}: give "
                "src_lang and tgt_lang, or name the pipeline as in 'translation_en_to_de'"
            )
        if not self._is_text_model:
            return Route("translate", fields={"source": _language(source), "language": _language(target)})
        key = f"translation_{source}_to_{target}"
        route = self._plain_route(key)
        if key in self._files.task_params:
            return route
        prefix = f"translate {_language(source)} to {_language(target)}: "
        return Route(route.task, prefix, preset=route.preset)


def _take_text_alone(options: dict[str, Any]) -> None:
    """Takes options out that ask for nothing but texts, and refuses those that ask for more."""
    for name, right in _TEXT_ALONE.items():
        value = options.pop(name, None)
        if value is not None and getattr(value, "value", value) != right:
            message = "this pipeline returns texts as they were written; Engine.run has their tokens"
            raise InputError(f"{name}: expected {right} or nothing, found {value!r}: {message}")


def _language(name: str) -> str:
    """Returns the English name of a language, of which the models were told."""
    language = _LANGUAGES.get(name, name)
    if language not in _LANGUAGES.values():
        known = ", ".join(f"{code} ({language})" for code, language in _LANGUAGES.items())
        raise InputError(f"language: expected one of {known}, found '{name}'")
    return language
