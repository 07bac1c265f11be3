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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from evals.errors import InputError
from evals.records import Finding, Generate, Message, Sampling

DRAW = 1.5
ANNOTATORS = {
    "alpaca_eval_1": "alpaca_eval_gpt4",
    "alpaca_eval_2": "weighted_alpaca_eval_gpt4_turbo",
}


@dataclass(frozen=True)
class Annotator:
    """One of the package's judges: prompt with {placeholders}, sampling, and how what it said
    becomes a preference.

    read: a finding -> the preference for the SECOND answer shown, 1 to 2; None when it cannot be
    read.
    """

    prompt: tuple[Message, ...]
    sampling: Sampling
    read: Callable[[Finding], float | None]


def is_model_first(instruction: str) -> bool:
    """Whether the judge reads the model's answer before the reference: drawn from the instruction
    alone.
    """
    # Seed text and call are the package's, to the letter; any other would turn other pairs round.
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def judge_request(role: str, instruction: str, reference: str, answer: str) -> Generate:
    """What the judge of this role is asked about the two answers, in the order drawn for the
    instruction.
    """
    shown = (answer, reference) if is_model_first(instruction) else (reference, answer)
    values = {"{instruction}": instruction, "{output_1}": shown[0], "{output_2}": shown[1]}
    messages = []
    for message in annotator(role).prompt:
        content = message.content
        for placeholder, value in values.items():
            # One after the other, first occurrence only: an instruction that holds "{output_1}" is
            # itself filled in, as in the package.
            content = content.replace(placeholder, value, 1)
        messages.append(Message(message.role, content))
    return Generate(tuple(messages), annotator(role).sampling)


def preference_for_model(role: str, instruction: str, finding: Finding) -> float | None:
    """Preference from 1 (reference) to 2 (model); None when the finding cannot be read as one."""
    if finding.preference is not None:
        # 0 is how older annotations write a draw.
        recorded = finding.preference or DRAW
        return recorded if 1 <= recorded <= 2 else None
    shown = annotator(role).read(finding)
    # The judge speaks of the second answer shown: where the model's was first, 1 and 2 swap.
    return None if shown is None else 3 - shown if is_model_first(instruction) else shown


@cache
def annotator(role: str) -> Annotator:
    """The package's judge of this role, from its configuration and prompt files."""
    import yaml

    found = find_spec("alpaca_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "AlpacaEval's judge prompts come from the package alpaca-eval, which is not installed."
            " Install it."
        )
    folder = Path(found.submodule_search_locations[0]) / "evaluators_configs"
    name = ANNOTATORS[role]
    config = yaml.safe_load((folder / name / "configs.yaml").read_text("utf-8"))[name]
    settings = config["completions_kwargs"]
    sampling = Sampling(
        settings["max_tokens"],
        float(settings["temperature"]),
        n_logprobs=settings.get("top_logprobs", 0),
    )
    parsers: dict[str, Callable[..., float | None]] = {
        "ranking_parser": read_ranking,
        "logprob_parser": read_logprobs,
    }
    read = parsers[config["fn_completion_parser"]]
    # is_binarize would make a mere winner of the weighted preference: off for the card's judge, and
    # not written here.
    options = {
        key: value
        for key, value in config.get("completion_parser_kwargs", {}).items()
        if key != "is_binarize"
    }
    return Annotator(
        _turns((folder / config["prompt_template"]).read_text("utf-8")),
        sampling,
        partial(read, **options),
    )


def _turns(chatml: str) -> tuple[Message, ...]:
    turns = [turn.partition("\n") for turn in chatml.split("<|im_start|>")[1:]]
    return tuple(
        Message(role.strip(), text.partition("<|im_end|>")[0].strip())  # type: ignore[arg-type]
        for role, _, text in turns
    )


def read_ranking(finding: Finding) -> float | None:
    """Rank of "model_1" in a Python list of {"model", "rank"}, as a preference; None when there is
    none of 1 or 2.
    """
    try:
        ranks = [
            entry["rank"]
            for entry in ast.literal_eval(finding.text or "")
            if entry["model"] == "model_1"
        ]
        return float(ranks[0]) if ranks[0] in (1, 2) else None
    # literal_eval may raise each of them on what a judge wrote; deep nesting is enough for two.
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        return None


def read_logprobs(
    finding: Finding, numerator_token: str, denominator_tokens: Sequence[str]
) -> float | None:
    """2 - p(numerator)/p(denominators) from the first token's log-probabilities; None when no such
    token is among them.

    A judge that gives no log-probabilities is read by its word alone: preference 1 or 2.
    """
    known = finding.top_logprobs or {(finding.text or "").strip(): 0.0}
    among = {token: known[token] for token in denominator_tokens if token in known}
    top = max(among.values(), default=-math.inf)
    if not math.isfinite(top):
        return None
    # Less the largest, so that not all of them underflow to 0.
    weights = {token: math.exp(logprob - top) for token, logprob in among.items()}
    return 2 - weights.get(numerator_token, 0.0) / math.fsum(weights.values())
