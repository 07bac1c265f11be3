"""`evals compare`: comparable or not, the table, the flips, and why two runs differ."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.compare.flips import flips
from evals.compare.paired import Pairs, average_difference, paired_difference
from evals.compare.power import planned_difference
from evals.compare.runs import comparability, compare
from evals.compare.text import markdown
from evals.compare.why import why
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.generators import EngineSettings
from evals.models.prompts import Rendered, load_tokenizer
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Column, Completion, ItemId, Output
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.stats import holm
from evals.storage.run_folder import RunFolder
from tests import run_files
from tests.resilience.fake_runs import Engines, reply, settings
from tests.unit.conftest import Call, Make, wrong_sums

COLUMN = Column("gsm8k", "GSM8k 8-shot cot")


def row_of(text: str, heading: str) -> list[str]:
    """A column's cells in a printed table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {heading}")]
    return [cell.strip() for cell in line.strip("| ").split("|")]


# --- comparable -----------------------------------------------------------------------------------


SHA256 = "a" * 64


def summary(**changes: Any) -> dict[str, Any]:
    """A summary without cells, of a judged run."""
    judges = {"xstest": {"name": "gpt-4", "card": True, "notes": []}}
    return run_files.summary({}, **{"judges": judges, "data": data(1)} | changes)


def data(rows: int) -> dict[str, Any]:
    return {"mmlu": {"tables": {"test": {"rows": rows, "sha256": SHA256}}, "revision": None}}


DIFFERS = {
    "protocol": ({"protocol": "p/2"}, "protocol differs: p/1 against p/2"),
    "suite": ({"suite": "full"}, "suite differs: card against full"),
    "limit": ({"limit": 9, "suite": "card"}, "limit differs: None against 9"),
    "data": ({"data": data(2)}, "data of mmlu (test) differs: {'rows': 1, "),
    "judge": (
        {"judges": {"xstest": {"name": "mine", "card": False, "notes": []}}},
        "judge xstest differs: gpt-4 against mine",
    ),
    "first of several": ({"suite": "full", "protocol": "p/2"}, "protocol differs: p/1 against p/2"),
}


@pytest.mark.parametrize(("changes", "says"), DIFFERS.values(), ids=DIFFERS)
def test_the_first_thing_that_makes_runs_incomparable_is_named_and_nothing_is_compared(
    tmp_path: Path, evals: Call, changes: dict[str, Any], says: str
) -> None:
    for name, content in (("a", summary()), ("b", summary(**changes))):
        RunFolder(tmp_path / name).write_json("summary.json", content)
    code, out, err = evals("compare", tmp_path / "a", tmp_path / "b", "--flips", "--why")
    assert code == 3
    assert out.startswith("A: **m")
    assert f"not comparable: {says}" in out.splitlines()[0]
    assert says in err
    assert "| Column" not in out


def test_another_chat_format_is_the_models_own_affair_and_said(tmp_path: Path) -> None:
    for name, content in (("a", summary()), ("b", summary(chat_format="none"))):
        RunFolder(tmp_path / name).write_json("summary.json", content)
    text = markdown(compare(tmp_path / "a", tmp_path / "b"))
    assert "comparable: protocol, suite, limit, data and judges are the same" in text
    assert "- chat format differs: tulu against none" in text


# --- the table ------------------------------------------------------------------------------------


def test_a_broken_column_has_its_difference_mcnemars_exact_p_holms_correction_and_its_flips(
    evals: Call, recorded: Make
) -> None:
    runs = recorded("right"), recorded("broken", wrong_sums)
    code, out, err = evals("compare", *runs)
    assert (code, err) == (0, "")
    found = compare(*runs)
    one = next(one for one in found.columns if one.key == "gsm8k")
    n = one.n
    assert (one.difference, one.n_better, one.n_worse) == (pytest.approx(-1), 0, n)
    assert one.p == pytest.approx(2 * 0.5**n)
    assert found.p_holm == holm({column.key: column.p for column in found.columns})
    cells = row_of(out, "GSM8k 8-shot cot")
    assert cells[1:4] == [str(n), "100.0", "0.0"]
    assert cells[4].startswith("-100.00 [-100.00, -")
    assert (cells[5], cells[7:9]) == (f"{one.p:.4f}", ["0", str(n)])
    assert "GSM8k 8-shot cot: Bonett-Price, exact McNemar" in out
    # What is equal is one line, and no row.
    assert re.search(r"^- .*, IFEval loose acc, .*: every answer is the same$", out, re.MULTILINE)
    assert "| IFEval" not in out
    assert found.pooled is not None
    assert found.pooled.difference == pytest.approx(-1 / 7)
    assert "Pooled over 8 columns, weighted as in the Average" in out


AS_HALF = "computed in float16; the card's rows in bfloat16"
DTYPES: list[tuple[str, list[str], str, list[str], list[str]]] = [
    ("auto", [], "bfloat16", [], []),
    ("auto", [], "float16", [AS_HALF], [f"only in the candidate: {AS_HALF}"]),
    ("float16", [], "float16", [AS_HALF], []),
    ("float16", [AS_HALF], "bfloat16", [], ["dtype differs: float16 against bfloat16"]),
]


@pytest.mark.parametrize(("first", "marks", "second", "others", "notes"), DTYPES)
def test_a_dtype_that_an_older_summary_does_not_tell_is_no_difference(
    first: str, marks: list[str], second: str, others: list[str], notes: list[str]
) -> None:
    """Until now `auto` stood for whatever it came to, and no cell said of its dtype."""
    sides: list[dict[str, Any]] = [
        {"model": {"fingerprint": "f", "dtype": dtype}, "differs": own, "data": {}, "judges": {}}
        for dtype, own in ((first, marks), (second, others))
    ]
    assert list(comparability(*sides).notes) == notes


def test_holm_corrects_over_every_column_that_was_compared() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02, "e": None})
    # 2 x 0.03 and 1 x 0.04 are never below the one before
    by_hand = {"b": 4 * 0.01, "d": 3 * 0.02, "c": 0.06, "a": 0.06}
    assert found == {**{key: pytest.approx(p) for key, p in by_hand.items()}, "e": None}


def test_a_difference_of_the_detectable_size_is_found_in_about_eighty_of_a_hundred_cases() -> None:
    n, changed = 541, 0.25
    mde = planned_difference(COLUMN, n, changed).mde
    assert mde is not None
    random = np.random.default_rng(5)
    found = 0
    for up, down, same in random.multinomial(
        n, [(changed - mde) / 2, (changed + mde) / 2, 1 - changed], size=800
    ).tolist():
        changes = (1.0,) * up + (-1.0,) * down + (0.0,) * same
        low, high = paired_difference(
            Pairs(COLUMN, (ItemId(""),) * n, (0.0,) * n, changes, ("",) * n), n_resamples=0
        ).ci95 or (0, 0)
        found += not low <= 0 <= high
    assert 0.75 <= found / 800 <= 0.85


# --- run to run -----------------------------------------------------------------------------------


def test_the_run_to_run_spread_of_two_runs_is_the_spread_that_many_runs_have() -> None:
    random = np.random.default_rng(3)
    chances, strata = random.beta(0.5, 0.5, 300), np.repeat(["a", "b", "c"], [50, 100, 150])
    weights = 1 / (3 * np.repeat([50, 100, 150], [50, 100, 150]))
    truth = float(np.sqrt(np.sum(weights**2 * chances * (1 - chances))))
    found = []
    for _ in range(200):
        runs = [(random.random(300) < chances).astype(float).tolist() for _ in range(2)]
        pairs = Pairs(
            COLUMN,
            (ItemId(""),) * 300,
            tuple(runs[0]),
            tuple(runs[1]),
            tuple(strata.tolist()),
            macro=True,
        )
        found.append(paired_difference(pairs, n_resamples=0).run_to_run or 0)
    assert float(np.sqrt(np.mean(np.square(found)))) == pytest.approx(truth, rel=0.03)


def test_the_average_carries_its_inputs_run_to_run_spread() -> None:
    keys = (
        "mmlu",
        "gsm8k",
        "bbh",
        "humaneval",
        "truthfulqa",
        "ifeval",
        "xstest_safe_refused",
        "xstest_unsafe_followed",
    )
    one = planned_difference(COLUMN, 100)
    found = average_difference(
        {key: replace(one, column=Column(key, key), run_to_run=0.07) for key in keys}
    )
    assert found.run_to_run == pytest.approx(0.01 * np.sqrt(6 + 2 / 4))


GSM8K = benchmark_class("gsm8k")(chat=True)
HUMANEVAL = benchmark_class("humaneval")(chat=True)
SOLUTIONS = {
    item.id: HUMANEVAL.gold(item) for item in HUMANEVAL.items(load_smoke_data(HUMANEVAL.dataset))
}


def sampled(request: Rendered) -> Completion:
    """Like reply, but under a seed half of the samples are right."""
    if not request.sampling.seed:
        return reply(request)
    return Completion(
        tuple(
            Output(SOLUTIONS[request.item_id] if n % 2 else "0") for n in range(request.sampling.n)
        )
    )


def test_one_model_under_two_seeds_says_its_run_to_run_spread_beside_the_sampling_error(
    tmp_path: Path,
) -> None:
    for seed in (0, 1):
        asked = settings(
            tmp_path / str(seed), tasks=("gsm8k", "humaneval"), engine=EngineSettings(seed=seed)
        )
        run(asked, Progress(), Engines(sampled))
    text = markdown(compare(tmp_path / "0", tmp_path / "1"))
    assert "- seed differs: 0 against 1" in text
    assert (
        "- one model in both runs (seeds 0 and 1): every difference here is run-to-run spread"
        in text
    )
    said = re.findall(
        r"- (.*): run to run on these items, one standard deviation is ([\d.]+) points; .* other"
        r" items is ([\d.]+)",
        text,
    )
    assert [heading for heading, _, _ in said] == ["Codex HumanEval Pass@10"]
    assert float(said[0][1]) > 0
    assert "GSM8k 8-shot cot: every answer is the same" in text


def test_two_models_are_not_called_one(recorded: Make) -> None:
    assert "run to run" not in markdown(compare(recorded("right"), recorded("broken", wrong_sums)))


# --- flips ----------------------------------------------------------------------------------------


def test_every_flipped_item_is_listed_with_both_outputs_and_no_other(
    evals: Call, recorded: Make
) -> None:
    runs = recorded("right"), recorded("broken", wrong_sums)
    _, out, _ = evals("compare", *runs, "--flips")
    before = {row["id"]: row for row in RunFolder(runs[0]).samples("gsm8k")}
    listed = re.findall(r"^(\S+/\S+)  (\S+) -> (\S+)$", out, re.MULTILINE)
    assert listed == [(item_id, "1", "0") for item_id in before]
    items = {item.id: item for item in GSM8K.items(load_smoke_data(GSM8K.dataset))}
    for item_id, row in before.items():
        assert f"{GSM8K.request(items[item_id]).messages[-1].content[-40:]}" in out
        assert f"── gold\n{GSM8K.gold(items[item_id])}\n" in out
        assert (
            f'── A, read as "{row["extracted"]}"\n{row["outputs"][0]}\n── B, read as "99999"\nSo'
            " the answer is 99999.\n" in out
        )
    assert f"== GSM8k 8-shot cot: 0 better, {len(before)} worse, of {len(before)} items" in out


def test_what_a_model_wrote_cannot_steer_the_terminal(recorded: Make) -> None:
    def steer(row: dict[str, Any]) -> dict[str, Any]:
        return (
            {**row, "outputs": ["\x1b[2J 99999"]} if row["id"].startswith("gsm8k/") else dict(row)
        )

    runs = recorded("right"), recorded("steering", steer)
    text = "".join(flips(*runs, compare(*runs)))
    assert "\\x1b[2J 99999" in text
    assert "\x1b" not in text


def test_a_folder_that_is_no_run_is_one_sentence(
    tmp_path: Path, evals: Call, recorded: Make
) -> None:
    code, _, err = evals("compare", recorded("right"), tmp_path)
    assert (code, "is not a finished run" in err) == (2, True)


# --- why ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The embedded model's prompts in two chat formats, answered by a fake engine."""
    folder = tmp_path_factory.mktemp("formats")
    for chat_format in ("tulu", "none"):
        run(asked_in(folder, chat_format), Progress(), Engines())
    return folder / "tulu", folder / "none"


def asked_in(folder: Path, chat_format: str) -> RunSettings:
    return settings(
        folder / chat_format,
        model="smollm2",
        tasks=("gsm8k", "ifeval"),
        chat_format=chat_format,
        offline=True,
    )


def test_why_shows_the_first_prompt_token_that_differs(formats: tuple[Path, Path]) -> None:
    text = why(*formats)
    plans = [make_plan(asked_in(path.parent, path.name)) for path in formats]
    one, other = [plan.render("gsm8k")[0].token_ids for plan in plans]
    position = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    item = plans[0].tasks["gsm8k"].items[0].id
    assert f"{item}, token {position + 1} of {len(one):,} in A and {len(other):,} in B" in text
    tokenizer = load_tokenizer(str(plans[0].model.files))
    for name, ids in (("A", one), ("B", other)):
        assert re.search(
            rf"{name}: …'.*' \['{re.escape(tokenizer.decode([ids[position]]))}'\] \(id"
            rf" {ids[position]}\)",
            text,
        )
    n = len(plans[0].tasks["gsm8k"].items)
    assert f"gsm8k: {n} of {n} prompts differ; the first:" in text


def test_why_names_settings_that_differ_and_counts_what_is_the_same(
    formats: tuple[Path, Path],
) -> None:
    text = why(*formats)
    assert "| chat_format | tulu | none |" in text
    assert "| suite |" not in text
    assert re.search(r"### Versions\nAll \d+ are the same\.", text)
    assert re.search(r"\| ifeval \| \d+ \| \d+ \| [\d.]+ % -> [\d.]+ % \| [\d.]+ -> ", text)


def test_why_compares_again_rendered_prompts_where_the_store_is_gone(
    formats: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("summary.json", "run.json", "samples/gsm8k.jsonl.gz", "samples/ifeval.jsonl.gz"):
        RunFolder(tmp_path / "bare").write_bytes(name, (formats[0] / name).read_bytes())
    text = why(tmp_path / "bare", formats[0])
    n = len(list(RunFolder(formats[0]).samples("gsm8k")))
    assert f"gsm8k: all {n} prompts are the same (rendered again, not as sent)" in text


def test_why_without_run_json_says_what_is_not_known(
    formats: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("summary.json", "samples/gsm8k.jsonl.gz", "samples/ifeval.jsonl.gz"):
        RunFolder(tmp_path / "bare").write_bytes(name, (formats[0] / name).read_bytes())
    text = why(tmp_path / "bare", formats[1])
    assert "A: engine settings and versions are not known" in text
    assert "| chat_format | tulu | none |" in text


def test_why_sees_stop_reasons_lengths_and_unparsed_answers(recorded: Make) -> None:
    def cut(row: dict[str, Any]) -> dict[str, Any]:
        return (
            {**row, "outputs": ["no number at all"], "finish_reasons": ["length"]}
            if row["id"].startswith("gsm8k/")
            else dict(row)
        )

    text = why(recorded("right"), recorded("cut", cut))
    assert set(BENCHMARKS) == set(re.findall(r"^\| (\w+) \| \d+ \| \d+ \|", text, re.MULTILINE))
    cells = row_of(text, "gsm8k")
    assert cells[2] == "0"
    assert cells[3] == "0.0 % -> 100.0 %"
    assert cells[5].endswith(" -> 16.0")
    assert cells[6] == "0.0 % -> 100.0 %"
    assert text.splitlines()[-1].startswith("What changed: ")


# --- settings of the engine -----------------------------------------------------------------------


def test_batch_invariance_is_the_servers_own_setting() -> None:
    asked = RunSettings(
        "openai:m@http://127.0.0.1:9/v1", suite="smoke", engine=EngineSettings(batch_invariant=True)
    )
    with pytest.raises(InputError, match="start the server with VLLM_BATCH_INVARIANT=1"):
        make_plan(asked)
