"""Evaluates a checkpoint with lm-evaluation-harness: log-likelihoods and generation, without a server.

    python -m multiway.lm_eval --model_args checkpoint=flan-t5-small --tasks arc_easy,boolq --limit 100

In a program, `MultiwayLM` is a model for `lm_eval.simple_evaluate(model=MultiwayLM("flan-t5-small"), ...)`.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import (
    handle_non_serializable,
    make_table,
    simple_parse_args_string,
)
from tqdm import tqdm

from multiway import Engine, InputError, Score
from multiway.compat.checkpoint import CheckpointFiles
from multiway.compat.generation import check_keywords, sampling_of

__all__ = ["MultiwayLM", "main"]

_log = logging.getLogger(__name__)

#: What is scored where a task gives no context, as task files have it (`normalization: unconditional`): an
#: encoder has to read something.
_NO_CONTEXT = "."

#: Decodes by the logits alone, whatever the checkpoint's generation config says.
_GREEDY = {
    "temperature": 0.0,
    "beams": 1,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "forced_eos_token_id": [],
    "exponential_decay_length_penalty": [0, 1.0],
}

#: Keys of a generation config that no request takes back.
_LASTING = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "sequence_bias",
    "suppress_tokens",
)

#: The most stop texts of a request, and the most bytes of one.
_MOST_STOPS, _MOST_STOP_BYTES = 16, 256

#: A token of this log-probability or above has more than all others together.
_SURE = -0.69

_MAX_GEN_TOKS = 256

#: A pair of context and continuation, and the tokens of both.
_Scored = tuple[tuple[str, str], list[int], list[int]]


class MultiwayLM(TemplateLM):  # type: ignore[misc]
    """Answers the requests of lm-evaluation-harness.

    A context is the text of the encoder, and a continuation that of the decoder: its log-likelihood is the
    sum over its tokens without the end, as it is for the harness's own sequence-to-sequence models.
    `score_end=True` counts the end too, so that a continuation is a whole answer.

    `max_length` is the most tokens of a context, which is then cut from the left, and `max_gen_toks` the most
    tokens of an answer, whatever a task asks for; `batch_size` is how many requests are under way at a time.
    """

    backend = "seq2seq"

    def __init__(
        self,
        checkpoint: str | PathLike[str] | None = None,
        *,
        batch_size: int | str | None = None,
        max_length: int | None = None,
        max_gen_toks: int | None = None,
        score_end: bool = False,
        device: str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise InputError(f"device: expected 'cpu', found '{device}': this package runs on the CPU")
        self.engine = Engine.open(checkpoint, **options)
        self.batch_size = int(batch_size if batch_size not in (None, "auto") else max_batch_size or 32)
        self.max_length = max_length
        self.max_gen_toks = max_gen_toks
        self._score_end = score_end
        self._generation = CheckpointFiles.read(checkpoint).generation
        self._warned: set[str] = set()

    @property
    def tokenizer_name(self) -> str:
        """The name of the checkpoint, for caches of requests."""
        return str(self.engine.name).replace("/", "__")

    @cached_property
    def eot_token_id(self) -> int:
        """The id of the token that ends a text."""
        (score,) = self.engine.score(_NO_CONTEXT, [_NO_CONTEXT])
        return score.tokens[-1]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokenizes a text; the end is added unless `add_special_tokens` is False."""
        tokens = self.engine.tokenize(string)
        return tokens if add_special_tokens is False else [*tokens, self.eot_token_id]

    def get_model_info(self) -> dict[str, Any]:
        """Returns what results say of the model."""
        return {"model_name": self.engine.name, "score_end": self._score_end}

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Raises: an encoder-decoder has no likelihood of a text without a context."""
        raise NotImplementedError(
            "loglikelihood_rolling: expected a model that continues its own text, found an encoder-decoder, "
            "whose decoder answers what its encoder reads: the perplexity of a text is not defined; choose "
            "tasks of output_type loglikelihood, multiple_choice or generate_until"
        )

    def _loglikelihood_tokens(
        self, requests: list[_Scored], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        # A context is encoded once for all its continuations. They are texts, which the engine tokenizes.
        contexts: dict[str, list[int]] = {}
        for index, (texts_of, *_tokens) in enumerate(requests):
            contexts.setdefault(texts_of[0], []).append(index)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        bar = tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm)
        with ThreadPoolExecutor(self.batch_size) as pool, bar:
            texts = [[requests[index][0][1] for index in indices] for indices in contexts.values()]
            scored = pool.map(self._likelihoods, contexts, texts)
            for indices, likelihoods in zip(contexts.values(), scored, strict=True):
                for index, likelihood in zip(indices, likelihoods, strict=True):
                    answers[index] = likelihood
                    self.cache_hook.add_partial("loglikelihood", requests[index][0], likelihood)
                bar.update(len(indices))
        return answers

    def _likelihoods(self, context: str, continuations: list[str]) -> list[tuple[float, bool]]:
        """Scores the continuations of a context, and says of each whether greedy decoding would write it."""
        words = context.rstrip()
        # Spaces between the two belong to the continuation, as in `_encode_pair` of the harness.
        texts = [context[len(words) :] + continuation for continuation in continuations]
        prompt = self._prompt(words)
        scores = [_Likelihood(score, self._score_end) for score in self.engine.score(prompt, texts)]
        open_ = [len(score.tokens) for score in scores if not score.is_surely_greedy]
        greedy: list[int] = []
        if open_:
            self._warn_of_bans()
            sampling = {**_GREEDY, "max_new_tokens": max(1, *open_)}
            greedy = self.engine.run("prompt", text=prompt, sampling=sampling).tokens
        return [(score.sum, score.is_surely_greedy or score.begins(greedy)) for score in scores]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continues contexts until a stop text, the end, or the most tokens."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            key = json.dumps(request.args[1], sort_keys=True, default=str)
            groups.setdefault(key, []).append(index)
        answers = [""] * len(requests)
        bar = tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm)
        with bar:
            for indices in (chunk for group in groups.values() for chunk in _chunks(group, self.batch_size)):
                arguments = [requests[index].args for index in indices]
                sampling, until = self._sampling(arguments[0][1])
                rows = [{"text": self._prompt(context)} for context, *_ in arguments]
                written = self.engine.batch("prompt", rows, sampling=sampling)
                for index, arguments_of, answer in zip(indices, arguments, written, strict=True):
                    answers[index] = _before(answer.text or "", until)
                    self.cache_hook.add_partial("generate_until", arguments_of, answers[index])
                bar.update(len(indices))
        return answers

    def _sampling(self, gen_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Translates the keywords of a task, and returns its stop texts beside them."""
        most_of_model = self.engine.max_target_length
        default = self.max_gen_toks or min(_MAX_GEN_TOKS, most_of_model)
        keywords = dict(normalize_gen_kwargs(dict(gen_kwargs), default))
        until = [text for text in keywords.pop("until") if text]
        most = keywords.pop("max_gen_toks")
        limit = min(self.max_gen_toks or most, most_of_model)
        if most > limit:
            self._warn(f"a task asks for {most} tokens: at most {limit} are written")
            most = limit
        if not keywords["do_sample"]:
            keywords.pop("temperature", None)
        check_keywords(keywords)
        sampling = sampling_of({**keywords, "max_new_tokens": most}, {"num_beams": 1}, self._generation)
        # Answers are cut at the others, too, once they are written.
        short = [text for text in until if len(text.encode()) <= _MOST_STOP_BYTES]
        return {**sampling, "stop": short[:_MOST_STOPS]}, until

    def _prompt(self, context: str) -> str:
        """Returns what the encoder reads of a context."""
        if not context.strip():
            return _NO_CONTEXT
        if self.max_length is None:
            return context
        tokens = self.engine.tokenize(context)
        # One place is for the end.
        if len(tokens) < self.max_length:
            return context
        self._warn(f"contexts of more than max_length={self.max_length} tokens are cut from the left")
        return self.engine.detokenize(tokens[len(tokens) - self.max_length + 1 :])

    def _warn_of_bans(self) -> None:
        bans = [key for key in _LASTING if self._generation.get(key)]
        if bans:
            self._warn(
                f"the checkpoint's generation config has {', '.join(bans)}, which greedy decoding follows: "
                "is_greedy, and metrics that use it, are those under these constraints"
            )

    def _warn(self, message: str) -> None:
        """Says something once."""
        if message not in self._warned:
            self._warned.add(message)
            _log.warning(message)


class _Likelihood:
    """Holds the log-likelihood of a continuation, with or without its end."""

    def __init__(self, score: Score, with_end: bool) -> None:
        count = len(score.tokens) if with_end else len(score.tokens) - 1
        self.tokens = score.tokens[:count]
        values = score.log_probabilities[:count]
        self.sum = float(sum(values))
        #: Known without decoding.
        self.is_surely_greedy = all(value > _SURE for value in values)

    def begins(self, greedy: Sequence[int]) -> bool:
        """Says whether these are the first tokens of a greedy answer."""
        return list(greedy[: len(self.tokens)]) == self.tokens


def _before(text: str, until: Sequence[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text


def _chunks(indices: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m multiway.lm_eval", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model_args", default="", help="such as checkpoint=PATH,dtype=bf16,threads=8,max_length=512")
    add("--tasks", required=True, help="names of tasks, with commas")
    add("--include_path", help="folder of tasks of your own")
    add("--num_fewshot", type=int, help="examples in front of each context")
    add("--limit", type=float, help="first items of each task; below 1, their share")
    add("--batch_size", default=None, help="requests under way at a time")
    add("--gen_kwargs", default=None, help="keywords of generation, such as max_gen_toks=32")
    add("--use_cache", default=None, help="path of a database of answers, read and written")
    add("--output_path", default=None, help="folder for results, or a .json file")
    add("--log_samples", action="store_true", help="also write every answer to --output_path")
    add("--json", action="store_true", help="print results as JSON instead of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `simple_evaluate` by the options of a command line, and prints what it says."""
    options = _parser().parse_args(arguments)
    if options.log_samples and not options.output_path:
        print("--log_samples: expected --output_path beside it, found none", file=sys.stderr)
        return 2
    model_args = simple_parse_args_string(options.model_args)
    try:
        model = MultiwayLM(**{"batch_size": options.batch_size, **model_args})
    except (InputError, TypeError) as error:
        print(f"--model_args: {error}", file=sys.stderr)
        return 2
    names = options.tasks.split(",")
    manager = TaskManager(include_path=options.include_path, metadata=model_args)
    for name in names:
        if not manager.match_tasks([name]) and not Path(name).exists():
            print(
                f"--tasks: expected names of tasks, or paths of their files, found '{name}': `lm-eval ls "
                "tasks` lists the names, and --include_path adds those of a folder",
                file=sys.stderr,
            )
            return 2
    tracker = EvaluationTracker(output_path=options.output_path)
    results = simple_evaluate(
        model=model,
        model_args=model_args,
        tasks=names,
        task_manager=manager,
        num_fewshot=options.num_fewshot,
        limit=options.limit,
        batch_size=model.batch_size,
        gen_kwargs=options.gen_kwargs,
        use_cache=options.use_cache,
        log_samples=options.log_samples,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples", None)
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, of_task in (samples or {}).items():
        tracker.save_results_samples(task_name=task, samples=of_task)
    if options.json:
        print(json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False))
        return 0
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
