"""Runs image-and-text encoder-decoders: T5, Flan-T5, mT5, BEiT-3, and the model that the package carries.

    import multiway

    engine = multiway.Engine.open()
    answer = engine.run("vqa", image="cat.png", question="what is it?")
    print(answer.text)

`multiway.compat` has pipelines with the inputs and outputs of transformers 4, and `multiway.lm_eval` a model
for lm-evaluation-harness.
"""

from multiway._multiway import (
    Answer,
    Choice,
    Decision,
    Engine,
    EngineError,
    InputError,
    Score,
    Stream,
    Usage,
    __version__,
)

__all__ = [
    "Answer",
    "Choice",
    "Decision",
    "Engine",
    "EngineError",
    "InputError",
    "Score",
    "Stream",
    "Usage",
    "__version__",
]
