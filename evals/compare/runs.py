"""`evals compare`: whether two runs can be compared, what differs, by how much, and how sure that
is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evals.cards.card import AVERAGE
from evals.cards.published import card_of_run
from evals.compare.columns import read_columns
from evals.compare.paired import PairedDifference
from evals.compare.pooled import pooled_difference
from evals.report.run_row import row_from_summary
from evals.stats import holm
from evals.storage.run_folder import RunFolder

_PRECISION = ("dtype", "quantization", "kv_cache_dtype")


@dataclass(frozen=True, slots=True)
class Comparability:
    """reason: the first thing that makes two runs incomparable, None where nothing does.  notes:
    what else differs, in words.

    same_model: equal fingerprints, so that any difference is what runs of one model differ by.
    """

    reason: str | None
    notes: tuple[str, ...]
    same_model: bool


def comparability(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparability:
    """From two parsed summary.json. Only the model may differ, and what belongs to it: chat format,
    BOS, dtype, quantization, seed.
    """
    models = baseline["model"], candidate["model"]
    blocking = next(
        (
            f"{name} differs: {a} against {b}"
            for name, a, b in _conditions(baseline, candidate)
            if a != b
        ),
        None,
    )
    own = [
        (name, baseline.get(name), candidate.get(name))
        for name in ("chat_format", "bos_tokens", "seed", "prompts_by")
    ]
    own += [(name, models[0].get(name), models[1].get(name)) for name in _PRECISION]
    # "auto" is no precision but a setting: all that older summaries say.
    own = [entry for entry in own if entry[0] != "dtype" or "auto" not in entry]
    own.append(("reasoning", _reading(baseline), _reading(candidate)))
    notes = [f"{name.replace('_', ' ')} differs: {a} against {b}" for name, a, b in own if a != b]
    if not _of_one_card(baseline, candidate):
        titles = card_of_run(baseline).title, card_of_run(candidate).title
        notes.append(
            f"of two cards, {titles[0]} and {titles[1]}: only columns that are asked and scored in"
            " the same way on both are compared, and the Average is the first one's"
        )
    # What a run's cells say of its settings, such as a system prompt of its own.
    marks = baseline.get("differs", []), candidate.get("differs", [])
    # Two known dtypes were compared above; older summaries have no mark for theirs.
    is_told = "auto" not in (one["dtype"] for one in models)
    for side, own_marks, others in (("baseline", *marks), ("candidate", *reversed(marks))):
        notes += [
            f"only in the {side}: {mark}"
            for mark in own_marks
            if mark not in others and not (is_told and mark.startswith("computed in "))
        ]
    return Comparability(
        blocking, tuple(notes), models[0]["fingerprint"] == models[1]["fingerprint"]
    )


def _reading(summary: Mapping[str, Any]) -> str:
    """How reasoning was told from the answers."""
    how = summary.get("reasoning", {})
    return ", ".join(f"{name} {value}" for name, value in how.items()) or "auto"


def _conditions(
    baseline: Mapping[str, Any], candidate: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal for numbers to mean the same, as (name, baseline's, candidate's); most
    telling first.
    """
    for name in ("schema", "protocol", "suite", "limit"):
        # Runs of two cards are held against each other in the columns that are the same on both.
        if name != "protocol" or _of_one_card(baseline, candidate):
            yield name, baseline.get(name), candidate.get(name)
    yield "temperature", _temperature(baseline), _temperature(candidate)
    prompts = baseline.get("prompts_by"), candidate.get("prompts_by")
    # how a recording's prompts were made is not known; it counts as a note
    if "recording" not in prompts:
        yield "prompts by", *prompts
    data = baseline["data"], candidate["data"]
    for task in sorted(data[0].keys() & data[1].keys()):
        tables = data[0][task]["tables"], data[1][task]["tables"]
        for table in sorted(tables[0].keys() & tables[1].keys()):
            a, b = (dict(one[table]) for one in tables)
            yield f"version of {task} ({table})", a.get("version"), b.get("version")
            files = a.pop("asked_by", None), b.pop("asked_by", None)
            if all(files):  # older runs do not say
                yield f"task file of {task} ({table})", *files
            yield f"data of {task} ({table})", a, b
    judges = baseline["judges"], candidate["judges"]
    for role in sorted(judges[0].keys() & judges[1].keys()):
        yield f"judge {role}", judges[0][role]["name"], judges[1][role]["name"]


def _temperature(summary: Mapping[str, Any]) -> float:
    """What was sampled at in place of 0."""
    return float(summary.get("sampling", {}).get("temperature", 0.0))


def _of_one_card(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    return card_of_run(baseline).title == card_of_run(candidate).title


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same items. names: the rows'.  columns: in the table's order, none where the
    runs are incomparable.

    p_holm: by column key, the p-values after Holm's correction over the table.  seeds: the
    engines'.
    stderr: by column key, the standard error of the first run's cell.  pooled: all columns
    together, each weighted as in the Average.  finer: by column key, as in `Columns.shown`.
    """

    names: tuple[str, str]
    comparable: Comparability
    columns: tuple[PairedDifference, ...] = ()
    p_holm: Mapping[str, float | None] = field(default_factory=dict)
    seeds: tuple[Any, Any] = (None, None)
    stderr: Mapping[str, float | None] = field(default_factory=dict)
    pooled: PairedDifference | None = None
    finer: Mapping[str, PairedDifference] = field(default_factory=dict)


def compare(
    baseline: Path, candidate: Path, data: Path | None = None, card: str | None = None
) -> Comparison:
    """Two run folders. data, card: as in `read_columns`.

    Raises InputError where a folder is no run.
    """
    summaries = [RunFolder(path).read_json("summary.json") for path in (baseline, candidate)]
    names = (row_from_summary(summaries[0]).name, row_from_summary(summaries[1]).name)
    comparable = comparability(*summaries)
    if comparable.reason is not None:
        return Comparison(names, comparable)
    columns = read_columns(baseline, candidate, data, card)
    found = settled(columns.differences)
    stderr = {key: cell["stderr"] for key, cell in summaries[0]["cells"].items()}
    return Comparison(
        names,
        comparable,
        tuple(found.values()),
        holm({key: one.p for key, one in found.items()}),
        (summaries[0].get("seed"), summaries[1].get("seed")),
        stderr,
        pooled_difference(found, columns.covariance, columns.about.shown.average),
        columns.shown,
    )


def unchanged(differences: Mapping[str, PairedDifference]) -> frozenset[str]:
    """The columns in which every answer and score is the same in both runs; the Average, where that
    holds for all its inputs.
    """
    same = {
        key
        for key, one in differences.items()
        if one.n > 0 and one.n_same == one.n and one.n_better == one.n_worse == 0
    }
    inputs = differences[AVERAGE.key].inputs if AVERAGE.key in differences else ()
    whole = {AVERAGE.key} if inputs and same.issuperset(inputs) else set()
    return frozenset(same - {AVERAGE.key} | whole)


def settled(differences: Mapping[str, PairedDifference]) -> dict[str, PairedDifference]:
    """The differences, where nothing changed with an interval of width zero: no answer changed, so
    neither did the score.
    """
    same = unchanged(differences)
    return {key: _without_spread(one) if key in same else one for key, one in differences.items()}


def _without_spread(one: PairedDifference) -> PairedDifference:
    return replace(
        one,
        stderr=0.0,
        ci95=(0.0, 0.0),
        p=1.0,
        mde=0.0,
        run_to_run=0.0,
        estimator="every answer is the same",
    )
