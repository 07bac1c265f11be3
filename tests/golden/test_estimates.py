"""Estimates beside a run's cells, on real pairs: recorded answers of GPT-4 to XSTest judged by
string match, and labels that people gave them.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import evals
from evals.commands.app import app
from evals.errors import InputError
from evals.fidelity.estimates import estimates
from evals.fidelity.labels import FIELDS, labels_of, sample, take
from evals.storage.run_folder import RunFolder
from tests.conftest import shared_folder

SAFE, UNSAFE = "XSTest safe but ref. (estimate)", "XSTest unsafe but follow (estimate)"


def recorded() -> dict[str, dict[str, str]]:
    """GPT-4's completions and people's labels by item."""
    folder = shared_folder("EVALS_REPLAY", "replay") / "xstest"
    file = folder / "xstest_v2_completions_gpt4_gpteval.csv"
    rows = csv.DictReader(io.StringIO(file.read_text("utf-8")))
    return {f"xstest/{row['id'].removeprefix('v2-')}": row for row in rows}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimates")
    lines = [
        json.dumps({"id": item, "outputs": [row["completion"]]}) + "\n"
        for item, row in recorded().items()
    ]
    (folder / "gpt4.jsonl").write_text("".join(lines))
    data, said = shared_folder("EVALS_DATA", "data"), f"replay:{folder / 'gpt4.jsonl'}"
    evals.run(said, judge="xstest=strmatch", data=data, out=folder / "run")
    return folder / "run"


def labelled(file: Path) -> None:
    """The sample as people labelled it."""
    known = recorded()
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"), newline="")))
    for row in rows:
        is_following = known[row["id"]]["final_label"] == "1_full_compliance"
        row["label"] = "following" if is_following else "refusal"
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    file.write_text(text.getvalue(), "utf-8", newline="")


def test_estimates_stand_in_columns_of_their_own_and_labels_sharpen_them(
    run: Path, tmp_path: Path
) -> None:
    before = CliRunner().invoke(app, ["report", str(run), "--format", "csv"]).output
    found = {one.heading: one for one in estimates(run)}
    assert set(found) == {SAFE, UNSAFE}
    assert found[SAFE].of == "gpt-4 (three classes)"
    # GPT-4 said 6.4 % where string match says 13.2 %.
    safe = found[SAFE].estimate
    assert safe.ci95 is not None
    assert safe.ci95[0] <= 0.064 <= safe.ci95[1]
    assert safe.n_models == 3
    assert found[UNSAFE].printed == (None, *(found[UNSAFE].estimate.ci95 or ()))
    assert "whose errors differ too much to name a value" in found[UNSAFE].mark()
    shown = CliRunner().invoke(app, ["report", str(run), "--estimate", "--format", "csv"]).output
    assert ",(0.0 to 100.0)" in shown

    file = tmp_path / "labels.csv"
    assert sample(run, "xstest", 150, file, None) == 150
    labelled(file)
    assert take(run, "xstest", file, None) == 150
    sharp = {one.heading: one for one in estimates(run)}
    truth = {SAFE: 21 / 250, UNSAFE: 1 / 200}
    for heading, share in truth.items():
        estimate = sharp[heading].estimate
        assert estimate.value is not None
        assert estimate.ci95 is not None
        assert estimate.ci95[0] <= share <= estimate.ci95[1]
        assert estimate.width is not None
        assert estimate.width < 0.12
        assert sharp[heading].prior == found[heading].estimate
        assert "from " in sharp[heading].mark()
    shown = CliRunner().invoke(app, ["report", str(run), "--estimate"])
    assert shown.exit_code == 0, shown.output
    assert SAFE in shown.output
    assert "labels that people gave: " in shown.output
    assert CliRunner().invoke(app, ["report", str(run), "--format", "csv"]).output == before
    assert len(labels_of(RunFolder(run), "xstest") or {}) == 150
    (run / "labels.json").unlink()


EDITS: dict[str, tuple[Callable[[str], str], str]] = {
    "an unknown item": (lambda text: text.replace("xstest/", "xtest/", 1), "is no item of"),
    "half of it": (lambda text: text.replace(",refusal", ",", 1), "1 of 40 rows have no label"),
    "a label that is none": (lambda text: text.replace(",refusal", ",refused", 1), "Did you mean"),
    "a row twice": (lambda text: _rows(text, [*range(40), 39]), "stands there twice"),
    "a row left out": (lambda text: _rows(text, [0, *range(2, 40)]), "some were left out"),
    "only rows of one's own choice": (lambda text: _rows(text, range(20, 40)), "left out"),
    "no row": (lambda text: _rows(text, []), "has no rows"),
    "another answer's": (lambda text: _other_check(text), "was labelled for another answer"),
    "no table": (lambda text: "nothing\nat all\n", "lacks columns"),
    "nothing": (lambda text: "", "lacks columns"),
    "a column less": (lambda text: _columns(text, ["id", "check", "label"]), "lacks columns"),
    "a row cut short": (lambda text: text + "xstest/1,what\r\n", "row 42 lacks cells"),
}


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _text(rows: list[dict[str, str]], fields: Sequence[str] = FIELDS, **how: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", **how)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(text: str, chosen: Iterable[int]) -> str:
    rows = _table(text)
    return _text([rows[n] for n in chosen])


def _columns(text: str, fields: Sequence[str]) -> str:
    return _text(_table(text), fields)


SPREADSHEETS: dict[str, Callable[[str], bytes]] = {
    "a mark of UTF-8": lambda text: text.encode("utf-8-sig"),
    "semicolons": lambda text: _text(_table(text), delimiter=";").encode(),
    "tabs": lambda text: _text(_table(text), delimiter="\t").encode(),
    "lines of Unix": lambda text: _text(_table(text), lineterminator="\n").encode(),
    "all quoted": lambda text: _text(_table(text), quoting=csv.QUOTE_ALL).encode(),
    "empty rows": lambda text: (text + "\r\n,,,,,\r\n").encode(),
    "another order": lambda text: _text(_table(text)[::-1], FIELDS[::-1]).encode(),
    "a column more": lambda text: _text(
        [{**row, "why": "because, \n"} for row in _table(text)], (*FIELDS, "why")
    ).encode(),
    "capitals": lambda text: text.replace(",refusal", ", Refusal ").encode(),
}


@pytest.mark.parametrize("saved", SPREADSHEETS.values(), ids=SPREADSHEETS)
def test_a_sample_is_read_as_a_spreadsheet_saves_it(
    run: Path, tmp_path: Path, saved: Callable[[str], bytes]
) -> None:
    file = tmp_path / "labels.csv"
    sample(run, "xstest", 40, file, None)
    labelled(file)
    plain = file.read_text("utf-8")
    assert take(run, "xstest", file, None) == 40
    expected = labels_of(RunFolder(run), "xstest")
    file.write_bytes(saved(plain))
    assert take(run, "xstest", file, None) == 40
    assert labels_of(RunFolder(run), "xstest") == expected
    (run / "labels.json").unlink()


def test_what_is_no_utf_8_is_refused_with_what_to_do(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("id;label\nxstest/1;\xe9".encode("latin-1"))
    with pytest.raises(InputError, match="Save the labelled sample as CSV in UTF-8"):
        take(run, "xstest", file, None)


def test_no_cell_of_a_sample_is_a_number_or_a_formula_to_a_spreadsheet(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"id": f"xstest/{n}", "outputs": ["=1+1" if n % 2 else "- no"]}) + "\n"
            for n in range(1, 451)
        )
    )
    data, said = shared_folder("EVALS_DATA", "data"), f"replay:{tmp_path / 'a.jsonl'}"
    evals.run(said, judge="xstest=strmatch", data=data, out=tmp_path / "run")
    sample(tmp_path / "run", "xstest", 450, tmp_path / "labels.csv", None)
    rows = _table((tmp_path / "labels.csv").read_text("utf-8"))
    assert {row["answer"] for row in rows} == {"'=1+1", "'- no"}
    for row in rows:
        with pytest.raises(ValueError, match="could not convert"):
            float(row["check"])


def test_labels_of_answers_that_the_run_holds_no_more_are_refused(
    run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    sample(run, "xstest", 40, file, None)
    labelled(file)
    take(run, "xstest", file, None)
    kept = run / "labels.json"
    kept.write_text(kept.read_text().replace('"answer": "', '"answer": "0', 1))
    with pytest.raises(InputError, match="labelled for another answer than the run holds now"):
        list(estimates(run))
    kept.unlink()


def _other_check(text: str) -> str:
    return text.replace(_table(text)[0]["check"], "0" * 12)


@pytest.mark.parametrize(("edit", "says"), EDITS.values(), ids=EDITS)
def test_a_damaged_sample_is_refused_in_one_sentence(
    run: Path, tmp_path: Path, edit: Callable[[str], str], says: str
) -> None:
    file = tmp_path / "labels.csv"
    sample(run, "xstest", 40, file, None)
    labelled(file)
    file.write_text(edit(file.read_text("utf-8")), "utf-8", newline="")
    with pytest.raises(InputError) as caught:
        take(run, "xstest", file, None)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "labels.json").exists()


def test_what_cannot_be_labelled_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("labels")
    for role, n, file, says in (
        ("truth", 100, "new.csv", "No labels are read for 'truth'"),
        ("alpaca_eval_1", 100, "new.csv", "has no answers of alpaca_eval"),
        ("xstest", 19, "new.csv", "give 20 or more"),
        ("xstest", 100, "there.csv", "exists, and may hold labels"),
    ):
        with pytest.raises(InputError, match=says):
            sample(run, role, n, tmp_path / file, None)
