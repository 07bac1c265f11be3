"""MMLU's probability of the right letter: read from samples and data, beside the accuracy, and
deciding where a policy says so.
"""

import math
from pathlib import Path
from typing import Any

import pytest

from evals.compare.columns import paired_columns
from evals.compare.finer import finer_differences
from evals.compare.gate import check
from evals.compare.gate_files import as_json
from evals.compare.gate_report import markdown
from evals.compare.policy import Policy, Rule, read_policy
from evals.compare.runs import compare
from evals.compare.text import markdown as compared
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.records import Completion
from evals.registry import benchmark_class
from evals.storage.run_folder import RunFolder
from tests.unit.conftest import Call, Make

HEADING = "MMLU 5-shot, probability of the right letter"
PROBABILITY = Policy(Rule(tier="advisory"), {"mmlu": Rule(measure="probability")})


def less_sure(row: dict[str, Any]) -> dict[str, Any]:
    """The right letter is still the likeliest, by less."""
    logprobs = row.get("choice_logprobs")
    return (
        row | {"choice_logprobs": {k: v - 0.5 * (v > -1) for k, v in logprobs.items()}}
        if logprobs
        else dict(row)
    )


def no_letter(row: dict[str, Any]) -> dict[str, Any]:
    """A chat server that shows its likeliest letter alone."""
    logprobs = row.get("choice_logprobs")
    return (
        row | {"choice_logprobs": {k: v for k, v in logprobs.items() if v > -1}}
        if logprobs
        else dict(row)
    )


def test_it_is_the_probability_of_the_data_s_own_letter() -> None:
    benchmark = benchmark_class("mmlu")(chat=True)
    item = next(iter(benchmark.items(load_smoke_data(benchmark.dataset))))
    logprobs = {letter: math.log(0.1 * n) for n, letter in enumerate("ABCD", start=1)}
    (value,) = benchmark.finer_scores(item, Completion(choice_logprobs=logprobs)).values()
    assert value == pytest.approx(0.1 * ("ABCD".index(benchmark.gold(item)) + 1))
    del logprobs[benchmark.gold(item)]
    assert benchmark.finer_scores(item, Completion(choice_logprobs=logprobs)) == {}
    assert benchmark.finer_scores(item, Completion()) == {}


def test_a_model_that_is_less_sure_falls_in_it_and_not_in_its_accuracy(recorded: Make) -> None:
    runs = recorded("right"), recorded("less sure", less_sure)
    found = compare(*runs)
    (one,) = found.finer.values()
    assert one.difference == pytest.approx(math.exp(-0.6) - math.exp(-0.1))
    assert (one.key, one.n_worse, one.column.heading) == ("mmlu", one.n, HEADING)
    text = compared(found)
    assert f"| {HEADING} |" in text
    assert "| MMLU 5-shot |" not in text


def test_shown_it_decides_nothing_and_where_the_policy_says_so_it_does(recorded: Make) -> None:
    runs = recorded("right"), recorded("less sure", less_sure)
    shown = check(*runs, Policy())
    assert shown.verdict == "pass"
    assert f"- {HEADING}: -35.60 (" in markdown(shown)
    decides = check(*runs, PROBABILITY)
    assert (decides.verdict, decides.exit_code) == ("regressed", 1)
    assert as_json(decides)["columns"]["mmlu"]["measure"] == "probability"
    assert [one.column.heading for one in decides.beside] == ["MMLU 5-shot"]
    assert f"({HEADING})" in markdown(decides)


def test_without_the_data_or_the_letter_it_is_a_dash_with_its_reason_and_never_a_pass(
    recorded: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recorded("right")
    found = finer_differences(one, recorded("one letter", no_letter), paired_columns(one, one))
    assert found["mmlu"].difference is not None  # the likeliest letter is the right one
    rows = [dict(row) for row in RunFolder(one).samples("mmlu")]

    def wrong(row: dict[str, Any]) -> dict[str, Any]:
        return no_letter(row) if row["id"] != rows[0]["id"] else row | {"choice_logprobs": {}}

    runs = one, recorded("a letter short", wrong)
    (lacking,) = finer_differences(*runs, paired_columns(one, one)).values()
    assert lacking.reason == "1 answers have no log-probability of it"

    def not_here(*_: object) -> None:
        raise InputError("not here")

    monkeypatch.setattr("evals.compare.finer.run_items", not_here)
    gate = check(one, one, PROBABILITY)
    assert (gate.verdict, gate.exit_code) == ("incomplete", 3)
    assert f"{HEADING}: incomplete: its data is not here: give --data" in markdown(gate)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('gsm8k = {measure = "probability"}', "which this column has not"),
        ('mmlu = {measure = "probability", relative_drop = 2}', "Give drop, in points"),
        ('mmlu = {measure = "logit"}', "Known are score, probability."),
    ],
)
def test_a_policy_that_asks_for_what_is_not_there_is_refused(
    tmp_path: Path, evals: Call, text: str, says: str
) -> None:
    (tmp_path / "gate.toml").write_text(f"[columns]\n{text}\n")
    with pytest.raises(InputError, match=says):
        read_policy(tmp_path / "gate.toml")
