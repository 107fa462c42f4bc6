#!/usr/bin/env python3
"""Makes the pictures in tests/fixtures/images and what Pillow makes of them.

    python3 -m venv VENV && VENV/bin/pip install pillow==12.3.0 numpy==2.4.6 scikit-image==0.26.0
    VENV/bin/python scripts/make_resize_reference.py

Writes inputs/NAME.EXT and expected/NAME.EXT.SIDE.png. Each expected picture is the input turned upright (EXIF),
composited on white where it has transparency, converted to 8-bit RGB and squashed to SIDE x SIDE with Pillow's
antialiased bicubic filter, in this order. Pillow is kept below 13, which runs the vertical pass first for tall
pictures and so rounds them differently. The photographs come with scikit-image and are in the public domain or under
CC0; everything else is drawn here.
"""

import io
import pathlib
import shutil

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from skimage import data

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "images"


def drawn(width, height, mode="RGB"):
    """Draws shapes with hard edges, thin lines and a colour gradient."""
    y, x = np.mgrid[0:height, 0:width]
    gradient = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 255 - 255 * x / width], axis=-1)
    picture = Image.fromarray(gradient.astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(picture)
    draw.ellipse([width // 8, height // 8, width // 2, height // 2], fill=(250, 30, 20))
    draw.rectangle([width // 2, height // 3, max(width - 3, width // 2), max(height - 4, height // 3)], fill=(20, 60, 240), outline=(255, 255, 255))
    for step in range(0, width + height, 9):
        draw.line([step, 0, 0, step], fill=(0, 0, 0))
    return picture.convert(mode)


def fading(width, height):
    """An alpha channel with every value, fully transparent and fully opaque parts."""
    y, x = np.mgrid[0:height, 0:width]
    alpha = 300 * np.hypot(x / width - 0.4, y / height - 0.5) - 20
    return Image.fromarray(np.clip(alpha, 0, 255).astype(np.uint8), "L")


def photograph(array, box):
    return Image.fromarray(array).crop(box)


def grey16(width, height):
    y, x = np.mgrid[0:height, 0:width]
    values = (65535 * (0.5 + 0.5 * np.sin(x * y / 97.0))).astype(np.uint16)
    return values


def inputs():
    """Yields (file name, the file's bytes, the upright 8-bit picture if Pillow would read another one)."""
    cat, coffee, astronaut = data.chelsea(), data.coffee(), data.astronaut()
    with_alpha = drawn(120, 90)
    with_alpha.putalpha(fading(120, 90))
    grey_alpha = drawn(31, 57, "L")
    grey_alpha.putalpha(fading(31, 57))
    small_alpha = with_alpha.resize((40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = drawn(64, 48).quantize(32)
    pictures = [
        ("cat.png", photograph(cat, (100, 60, 281, 181)), {}),
        ("coffee.jpg", photograph(coffee, (120, 60, 461, 300)), {"quality": 85}),
        ("astronaut.webp", photograph(astronaut, (100, 0, 331, 201)), {"quality": 80}),
        ("astronaut-lossless.webp", photograph(astronaut, (180, 60, 281, 127)), {"lossless": True}),
        ("upright-when-turned.jpg", photograph(coffee, (200, 100, 300, 150)), {"quality": 90, "exif": exif}),
        ("progressive.jpg", photograph(cat, (150, 80, 300, 190)), {"quality": 85, "progressive": True}),
        ("grey.jpg", photograph(cat, (150, 80, 300, 190)).convert("L"), {"quality": 85}),
        ("tall-grey.png", drawn(40, 500, "L"), {}),
        ("wide.bmp", drawn(97, 7), {}),
        ("alpha.png", with_alpha, {}),
        ("alpha.webp", with_alpha, {"lossless": True, "exact": True}),
        ("animated-alpha.webp", small_alpha, {"quality": 60, "save_all": True, "append_images": [small_alpha.rotate(180)]}),
        ("grey-alpha.png", grey_alpha, {}),
        ("palette-transparent.png", palette, {"transparency": 5}),
        ("transparent.gif", palette, {"transparency": 5}),
        ("animated.gif", palette, {"save_all": True, "append_images": [drawn(64, 48).rotate(180).quantize(32)]}),
        ("one-bit.png", drawn(150, 70, "1"), {}),
        ("one-pixel.png", Image.new("RGB", (1, 1), (13, 130, 251)), {}),
        ("one-column.png", drawn(1, 90), {}),
        ("three-by-two.png", photograph(cat, (200, 100, 203, 102)), {}),
        ("same-size.png", photograph(astronaut, (190, 40, 254, 104)), {}),
    ]
    for name, picture, options in pictures:
        file = io.BytesIO()
        extension = name.rsplit(".", 1)[1]
        picture.save(file, {"jpg": "JPEG"}.get(extension, extension.upper()), **options)
        yield name, file.getvalue(), None
    # Pillow clips 16-bit grey to 255 when it converts it; here 65535 is white.
    values = grey16(90, 61)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    eight = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    yield "grey-16-bit.png", file.getvalue(), Image.fromarray(eight, "L").convert("RGB")


def upright_rgb(file):
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def main():
    for name in ("inputs", "expected"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        (FOLDER / name).mkdir(parents=True)
    for name, file, rgb in inputs():
        (FOLDER / "inputs" / name).write_bytes(file)
        rgb = rgb or upright_rgb(file)
        sides = (16, 64, 101) if name in ("cat.png", "three-by-two.png", "alpha.png") else (64,)
        for side in sides:
            small = rgb.resize((side, side), Image.Resampling.BICUBIC)
            small.save(FOLDER / "expected" / f"{name}.{side}.png", optimize=True)
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{FOLDER}: {total} bytes")


if __name__ == "__main__":
    main()
