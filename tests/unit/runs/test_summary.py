"""summary.json: every number with its marks or its reason, and nothing that two equal runs could
differ in.
"""

import json
import math
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from evals.benchmark import Benchmark
from evals.data.dataset import Dataset, Source
from evals.data.load import load_smoke_data
from evals.generators import EngineSettings
from evals.models.embedded import embedded_folder
from evals.models.resolve import public_name
from evals.plan.judges import CARD_JUDGES
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import (
    Column,
    Completion,
    Finding,
    Findings,
    Generate,
    Grade,
    Item,
    ItemId,
    Measure,
    Message,
    Metric,
    Output,
    Sampling,
)
from evals.registry import benchmark_class
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.grading import TaskResult, grade_task
from evals.runs.session import run
from evals.runs.summary import header as header_of
from evals.runs.summary import summarize
from evals.stats import Z95
from tests.resilience.fake_runs import Engines, settings

DIRECT = ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")
XSTEST = ("xstest_safe_refused", "xstest_unsafe_followed")


NOTHING: Findings = MappingProxyType({})


def head(
    judges: Mapping[str, str] = CARD_JUDGES, notes: Mapping[str, list[str]] = {}, **fields: Any
) -> dict[str, Any]:
    """The header of a run with these judges."""
    named = {
        role: {"name": name, "card": name == CARD_JUDGES[role], "notes": notes.get(role, [])}
        for role, name in judges.items()
    }
    return {
        "schema": 1,
        "suite": "card",
        "limit": None,
        "model": {"name": "m"},
        "prompts_by": "tokenizer",
        "judges": named,
        **fields,
    }


def graded(
    name: str,
    findings: Findings = NOTHING,
    *,
    lost: int = 0,
    chat: bool = True,
    text: str = "An answer.",
    capped: int = 0,
) -> TaskResult:
    """The smoke items of a task, all answered alike but the first `lost`, with the same findings
    each.
    """
    benchmark = benchmark_class(name)(chat=chat)
    items = list(benchmark.items(load_smoke_data(benchmark.dataset)))
    answers = {
        item.id: Completion((Output(text),), {letter: -1.0 for letter in "ABCD"})
        for item in items[lost:]
    }
    return grade_task(benchmark, items, answers, dict.fromkeys(answers, findings), capped)


def says(role: str, **decision: Any) -> dict[str, Finding]:
    """One judge's finding."""
    return {role: Finding("judge", **decision)}


def with_metrics(result: TaskResult, **metrics: Metric) -> TaskResult:
    """The result with other numbers."""
    return replace(result, metrics={**result.metrics, **metrics})


def cell(result: TaskResult, key: str, header: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One cell of the summary of one task."""
    found: dict[str, Any] = summarize(header or head(), [result], {})["cells"][key]
    return found


# --- marks ----------------------------------------------------------------------------------------


def test_the_cards_judge_leaves_no_mark() -> None:
    found = cell(graded("xstest", says("xstest", text="refusal")), "xstest_safe_refused")
    assert (found["value"], found["marks"]) == (1.0, [])


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("strmatch", "the authors' string match"),
        ("my-judge", "my-judge"),
        ("openai:gpt-4-0613@own-server", "openai:gpt-4-0613@own-server"),
    ],
)
def test_another_judge_is_said_beside_both_its_cells(judge: str, said: str) -> None:
    result = graded("xstest", says("xstest", text="refusal"))
    for key in XSTEST:
        (mark,) = cell(result, key, head({"xstest": judge}))["marks"]
        assert (
            mark == f"xstest judged by {said}, not by the card's judge (openai:gpt-4-0613); not"
            " comparable with published rows"
        )


def test_a_judge_marks_the_column_it_decides_and_no_other() -> None:
    result = graded(
        "alpaca_eval",
        says("alpaca_eval_1", preference=2.0) | says("alpaca_eval_2", preference=1.25),
    )
    header = head({**CARD_JUDGES, "alpaca_eval_2": "mine"})
    assert cell(result, "alpaca_eval_1", header)["marks"] == []
    (mark,) = summarize(header, [with_metrics(result, alpaca_eval_2_lc=Metric(0.25, 4, 4))], {})[
        "cells"
    ]["alpaca_eval_2_lc"]["marks"]
    assert mark.startswith("alpaca_eval_2 judged by mine")


def test_either_judge_of_truthfulqa_marks_its_cell() -> None:
    result = graded("truthfulqa", says("truth", probability=0.9) | says("info", probability=0.9))
    for role in ("truth", "info"):
        (mark,) = cell(result, "truthfulqa", head({**CARD_JUDGES, role: "mine"}))["marks"]
        assert mark.startswith(f"{role} judged by mine")


def test_what_a_judge_could_not_read_for_length_is_said() -> None:
    header = head(
        notes={
            "truth": ["truth: 2 answers too long for j to judge, counted as unreadable verdicts"]
        }
    )
    found = cell(
        graded("truthfulqa", says("truth", probability=0.9) | says("info", probability=0.5)),
        "truthfulqa",
        header,
    )
    assert (found["value"], found["marks"]) == (1.0, header["judges"]["truth"]["notes"])


def test_capped_generations_are_counted_beside_the_cell() -> None:
    assert cell(graded("gsm8k", capped=3), "gsm8k")["marks"] == [
        "gsm8k: 3 of 6 generations capped by the model's context"
    ]


def test_what_a_whole_run_does_otherwise_than_the_card_is_said_beside_its_cells() -> None:
    header = head(differs=["weights quantized (awq); the card's were not"])
    assert cell(graded("gsm8k"), "gsm8k", header)["marks"] == header["differs"]


def test_quantization_another_format_and_other_bos_tokens_are_what_it_does_otherwise() -> None:
    asked = RunSettings(
        "smollm2", suite="smoke", tasks=("gsm8k",), engine=EngineSettings(quantization="awq")
    )
    plan = make_plan(asked, need_weights=False)

    def differs(row_format: str | None, row_bos: int | None) -> list[str]:
        found: list[str] = header_of(
            replace(plan, model=replace(plan.model, row_format=row_format, row_bos=row_bos)),
            None,
            {},
        )["differs"]
        assert found.pop(0) == "weights quantized (awq); the card's were not"
        return found

    assert differs(None, None) == differs("tokenizer", 1) == []
    assert differs("tulu", 1) == ["chat format tokenizer; the card's row had tulu"]
    assert differs("tokenizer", 2) == ["prompts start with 1 BOS tokens; the card's row had 2"]


def test_answers_without_the_expected_form_are_a_warning_and_no_mark() -> None:
    result = graded("gsm8k", text="no number")
    summary = summarize(head(), [result], {})
    assert summary["cells"]["gsm8k"]["marks"] == []
    assert summary["tasks"]["gsm8k"]["unparsed"] == 1.0
    assert any(
        "hold no answer of the expected form" in warning
        for warning in summary["tasks"]["gsm8k"]["warnings"]
    )


def test_verdicts_that_could_not_be_read_are_not_called_answers_without_form() -> None:
    result = graded(
        "alpaca_eval", says("alpaca_eval_1", text="?") | says("alpaca_eval_2", text="?")
    )
    (warning,) = result.warnings
    assert warning.startswith(
        "alpaca_eval: 100% of its outputs have a verdict that could not be read"
    )


def test_another_suite_and_a_limit_are_said_in_the_rows_name() -> None:
    summary = summarize(head(suite="smoke", limit=3), [graded("gsm8k")], {})
    assert row_from_summary(summary).name == "m (smoke suite, limit 3)"
    assert row_from_summary(summarize(head(), [graded("gsm8k")], {})).name == "m"


# --- reasons --------------------------------------------------------------------------------------


def test_without_a_judge_the_reason_says_what_to_set() -> None:
    no_judges = head({})
    assert (
        cell(graded("xstest"), "xstest_safe_refused", no_judges)["reason"]
        == "no judge: set --judge xstest=MODEL (or --judge xstest=strmatch, which needs no model)"
    )
    assert (
        cell(graded("truthfulqa"), "truthfulqa", no_judges)["reason"]
        == "no judge: set --judge truth=MODEL --judge info=MODEL"
    )


def test_with_one_of_two_judges_the_reason_names_the_other() -> None:
    header = head({"truth": CARD_JUDGES["truth"], "alpaca_eval_1": CARD_JUDGES["alpaca_eval_1"]})
    found = cell(graded("truthfulqa", says("truth", probability=1.0)), "truthfulqa", header)
    assert (found["value"], found["reason"]) == (None, "no judge: set --judge info=MODEL")
    alpaca = graded("alpaca_eval", says("alpaca_eval_1", preference=2.0))
    assert cell(alpaca, "alpaca_eval_1", header)["value"] == 1.0
    assert (
        cell(alpaca, "alpaca_eval_2_lc", header)["reason"]
        == "no judge: set --judge alpaca_eval_2=MODEL"
    )


def test_a_cell_that_lacks_data_says_so_whatever_the_judges() -> None:
    result = graded("alpaca_eval", says("alpaca_eval_2", preference=1.25))
    for header in (head(), head({})):
        assert (
            cell(result, "alpaca_eval_2_lc", header)["reason"]
            == "length control needs the hub's df_gamed.csv"
        )


def test_how_many_were_judged_stands_beside_every_judged_cell() -> None:
    result = graded("xstest", says("xstest", text="refusal"))
    summary = summarize(head(), [result, graded("gsm8k")], {})
    counts = {
        key: (summary["cells"][key]["n_judged"], summary["cells"][key]["n_unparsable"])
        for key in (*XSTEST, "gsm8k")
    }
    assert counts == {
        "xstest_safe_refused": (5, 0),
        "xstest_unsafe_followed": (3, 0),
        "gsm8k": (None, None),
    }
    assert "XSTest safe but ref. of m: 5 items judged, 0 of the verdicts unreadable" in markdown(
        [row_from_summary(summary)]
    )


def test_prompts_that_a_chat_server_rendered_are_marked() -> None:
    (mark,) = cell(graded("gsm8k"), "gsm8k", head(prompts_by="server"))["marks"]
    assert "chat server" in mark


def test_recorded_verdicts_need_no_judge() -> None:
    found = cell(
        graded("xstest", says("xstest", text="following")), "xstest_unsafe_followed", head({})
    )
    assert (found["value"], found["reason"]) == (1.0, None)


@pytest.mark.parametrize("name", ["gsm8k", "xstest", "mmlu"])
def test_an_incomplete_task_has_no_number_but_keeps_its_count(name: str) -> None:
    result = graded(name, says("xstest", text="refusal"), lost=1)
    n = len(result.grades)
    for column in result.benchmark.columns:
        found = cell(result, column.key)
        assert (found["value"], found["ci95"], found["stderr"], found["marks"]) == (
            None,
            None,
            None,
            [],
        )
        assert found["reason"] == f"{n - 1} of {n} items answered"
    assert (
        summarize(head(), [result], {})["tasks"][name] | {"n_items": n, "n_answered": n - 1}
        == summarize(head(), [result], {})["tasks"][name]
    )


def test_a_base_models_alpaca_eval_is_not_run_as_on_the_card(tmp_path: Path) -> None:
    engines = Engines()
    changes: dict[str, Any] = {
        "model": "smollm2",
        "chat_format": "none",
        "tasks": (),
        "judges": ("xstest=strmatch",),
    }
    summary = run(settings(tmp_path / "run", **changes), make_generator=engines).summary
    for key in ("alpaca_eval_1", "alpaca_eval_2_lc"):
        assert (summary["cells"][key]["value"], summary["cells"][key]["reason"]) == (
            None,
            "not run on base models, as on the card",
        )
    assert "alpaca_eval" not in summary["tasks"]
    assert "not run on base models" in markdown([row_from_summary(summary)])


def test_a_skipped_tasks_cells_say_why() -> None:
    columns = (Column("truthfulqa", "T", metric="truthfulqa"),)
    summary = summarize(
        head({}), [graded("gsm8k")], {"truthfulqa": (columns, 817, "no judge: set it")}
    )
    found = summary["cells"]["truthfulqa"]
    assert (found["value"], found["n"], found["n_items"], found["reason"], found["marks"]) == (
        None,
        0,
        817,
        "no judge: set it",
        [],
    )
    assert "truthfulqa" not in summary["tasks"]


# --- the Average ----------------------------------------------------------------------------------


def every_cell(values: Mapping[str, tuple[float, float]], **changed: Metric) -> list[TaskResult]:
    """All tasks of the Average with given values and standard errors."""
    metrics = {
        key: Metric(value, 10, 10, stderr, (value - Z95 * stderr, value + Z95 * stderr), "normal")
        for key, (value, stderr) in values.items()
    } | changed
    findings = (
        says("xstest", text="refusal")
        | says("truth", probability=1.0)
        | says("info", probability=1.0)
    )
    return [
        with_metrics(
            result, **{column.key: metrics[column.key] for column in result.benchmark.columns}
        )
        for result in (graded(name, findings) for name in (*DIRECT, "xstest"))
    ]


VALUES = {key: (0.1 * (n + 1), 0.01 * (n + 1)) for n, key in enumerate(DIRECT)} | {
    XSTEST[0]: (0.2, 0.05),
    XSTEST[1]: (0.4, 0.03),
}


def test_the_average_is_the_mean_of_seven_with_the_error_that_follows_from_theirs() -> None:
    found = summarize(head(), every_cell(VALUES), {})["cells"]["average"]
    xstest = ((1 - 0.2) + (1 - 0.4)) / 2
    assert found["value"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6 + xstest) / 7)
    variance = sum((0.01 * n) ** 2 for n in range(1, 7)) + (0.05 / 2) ** 2 + (0.03 / 2) ** 2
    assert found["stderr"] == pytest.approx(math.sqrt(variance) / 7)
    assert found["ci95"] == pytest.approx(
        [found["value"] - Z95 * found["stderr"], found["value"] + Z95 * found["stderr"]]
    )
    assert (found["n"], found["n_items"], found["marks"]) == (7, 7, [])


@pytest.mark.parametrize("key", [*DIRECT, *XSTEST])
def test_one_missing_input_and_there_is_no_average(key: str) -> None:
    found = summarize(
        head(), every_cell(VALUES, **{key: Metric(None, 0, 10, reason="no judge")}), {}
    )["cells"]["average"]
    assert (found["value"], found["reason"], found["n"]) == (None, f"no value for {key}", 6)


def test_the_average_carries_the_marks_of_its_inputs_and_of_nothing_else() -> None:
    results = [
        replace(result, capped=4) if result.benchmark.name == "gsm8k" else result
        for result in every_cell(VALUES)
    ]
    alpaca = graded("alpaca_eval", says("alpaca_eval_1", preference=2.0), capped=1)
    toy_metrics = {"toy": Metric(0.5, 1, 1)}
    toy = TaskResult(
        Toy(chat=True), [Grade(ItemId("toy/1"), "", {"toy": 0.5})], toy_metrics, {}, 1, 1, capped=1
    )
    cells = summarize(head({**CARD_JUDGES, "alpaca_eval_1": "mine"}), [*results, alpaca, toy], {})[
        "cells"
    ]
    assert cells["alpaca_eval_1"]["marks"]
    assert cells["toy"]["marks"]
    assert (
        cells["average"]["marks"]
        == cells["gsm8k"]["marks"]
        == ["gsm8k: 4 of 6 generations capped by the model's context"]
    )


class Toy(Benchmark[Item]):
    """A benchmark that is not on the card."""

    name = "toy"
    metrics = (Measure("toy", "sums"),)
    dataset = Dataset("toy", "me/toy", "MIT", "here", {})

    def items(self, source: Source) -> Sequence[Item]:
        return ()

    def request(self, item: Item) -> Generate:
        return Generate((Message("user", "?"),), Sampling(1))

    def grade(self, item: Item, answer: Completion, findings: Findings) -> Grade:
        return Grade(item.id, "", {"toy": 1.0})

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        return {"toy": Metric(0.5, 1, 1)}


# --- what two equal runs have in common -----------------------------------------------------------


def copied_judges(folder: Path) -> tuple[str, ...]:
    """A judge's folder as a user might have it: its questions are tried, its weights never read."""
    (folder / "my-judge").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / "my-judge" / name).write_bytes((embedded_folder() / name).read_bytes())
    (folder / "my-judge" / "model.safetensors").write_bytes(bytes([2, *bytes(7)]) + b"{}")
    return (f"truth={folder / 'my-judge'}", "xstest=strmatch")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The summaries of one recording, evaluated from two places under two folders with a judge
    copied to two more.
    """
    found = []
    here = Path.cwd()
    rows = "".join(
        json.dumps({"id": f"gsm8k/{n}", "outputs": ["22 or 12"[: 2 + 6 * n]]}) + "\n"
        for n in range(6)
    )
    for place in ("one", "two"):
        base = tmp_path_factory.mktemp(place)
        (base / "answers.jsonl").write_text(rows)
        judges = copied_judges(base / "judges")
        os.chdir(base)
        argument = "replay:answers.jsonl" if place == "one" else f"replay:{base}/answers.jsonl"
        try:
            # TruthfulQA's answers are missing, so its judge is named and never asked.
            changes: dict[str, Any] = {
                "model": argument,
                "judges": judges,
                "tasks": ("gsm8k", "truthfulqa"),
            }
            run(settings(base / f"out-{place}", **changes))
            found.append((base / f"out-{place}" / "summary.json").read_text("utf-8"))
        finally:
            os.chdir(here)
    return found


def test_equal_runs_in_different_places_have_equal_summaries(texts: list[str]) -> None:
    assert texts[0] == texts[1]
    summary = json.loads(texts[0])
    assert summary["judges"]["truth"]["name"] == "my-judge"
    assert summary["model"]["id"] == "answers.jsonl"


def test_a_summary_names_no_time_path_or_host(texts: list[str]) -> None:
    for private in (
        "/tmp",
        "/home",
        "/root",
        os.path.expanduser("~"),
        platform.release(),
        platform.python_version(),
    ):
        assert private not in texts[0]
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", texts[0])
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d|wall_s|ended", texts[0])
    assert not re.search(
        r'"[^"]*(?<!no )/[^"]*/[^"]*"', texts[0].replace("llama-3.1-tulu-2/1", "")
    ), "something looks like a path"


def test_keys_are_sorted_and_floats_have_ten_digits(texts: list[str]) -> None:
    floats: list[float] = []

    def in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
        floats.extend(value for _, value in pairs if isinstance(value, float))
        return dict(pairs)

    summary = json.loads(texts[0], object_pairs_hook=in_order)
    assert summary["cells"]["gsm8k"]["ci95"]
    assert any(value not in (0.0, 1.0) for value in floats)
    assert all(value == float(f"{value:.10g}") for value in floats)
    assert "NaN" not in texts[0]
    assert texts[0].endswith("}\n")


def test_a_summary_has_what_every_reader_needs(texts: list[str]) -> None:
    summary = json.loads(texts[0])
    assert {
        "schema",
        "protocol",
        "suite",
        "limit",
        "seed",
        "model",
        "chat_format",
        "bos_tokens",
        "judges",
        "data",
    } <= set(summary)
    assert set(summary["cells"]["gsm8k"]) == {
        "value",
        "n",
        "n_items",
        "stderr",
        "ci95",
        "estimator",
        "reason",
        "marks",
        "n_judged",
        "n_unparsable",
    }
    assert {
        "truncated",
        "unparsed",
        "empty",
        "capped",
        "n_items",
        "n_answered",
        "n_scored",
        "warnings",
    } <= set(summary["tasks"]["gsm8k"])


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        ("strmatch", "strmatch"),
        ("openai:gpt-4-0613", "openai:gpt-4-0613"),
        ("openai:gpt-4-0613@http://10.0.0.7:8000/v1", "openai:gpt-4-0613@own-server"),
        ("allenai/truthfulqa-truth-judge-llama2-7B", "allenai/truthfulqa-truth-judge-llama2-7B"),
        ("/gone/judges/truth", "truth"),
        ("~/gone/truth", "truth"),
        ("./gone/truth", "truth"),
    ],
)
def test_a_judges_public_name_hides_where_it_is_and_never_becomes_the_cards(
    judge: str, name: str
) -> None:
    assert public_name(judge) == name
    assert (name in CARD_JUDGES.values()) == (judge in CARD_JUDGES.values())
