"""One model, one runtime, any image-and-text task written as a prompt.

    import multiway

    engine = multiway.Engine.open()
    print(engine.run("caption", image="cat.png").text)
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
