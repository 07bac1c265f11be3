"""MMLU's probability of the right letter: read from samples and data, beside the accuracy, and
deciding where a policy says so.
"""

import math
from pathlib import Path
from typing import Any

import pytest

from evals.compare.answers import Side, read_answers
from evals.compare.finer import NOT_KEPT, finer_differences
from evals.compare.gate import check
from evals.compare.gate_files import as_json
from evals.compare.gate_report import markdown
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule, read_policy
from evals.compare.runs import compare
from evals.compare.text import markdown as compared
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.records import Completion, Finding
from evals.registry import benchmark_class
from evals.storage.run_folder import RunFolder
from tests.unit.conftest import Call, Make, paired_columns

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
    """A chat server that shows its likeliest letter alone: the others have less than it shows."""
    logprobs = row.get("choice_logprobs")
    return (
        row | {"choice_logprobs": {k: v if v > -1 else -20.0 for k, v in logprobs.items()}}
        if logprobs
        else dict(row)
    )


def test_it_is_the_probability_of_the_data_s_own_letter() -> None:
    benchmark = benchmark_class("mmlu")(chat=True)
    item = next(iter(benchmark.items(load_smoke_data(benchmark.dataset))))
    logprobs = {letter: math.log(0.1 * n) for n, letter in enumerate("ABCD", start=1)}
    (value,) = benchmark.finer_scores(item, Completion(choice_logprobs=logprobs), {}).values()
    assert value == pytest.approx(0.1 * ("ABCD".index(benchmark.gold(item)) + 1))
    del logprobs[benchmark.gold(item)]
    assert benchmark.finer_scores(item, Completion(choice_logprobs=logprobs), {}) == {}
    assert benchmark.finer_scores(item, Completion(), {}) == {}


def test_a_model_that_is_less_sure_falls_in_it_and_not_in_its_accuracy(recorded: Make) -> None:
    runs = recorded("right"), recorded("less sure", less_sure)
    found = compare(*runs)
    one = found.finer["mmlu"]
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
    assert [one.column.heading for one in decides.beside if one.key == "mmlu"] == ["MMLU 5-shot"]
    assert f"({HEADING})" in markdown(decides)


def test_without_the_data_or_the_letter_it_is_a_dash_with_its_reason_and_never_a_pass(
    recorded: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recorded("right")
    benchmark = benchmark_class("mmlu")(chat=True)
    compared = [paired_columns(one, one)["mmlu"]]

    def held_against(name: str, change: Any) -> PairedDifference:
        runs = [RunFolder(folder) for folder in (one, recorded(name, change))]
        cells = runs[0].read_json("summary.json")["cells"]
        sides = [Side(run, cells, read_answers(run, benchmark)) for run in runs]
        return finer_differences(benchmark, compared, sides[0], sides[1])["mmlu"]

    # The likeliest letter is the right one.
    assert held_against("one letter", no_letter).difference is not None
    first = next(iter(RunFolder(one).samples("mmlu")))["id"]

    def wrong(row: dict[str, Any]) -> dict[str, Any]:
        return no_letter(row) if row["id"] != first else row | {"choice_logprobs": {}}

    lacking = held_against("a letter short", wrong)
    assert lacking.reason == "1 answers have no log-probability of it"

    def not_here(*_: object) -> None:
        raise InputError("not here")

    monkeypatch.setattr("evals.runs.rescore.run_items", not_here)
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


def test_of_truthfulqas_judges_it_is_the_product_of_their_probabilities_of_yes() -> None:
    benchmark = benchmark_class("truthfulqa")(chat=True)
    item = next(iter(benchmark.items(load_smoke_data(benchmark.dataset))))
    sure = {"truth": Finding("j", probability=0.6), "info": Finding("k", probability=0.5)}
    found = benchmark.finer_scores(item, Completion(), sure)
    assert found == {"truth": 0.6, "info": 0.5, "truthfulqa": pytest.approx(0.3)}
    words = sure | {"info": Finding("k", text="yes")}
    assert benchmark.finer_scores(item, Completion(), words) == {"truth": 0.6}


def no_words(row: dict[str, Any]) -> dict[str, Any]:
    """A judge that answers in words."""
    said = {"truth": "yes", "info": "yes"}
    return row | {"findings": said} if row["id"].startswith("truthfulqa/") else dict(row)


def test_judges_without_a_probability_are_not_spoken_of_and_never_a_pass(recorded: Make) -> None:
    runs = recorded("words", no_words), recorded("words again", no_words)
    assert "truthfulqa" not in compare(*runs).finer
    rules = {"truthfulqa": Rule(measure="probability")}
    gate = check(*runs, Policy(Rule(tier="advisory"), rules))
    assert (gate.verdict, gate.exit_code) == ("incomplete", 3)
    assert NOT_KEPT in markdown(gate)
