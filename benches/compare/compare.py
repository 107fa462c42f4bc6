"""Runs `multiway bench` and its peers in turn on the same cases, and writes down medians and ratios.

`run.sh` prepares what this needs and calls it. Each measurement is a process of its own: it loads, warms up, times its case once,
and prints a line of JSON. In a round every case goes through all engines, one after another, so that whatever slows the machine
down for a while slows them all; rounds begin with another engine each. Ctrl-C ends it with a report of what was measured so far, and
a file `pause` in the work folder makes it wait between two processes.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent

T5_MODELS = {"t5-v1_1-base": "T5 v1.1 base", "t5-v1_1-small": "T5 v1.1 small"}
BEIT3_MODELS = {"beit3-base": "BEiT-3 base, 224 pixels", "beit3-base-480": "BEiT-3 base, 480 pixels"}
OURS = "multiway"
# Which of our precisions a peer's stands beside.
PRECISION = {"f32": "f32", "bf16": "bf16", "int8": "int8", "q8_0": "int8"}
# Flags that decide which kernels an engine can use.
FLAGS = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm"]
PACKAGES = ["ctranslate2", "transformers", "torch", "torchscale", "onnxruntime", "optimum-onnx"]
OPENVINO_PACKAGES = ["openvino", "optimum-intel", "nncf"]
SECONDS_A_RUN = 1800
# From which share of the cores' time that others take the figures are of no use.
MOST_COMPANY = 0.03


@dataclass(frozen=True)
class Engine:
    """An engine at one precision."""

    name: str
    dtype: str
    program: tuple
    verbs: tuple
    beams: bool = True
    is_ours: bool = False

    @property
    def title(self):
        return f"{self.name} {self.dtype}"

    def folder(self, work, model):
        """Tells where it reads a model: what is packed or converted was so before."""
        if not self.is_ours:
            return work / "peers" / model
        return work / "checkpoints" / model if self.dtype == "f32" else work / "packed" / f"{model}-{self.dtype}"


@dataclass(frozen=True)
class Case:
    """What is measured of a model."""

    model: str
    verb: str
    batch: int
    source: int
    pictures: int = 0
    beams: int = 1

    @property
    def title(self):
        """Names the case within its model."""
        if self.verb == "encode":
            inputs = " + ".join(filter(None, ["picture" * self.pictures, f"{self.source} tokens" * bool(self.source)]))
            return f"batch {self.batch}, {inputs}"
        beams = f", beam {self.beams}" if self.beams > 1 else ""
        return f"batch {self.batch}, source {self.source}{beams}"


def engines(arguments):
    """Lists all engines; those that turn out not to run are left out with their reason."""
    binary, candle = str(arguments.multiway), str(arguments.candle)
    peer = lambda name, python=sys.executable: (str(python), str(HERE / "peers" / name))
    openvino = lambda name: peer(name, arguments.openvino)
    both, decode, encode = ("decode", "encode"), ("decode",), ("encode",)
    ours = [Engine(OURS, dtype, (binary, "bench"), both, is_ours=True) for dtype in ("f32", "bf16", "int8")]
    peers = [
        *(Engine("CTranslate2", dtype, peer("ctranslate2_t5.py"), decode) for dtype in ("f32", "int8")),
        *(Engine("transformers", dtype, peer("transformers_t5.py"), decode) for dtype in ("f32", "bf16")),
        *(Engine("ONNX Runtime", dtype, peer("onnxruntime_t5.py"), decode) for dtype in ("f32", "int8")),
        *(Engine("OpenVINO", dtype, openvino("openvino_t5.py"), decode) for dtype in ("f32", "bf16", "int8")),
        *(Engine("candle-transformers", dtype, (candle,), decode, beams=False) for dtype in ("f32", "q8_0")),
        *(Engine("torchscale", dtype, peer("torchscale_beit3.py"), encode) for dtype in ("f32", "bf16")),
        *(Engine("OpenVINO", dtype, openvino("openvino_beit3.py"), encode) for dtype in ("f32", "bf16")),
    ]
    wanted = arguments.engines
    return [engine for engine in ours + peers if not wanted or engine.name in wanted]


def cases(arguments):
    """Lists the cases. Those that decode tell the time of encoding, too."""
    found = []
    for model in arguments.models:
        if model in T5_MODELS:
            if arguments.quick:
                found += [Case(model, "decode", 1, 64), Case(model, "decode", 8, 64), Case(model, "decode", 1, 64, beams=4)]
                continue
            for source in (64, 256):
                found += [Case(model, "decode", batch, source) for batch in (1, 8, 32)]
                found.append(Case(model, "decode", 1, source, beams=4))
        elif arguments.quick:
            found.append(Case(model, "encode", 1, 32, 1))
        else:
            batches = (1, 8) if model == "beit3-base" else (1,)
            found += [Case(model, "encode", batch, source, 1) for batch in batches for source in (0, 32)]
    return found


def run(engine, case, arguments, new_tokens):
    """Measures a case once; returns its line, or the reason why there is none."""
    folder = engine.folder(arguments.work, case.model)
    command = [
        *engine.program, case.verb, "--checkpoint", str(folder), "--dtype", engine.dtype,
        "--threads", str(arguments.threads), "--batch", str(case.batch), "--source-length", str(case.source),
        "--repeats", "1", "--seed", str(arguments.seed),
    ]
    if case.pictures:
        command += ["--pictures", str(case.pictures)]
    if case.verb == "decode":
        command += ["--new-tokens", str(new_tokens), "--beams", str(case.beams), "--show-tokens"]
    if engine.is_ours:
        command += ["--json", "--quiet"]
    threads = {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    # Outside CI OpenVINO tells its makers what it is used for.
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "CI": "true"}
    environment = os.environ | threads | quiet
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_A_RUN
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode != 0:
        told = done.stderr.strip().splitlines() or ["no message"]
        return None, told[-1].removeprefix("error: ")
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def takes(engine, case):
    """Tells whether an engine can do such a case at all."""
    return case.verb in engine.verbs and (case.beams == 1 or engine.beams)


def wait_while_paused(mark):
    """Waits as long as there is such a file: for when the machine is needed for something else."""
    if mark.exists():
        print(f"paused until {mark} is removed", file=sys.stderr)
    while mark.exists():
        time.sleep(1)


def measure(arguments, all_engines, all_cases, new_tokens, company):
    """Runs all rounds, or until Ctrl-C; returns the lines by case and engine, and why some have none."""
    lines, reasons = defaultdict(list), {}
    with (arguments.work / "lines.jsonl").open("w") as log:
        try:
            measure_rounds(arguments, all_engines, all_cases, new_tokens, company, lines, reasons, log)
        except KeyboardInterrupt:
            print("interrupted: the report tells what was measured so far", file=sys.stderr)
    return lines, reasons


def measure_rounds(arguments, all_engines, all_cases, new_tokens, company, lines, reasons, log):
    """Runs all rounds; adds to the lines, to the reasons and to the log as it goes.

    A case that an engine fails is not tried again, nor is a family of models of which it fails the very first case.
    """
    worked, hopeless = set(), set()
    for number in range(arguments.rounds):
        turn = number % len(all_engines)
        order = all_engines[turn:] + all_engines[:turn]
        for case in all_cases:
            for engine in order:
                kind = (engine, case.model in T5_MODELS)
                if not takes(engine, case) or kind in hopeless or (engine, case) in reasons:
                    continue
                wait_while_paused(arguments.work / "pause")
                with company.watched():
                    line, reason = run(engine, case, arguments, new_tokens)
                if line is None:
                    reasons[engine, case] = reason
                    if kind not in worked:
                        hopeless.add(kind)
                    print(f"{engine.title}: {case.model}, {case.title}: {reason}", file=sys.stderr)
                    continue
                worked.add(kind)
                lines[case, engine].append(line)
                log.write(json.dumps(line | {"round": number}) + "\n")
                log.flush()
                rate = line["decode_tokens_per_s"]
                told = f"{line['encode_ms']:.0f} ms" + (f", {rate:.1f} tokens/s" if rate else "")
                print(f"round {number + 1}: {case.model}, {case.title}: {engine.title}: {told}", file=sys.stderr)


def middle(lines, field):
    """Returns the median of a field over the rounds; none where it was not measured."""
    values = [line[field] for line in lines if line[field] is not None]
    return statistics.median(values) if values else None


def number(value):
    """Shows three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Results:
    """What was measured, as tables."""

    def __init__(self, lines, all_engines):
        self.lines = lines
        self.engines = all_engines

    def value(self, engine, case, field):
        return middle(self.lines.get((case, engine), []), field)

    def ours(self, engine, case, field):
        """Returns what we measured at the precision that an engine's stands beside."""
        for own in self.engines:
            if own.is_ours and own.dtype == PRECISION[engine.dtype]:
                return self.value(own, case, field)
        return None

    def cell(self, engine, case, field, more_is_better):
        value = self.value(engine, case, field)
        if value is None:
            return ""
        ours = None if engine.is_ours else self.ours(engine, case, field)
        if not ours or not value:
            return number(value)
        ratio = ours / value if more_is_better else value / ours
        return f"{number(value)} ({ratio:.2f} x)"

    def table(self, columns, field, more_is_better=False):
        """Makes a table with a row for each engine and a column for each case."""
        rows = []
        for engine in self.engines:
            cells = [self.cell(engine, case, field, more_is_better) for case in columns]
            if any(cells):
                rows.append([engine.title, *cells])
        head = ["engine", *(case.title for case in columns)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])

    def agreement(self, columns):
        """Counts how many of the first answer's tokens each engine writes as transformers does in f32."""
        reference = next((engine for engine in self.engines if engine.title == "transformers f32"), None)
        told = []
        for engine in self.engines:
            same = whole = 0
            for case in columns:
                theirs, own = self.lines.get((case, reference)), self.lines.get((case, engine))
                if engine is reference or not theirs or not own:
                    continue
                pair = list(zip(theirs[0]["tokens"][0], own[0]["tokens"][0]))
                whole += len(pair)
                same += next((place for place, (one, other) in enumerate(pair) if one != other), len(pair))
            if whole:
                told.append(f"{engine.title} {same} of {whole}")
        return ", ".join(told)

    def rounds(self):
        """Tells how many rounds the cases went through."""
        counts = {len(lines) for lines in self.lines.values()} or {0}
        return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))

    def spread(self):
        """Returns the widest distance of two rounds of a case, by its median."""
        widest = 0.0
        for lines in self.lines.values():
            for field in ("encode_ms", "decode_tokens_per_s"):
                values = [line[field] for line in lines if line[field] is not None]
                if len(values) > 1:
                    widest = max(widest, (max(values) - min(values)) / statistics.median(values))
        return widest


def cpu():
    """Describes the processor: its name, and which of the flags that matter it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(map(str.strip, line.split(":", 1)) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", platform.processor() or "unknown"), [flag for flag in FLAGS if flag in flags]


def memory_gb():
    """Returns the machine's memory in 10^9 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def roofline(arguments):
    """Asks `multiway bench` what the machine can do."""
    command = [arguments.multiway, "bench", "roofline", "--machine", "--json", "--threads", str(arguments.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def packages(names, folders):
    """Names those of some Python packages that are installed in some folders, with their versions."""
    found = (next(iter(distributions(name=name, path=folders)), None) for name in names)
    return [f"{name} {package.version}" for name, package in zip(names, found) if package]


class Company:
    """Watches what else the cores do while something is measured."""

    def __init__(self):
        self.others = self.whole = 0.0

    @staticmethod
    def seconds():
        """Returns the time, the seconds that the cores were busy or taken away from this machine, and those that were ours."""
        ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:] if Path("/proc/stat").exists() else []
        # All but the fourth and fifth, which are idle, and what guests took, which the first two count, too.
        busy = sum(int(tick) for place, tick in enumerate(ticks[:8]) if place not in (3, 4)) / os.sysconf("SC_CLK_TCK")
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), busy, sum(usage.ru_utime + usage.ru_stime for usage in usages)

    @contextmanager
    def watched(self):
        """Counts what others take of the cores from here to the end of the block."""
        before = self.seconds()
        yield
        elapsed, busy, own = (now - then for now, then in zip(self.seconds(), before))
        self.others += busy - own
        self.whole += elapsed * os.cpu_count()

    def share(self):
        """Returns the share of the cores' time that went to others."""
        return max(0.0, self.others) / max(self.whole, 1.0)


def describe(arguments, machine, company, rounds):
    """Writes down what ran, and where."""
    name, flags = cpu()
    units = {"f32": "gflop_s", "bf16": "gflop_s", "int8": "gop_s"}
    rates = {dtype: machine[f"{dtype}_{unit}"] for dtype, unit in units.items()}
    peaks = ", ".join(f"{dtype} {rate:.0f}" for dtype, rate in rates.items() if rate)
    ours = subprocess.run([arguments.multiway, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    # Where the packages of another Python lie.
    others = [str(folder) for folder in arguments.openvino.parent.parent.glob("lib/python*/site-packages")]
    peers = ", ".join(packages(PACKAGES, sys.path) + packages(OPENVINO_PACKAGES, others))
    lines = [
        f"- Processor: {name}, {os.cpu_count()} cores, {memory_gb():.0f} GB; {' '.join(flags)}",
        f"- With {arguments.threads} threads: reads {machine['memory_gb_s']:.1f} GB/s from memory and"
        f" {machine['cache_gb_s']:.0f} GB/s from the cores' caches; 10^9 operations a second in registers: {peaks}"
        " (`multiway bench roofline --machine`)",
        f"- {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"- {ours}, {peers}, candle-transformers 0.11.1",
        f"- {time.strftime('%Y-%m-%d', time.gmtime())}, rounds: {rounds}",
    ]
    if company > MOST_COMPANY:
        lines.append(
            f"- **The machine was not idle**: others took {100 * company:.0f} % of its cores. These figures are not to be used."
        )
    return "\n".join(lines)


def sections(results, all_cases, new_tokens):
    """Writes a section for each model."""
    for model in dict.fromkeys(case.model for case in all_cases):
        own = [case for case in all_cases if case.model == model]
        if model in BEIT3_MODELS:
            yield f"## {BEIT3_MODELS[model]}\n\nEncoding, ms:\n\n{results.table(own, 'encode_ms')}"
            yield f"Peak memory, MB:\n\n{results.table(own, 'rss_mb')}"
            continue
        yield f"## {T5_MODELS[model]}"
        groups = [
            ("one text at a time", [case for case in own if case.batch == 1 and case.beams == 1]),
            ("several texts at a time", [case for case in own if case.batch > 1]),
            ("beam search", [case for case in own if case.beams > 1]),
        ]
        for title, columns in groups:
            if columns:
                table = results.table(columns, "decode_tokens_per_s", more_is_better=True)
                yield f"Decoding {title}, tokens/s ({new_tokens} new tokens each):\n\n{table}"
        encoded = [case for case in own if case.beams == 1]
        yield f"Encoding the whole batch, ms:\n\n{results.table(encoded, 'encode_ms')}"
        yield f"Peak memory, MB:\n\n{results.table(encoded, 'rss_mb')}"
        agreement = results.agreement(encoded)
        if agreement:
            yield f"Tokens of the first answers up to the first that transformers writes otherwise in f32: {agreement}."


def report(arguments, results, reasons, all_cases, new_tokens, machine, company):
    """Writes the whole report."""
    parts = [
        "# Against other engines",
        "Written by `benches/compare/run.sh`; random weights of real shapes, random prompts, the same for all.",
        describe(arguments, machine, company, results.rounds()),
        f"Medians over the rounds. In brackets: how many times as fast, or how many times as small, {OURS} is at the same precision"
        " (for q8_0 at int8). Tokens per second count answers, not beams; encoding includes the projection of what"
        " cross-attention needs. Peak memory is that of a process that loads the model and runs the one case."
        f" The widest spread of a case over its rounds was {100 * results.spread():.0f} % of its median.",
        *sections(results, all_cases, new_tokens),
    ]
    if reasons:
        told = [f"- {engine.title}, {case.model}, {case.title}: {reason}" for (engine, case), reason in reasons.items()]
        parts.append("## What did not run\n\n" + "\n".join(told))
    arguments.out.write_text("\n\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multiway", type=Path, required=True, help="our binary")
    parser.add_argument("--candle", type=Path, required=True, help="the program around candle-transformers")
    parser.add_argument("--openvino", type=Path, required=True, help="the Python that has OpenVINO")
    parser.add_argument("--work", type=Path, required=True, help="the folder with checkpoints/ and peers/")
    parser.add_argument("--out", type=Path, required=True, help="the report to write")
    parser.add_argument("--models", nargs="+", required=True, choices=[*T5_MODELS, *BEIT3_MODELS])
    parser.add_argument("--engines", nargs="*", default=[], help="only these, by name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few cases and 16 new tokens")
    arguments = parser.parse_args()
    company, machine = Company(), roofline(arguments)
    all_engines, all_cases = engines(arguments), cases(arguments)
    new_tokens = 16 if arguments.quick else 64
    lines, reasons = measure(arguments, all_engines, all_cases, new_tokens, company)
    report(arguments, Results(lines, all_engines), reasons, all_cases, new_tokens, machine, company.share())
    print(f"wrote {arguments.out}", file=sys.stderr)


main()
