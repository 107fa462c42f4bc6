"""What the peers written in Python share: the options of `multiway bench`, its prompts, and the line that it prints."""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

# Random ids lie in this range, as `multiway bench` makes them.
FIRST_ID, ID_LIMIT = 5, 32_000
PAD, END, UNKNOWN = 0, 1, 2
WARM_TOKENS = 4
FEW_TOKENS = 9
MASK = (1 << 64) - 1


def options(description, dtypes):
    """Reads the command line: the verbs and options of `multiway bench`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("verb", choices=["encode", "decode"])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dtype", choices=dtypes, default=dtypes[0])
    for name, default in [
        ("threads", 1), ("batch", 1), ("source-length", 64), ("pictures", 0), ("new-tokens", 64), ("beams", 1),
        ("repeats", 3), ("seed", 0),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--show-tokens", action="store_true")
    return parser.parse_args()


def split_mix(seed):
    """Yields the numbers of SplitMix64."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        yield mixed ^ (mixed >> 31)


def prompts(args):
    """Makes the prompts that `multiway bench` makes of the same seed."""
    numbers = split_mix(args.seed)
    one = lambda: FIRST_ID + next(numbers) % (ID_LIMIT - FIRST_ID)
    return [[one() for _ in range(args.source_length)] for _ in range(args.batch)]


def timed(work):
    """Returns the seconds that `work` takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def median(times):
    """Returns the middle of some numbers, of an even count the lower of the two, as `multiway bench` does."""
    return statistics.median_low(times)


def encoding_time(write):
    """Returns the seconds that a peer encodes for, where `write` encodes and then writes so many tokens with one beam.

    The difference between one token and some more, by the tokens between, is a step; what one token takes but for a step is
    encoding, and what else happens once a prompt. Each is the median of several: they are short, and their difference is shorter.
    """
    first, more = (median([timed(lambda: write(count))[0] for _ in range(3)]) for count in (1, FEW_TOKENS))
    return first - (more - first) / (FEW_TOKENS - 1)


def print_written(engine, args, write):
    """Times a peer that encodes and then writes so many tokens with so many beams, and prints the line of its case."""
    write(WARM_TOKENS, args.beams)
    decodes = args.verb == "decode"
    new_tokens = args.new_tokens if decodes else WARM_TOKENS
    encode_times, decode_times, tokens = [], [], None
    for _ in range(args.repeats):
        encoding = encoding_time(write)
        whole, tokens = timed(lambda: write(new_tokens, args.beams))
        encode_times.append(encoding)
        decode_times.append(whole - encoding)
    assert all(len(answer) == new_tokens and END not in answer for answer in tokens), "an answer has another length"
    print_line(engine, args, encode_times, decode_times if decodes else None, tokens)


def print_line(engine, args, encode_times, decode_times=None, tokens=None):
    """Prints the line of a case."""
    decodes = decode_times is not None
    line = {
        "engine": engine,
        "dtype": args.dtype,
        "model": args.checkpoint.name,
        "threads": args.threads,
        "batch": args.batch,
        "src": args.source_length,
        "pictures": args.pictures,
        "beam": args.beams if decodes else None,
        "new_tokens": args.new_tokens if decodes else None,
        "encode_ms": 1e3 * median(encode_times),
        "decode_tokens_per_s": args.batch * args.new_tokens / median(decode_times) if decodes else None,
        # Linux counts in kilobytes of 1024 bytes.
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
    }
    if args.show_tokens and tokens is not None:
        line["tokens"] = tokens
    print(json.dumps(line))
