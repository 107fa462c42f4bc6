"""What tests share: the engine of the checkpoint that the package carries, and pictures."""

from collections.abc import Iterator
from pathlib import Path

import multiway
import pytest

ROOT = Path(__file__).resolve().parents[2]
CAT = ROOT / "examples" / "pictures" / "cat.png"
PARITY = ROOT / "tests" / "fixtures" / "parity"


@pytest.fixture(scope="session")
def engine() -> Iterator[multiway.Engine]:
    """Opens the default checkpoint once."""
    yield multiway.Engine.open()


@pytest.fixture(scope="session")
def cat() -> Path:
    return CAT
