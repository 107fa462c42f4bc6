#!/usr/bin/env python3
"""Says how many machines a number of pictures takes, from what `multiway bench` measured on one of them.

Example:
  multiway --threads 8 bench decode --batch 8,32 --source-length 16 --new-tokens 16 --json > bench.jsonl
  python3 scripts/capacity.py bench.jsonl
  python3 scripts/capacity.py bench.jsonl --pictures 50000000 --hours 1 --hours 24 --headroom 0.5
  multiway bench encode --batch 32 --json | python3 scripts/capacity.py --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TextIO

EPILOG = """\
Measure on a machine of the kind that you will use, idle otherwise, with all of its cores as
--threads and the prompts and answers of your task: --source-length is the tokens of a prompt's
text, --pictures of `bench` the pictures of a prompt, --new-tokens the tokens of an answer. Run
each case in a process of its own, since rss_mb is the peak of the process so far.

What is computed of a case:
  seconds a batch    = encode_ms / 1000 + batch * new_tokens / decode_tokens_per_s
  requests a second  = batch / seconds a batch; cases of `bench encode` have no second term
  machines           = pictures / (requests a second * pictures of a prompt * headroom * seconds),
                       rounded up; a case without pictures counts prompts instead

`bench` reads and decodes no picture files, and waits for no client: its rate is an upper bound.
The progress bar of `multiway batch` shows the rate of the whole way on data of your own.

With --json, a line for each case: {model, dtype, cache, threads, batch, source_length, pictures,
beams, new_tokens, requests_per_second, peak_memory_mb, wanted, headroom, machines [{hours,
machines}]}. Exit codes: 0 done, 2 wrong command line or input."""


class InputError(Exception):
    """What was given is wrong, and what to do about it."""


@dataclass(frozen=True)
class Case:
    """A case of `multiway bench encode` or `decode`, and the rate that follows from it."""

    model: str
    dtype: str
    cache: str
    threads: int
    batch: int
    source_length: int
    pictures: int
    #: None where nothing was decoded, as `new_tokens`.
    beams: int | None
    new_tokens: int | None
    requests_per_second: float
    #: In 10^6 bytes; None where the system does not tell.
    peak_memory_mb: float | None

    def machines(self, wanted: int, hours: float, headroom: float) -> int:
        """Returns how many machines answer for `wanted` pictures, or prompts, in some hours."""
        per_second = self.requests_per_second * max(self.pictures, 1) * headroom
        return max(1, math.ceil(wanted / (per_second * hours * 3600)))


def number(line: dict[str, Any], key: str, least: float, *, above: bool = False) -> float:
    """Reads a number that is at least `least`, or above it."""
    value = line.get(key)
    # To Python, true is a number.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        if value > least or (value == least and not above):
            return value
    expected = f"a number above {least:g}" if above else f"a number of at least {least:g}"
    raise InputError(f"{key}: expected {expected}, found {json.dumps(value)}")


def whole(line: dict[str, Any], key: str, least: int) -> int:
    """Reads a whole number that is at least `least`."""
    value = number(line, key, least)
    if value != int(value):
        raise InputError(f"{key}: expected a whole number, found {json.dumps(value)}")
    return int(value)


def text(line: dict[str, Any], key: str) -> str:
    """Reads a text."""
    value = line.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key}: expected a text, found {json.dumps(value)}")
    return value


def read_case(line: Any) -> Case:
    """Reads a line of `multiway bench --json`."""
    if not isinstance(line, dict):
        raise InputError("expected a JSON object, as `multiway bench encode --json` prints one a line")
    if not {"batch", "encode_ms", "new_tokens", "decode_tokens_per_s"} <= line.keys():
        raise InputError(
            "this is no case of `multiway bench encode` or `bench decode`: other benchmarks have no rate of "
            "requests"
        )
    batch = whole(line, "batch", 1)
    seconds = number(line, "encode_ms", 0, above=True) / 1000
    is_decoded = line["decode_tokens_per_s"] is not None
    if is_decoded:
        seconds += batch * whole(line, "new_tokens", 1) / number(line, "decode_tokens_per_s", 0, above=True)
    return Case(
        model=text(line, "model"),
        dtype=text(line, "dtype"),
        cache=text(line, "cache"),
        threads=whole(line, "threads", 1),
        batch=batch,
        source_length=whole(line, "src", 0),
        pictures=whole(line, "pictures", 0),
        beams=whole(line, "beam", 1) if is_decoded else None,
        new_tokens=whole(line, "new_tokens", 1) if is_decoded else None,
        requests_per_second=batch / seconds,
        peak_memory_mb=None if line.get("rss_mb") is None else number(line, "rss_mb", 0, above=True),
    )


def read_cases(lines: TextIO, name: str) -> Iterator[Case]:
    """Reads all lines, and says which one is wrong."""
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield read_case(json.loads(line))
        except json.JSONDecodeError as error:
            hint = "expected a line of JSON: run `multiway bench` with --json"
            raise InputError(f"{name}, line {row}: {hint} ({error.msg})") from None
        except InputError as error:
            raise InputError(f"{name}, line {row}: {error}") from None


def rounded(value: float) -> str:
    """Writes a number with three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"


def prompt(case: Case) -> str:
    """Says what a prompt is."""
    pictures = {0: "", 1: ", 1 picture"}.get(case.pictures, f", {case.pictures} pictures")
    return f"{case.source_length} tokens{pictures}"


def answer(case: Case) -> str:
    """Says what an answer is."""
    if case.new_tokens is None:
        return "encoded"
    beams = "" if case.beams == 1 else f", {case.beams} beams"
    return f"{case.new_tokens} tokens{beams}"


def table(cases: list[Case], wanted: int, hours: list[float], headroom: float) -> str:
    """Writes the cases as a table of Markdown."""
    heads = ["model", "type", "threads", "batch", "prompt", "answer", "requests a second", "peak memory"]
    heads += [f"machines, {count:g} h" for count in hours]
    rows = [heads, ["---"] * 2 + ["---:"] * 2 + ["---"] * 2 + ["---:"] * (2 + len(hours))]
    for case in cases:
        memory = "-" if case.peak_memory_mb is None else f"{case.peak_memory_mb:,.0f} MB"
        kind = case.dtype if case.cache == "f32" else f"{case.dtype}, KV cache {case.cache}"
        row = [case.model.replace("|", r"\|"), kind, str(case.threads), str(case.batch)]
        row += [prompt(case), answer(case), rounded(case.requests_per_second), memory]
        rows.append(row + [f"{case.machines(wanted, count, headroom):,}" for count in hours])
    unit = "prompts" if all(case.pictures == 0 for case in cases) else "pictures"
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    note = f"Machines for {wanted:,} {unit}, each kept busy for {headroom * 100:g} % of the time."
    return "\n".join([*lines, "", note])


def as_json(case: Case, wanted: int, hours: list[float], headroom: float) -> str:
    """Writes a case as a line of JSON."""
    machines = [{"hours": count, "machines": case.machines(wanted, count, headroom)} for count in hours]
    return json.dumps(asdict(case) | {"wanted": wanted, "headroom": headroom, "machines": machines})


def count_argument(value: str) -> int:
    """Reads a whole number above 0, such as 1000000, 1_000_000 or 1e6."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 1 and found == int(found)):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{value}'")
    return int(found)


def hours_argument(value: str) -> float:
    """Reads hours above 0."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"expected hours above 0, found '{value}'")
    return found


def headroom_argument(value: str) -> float:
    """Reads a share of the time, above 0 and at most 1."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, found '{value}'")
    return found


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about,
        epilog=f"{examples}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="what `multiway bench encode --json` or `bench decode --json` prints; - is standard input "
        "[default: -]",
    )
    parser.add_argument(
        "--pictures",
        type=count_argument,
        default=1_000_000,
        metavar="N",
        help="how many pictures are to be answered for; prompts, where a case has no pictures "
        "[default: 1000000]",
    )
    parser.add_argument(
        "--hours",
        type=hours_argument,
        action="append",
        metavar="H",
        help="in how many hours; repeatable, a column each [default: 1 and 24]",
    )
    parser.add_argument(
        "--headroom",
        type=headroom_argument,
        default=0.7,
        metavar="SHARE",
        help="share of the time that a machine is kept busy; the rest is for peaks, restarts and what "
        "`bench` leaves out [default: 0.7]",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each case instead of a table"
    )
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Reads the cases, and prints what follows from them."""
    if options.file == "-":
        if sys.stdin.isatty():
            print("reading lines of `multiway bench --json` from standard input", file=sys.stderr)
        cases = list(read_cases(sys.stdin, "standard input"))
    else:
        try:
            with open(options.file, encoding="utf-8") as lines:
                cases = list(read_cases(lines, options.file))
        except OSError as error:
            raise InputError(f"cannot read '{options.file}': {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"'{options.file}' is no text: expected lines of JSON") from None
    if not cases:
        raise InputError("there is no case: expected what `multiway bench encode --json` or `decode` prints")
    terms = (options.pictures, options.hours or [1, 24], options.headroom)
    print("\n".join(as_json(case, *terms) for case in cases) if options.json else table(cases, *terms))


if __name__ == "__main__":
    try:
        run(arguments())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader has seen enough; Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
