"""What the JSON files of a checkpoint say, beside what the engine reads of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from multiway import InputError

#: transformers writes a number of this size where a tokenizer has no limit.
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class CheckpointFiles:
    """Holds the files of a checkpoint, each empty where there is none."""

    config: Mapping[str, Any] = field(default_factory=dict)
    #: The generation config; as in transformers, that of `config.json` where it has no file of its own.
    generation: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, checkpoint: str | PathLike[str] | None) -> "CheckpointFiles":
        """Reads the files of a folder; the embedded checkpoint and those of one file have none."""
        if checkpoint is None or not Path(checkpoint).is_dir():
            return cls()
        folder = Path(checkpoint)
        config = _read(folder / "config.json")
        own = folder / "generation_config.json"
        generation = _read(own) if own.exists() else config
        return cls(config, generation, _read(folder / "tokenizer_config.json"))

    @property
    def task_params(self) -> Mapping[str, Mapping[str, Any]]:
        """The keywords of `generate` and the prefix, for each pipeline that the checkpoint knows."""
        return self.config.get("task_specific_params") or {}

    @property
    def model_max_length(self) -> int | None:
        """The most tokens of an input, the end included, to which a tokenizer truncates."""
        limit = self.tokenizer.get("model_max_length")
        return int(limit) if limit is not None and limit < _NO_LIMIT else None


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path}: expected JSON in UTF-8, found something else: {error}") from error
    if not isinstance(read, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(read).__name__}")
    return read
