"""A table that a dataset can do without: said before generation, taken from what was fetched."""

import json
from pathlib import Path

import pytest

from evals.data.dataset import content_hash
from evals.data.load import load_card_data
from evals.plan.items import TaskPlan, lacking
from evals.plan.naming_judges import judges_of
from evals.registry import benchmark_class
from tests.conftest import shared_folder

CLASS = benchmark_class("alpaca_eval")
ROW = dict.fromkeys(CLASS.dataset.tables["df_gamed"].fields, "1")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with both references and no df_gamed.csv; nothing fetched yet."""
    given = shared_folder("EVALS_DATA", "data") / "alpaca_eval"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    for name in ("alpaca_eval.json", "alpaca_eval_gpt4_baseline.json"):
        (folder / name).symlink_to(given / name)
    return folder.parent


def fetched(tmp_path: Path) -> Path:
    """What `evals data fetch` keeps of the table."""
    home = tmp_path / "cache" / "evals" / "data" / "alpaca_eval"
    home.mkdir(parents=True)
    (home / "df_gamed.jsonl").write_text(json.dumps(ROW) + "\n")
    tables = {"df_gamed": {"sha256": content_hash([ROW]), "rows": 1}}
    (home / "fetched.json").write_text(json.dumps({"revision": "x", "tables": tables}))
    return home / "df_gamed.jsonl"


def test_the_file_that_a_column_needs_is_named_before_anything_is_asked(data: Path) -> None:
    source = load_card_data([CLASS.dataset], data)["alpaca_eval"]
    benchmark = CLASS(chat=True)
    tasks = {"alpaca_eval": TaskPlan(benchmark, list(benchmark.items(source)), source)}
    judges = judges_of(["alpaca_eval_2=a/b"], [CLASS])
    (said,) = lacking(tasks, judges, "card")
    assert "alpaca_eval/df_gamed.csv" in said
    assert "evals data fetch alpaca_eval" in said
    assert lacking(tasks, {}, "card") == []
    assert lacking(tasks, judges, "smoke") == []


def test_what_was_fetched_fills_the_gap_and_a_damaged_copy_does_not(
    data: Path, tmp_path: Path
) -> None:
    def rows() -> list[dict[str, str]]:
        return list(load_card_data([CLASS.dataset], data)["alpaca_eval"].rows("df_gamed"))

    assert rows() == []
    file = fetched(tmp_path)
    assert rows() == [ROW]
    file.write_text(file.read_text().replace('"1"', '"2"', 1))
    assert rows() == []
