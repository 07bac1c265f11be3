"""The forms of what a run folder holds: summary.json and run.json by their JSON Schemas, a line of
samples by its fields' kinds.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evals.storage.files import one_line

SCHEMA = 1
"""Of summary.json."""
_HERE = Path(__file__).parent
_LONGEST_COMPLAINT = 160
"""Characters of a complaint: it quotes what it is about."""
_MOST_TOKENS = 1 << 40
"""Above any count of tokens."""


def from_json(raw: bytes) -> Any:
    """A JSON value. Raises ValueError also for NaN and numbers beyond a float, which this program
    never writes.
    """
    return json.loads(raw, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return number


def newer_form(summary: Any) -> str | None:
    """How a summary.json says that it is of another schema than this program's; None where it says
    no such thing.
    """
    version = summary.get("schema") if isinstance(summary, Mapping) else None
    if isinstance(version, int) and version != SCHEMA:
        return f"schema {version}, this one reads {SCHEMA}"
    return None


def what_is_wrong(name: str, content: Any) -> str | None:
    """The first place where summary.json or run.json is not of its form, in words; None where it
    is.
    """
    found = _complaint(name, content)
    if name == "run.json" and found is None:
        found = _complaint("header", content["summary_header"])
    return found


def _complaint(name: str, content: Any) -> str | None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator(name).iter_errors(content))
    if error is None:
        return None
    place = ".".join(map(str, error.absolute_path))
    return one_line(f"{place + ': ' if place else ''}{error.message}"[:_LONGEST_COMPLAINT])


@functools.cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    def is_integer(_: Any, value: Any) -> bool:
        # JSON Schema would take 3.0 for one
        return isinstance(value, int) and not isinstance(value, bool)

    schema = json.loads(
        (_HERE / ("run.schema.json" if name == "run.json" else "summary.schema.json")).read_text(
            "utf-8"
        )
    )
    if name == "header":
        schema["required"] = [
            part for part in schema["required"] if part not in ("cells", "metrics", "tasks")
        ]
    validator: Any = extend(
        Draft202012Validator,
        type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer),
    )
    return validator(schema)


def wrong_field(row: Any) -> str | None:
    """The field for which a line of samples cannot be read, "" where it is no object; None where
    all are of their kinds.
    """
    if not isinstance(row, Mapping):
        return ""
    if not isinstance(row.get("id"), str):
        return "id"
    outputs = row.get("outputs", [])
    return next(
        (
            name
            for name, is_kind in _FIELDS.items()
            if name in row and not is_kind(row[name], outputs)
        ),
        None,
    )


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


_FIELDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "outputs": lambda value, _: (
        isinstance(value, list) and all(isinstance(text, str) for text in value)
    ),
    "finish_reasons": lambda value, outputs: (
        isinstance(value, list)
        and len(value) == len(outputs)
        and all(isinstance(reason, str) for reason in value)
    ),
    "n_tokens": lambda value, outputs: (
        isinstance(value, list)
        and len(value) == len(outputs)
        and all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MOST_TOKENS for n in value
        )
    ),
    "reasoning": lambda value, outputs: (
        isinstance(value, list)
        and len(value) == len(outputs)
        and all(isinstance(text, str | None) for text in value)
    ),
    "n_reasoning_tokens": lambda value, outputs: (
        isinstance(value, list)
        and len(value) == len(outputs)
        and all(
            n is None or (isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MOST_TOKENS)
            for n in value
        )
    ),
    "score": lambda value, _: value is None or _is_share(value),
    "scores": lambda value, _: (
        isinstance(value, dict)
        and all(score is None or _is_share(score) for score in value.values())
    ),
    "choice_logprobs": lambda value, _: (
        isinstance(value, dict)
        # A text is an infinity, for which JSON has no number.
        and all(isinstance(one, int | float | str) for one in value.values())
    ),
    "loglikelihoods": lambda value, _: (
        isinstance(value, list)
        and all(isinstance(one, list) and len(one) == len(("sum", "greedy", "n")) for one in value)
    ),
    "findings": lambda value, _: (
        isinstance(value, dict)
        and all(isinstance(one, dict) and isinstance(one.get("by"), str) for one in value.values())
    ),
}
"""What a field of a line must be, given the line's outputs; further fields are a benchmark's own
evidence.
"""
