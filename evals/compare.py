"""`evals compare`: whether two runs can be compared, what differs, by how much, and how sure that is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Comparability:
    """reason: the first thing that makes two runs incomparable, None where nothing does.  notes: what else differs, in words.

    same_model: equal fingerprints, so that any difference is what runs of one model differ by.
    """

    reason: str | None
    notes: tuple[str, ...]
    same_model: bool


def comparability(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparability:
    """From two parsed summary.json. Only the model may differ, and what belongs to it: chat format, BOS, dtype, quantization, seed."""
    models = baseline["model"], candidate["model"]
    blocking = next((f"{name} differs: {a} against {b}" for name, a, b in _conditions(baseline, candidate) if a != b), None)
    own = [(name, baseline.get(name), candidate.get(name)) for name in ("chat_format", "bos_tokens", "seed", "prompts_by")]
    own += [(name, models[0].get(name), models[1].get(name)) for name in ("dtype", "quantization")]
    notes = [f"{name.replace('_', ' ')} differs: {a} against {b}" for name, a, b in own if a != b]
    return Comparability(blocking, tuple(notes), models[0]["fingerprint"] == models[1]["fingerprint"])


def _conditions(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal for numbers to mean the same, as (name, baseline's, candidate's); most telling first."""
    for name in ("schema", "protocol", "suite", "limit"):
        yield name, baseline.get(name), candidate.get(name)
    prompts = baseline.get("prompts_by"), candidate.get("prompts_by")
    if "recording" not in prompts:  # how a recording's prompts were made is not known; it counts as a note
        yield "prompts by", *prompts
    data = baseline["data"], candidate["data"]
    for task in data[0].keys() & data[1].keys():
        tables = data[0][task]["tables"], data[1][task]["tables"]
        for table in sorted(tables[0].keys() & tables[1].keys()):
            yield f"data of {task} ({table})", tables[0][table], tables[1][table]
    judges = baseline["judges"], candidate["judges"]
    for role in sorted(judges[0].keys() & judges[1].keys()):
        yield f"judge {role}", judges[0][role]["name"], judges[1][role]["name"]
