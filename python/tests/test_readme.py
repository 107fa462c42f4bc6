"""The programs of the package's page run."""

import re
import shutil
from pathlib import Path

import pytest

from conftest import ROOT

PAGE = (ROOT / "python" / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat.png", "dog.png"):
        shutil.copy(ROOT / "examples" / "pictures" / name, tmp_path)
    (tmp_path / "flan-t5-small").symlink_to(ROOT / "tests/fixtures/cases/checkpoints/plain")
    monkeypatch.chdir(tmp_path)
    # The harness fetches its tasks; it has tests of its own.
    programs = [block for block in BLOCKS if "simple_evaluate" not in block]
    assert len(programs) > 8
    exec(compile("\n".join(programs), "README.md", "exec"), {"__name__": "page"})
