"""AlpacaEval against recorded GPT-4 annotations and published win rates."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.data.dataset import LoadedSource
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.fidelity.corpora import Recording
from evals.fidelity.corpora.alpaca_eval import recordings
from evals.records import Completion, Finding, Grade, ItemId, Message, Metric, Output
from tasks.alpaca_eval import AlpacaEval, AlpacaItem
from tasks.alpaca_judges import is_model_first, judge_request
from tests.recorded_alpaca import ROLES, said


@pytest.fixture(scope="module")
def source(data_dir: Path) -> LoadedSource:
    return load_card_data([AlpacaEval.dataset], data_dir)["alpaca_eval"]


@pytest.fixture(scope="module")
def items(source: LoadedSource) -> Sequence[AlpacaItem]:
    return AlpacaEval(chat=True).items(source)


@pytest.fixture(scope="module")
def recorded(items: Sequence[AlpacaItem], replay_dir: Path) -> dict[str, Recording]:
    about = json.loads((replay_dir / "alpaca_eval" / "README.json").read_text("utf-8"))
    return {
        recording.name: recording
        for recording in recordings(replay_dir / "alpaca_eval", about, items)
    }


def test_unreadable_annotations_are_a_share_of_all_and_leave_the_win_rate(
    recorded: Mapping[str, Recording], items: Sequence[AlpacaItem]
) -> None:
    n_unreadable = {}
    for name, recording in recorded.items():
        role, rate = (
            ("alpaca_eval_2", "alpaca_eval_2_win_rate")
            if name.startswith("weighted")
            else ("alpaca_eval_1", "alpaca_eval_1")
        )
        benchmark, answers = AlpacaEval(chat=True), recording.answers
        metrics = benchmark.summarize(
            [
                benchmark.grade(item, answers[item.id].completion, answers[item.id].findings)
                for item in items
            ]
        )
        n_unreadable[name.partition("/")[2]] = 805 - metrics[rate].n
        assert metrics[rate].n == metrics[rate].n_items
        assert metrics[f"{role}_unparsable"].value == pytest.approx((805 - metrics[rate].n) / 805)
    assert len(n_unreadable) == 9 + len(N_JUDGED)
    assert {name: n for name, n in n_unreadable.items() if n} == {
        "llama-2-13b-chat-hf": 1,
        "zephyr-7b-beta": 2,
        "gpt-3.5-turbo-0301": 1,
        "text_davinci_001": 1,
    }


N_JUDGED = {"gpt-3.5-turbo-1106": 801, "vicuna-7b-v1.5": 802, "alpaca-7b": 802}
"""Annotations with the judge's log-probabilities; the other answers equal the reference's."""


@pytest.mark.parametrize("model", N_JUDGED)
def test_recorded_log_probabilities_read_as_a_judge_give_every_recorded_preference(
    recorded: Mapping[str, Recording], items: Sequence[AlpacaItem], model: str
) -> None:
    role, benchmark, name = (
        "alpaca_eval_2",
        AlpacaEval(chat=True),
        f"weighted_alpaca_eval_gpt4_turbo/{model}",
    )
    preferences, said_by_judge = (
        recorded[name].answers,
        recorded[f"{name}, from the judge's log-probabilities"].answers,
    )
    n_judged, n_in_the_drawn_order = 0, 0
    for item in items:
        found, finding = (
            preferences[item.id].findings[role].preference,
            said_by_judge[item.id].findings[role],
        )
        completion = said_by_judge[item.id].completion
        is_asked = role in [check.name for check in benchmark.checks(item, completion)]
        assert is_asked == (finding.top_logprobs is not None)
        assert found is not None
        assert benchmark.grade(item, completion, {role: finding}).scores[role] == pytest.approx(
            found - 1, abs=1e-9
        )
        if finding.top_logprobs is not None:
            n_judged += 1
            first, second = (
                math.exp(finding.top_logprobs.get(letter, -math.inf)) for letter in "mM"
            )
            shown = 2 - first / (first + second)
            n_in_the_drawn_order += math.isclose(
                found, 3 - shown if is_model_first(item.instruction) else shown, abs_tol=1e-9
            )
    assert (n_judged, n_in_the_drawn_order) == (N_JUDGED[model], N_JUDGED[model])


def test_annotations_against_another_reference_are_refused(
    items: Sequence[AlpacaItem], replay_dir: Path
) -> None:
    about = json.loads((replay_dir / "alpaca_eval" / "README.json").read_text("utf-8"))
    others = [replace(items[0], references=dict.fromkeys(ROLES, "another")), *items[1:]]
    with pytest.raises(ValueError, match="row 1 is about no item"):
        list(recordings(replay_dir / "alpaca_eval", about, others))


# Grades.

ITEM = AlpacaItem(
    "alpaca_eval/0",
    "koala",
    "Say hello.",
    {"alpaca_eval_1": "Hello.", "alpaca_eval_2": "Hello there!"},
)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(instruction=st.text(max_size=30), wins=st.booleans())
def test_the_ranking_judge_is_un_switched(instruction: str, wins: bool) -> None:
    item = replace(ITEM, instruction=instruction)
    shown_first = is_model_first(instruction)
    model = "model_1" if shown_first else "model_2"
    other = "model_2" if shown_first else "model_1"
    text = repr(
        [{"model": model, "rank": 1 if wins else 2}, {"model": other, "rank": 2 if wins else 1}]
    )
    letter = ("m" if shown_first else "M") if wins else ("M" if shown_first else "m")
    findings = {
        "alpaca_eval_1": Finding("judge", text=text),
        "alpaca_eval_2": Finding("judge", text=letter, top_logprobs={letter: -0.1}),
    }
    grade = AlpacaEval(chat=True).grade(item, said("Hi."), findings)
    assert grade.scores == {"alpaca_eval_1": float(wins), "alpaca_eval_2": float(wins)}
    asked = (
        judge_request("alpaca_eval_1", instruction, "REFERENCE_TEXT", "MODEL_TEXT")
        .messages[1]
        .content
    )
    assert (asked.index("MODEL_TEXT") < asked.index("REFERENCE_TEXT")) == shown_first


def test_identical_answers_are_a_draw_without_a_judge() -> None:
    benchmark, answer = AlpacaEval(chat=True), said("Hello.")
    assert [check.name for check in benchmark.checks(ITEM, answer)] == ["alpaca_eval_2"]
    grade = benchmark.grade(ITEM, answer, {"alpaca_eval_2": Finding("recorded", preference=1.25)})
    assert grade.scores == {"alpaca_eval_1": 0.5, "alpaca_eval_2": 0.25}
    assert (grade.missing, grade.unparsed) == (None, False)


@pytest.mark.parametrize(
    ("recorded", "score"), [(1, 0.0), (2.0, 1.0), (0, 0.5), (0.0, 0.5), (1.5, 0.5), (1.125, 0.125)]
)
def test_a_recorded_preference_is_taken_as_it_is(recorded: float, score: float) -> None:
    grade = AlpacaEval(chat=True).grade(
        ITEM, said("Hi."), dict.fromkeys(ROLES, Finding("recorded", preference=recorded))
    )
    assert grade.scores == dict.fromkeys(ROLES, score)


@pytest.mark.parametrize(
    "finding",
    [
        Finding("recorded"),
        Finding("judge", text="I like both"),
        Finding("judge", preference=3),
        Finding("judge", preference=math.nan),
    ],
)
def test_an_unreadable_annotation_leaves_no_score_and_is_named(finding: Finding) -> None:
    grade = AlpacaEval(chat=True).grade(
        ITEM,
        said("Hi."),
        {"alpaca_eval_1": Finding("recorded", preference=2), "alpaca_eval_2": finding},
    )
    assert grade.scores == {"alpaca_eval_1": 1.0}
    assert (grade.unparsed, grade.missing, grade.details["unparsable"]) == (
        True,
        None,
        ["alpaca_eval_2"],
    )


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        ((), "no alpaca_eval judge"),
        (ROLES[:1], "no alpaca_eval_2 judge"),
        (ROLES[1:], "no alpaca_eval_1 judge"),
    ],
)
def test_an_absent_judge_is_named(present: tuple[str, ...], reason: str) -> None:
    grade = AlpacaEval(chat=True).grade(
        ITEM, said("Hi."), dict.fromkeys(present, Finding("recorded", preference=2))
    )
    assert (set(grade.scores), grade.missing) == (set(present), reason)


def _grades(*findings: Mapping[str, Finding]) -> list[Grade]:
    benchmark = AlpacaEval(chat=True)
    return [
        benchmark.grade(replace(ITEM, id=f"alpaca_eval/{row}"), said("Hi." * (row + 1)), found)  # type: ignore[arg-type]
        for row, found in enumerate(findings)
    ]


def test_unreadable_annotations_leave_the_denominator_and_absent_ones_withhold_the_value() -> None:
    win, lost, unreadable = (
        Finding("j", preference=2),
        Finding("j", preference=1),
        Finding("j", text="?"),
    )
    benchmark = AlpacaEval(chat=True)
    metrics = benchmark.summarize(
        _grades(
            *({"alpaca_eval_1": one, "alpaca_eval_2": one} for one in (win, win, lost, unreadable))
        )
    )
    assert metrics["alpaca_eval_1"].value == pytest.approx(2 / 3)
    assert (metrics["alpaca_eval_1"].n, metrics["alpaca_eval_1"].n_items) == (3, 3)
    assert metrics["alpaca_eval_1_unparsable"].value == 0.25
    withheld = benchmark.summarize(
        _grades({"alpaca_eval_1": win, "alpaca_eval_2": win}, {"alpaca_eval_1": win})
    )
    assert withheld["alpaca_eval_1"].value == 1.0
    assert (withheld["alpaca_eval_2_win_rate"].value, withheld["alpaca_eval_2_lc"].value) == (
        None,
        None,
    )
    assert withheld["alpaca_eval_2_lc"].reason == "1 of 2 items scored"
    nobody = benchmark.summarize(_grades({}, {}))
    assert {name: metric.reason for name, metric in nobody.items() if "unparsable" not in name} == {
        "alpaca_eval_1": "no alpaca_eval_1 judge",
        "alpaca_eval_2_lc": "no alpaca_eval_2 judge",
        "alpaca_eval_2_win_rate": "no alpaca_eval_2 judge",
    }
    unread = benchmark.summarize(
        _grades({"alpaca_eval_1": unreadable, "alpaca_eval_2": unreadable})
    )
    assert (unread["alpaca_eval_1"].value, unread["alpaca_eval_1"].reason) == (
        None,
        "no annotation could be read",
    )
    assert all(
        isinstance(metric, Metric) and metric.value is None
        for metric in benchmark.summarize([]).values()
    )


def test_the_length_controlled_cell_says_what_it_needs() -> None:
    metrics = AlpacaEval(chat=True).summarize(
        _grades(dict.fromkeys(ROLES, Finding("j", preference=2)))
    )
    cell = metrics["alpaca_eval_2_lc"]
    assert (cell.value, cell.reason) == (None, "length control needs the hub's df_gamed.csv")
    assert {column.key for column in AlpacaEval.own_columns()} <= set(metrics)


# Items.


def test_the_items_are_the_805_instructions_and_prompts_are_the_instructions_alone(
    source: LoadedSource,
) -> None:
    benchmark = AlpacaEval(chat=True)
    items = benchmark.items(source)
    assert [item.id for item in items] == [f"alpaca_eval/{row}" for row in range(805)]
    assert {
        group: sum(item.group == group for item in items)
        for group in {item.group for item in items}
    } == {"selfinstruct": 252, "oasst": 188, "koala": 156, "helpful_base": 129, "vicuna": 80}
    means = [sum(len(item.references[role]) for item in items) / 805 for role in ROLES]
    assert [round(mean) for mean in means] == [482, 2049]
    for item in items:
        request = benchmark.request(item)
        assert request.messages == (Message("user", item.instruction),)
        assert (
            request.opening,
            request.raw,
            request.sampling.max_tokens,
            request.sampling.temperature,
        ) == ("", False, 8192, 0.0)
        assert request.sampling.stop == ()


def test_reference_files_that_disagree_are_named_by_row(source: LoadedSource) -> None:
    rows = list(source.rows("references_2"))
    swapped = replace(
        source, tables={**source.tables, "references_2": [rows[0], rows[2], rows[1], *rows[3:]]}
    )
    with pytest.raises(InputError, match="alpaca_eval/1"):
        AlpacaEval(chat=True).items(swapped)
    shorter = replace(source, tables={**source.tables, "references_2": rows[:-1]})
    with pytest.raises(InputError, match=r"805 references .* 804"):
        AlpacaEval(chat=True).items(shorter)


def test_smoke_items_run_from_request_to_summary() -> None:
    benchmark = AlpacaEval(chat=True)
    items = benchmark.items(load_smoke_data(AlpacaEval.dataset))
    assert len(items) == 4
    grades = []
    for item in items:
        answer = said(item.references["alpaca_eval_1"] + " Enjoy!")
        findings = {
            check.name: Finding("judge", text="M") for check in benchmark.checks(item, answer)
        }
        grades.append(
            benchmark.grade(
                item, answer, findings | {"alpaca_eval_1": Finding("judge", preference=2)}
            )
        )
    metrics = benchmark.summarize(grades)
    assert metrics["alpaca_eval_1"].value == 1.0
    assert (
        metrics["alpaca_eval_2_win_rate"].value
        == sum(not is_model_first(item.instruction) for item in items) / 4
    )


def test_each_judge_is_asked_about_the_answer_against_its_own_reference(
    items: Sequence[AlpacaItem],
) -> None:
    item = items[0]
    checks = AlpacaEval(chat=True).checks(item, Completion((Output("mine"),)))
    assert [check.ask for check in checks] == [
        judge_request(role, item.instruction, reference, "mine")
        for role, reference in item.references.items()
    ]
    assert (
        AlpacaEval(chat=True)
        .checks(item, Completion((Output(item.references["alpaca_eval_1"]),)))[0]
        .name
        == "alpaca_eval_2"
    )


def test_a_rate_without_any_annotation_counts_none() -> None:
    unreadable = Grade(
        ItemId("alpaca_eval/0"), "", {}, details={"unparsable": ["alpaca_eval_1", "alpaca_eval_2"]}
    )
    found = AlpacaEval(chat=True).summarize([unreadable])["alpaca_eval_1"]
    assert (found.value, found.n, found.n_items, found.reason) == (
        None,
        0,
        0,
        "no annotation could be read",
    )
    absent = AlpacaEval(chat=True).summarize([Grade(ItemId("alpaca_eval/0"), "", {})])[
        "alpaca_eval_1"
    ]
    assert (absent.value, absent.n, absent.n_items, absent.reason) == (
        None,
        0,
        1,
        "no alpaca_eval_1 judge",
    )
