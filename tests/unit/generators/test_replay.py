"""Recorded outputs: every documented form is read, and a hostile file gets one sentence naming file
and line.
"""

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.generators import Failure
from evals.generators.replay import (
    NOT_A_ROW,
    ReplayGenerator,
    finding_from_json,
    read_recorded,
    recorded_row,
)
from evals.models.prompts import Rendered
from evals.records import Completion, Finding, ItemId, Outcome, Output, Sampling
from evals.runs.grading import finding_json
from evals.storage.run_folder import RunFolder

GOOD = json.dumps({"id": "gsm8k/1", "outputs": ["42"]})


def file_of(tmp_path: Path, *lines: str | bytes, name: str = "rows.jsonl") -> Path:
    """A file of these lines."""
    path = tmp_path / name
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    )
    return path


def failure(path: Path) -> str:
    """What reading the file says."""
    with pytest.raises(InputError) as caught:
        read_recorded(path)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 600
    return str(caught.value)


def request(item_id: str, *, labels: bool = False) -> Rendered:
    """A request as the engine gets it."""
    offered = (("A", " A"), ("B", " B")) if labels else ()
    return Rendered(ItemId(item_id), "", "", (), (), Sampling(1), 1, labels=offered)


# --- documented forms -----------------------------------------------------------------------------

ROWS: dict[str, tuple[dict[str, Any], Completion]] = {
    "one text": ({"outputs": ["42"]}, Completion((Output("42"),))),
    "several texts, cut and with ids": (
        {"outputs": ["a", "b"], "finish_reasons": ["length", "stop"], "token_ids": [[1, 2], [3]]},
        Completion((Output("a", "length", (1, 2)), Output("b", "stop", (3,)))),
    ),
    "an empty text": ({"outputs": [""]}, Completion((Output(""),))),
    "log-probabilities": (
        {"choice_logprobs": {"A": -1.2, "B": 0}},
        Completion(choice_logprobs={"A": -1.2, "B": 0.0}),
    ),
    "log-probabilities of nothing": (
        {"choice_logprobs": {"A": "-inf"}, "outputs": []},
        Completion(choice_logprobs={"A": float("-inf")}),
    ),
    "half a surrogate pair, which the engine's room replaces": (
        {"outputs": ["a\ud83d"]},
        Completion((Output("a\ud83d"),)),
    ),
}


@pytest.mark.parametrize(("row", "completion"), ROWS.values(), ids=ROWS)
def test_a_row_of_a_documented_form_is_read(
    tmp_path: Path, row: dict[str, Any], completion: Completion
) -> None:
    (recorded,) = read_recorded(file_of(tmp_path, json.dumps({"id": "gsm8k/1", **row}))).values()
    assert recorded.completion == completion
    assert recorded.findings == {}


FINDINGS: dict[str, tuple[Any, Finding]] = {
    "a judge's words": ("refusal", Finding("recorded", text="refusal")),
    "no words": (None, Finding("recorded", text="")),
    "a probability": (0.25, Finding("recorded", probability=0.25, preference=0.25)),
    "a preference": (2, Finding("recorded", preference=2.0)),
    "yes": (True, Finding("recorded", text="yes", outcome=Outcome("passed"))),
    "no": (False, Finding("recorded", text="no", outcome=Outcome("wrong_answer"))),
    "a status": ("time", Finding("recorded", text="time", outcome=Outcome("time"))),
    "an object of words": ({"by": "gpt", "text": "following"}, Finding("gpt", text="following")),
    "an object with a status": (
        {"outcome": "passed"},
        Finding("recorded", outcome=Outcome("passed")),
    ),
    "an object with an outcome": (
        {"by": "sandbox", "outcome": {"status": "exception", "detail": "KeyError"}},
        Finding("sandbox", outcome=Outcome("exception", "KeyError")),
    ),
    "an object with log-probabilities": (
        {"text": "m", "top_logprobs": {"m": -0.1, "M": -2}},
        Finding("recorded", text="m", top_logprobs={"m": -0.1, "M": -2.0}),
    ),
}


@pytest.mark.parametrize(("value", "finding"), FINDINGS.values(), ids=FINDINGS)
def test_a_finding_of_a_documented_form_is_read(value: Any, finding: Finding) -> None:
    assert finding_from_json(value) == finding


@pytest.mark.parametrize("finding", [finding for _, finding in FINDINGS.values()], ids=FINDINGS)
def test_a_finding_as_samples_hold_it_reads_back_as_it_was(finding: Finding) -> None:
    assert finding_from_json(json.loads(json.dumps(finding_json(finding)))) == finding


def test_findings_may_be_a_list_naming_their_check_or_role() -> None:
    listed = [{"check": "sample/0", "outcome": "passed"}, {"role": "truth", "probability": 1}]
    found = recorded_row({"outputs": ["x"], "findings": listed}).findings
    assert found == {
        "sample/0": Finding("recorded", outcome=Outcome("passed")),
        "truth": Finding("recorded", probability=1.0),
    }


def test_a_file_may_be_gzipped_begin_with_a_byte_order_mark_and_have_blank_lines(
    tmp_path: Path,
) -> None:
    text = "\ufeff" + GOOD + "\r\n\n" + GOOD.replace("/1", "/2")
    plain = tmp_path / "a.jsonl"
    plain.write_text(text, "utf-8")
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_recorded(plain) == read_recorded(packed)
    assert set(read_recorded(plain)) == {"gsm8k/1", "gsm8k/2"}


def test_a_folder_of_samples_is_read_as_a_run_wrote_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_samples(
        "gsm8k",
        [
            {
                "id": "gsm8k/1",
                "outputs": ["4\ud800"],
                "finish_reasons": ["length"],
                "n_tokens": [1],
                "score": 0.0,
            }
        ],
    )
    run.write_samples(
        "mmlu", [{"id": "mmlu/x/0", "outputs": [], "choice_logprobs": {"A": "-inf", "B": -0.5}}]
    )
    recorded = read_recorded(tmp_path / "samples")
    assert recorded[ItemId("gsm8k/1")].completion == Completion((Output("4\ud800", "length"),))
    assert recorded[ItemId("mmlu/x/0")].completion.choice_logprobs == {
        "A": float("-inf"),
        "B": -0.5,
    }


# --- the generator --------------------------------------------------------------------------------


def test_an_item_the_file_lacks_or_answers_in_the_wrong_form_is_a_failure_not_an_empty_answer(
    tmp_path: Path,
) -> None:
    lines = [
        GOOD,
        json.dumps({"id": "gsm8k/2", "choice_logprobs": {"A": -1}}),
        json.dumps({"id": "mmlu/x/0", "choice_logprobs": {"A": -1, "B": -2}}),
        json.dumps({"id": "mmlu/x/1", "choice_logprobs": {}}),
        json.dumps({"id": "mmlu/x/2", "choice_logprobs": {"A": -1, "C": -2}}),
        json.dumps({"id": "mmlu/x/3", "choice_logprobs": {"A": "nan", "B": -2}}),
    ]
    generator = ReplayGenerator(read_recorded(file_of(tmp_path, *lines)))
    asked = [
        request("gsm8k/1"),
        request("gsm8k/2"),
        request("gsm8k/3"),
        *(request(f"mmlu/x/{n}", labels=True) for n in range(4)),
    ]
    answers = dict(
        zip(
            ("right", "no text", "absent", "choice", "no letter", "one letter", "no number"),
            (answer for done in generator.stream(asked) for _, answer in done),
            strict=True,
        )
    )
    assert answers["right"] == Completion((Output("42"),))
    assert answers["no text"] == Failure("the file's row has no outputs")
    assert answers["absent"] == Failure("the file has no row for it")
    assert answers["choice"] == Completion(choice_logprobs={"A": -1.0, "B": -2.0})
    assert answers["no letter"] == Completion(choice_logprobs={})
    assert answers["one letter"] == Failure("the file's row has no log-probability of B")
    assert answers["no number"] == Failure("the file's row has no log-probability of A")


# --- hostile files --------------------------------------------------------------------------------

BAD_LINES: dict[str, str | bytes] = {
    "not JSON": "hello",
    "cut short": '{"id": "gsm8k/2", "outputs": ["4',
    "a pickle": pickle.dumps({"id": "gsm8k/2"}, protocol=4),
    "not UTF-8": b'{"id": "gsm8k/2", "outputs": ["\xff\xfe"]}',
    "a list": '["gsm8k/2"]',
    "a text": '"gsm8k/2"',
    "a number": "7",
    "no id": '{"outputs": ["42"]}',
    "an id that is a number": '{"id": 2, "outputs": ["42"]}',
    "an id that is a list": '{"id": ["gsm8k/2"], "outputs": ["42"]}',
    "neither outputs nor log-probabilities": '{"id": "gsm8k/2"}',
    "outputs as one text": '{"id": "gsm8k/2", "outputs": "42"}',
    "outputs of numbers": '{"id": "gsm8k/2", "outputs": [42]}',
    "outputs by name": '{"id": "gsm8k/2", "outputs": {"0": "42"}}',
    "log-probabilities in a list": '{"id": "gsm8k/2", "choice_logprobs": [-1, -2]}',
    "log-probabilities of words": '{"id": "gsm8k/2", "choice_logprobs": {"A": "high"}}',
    "a log-probability past every float": (
        '{"id": "gsm8k/2", "choice_logprobs": {"A": 1' + "0" * 400 + "}}"
    ),
    "a number past every integer": (
        '{"id": "gsm8k/2", "choice_logprobs": {"A": ' + "9" * 5000 + "}}"
    ),
    "token ids of words": '{"id": "gsm8k/2", "outputs": ["42"], "token_ids": ["ab"]}',
    "findings as a text": '{"id": "gsm8k/2", "outputs": ["42"], "findings": "refusal"}',
    "a finding in a list without a name": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": [{"text": "refusal"}]}'
    ),
    "a finding that is a list": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"xstest": ["refusal"]}}'
    ),
    "a finding that is no number": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"truth": NaN}}'
    ),
    "a finding past every number": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"truth": {"probability": Infinity}}}'
    ),
    "words that are a number": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"truth": {"text": 5}}}'
    ),
    "an unknown outcome": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"sample/0": {"outcome": "excellent"}}}'
    ),
    "log-probabilities of a verdict in a list": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": {"a": {"top_logprobs": ["m"]}}}'
    ),
    "deep nesting": '{"id": "gsm8k/2", "outputs": ' + "[" * 200_000,
    "deep findings": (
        '{"id": "gsm8k/2", "outputs": ["42"], "findings": '
        + '{"a":' * 50_000
        + "1"
        + "}" * 50_000
        + "}"
    ),
    "an id of an unknown task": '{"id": "gsm9k/2", "outputs": ["42"]}',
    "an id that is a path": '{"id": "../../etc/passwd", "outputs": ["42"]}',
    "an id of no item": '{"id": "gsm8k", "outputs": ["42"]}',
    "an empty id": '{"id": "", "outputs": ["42"]}',
    "an id twice": GOOD,
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_refused_by_file_and_number(tmp_path: Path, line: str | bytes) -> None:
    assert failure(file_of(tmp_path, GOOD, "", line)).startswith("rows.jsonl, line 3: ")


def test_an_unknown_task_gets_the_nearest_names(tmp_path: Path) -> None:
    assert "Did you mean gsm8k?" in failure(
        file_of(tmp_path, BAD_LINES["an id of an unknown task"])
    )


def test_an_id_twice_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    file_of(tmp_path, GOOD, name="a.jsonl")
    file_of(tmp_path, GOOD, name="b.jsonl")
    assert failure(tmp_path) == "b.jsonl, line 1: gsm8k/1 is there twice."


def test_a_huge_line_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "bomb.jsonl.gz"
    plain.write_bytes(GOOD.encode() + b"\n")
    os.truncate(plain, 1 << 40)  # a sparse file: a terabyte of zero bytes without a newline
    packed.write_bytes(gzip.compress(GOOD.encode() + b"\n" + b" " * (40 << 20)))
    assert failure(plain) == "rows.jsonl, line 2: longer than 32 MB."
    assert failure(packed) == "bomb.jsonl.gz, line 2: longer than 32 MB."


def test_a_damaged_archive_is_refused_by_file_and_line(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"id": f"gsm8k/{n}", "outputs": [os.urandom(60).hex()]}) + "\n"
        for n in range(3000)
    )
    whole = gzip.compress(rows.encode())
    for raw in (
        whole[: len(whole) // 2],
        whole[:-6],
        whole[:2000] + bytes(3000) + whole[5000:],
        b"no gzip at all",
        b"\x80\x04K\x01.",
    ):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(raw)
        assert failure(path).startswith("rows.jsonl.gz, line ")


@pytest.mark.parametrize("raw", [b"", b"\n\n  \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    assert failure(path) == "rows.jsonl holds no recorded outputs."


def test_a_runs_folder_says_where_its_samples_are(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").write_samples("gsm8k", [{"id": "gsm8k/1", "outputs": ["4"]}])
    assert failure(tmp_path / "run").endswith(
        f"A run's are in its samples: replay:{tmp_path / 'run' / 'samples'}."
    )
    assert list(read_recorded(tmp_path / "run" / "samples")) == ["gsm8k/1"]


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert failure(tmp_path / "absent.jsonl").startswith("absent.jsonl, line 1: cannot be read")


def test_an_answer_longer_than_any_is_refused_for_a_line_of_samples_could_not_hold_it() -> None:
    assert recorded_row({"outputs": ["x" * 1_000_000]}).completion.outputs
    refused: list[tuple[dict[str, Any], str]] = [
        ({"outputs": ["x" * 5_000_000] * 2}, "10,000,004 bytes are more than an answer has"),
        ({"outputs": ["\0" * 1_500_000]}, "9,000,002 bytes are more than an answer has"),
        ({"outputs": ["x"], "reasoning": ["x" * 8_000_000]}, "bytes are more than an answer has"),
        ({"outputs": ["x"], "findings": {"truth": "x" * 8_000_000}}, "more than judges say of an"),
    ]
    for row, said in refused:
        with pytest.raises(ValueError, match=said):
            recorded_row(row)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["outputs", "choice_logprobs", "findings", "finish_reasons", "token_ids"])


@given(st.dictionaries(FIELDS, JSON))
def test_any_row_is_read_as_an_answer_or_refused(row: dict[str, Any]) -> None:
    try:
        recorded = recorded_row(row)
    except NOT_A_ROW:
        return
    assert recorded.completion.outputs or recorded.completion.choice_logprobs is not None
