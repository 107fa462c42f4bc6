#!/usr/bin/env python3
"""Makes the pictures of rare kinds in tests/fixtures/images/kinds, and beside each what Pillow makes of it.

    python3 -m venv VENV && VENV/bin/pip install pillow==12.3.0
    VENV/bin/python scripts/make_picture_kinds.py

Writes NAME.EXT and NAME.EXT.png: the picture turned upright (EXIF), composited on white where it has transparency, and
converted to 8-bit RGB. Pillow writes few of these kinds itself: scans, markers and chunks are put together here.
Arithmetic coding is by jpegtran of libjpeg-turbo, which has to be on the path. Files that the script does not make
(those that are refused) stay as they are.
"""

import io
import pathlib
import struct
import subprocess

from PIL import Image, ImageChops, ImageOps

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "images"
FOLDER = IMAGES / "kinds"

SOF0, DHT, SOS, DQT, APP0, APP14 = 0xC0, 0xC4, 0xDA, 0xDB, 0xE0, 0xEE
ALPHA, EXIF, XMP, ICC = 0x10, 0x08, 0x04, 0x20


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def jpeg(picture, **options):
    return saved(picture, "JPEG", **{"quality": 85, **options})


def inks(picture):
    """Cyan, magenta, yellow, and most of what they share as black."""
    cyan, magenta, yellow = ImageChops.invert(picture).split()
    black = ImageChops.darker(ImageChops.darker(cyan, magenta), yellow).point(lambda x: x * 3 // 4)
    return Image.merge("CMYK", [*(ImageChops.subtract(ink, black) for ink in (cyan, magenta, yellow)), black])


def luma_chroma_black(picture):
    """What a JPEG of luma, chroma and black holds, inverted as Pillow inverts what it writes of inks."""
    cyan, magenta, yellow, black = inks(picture).split()
    light = ImageChops.invert(Image.merge("RGB", (cyan, magenta, yellow)))
    planes = [ImageChops.invert(plane) for plane in light.convert("YCbCr").split()]
    return Image.merge("CMYK", [*planes, black])


def segments(file):
    """Yields (marker, segment, the data behind it); a scan's data goes up to the next marker that is not its own."""
    at = 2
    while file[at + 1] != 0xD9:
        marker, length = file[at + 1], struct.unpack_from(">H", file, at + 2)[0]
        end = next_at = at + 2 + length
        while marker == SOS and (file[next_at] != 0xFF or file[next_at + 1] == 0 or 0xD0 <= file[next_at + 1] <= 0xD7):
            next_at += 1
        yield marker, file[at + 4 : end], file[end:next_at]
        at = next_at


def joined(parts):
    body = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment + data for marker, segment, data in parts)
    return b"\xff\xd8" + body + b"\xff\xd9"


def without(marker, file):
    return joined(part for part in segments(file) if part[0] != marker)


def with_transform(transform, file):
    """Says how Adobe's programs coded the planes: 0 as they are, 1 luma and chroma, 2 luma, chroma and black."""
    return joined((marker, segment[:11] + bytes([transform]) if marker == APP14 else segment, data) for marker, segment, data in segments(file))


def a_scan_each(planes, factors, order, tables_first=False, **options):
    """A baseline JPEG with a scan for each plane, in any order, and each plane's tables in front of its scan or of all."""
    tallest, widest = max(down for _, down in factors), max(across for across, _ in factors)
    width, height = planes[0].size
    frame = struct.pack(">BHHB", 8, height, width, len(planes))
    tables, scans = [], []
    for plane, (across, down) in enumerate(factors):
        size = (-(-width * across // widest), -(-height * down // tallest))
        coded = list(segments(jpeg(planes[plane].resize(size, Image.Resampling.BOX), quality=70 + 8 * plane, **options)))
        frame += bytes([plane + 1, across << 4 | down, plane])
        tables.append([(DQT, bytes([plane]) + segment[1:], b"") for marker, segment, _ in coded if marker == DQT])
        data = next(data for marker, _, data in coded if marker == SOS)
        others = [(marker, segment, b"") for marker, segment, _ in coded if marker in (DHT, 0xDD)]
        scans.append([*others, (SOS, bytes([1, plane + 1, 0, 0, 63, 0]), data)])
    parts = [(SOF0, frame, b"")]
    if tables_first:
        parts += [part for table in tables for part in table]
        return joined(parts + [part for plane in order for part in scans[plane]])
    return joined(parts + [part for plane in order for part in tables[plane] + scans[plane]])


def arithmetic(file, *options):
    return subprocess.run(["jpegtran", "-arithmetic", *options], input=file, stdout=subprocess.PIPE, check=True).stdout


def chunks(webp):
    at = 12
    while at < len(webp):
        name, size = struct.unpack_from("<4sI", webp, at)
        yield name, webp[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def announcing(flags, webp, size):
    """Puts a header in front of a WebP's chunks that announces those of `flags`, whether they are there or not."""
    parts = list(chunks(webp))
    if parts[0][0] == b"VP8X":
        flags |= parts.pop(0)[1][0]
    width, height = size
    header = bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in [(b"VP8X", header), *parts])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pictures():
    """Yields (file name, the file's bytes)."""
    cat = Image.open(IMAGES / "inputs" / "cat.png").convert("RGB").crop((60, 30, 105, 67))
    ink, luma_black = inks(cat), luma_chroma_black(cat)
    turned = Image.Exif()
    turned[0x0112] = 6

    yield "cmyk.jpg", jpeg(ink)
    yield "cmyk-without-adobe.jpg", without(APP14, jpeg(ink))
    yield "cmyk-progressive.jpg", jpeg(ink, progressive=True)
    yield "cmyk-subsampled.jpg", jpeg(ink, subsampling=2)
    yield "cmyk-turned.jpg", jpeg(ink, exif=turned)
    yield "ycck.jpg", with_transform(2, jpeg(luma_black))
    yield "ycck-progressive.jpg", with_transform(2, jpeg(luma_black, progressive=True))
    yield "ycck-subsampled.jpg", with_transform(2, jpeg(luma_black, subsampling=2))
    yield "rgb-adobe.jpg", with_transform(0, jpeg(cat, keep_rgb=True))
    yield "rgb-by-names.jpg", without(APP14, jpeg(cat, keep_rgb=True))
    yield "rgb-progressive.jpg", jpeg(cat, keep_rgb=True, progressive=True)
    yield "luma-chroma-adobe.jpg", with_transform(1, jpeg(cat.convert("YCbCr"), keep_rgb=True))
    yield "restarts.jpg", jpeg(cat, restart_marker_blocks=2)

    planes = cat.convert("YCbCr").split()
    half, full, grey = [(2, 2), (1, 1), (1, 1)], [(1, 1)] * 3, cat.convert("L")
    yield "scans-luma-last.jpg", a_scan_each(planes, half, (1, 2, 0))
    yield "scans-luma-last-tables-first.jpg", a_scan_each(planes, half, (2, 1, 0), tables_first=True)
    yield "scans-luma-second.jpg", a_scan_each(planes, full, (2, 0, 1))
    yield "scans-luma-first.jpg", a_scan_each(planes, half, (0, 1, 2))
    yield "scans-with-restarts.jpg", a_scan_each(planes, half, (1, 2, 0), restart_marker_blocks=1)
    yield "scans-half-height.jpg", a_scan_each(planes, [(1, 2), (1, 1), (1, 1)], (1, 2, 0))
    yield "scans-quarter-width.jpg", a_scan_each(planes, [(4, 1), (1, 1), (1, 1)], (1, 2, 0))
    yield "scans-of-inks.jpg", a_scan_each(ImageChops.invert(ink).split(), [(1, 1)] * 4, (3, 2, 1, 0))
    yield "scans-grey-sampled-twice.jpg", a_scan_each([grey], [(2, 2)], (0,))

    yield "arithmetic.jpg", arithmetic(jpeg(cat))
    yield "arithmetic-progressive.jpg", arithmetic(jpeg(cat), "-progressive")
    yield "arithmetic-grey.jpg", arithmetic(jpeg(grey), "-restart", "1")
    yield "arithmetic-cmyk.jpg", arithmetic(jpeg(ink))

    lossy, lossless = saved(cat, "WEBP", quality=80), saved(cat, "WEBP", lossless=True)
    clear = cat.copy()
    clear.putalpha(grey.point(lambda x: min(2 * x, 255)))
    with_alpha = saved(clear, "WEBP", quality=80)
    moving = saved(clear, "WEBP", quality=60, save_all=True, append_images=[clear.rotate(180)])
    for name, flags in [("exif", EXIF), ("xmp", XMP), ("icc", ICC), ("alpha", ALPHA), ("all", EXIF | XMP | ICC | ALPHA)]:
        yield f"announces-{name}.webp", announcing(flags, lossy, cat.size)
        yield f"announces-{name}-lossless.webp", announcing(flags, lossless, cat.size)
    yield "announces-exif-has-alpha.webp", announcing(EXIF, with_alpha, cat.size)
    yield "announces-xmp-animated.webp", announcing(XMP, moving, cat.size)

    yield "colours.dib", saved(cat, "DIB")
    yield "palette.dib", saved(cat.quantize(16), "DIB")
    yield "animated.apng", saved(cat, "PNG", save_all=True, append_images=[cat.rotate(180)])


def upright_rgb(file):
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return picture.convert("RGB")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, file in pictures():
        (FOLDER / name).write_bytes(file)
        upright_rgb(file).save(FOLDER / f"{name}.png", optimize=True)
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{FOLDER}: {total} bytes")


if __name__ == "__main__":
    main()
