"""GPT-4's pairwise annotations of AlpacaEval 1 and 2, as the leaderboards' authors released them.

output_1 is the reference's answer, output_2 the model's; `preference` goes from 1 (reference) to 2
(model), a draw is 1.5 or 0, null an annotation that could not be read. Where the judge's
log-probabilities were kept, a second recording hands the adapter those.
The instructions' difficulties were recovered to eight decimals, so that six of a length-controlled
rate made of them can be compared.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, Protocol

from evals import stats
from evals.data.files import Row, read_json
from evals.data.load import load_card_data
from evals.fidelity.corpora import (
    Figure,
    Recording,
    Released,
    Scored,
    Value,
    by_item,
    listed,
    metric,
    named,
    one_of,
)
from evals.generators.replay import Recorded, recorded_row
from evals.records import ItemId

_ROLES = {"alpaca_eval_gpt4": "alpaca_eval_1", "weighted_alpaca_eval_gpt4_turbo": "alpaca_eval_2"}
_RATES = {"alpaca_eval_1": "alpaca_eval_1", "alpaca_eval_2": "alpaca_eval_2_win_rate"}
_ALL_DIGITS, _RECOVERED_DIGITS = 16, 6
_DISCRETE = "each preference counted as a win, a draw or a loss"
_NOT_FITTED = (
    "the weights of this fit were not published, and the protocol fits AlpacaEval 2's column only"
)


class Instruction(Protocol):
    """What is read of an item. references: judge's role -> the answer the model's is
    compared with.
    """

    id: ItemId
    instruction: str
    references: Mapping[str, str]


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Instruction]
) -> Iterator[Recording]:
    """One recording a model, two where log-probabilities were kept. Raises ValueError where an
    instruction or reference is not the data's.
    """
    for record in about["published"]:
        by, name, role = (
            record["annotator"],
            f"{record['annotator']}/{record['model']}",
            _ROLES[one_of(record["annotator"], _ROLES)],
        )
        source = f"{by}_leaderboard.csv, {about['source']}"
        keys = {item.id: (item.instruction, item.references[role]) for item in items}
        file = listed(folder, about, f"{escape(name)}/annotations.json*")
        rows = by_item(file, read_json, keys, _asked, partly=True)
        figures = list(_figures(record, role, source, len(rows)))
        yield Recording(
            name,
            _answers(rows, role, lambda row: row.take("preference", float | int | None)),
            figures,
        )
        if any(row.get("raw_completion") for row in rows.values()):
            yield Recording(
                f"{name}, from the judge's log-probabilities",
                _answers(rows, role, _said),
                figures[:1],
            )


def _asked(row: Released) -> tuple[str, str]:
    return row.take("instruction", str), row.take("output_1", str)


def _answers(
    rows: Mapping[ItemId, Released], role: str, read: Callable[[Released], Any]
) -> dict[ItemId, Recorded]:
    answers = {}
    for item_id, row in rows.items():
        output, finding = row.take("output_2", str), read(row)
        with named(row.where):
            answers[item_id] = recorded_row({"outputs": [output], "findings": {role: finding}})
    return answers


def _said(row: Released) -> Row:
    """The judge's first token; nothing where it was not asked, the answers being equal."""
    if not row.get("raw_completion"):
        return {}
    with named(row.where):
        (token,) = row["raw_completion"]["logprobs"]["content"]
        top = {entry["token"]: entry["logprob"] for entry in token["top_logprobs"]}
        said = {"text": token["token"], "top_logprobs": top}
    return said


def _figures(record: Row, role: str, source: str, n: int) -> Iterator[Figure]:
    rate = metric(_RATES[role])
    fitted = (
        metric("alpaca_eval_2_lc")
        if role == "alpaca_eval_2"
        else lambda _: Value(None, n, _NOT_FITTED)
    )
    yield Figure("win_rate", record["win_rate"], _ALL_DIGITS, source, rate)
    yield Figure(
        "length_controlled_winrate",
        record["length_controlled_winrate"],
        _ALL_DIGITS,
        source,
        fitted,
    )
    for name, unit in {
        "standard_error": 100,
        "n_wins": n,
        "n_wins_base": n,
        "n_draws": n,
        "n_total": n,
        "avg_length": 1,
    }.items():
        yield Figure(
            name,
            record[name],
            0 if isinstance(record[name], int) else _ALL_DIGITS,
            source,
            partial(_column, role, name),
            unit,
        )
    ours = partial(_column, role, "discrete_win_rate")
    yield Figure(
        "discrete_win_rate",
        record["discrete_win_rate"],
        _ALL_DIGITS,
        source,
        ours,
        rule=_DISCRETE,
        card=rate,
    )
    for name in (
        ("length_controlled_winrate", "lc_standard_error")
        if "length_controlled_v1_weights" in record
        else ()
    ):
        if record[name] is not None:
            ours = partial(_predicted, record["length_controlled_v1_weights"], name)
            yield Figure(
                f"{name}, from the published weights", record[name], _RECOVERED_DIGITS, source, ours
            )


def _column(role: str, name: str, scored: Scored) -> Value:
    """A column of the leaderboard as its authors compute it; the mean length is cut to a whole
    number.
    """
    scores, n = (
        [grade.scores[role] for grade in scored.result.grades if role in grade.scores],
        len(scored.answers),
    )
    wins, losses, draws = (
        sum(score > 0.5 for score in scores),
        sum(score < 0.5 for score in scores),
        scores.count(0.5),
    )
    columns = {
        "n_wins": wins / n,
        "n_wins_base": losses / n,
        "n_draws": draws / n,
        "n_total": len(scores) / n,
    }
    columns["discrete_win_rate"] = (wins + draws / 2) / max(1, len(scores))
    columns["avg_length"] = (
        sum(len(recorded.completion.text) for recorded in scored.answers.values()) // n
    )
    return Value(
        scored.result.metrics[_RATES[role]].stderr if name == "standard_error" else columns[name], n
    )


def _predicted(weights: Mapping[str, float], name: str, scored: Scored) -> Value:
    """The mean prediction of fitted weights at equal lengths, or its standard error. Upstream takes
    difficulties in row order.
    """
    rows = load_card_data([scored.result.benchmark.dataset], scored.data)["alpaca_eval"].rows(
        "difficulties"
    )[: len(scored.answers)]
    model, slope = weights["not_gamed_baseline.astype(float)"], weights["instruction_difficulty"]
    logits = [model + slope * float(row["instruction_difficulty"]) for row in rows]
    rate = stats.mean([1 / (1 + math.exp(-logit)) for logit in logits], len(logits))
    return Value(
        rate.stderr if name == "lc_standard_error" else rate.value,
        len(rows),
        "" if rows else "no difficulties in the data",
    )
