"""AlpacaEval's two judges: what they are asked, which answer they read first, and how what they say
becomes a preference.

Prompts, settings and token names are read from the alpaca_eval package's configurations
(evaluators_configs). The package is not imported for it: that takes seconds, reads .env files,
resets logging and prints every annotation it cannot read. The few rules it applies (order, filling,
reading) are written here and held against the package itself, row by row, in tests/golden.
"""

import ast
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals.errors import InputError, nearest
from evals.records import Finding, Generate, Message, Sampling

DRAW = 1.5
ANNOTATORS = {
    "alpaca_eval_1": "alpaca_eval_gpt4",
    "alpaca_eval_2": "weighted_alpaca_eval_gpt4_turbo",
}


PREFIX = "annotator:"
"""Begins the name of a judge's prompt that is one of the package's annotators."""


@dataclass(frozen=True)
class Annotator:
    """One of the package's judges: prompt with {placeholders}, sampling, and how what it said
    becomes a preference.

    read: a finding -> the preference for the SECOND answer shown, 1 to 2; None when it cannot be
    read.  model: the model argument that its configuration names.  is_shuffled: which answer is
    shown first is drawn; else the reference is.
    """

    prompt: tuple[Message, ...]
    sampling: Sampling
    read: Callable[[Finding], float | None]
    model: str = ""
    is_shuffled: bool = True


def is_model_first(instruction: str) -> bool:
    """Whether the judge reads the model's answer before the reference: drawn from the instruction
    alone.
    """
    # Seed text and call are the package's, to the letter; any other would turn other pairs round.
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def judge_request(
    role: str, instruction: str, reference: str, answer: str, prompt: str = ""
) -> Generate:
    """What the judge of this role is asked about the two answers, in the order drawn for the
    instruction; by the prompt of another annotator where one is named.
    """
    judge = annotator(prompt or role)
    is_turned = judge.is_shuffled and is_model_first(instruction)
    shown = (answer, reference) if is_turned else (reference, answer)
    values = {"{instruction}": instruction, "{output_1}": shown[0], "{output_2}": shown[1]}
    messages = []
    for message in judge.prompt:
        content = message.content
        for placeholder, value in values.items():
            # One after the other, first occurrence only: an instruction that holds "{output_1}" is
            # itself filled in, as in the package.
            content = content.replace(placeholder, value, 1)
        messages.append(Message(message.role, content))
    return Generate(tuple(messages), judge.sampling)


def preference_for_model(
    role: str, instruction: str, finding: Finding, prompt: str = ""
) -> float | None:
    """Preference from 1 (reference) to 2 (model); None when the finding cannot be read as one."""
    if finding.preference is not None:
        # 0 is how older annotations write a draw.
        recorded = finding.preference or DRAW
        return recorded if 1 <= recorded <= 2 else None
    judge = annotator(prompt or role)
    shown = judge.read(finding)
    is_turned = judge.is_shuffled and is_model_first(instruction)
    # The judge speaks of the second answer shown: where the model's was first, 1 and 2 swap.
    return None if shown is None else 3 - shown if is_turned else shown


@cache
def annotator(name: str) -> Annotator:
    """The card's judge of a role, or PREFIX and the name of any of the package's annotators, from
    its configuration and prompt files.

    Raises InputError where there is none, or it cannot be asked as it was made to be.
    """
    folder = _configurations()
    if name in ANNOTATORS:
        return _annotator(ANNOTATORS[name], folder)
    name = name.removeprefix(PREFIX)
    known = sorted(path.parent.name for path in folder.glob("*/configs.yaml"))
    if name not in known:
        raise InputError(f"alpaca_eval has no annotator {name!r}. {nearest(name, known)}")
    return _annotator(name, folder)


def _configurations() -> Path:
    found = find_spec("alpaca_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "AlpacaEval's judge prompts come from the package alpaca-eval, which is not installed."
            " Install it."
        )
    return Path(found.submodule_search_locations[0]) / "evaluators_configs"


def _annotator(name: str, folder: Path) -> Annotator:
    import yaml

    configs = yaml.safe_load((folder / name / "configs.yaml").read_text("utf-8"))
    config = configs.get(name)
    if config is None:
        raise InputError(f"The annotator {name} is a pool of several; name one that is alone.")
    settings = config["completions_kwargs"]
    turns = _turns((folder / config["prompt_template"]).read_text("utf-8"))
    if why := _not_askable(config, settings, turns):
        raise InputError(
            f"The annotator {name} {why}. Name another, or a model by itself, which is asked by the"
            " prompt of the card's judge."
        )
    parser = config.get("fn_completion_parser", "regex_parser")
    sampling = Sampling(
        settings.get("max_tokens") or settings.get("max_new_tokens") or _MAX_TOKENS,
        float(settings.get("temperature", 1.0)),
        n_logprobs=settings.get("top_logprobs", 0),
    )
    read = partial(_PARSERS[parser], **config.get("completion_parser_kwargs", {}))
    is_shuffled = config.get("is_randomize_output_order") is not False
    return Annotator(turns, sampling, read, _model_of(config, settings), is_shuffled)


_MAX_TOKENS = 100
"""What a few configurations leave to the package: enough for each of its forms of a verdict."""
_SPOKEN = ("openai_completions", "vllm_local_completions", "huggingface_local_completions")


def _not_askable(
    config: Mapping[str, Any], settings: Mapping[str, Any], turns: Sequence[Message]
) -> str | None:
    """Why an annotator cannot be asked here as its configuration says."""
    asks = config.get("fn_completions", "")
    if asks not in _SPOKEN:
        return f"asks by {asks}, an interface that is not spoken here"
    if {"function_call", "functions", "tools"} & settings.keys():
        return "answers by a function call, which is not asked for here"
    if config.get("batch_size", 1) not in (None, 1):
        return f"asks about {config['batch_size']} pairs at once"
    if "log_prob_index" in config.get("completion_parser_kwargs", {}):
        return "is read from the log-probabilities of its last token; only the first's are kept"
    if config.get("fn_completion_parser", "regex_parser") not in _PARSERS:
        return f"is read by {config['fn_completion_parser']}, which is not written here"
    return None if turns else "has a prompt of one text, without the turns of a conversation"


def _model_of(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The model argument that a configuration names: a server's, or weights."""
    name = str(settings["model_name"])
    if config["fn_completions"] != "openai_completions":
        return name
    if "/" in name and "client_kwargs" not in settings:  # weights behind a server of one's own
        return name
    url = (settings.get("client_kwargs") or {}).get("base_url")
    return f"openai:{name}@{url}" if url else f"openai:{name}"


def _turns(chatml: str) -> tuple[Message, ...]:
    turns = [turn.partition("\n") for turn in chatml.split("<|im_start|>")[1:]]
    return tuple(
        Message(role.strip(), text.partition("<|im_end|>")[0].strip())  # type: ignore[arg-type]
        for role, _, text in turns
    )


def read_ranking(finding: Finding, model_1_name: str = "model_1") -> float | None:
    """Rank of "model_1" in a Python list of {"model", "rank"}, as a preference; None when there is
    none of 1 or 2.
    """
    try:
        ranks = [
            entry["rank"]
            for entry in ast.literal_eval(finding.text or "")
            if entry["model"] == model_1_name
        ]
        return float(ranks[0]) if ranks[0] in (1, 2) else None
    # literal_eval may raise each of them on what a judge wrote; deep nesting is enough for two.
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        return None


def read_logprobs(
    finding: Finding,
    numerator_token: str,
    denominator_tokens: Sequence[str],
    is_binarize: bool = True,
) -> float | None:
    """2 - p(numerator)/p(denominators) from the first token's log-probabilities; None when no such
    token is among them. is_binarize: only who is likelier counts, 1 or 2.

    A judge that gives no log-probabilities is read by its word alone: preference 1 or 2.
    """
    known = finding.top_logprobs or {(finding.text or "").strip(): 0.0}
    among = {token: known[token] for token in denominator_tokens if token in known}
    top = max(among.values(), default=-math.inf)
    if not math.isfinite(top):
        return None
    if is_binarize:
        others = [value for token, value in among.items() if token != numerator_token]
        own = among.get(numerator_token, -math.inf)
        return 1.0 if all(own > other for other in others) else 2.0
    # Less the largest, so that not all of them underflow to 0.
    weights = {token: math.exp(logprob - top) for token, logprob in among.items()}
    return 2 - weights.get(numerator_token, 0.0) / math.fsum(weights.values())


def read_pattern(finding: Finding, outputs_to_match: Mapping[Any, str]) -> float | None:
    """The key of the pattern that is found first in what the judge wrote; None when none is, or two
    verdicts are there.
    """
    text = finding.text or ""
    found = sorted(
        (match.start(), float(key))
        for key, pattern in outputs_to_match.items()
        for match in re.finditer(pattern, text)
    )
    return found[0][1] if len(found) == 1 else None


def read_scores(finding: Finding) -> float | None:
    """Two numbers on the first line, the answers' scores: 1 or 2 for the higher, a draw where they
    are equal.
    """
    words = (finding.text or "").partition("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = map(float, words)
    except ValueError:
        return None
    if not (math.isfinite(first) and math.isfinite(second)):
        return None
    return DRAW if first == second else 1.0 if first > second else 2.0


_PARSERS: Mapping[str, Callable[..., float | None]] = {
    "ranking_parser": read_ranking,
    "logprob_parser": read_logprobs,
    "regex_parser": read_pattern,
    "lmsys_parser": read_scores,
}
