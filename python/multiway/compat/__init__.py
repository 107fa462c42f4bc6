"""Pipelines with the inputs and outputs of transformers 4, for those that transformers 5 no longer has.

    from multiway.compat import pipeline

    translate = pipeline("translation_en_to_de", model="flan-t5-small")
    print(translate("The house is wonderful.")[0]["translation_text"])

What decides about an answer is taken from the same places: the prefix and the parameters of a task from
`task_specific_params` in the checkpoint's `config.json`, the others from its `generation_config.json`, and
then the defaults of the pipelines. An option that the engine does not have is refused.
"""

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from multiway import Engine, InputError
from multiway.compat.base import Pipeline
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.pictures import (
    ImageClassificationPipeline,
    ImageToTextPipeline,
    VisualQuestionAnsweringPipeline,
    ZeroShotImageClassificationPipeline,
)
from multiway.compat.text import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
)
from multiway.compat.zero_shot import ZeroShotClassificationPipeline

__all__ = ["Pipeline", "pipeline"]

_PIPELINES: dict[str, type[Pipeline]] = {
    "image-classification": ImageClassificationPipeline,
    "image-to-text": ImageToTextPipeline,
    "summarization": SummarizationPipeline,
    "text2text-generation": Text2TextGenerationPipeline,
    "translation": TranslationPipeline,
    "visual-question-answering": VisualQuestionAnsweringPipeline,
    "zero-shot-classification": ZeroShotClassificationPipeline,
    "zero-shot-image-classification": ZeroShotImageClassificationPipeline,
}

_ALIASES = {"vqa": "visual-question-answering"}

#: What to do instead of pipelines whose answers cannot have the same form here.
_INSTEAD = {
    "feature-extraction": "Engine.embed gives one vector of a text or a picture, not one of each token",
    "image-feature-extraction": "Engine.embed gives one vector of a picture, not one of each patch",
    "question-answering": "Engine.run('answer', question=..., context=...) writes it, without its place",
}

_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "int8", "auto": None}


def pipeline(task: str, model: str | PathLike[str] | None = None, **options: Any) -> Pipeline:
    """Makes the pipeline of a task, with the inputs and outputs that it has in transformers 4.

    `model` is a folder of a checkpoint, or a `.pth` file of BEiT-3; by default it is the checkpoint that the
    package carries. `device` is the CPU; `dtype` or `torch_dtype` are "float32", "bfloat16" or "int8";
    `model_kwargs` are options of `Engine.open`. All others are those of the pipeline, and hold for all calls.
    """
    kind = _PIPELINES.get(_family(task))
    if kind is None:
        known = ", ".join([*_PIPELINES, *_ALIASES, "translation_XX_to_YY"])
        raise InputError(f"pipeline '{task}': {_INSTEAD.get(task) or f'expected one of {known}'}")
    engine = _open(model, options)
    return kind(_ALIASES.get(task, task), engine, CheckpointFiles.read(model), options)


def _family(task: str) -> str:
    if re.fullmatch(r"translation_[^_]+_to_[^_]+", task):
        return "translation"
    return _ALIASES.get(task, task)


def _open(model: str | PathLike[str] | None, options: dict[str, Any]) -> Engine:
    """Opens the checkpoint, and takes the options that are about it out of the others."""
    if model is not None and not isinstance(model, (str, PathLike)):
        found = type(model).__name__
        raise InputError(f"model: expected a path, found {found}: save the model, and give its folder")
    if model is not None and not Path(model).exists():
        raise InputError(
            f"model: expected a folder or a file, found '{model}', which does not exist: of a name on the "
            "hub, huggingface_hub.snapshot_download(...) gives the folder"
        )
    device = options.pop("device", None)
    if device is not None and str(device) not in ("-1", "cpu"):
        raise InputError(f"device: expected 'cpu' or -1, found {device!r}: this package runs on the CPU")
    if options.pop("framework", None) not in (None, "pt"):
        raise InputError("framework: expected 'pt' or nothing: checkpoints are those of PyTorch")
    for name in ("config", "tokenizer", "image_processor", "feature_extractor", "processor"):
        value = options.pop(name, None)
        if value is not None and str(value) != str(model):
            message = "it is read from the checkpoint"
            raise InputError(f"{name}: expected nothing, or the path of `model`, found {value!r}: {message}")
    opening: Mapping[str, Any] = options.pop("model_kwargs", None) or {}
    dtype = _dtype(options)
    return Engine.open(model, **({"dtype": dtype, **opening} if dtype else opening))


def _dtype(options: dict[str, Any]) -> str | None:
    older, newer = options.pop("torch_dtype", None), options.pop("dtype", None)
    given = older if newer is None else newer
    if given is None:
        return None
    name = str(given).removeprefix("torch.")
    if name not in _DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(_DTYPES)}, found {given!r}")
    return _DTYPES[name]
