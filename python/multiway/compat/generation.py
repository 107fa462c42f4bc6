"""The keywords of `generate`, as transformers 4 has them, as sampling parameters of the engine."""

import difflib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from multiway import InputError

#: Keywords that the engine has too, with the same values.
_SAME = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "length_penalty",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "seed",
    "suppress_tokens",
)

#: Keywords that count only where tokens are sampled, and the values with which they change nothing.
_SAMPLED: dict[str, float | None] = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
}

_LENGTHS = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))

#: More tokens than a vocabulary has: no value of the engine's turns a checkpoint's `top_k` off.
_ALL_TOKENS = 2**31 - 1

_EARLY_STOPPING = {True: "at_once", False: "when_no_better", "never": "never"}


def _sequence_bias(value: Any) -> list[list[Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value
    return [[list(tokens), bias] for tokens, bias in pairs]


def _early_stopping(value: Any) -> str:
    if not isinstance(value, (bool, str)) or value not in _EARLY_STOPPING:
        raise InputError(f"early_stopping: expected True, False or 'never', found {value!r}")
    return _EARLY_STOPPING[value]


def _end_ids(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


#: Keywords that the engine has too, with values of another form.
_TRANSLATED: dict[str, Callable[[Any], Any]] = {
    "early_stopping": _early_stopping,
    "forced_eos_token_id": _end_ids,
    "sequence_bias": _sequence_bias,
}

#: Keywords that the engine does not have, with the values that change no answer, or with none where all do.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "assistant_model": (),
    "assistant_tokenizer": (),
    "constraints": (),
    "decoder_start_token_id": (),
    "diversity_penalty": (0.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "eos_token_id": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "force_words_ids": (),
    "generation_config": (),
    "guidance_scale": (1.0,),
    "logits_processor": (),
    "low_memory": (True, False),
    "max_time": (),
    "num_beam_groups": (1,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "output_logits": (False,),
    "output_scores": (False,),
    "penalty_alpha": (0.0,),
    "prefix_allowed_tokens_fn": (),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "return_dict_in_generate": (False,),
    "stop_sequence": (),
    "stop_strings": (),
    "stopping_criteria": (),
    "token_healing": (False,),
    "use_cache": (True, False),
    "watermarking_config": (),
}

#: What to do instead of the keywords that people miss most.
_INSTEAD = {
    "decoder_start_token_id": "the start is that of the checkpoint's generation_config.json",
    "eos_token_id": "the end is that of the checkpoint's generation_config.json",
    "generation_config": "give its values as keywords",
    "max_time": "Engine.run has a timeout, after which it raises",
    "stop_sequence": "Engine.run takes sampling={'stop': [...]}, and ends the text before it",
    "stop_strings": "Engine.run takes sampling={'stop': [...]}, and ends the text before it",
}

#: All keywords that are followed.
KEYWORDS = frozenset(
    [*_SAME, *_SAMPLED, *_TRANSLATED, *(name for pair in _LENGTHS for name in pair)]
    # The engine has no padding, and the decoders have no token of their own for the beginning.
    + ["do_sample", "num_beams", "num_return_sequences", "bos_token_id", "pad_token_id"]
)


def sampling_of(
    given: Mapping[str, Any], preset: Mapping[str, Any], generation: Mapping[str, Any]
) -> dict[str, Any]:
    """Translates keywords of `generate` into sampling parameters.

    `given` are those of the caller. They win over `preset`, which are the pipeline's and the checkpoint's for
    the task. `generation` is the generation config of the checkpoint, which the engine follows by itself. A
    keyword that is None counts as left out.
    """
    given = {name: value for name, value in given.items() if value is not None}
    preset = {name: value for name, value in preset.items() if value is not None}
    said = {**preset, **given}
    parameters = {name: said[name] for name in _SAME if name in said}
    for name, translate in _TRANSLATED.items():
        if name in said:
            parameters[name] = translate(said[name])
    parameters.update(_lengths(given, preset))
    if "do_sample" in said:
        is_sampled = bool(said["do_sample"])
    else:
        # The engine, too, searches where a checkpoint asks for both.
        is_sampled = bool(generation.get("do_sample")) and (generation.get("num_beams") or 1) == 1
    parameters.update(_sampled(given, said, generation) if is_sampled else _searched(given, said))
    return parameters


def check_keywords(given: Mapping[str, Any]) -> None:
    """Refuses keywords that would change the answer, and that the engine does not have."""
    for name, value in given.items():
        if name in KEYWORDS or value is None:
            continue
        if name not in _NEUTRAL:
            near = difflib.get_close_matches(name, [*KEYWORDS, *_NEUTRAL], n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"generation has {', '.join(sorted(KEYWORDS))}"
            raise InputError(f"unknown option '{name}': {meant}")
        neutral = _NEUTRAL[name]
        if not any(value == one for one in neutral):
            expected = f"{neutral[0]!r} or nothing" if neutral else "nothing"
            instead = _INSTEAD.get(name, "the engine has nothing of the kind; leave it out")
            raise InputError(f"{name}: expected {expected}, found {value!r}: {instead}")


def _lengths(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, int]:
    of_caller = _new_tokens(given)
    lengths = {**_new_tokens(preset), **of_caller}
    least, most = lengths.get("min_new_tokens", 0), lengths.get("max_new_tokens")
    if most is not None and least > most:
        # The checkpoint's minimum is meant for its own maximum.
        if "min_new_tokens" in of_caller:
            warnings.warn(
                f"at least {least} tokens are asked for, and at most {most}: {most} counts", stacklevel=2
            )
        lengths["min_new_tokens"] = most
    return lengths


def _new_tokens(said: Mapping[str, Any]) -> dict[str, int]:
    lengths = {}
    for bound, total in _LENGTHS:
        if bound in said:
            lengths[bound] = said[bound]
            if total in said:
                warnings.warn(f"{bound} and {total} are both given: {bound} counts", stacklevel=2)
        elif total in said:
            # It counts the start token of the decoder.
            lengths[bound] = max(said[total] - 1, 0)
    return lengths


def _sampled(
    given: Mapping[str, Any], said: Mapping[str, Any], generation: Mapping[str, Any]
) -> dict[str, Any]:
    beams = given.get("num_beams", 1)
    if beams != 1:
        message = "the engine samples without beams; leave one of them out"
        raise InputError(f"num_beams: expected 1 with do_sample=True, found {beams}: {message}")
    parameters = {name: said[name] for name in ("top_p", "min_p", "typical_p") if name in said}
    # A checkpoint that does not sample says nothing of how: then the defaults of transformers count.
    below = generation if generation.get("do_sample") else {}
    temperature = said.get("temperature", below.get("temperature") or 1.0)
    if not temperature > 0:
        raise InputError(
            f"temperature: expected a number above 0 with do_sample=True, found {temperature}: leave "
            "do_sample out for greedy decoding"
        )
    top_k = said.get("top_k", below.get("top_k", 50))
    parameters.update(temperature=temperature, beams=1, top_k=top_k or _ALL_TOKENS)
    if said.get("num_return_sequences", 1) != 1:
        parameters["samples"] = said["num_return_sequences"]
    return parameters


def _searched(given: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    count = said.get("num_return_sequences", 1)
    if count != 1:
        message = "a search gives its best answer alone; give do_sample=True for several"
        raise InputError(f"num_return_sequences: expected 1 without do_sample=True, found {count}: {message}")
    for name, neutral in _SAMPLED.items():
        if name in given and given[name] != neutral:
            message = f"{name} changes nothing without do_sample=True, as in transformers"
            warnings.warn(message, stacklevel=2)
    parameters: dict[str, Any] = {"temperature": 0.0}
    if "num_beams" in said:
        parameters["beams"] = said["num_beams"]
    return parameters
