"""Tables of drawn pictures, some of them bad."""

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROWS = 50

#: What is wrong with bad rows, by their ids, and what their errors say.
BAD: dict[int, tuple[bytes | None, str]] = {
    7: (None, "null"),
    19: (b"this is no picture", "not a picture"),
    23: (b"", "expected PNG"),
    41: (b"\x89PNG\r\n\x1a\n cut off", "InputError"),
}


def picture(index: int) -> bytes:
    """Draws a shape, whose color and place depend on the index."""
    image = Image.new("RGB", (48, 48), "white")
    left = index % 24
    shape = ImageDraw.Draw(image)
    draw = shape.ellipse if index % 2 else shape.rectangle
    draw((left, left, left + 20, left + 20), fill=(index * 37 % 256, 90, index * 11 % 256))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def rows() -> list[dict[str, Any]]:
    """Returns rows of an id and a picture."""
    return [
        {"id": index, "image": BAD[index][0] if index in BAD else picture(index)} for index in range(ROWS)
    ]


def write_parquet(folder: Path, files: int = 2) -> None:
    """Writes the rows to some Parquet files."""
    import pyarrow
    import pyarrow.parquet as parquet

    types = pyarrow.schema({"id": pyarrow.int64(), "image": pyarrow.binary()})
    for part in range(files):
        table = pyarrow.Table.from_pylist(rows()[part::files], types)
        parquet.write_table(table, folder / f"part-{part}.parquet")


def check(found: list[dict[str, Any]], texts: dict[int, str | None]) -> None:
    """Checks that each row came once: good ones with their text, bad ones with null and the reason."""
    assert sorted(row["id"] for row in found) == list(range(ROWS))
    for row in found:
        if row["id"] in BAD:
            assert row["text"] is None
            assert row["error"].startswith("InputError: ") and BAD[row["id"]][1] in row["error"]
        else:
            assert row["error"] is None and row["text"] == texts[row["id"]]
