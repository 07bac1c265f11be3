"""`evals judge calibrate`: recorded verdicts as they were published, the live prompts, what is kept
and where it is shown.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

import evals
from evals.commands.app import main
from evals.data.load import load_card_data
from evals.errors import Incomplete, InputError
from evals.fidelity.calibration import calibrate
from evals.fidelity.calibration_data import read_verdicts
from evals.plan.items import spread
from evals.plan.settings import RunSettings
from evals.records import Choose, Generate
from evals.registry import benchmark_class
from evals.runs.progress import Progress
from tasks.alpaca_eval import AlpacaItem
from tasks.alpaca_judges import is_model_first
from tasks.xstest import judge_message, strmatch_label
from tests.openai_server import Body, Reply, Script, chat, error, serving

TO_CARD = {
    "1_full_compliance": "following",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "refusal",
}
GPT_4, PEOPLE = "gpt-4 (three classes)", "people"


def rows_of(replay_dir: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted((replay_dir / "xstest").glob("*_gpteval.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def calibrated(
    out: Path, *judges: str, replay: Path | None = None, **changes: Any
) -> dict[str, Any]:
    """The one record that a calibration writes."""
    calibrate(RunSettings("", judges=judges, out=out, **changes), replay, (), Progress(quiet=True))
    (path,) = out.glob("*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


# --- what is read ---------------------------------------------------------------------------------


def test_xstest_labels_are_the_released_ones_with_partial_refusals_as_refusals(
    replay_dir: Path,
) -> None:
    verdicts = read_verdicts("xstest", None, replay_dir)
    rows = rows_of(replay_dir)
    assert len(verdicts.answers) == 1350
    assert len({one.item.id for one in verdicts.answers}) == 1350
    assert len({one.question for one in verdicts.answers}) == 450
    for row, one in zip(rows, verdicts.answers, strict=True):
        assert one.by[GPT_4]["xstest"].text == TO_CARD.get(row["gpt4_label"], row["gpt4_label"])
        assert one.by[PEOPLE]["xstest"].text == TO_CARD[row["final_label"]]
        assert one.answer.text == row["completion"]
    assert (
        sum(
            one.by[GPT_4]["xstest"].text not in ("refusal", "following") for one in verdicts.answers
        )
        == 11
    )


def test_an_xstest_judge_is_asked_the_live_prompt_about_the_recorded_question(
    replay_dir: Path,
) -> None:
    verdicts = read_verdicts("xstest", None, replay_dir)
    for row, one in zip(rows_of(replay_dir), verdicts.answers, strict=True):
        (check,) = verdicts.benchmark.checks(one.item, one.answer)
        assert isinstance(check.ask, Generate)
        assert check.ask.messages[0].content == judge_message(row["prompt"], row["completion"])
        assert check.ask.sampling.max_tokens == 16


@pytest.mark.parametrize(("role", "n_yes"), [("truth", 1082), ("info", 2038)])
def test_truthfulqas_judges_are_asked_the_very_lines_people_labelled(
    role: str, n_yes: int, data_dir: Path
) -> None:
    verdicts = read_verdicts(role, data_dir, None)
    lines = (
        (data_dir / "truthfulqa" / f"finetune_{role}_dev.jsonl")
        .read_text(encoding="utf-8")
        .split("\n")
    )
    prompts = [json.loads(line)["prompt"] for line in lines if line]
    asked = [
        check.ask
        for one in verdicts.answers
        for check in verdicts.benchmark.checks(one.item, one.answer)
        if check.name == role
    ]
    assert all(
        isinstance(ask, Choose) and ask.raw and ask.candidates == (("yes", " yes"),)
        for ask in asked
    )
    assert [ask.messages[0].content for ask in asked] == prompts
    assert len(asked) == 2554
    assert sum(one.by[PEOPLE][role].probability == 1.0 for one in verdicts.answers) == n_yes
    assert len({one.question for one in verdicts.answers}) == 817


def test_answers_that_both_of_truthfulqas_sets_hold_give_the_column(data_dir: Path) -> None:
    verdicts = read_verdicts("truth", data_dir, None)
    grades = [
        verdicts.benchmark.grade(one.item, one.answer, one.by[PEOPLE]) for one in verdicts.answers
    ]
    both = [grade for grade in grades if "truthfulqa" in grade.scores]
    assert (
        len(
            {
                (one.question, one.answer.text)
                for one, g in zip(verdicts.answers, grades, strict=True)
                if g in both
            }
        )
        == 416
    )
    assert all(
        grade.scores["truthfulqa"] == grade.scores["truth"] * grade.scores["info"] for grade in both
    )


@pytest.mark.parametrize(("role", "n"), [("alpaca_eval_1", 5 * 805), ("alpaca_eval_2", 4 * 805)])
def test_alpaca_evals_judges_are_asked_as_in_a_live_run_in_the_order_of_the_protocol(
    role: str, n: int, data_dir: Path, replay_dir: Path
) -> None:
    verdicts = read_verdicts(role, None, replay_dir)
    cls = benchmark_class("alpaca_eval")
    live = {
        item.instruction: item
        for item in cls(chat=True).items(load_card_data([cls.dataset], data_dir)["alpaca_eval"])
    }
    assert len(verdicts.answers) == n
    for one in verdicts.answers[:900]:
        checks = {
            check.name: check.ask for check in verdicts.benchmark.checks(one.item, one.answer)
        }
        expected = {
            check.name: check.ask for check in cls(chat=True).checks(live[one.question], one.answer)
        }
        assert (role in checks) == (role in expected)
        if role in checks:
            assert checks[role] == expected[role]


def test_alpaca_evals_recorded_win_rates_come_back(replay_dir: Path) -> None:
    published = json.loads((replay_dir / "alpaca_eval" / "README.json").read_text())["published"]
    for role, annotator in (
        ("alpaca_eval_1", "alpaca_eval_gpt4"),
        ("alpaca_eval_2", "weighted_alpaca_eval_gpt4_turbo"),
    ):
        verdicts = read_verdicts(role, None, replay_dir)
        for row in (row for row in published if row["annotator"] == annotator):
            own = [one for one in verdicts.answers if one.author == row["model"]]
            grades = [
                verdicts.benchmark.grade(one.item, one.answer, next(iter(one.by.values())))
                for one in own
            ]
            scores = [grade.scores[role] for grade in grades if role in grade.scores]
            assert len(scores) == row["n_total"]
            assert 100 * sum(scores) / len(scores) == pytest.approx(row["win_rate"], abs=1e-9)


# --- what comes out -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strmatch(tmp_path_factory: pytest.TempPathFactory, replay_dir: Path) -> dict[str, Any]:
    return calibrated(tmp_path_factory.mktemp("strmatch"), "xstest=strmatch", replay=replay_dir)


@pytest.mark.parametrize(("who", "column"), [(GPT_4, "gpt4_label"), (PEOPLE, "final_label")])
def test_string_match_on_1350_real_labels_is_what_the_files_give_by_hand(
    strmatch: dict[str, Any], replay_dir: Path, who: str, column: str
) -> None:
    rows = rows_of(replay_dir)
    recorded = [TO_CARD.get(row[column], "unreadable") for row in rows]
    ours = [strmatch_label(row["completion"]) for row in rows]
    held = strmatch["against"][who]
    counts = Counter(zip(recorded, ours, strict=True))
    assert held["table"] == [[counts[was, now] for now in held["labels"]] for was in held["labels"]]
    assert held["kappa"]["value"] == pytest.approx(cohen_kappa_score(recorded, ours))
    assert held["agreement"]["value"] == pytest.approx(
        sum(was == now for was, now in zip(recorded, ours, strict=True)) / 1350
    )
    for cell, safe, label in (
        ("xstest_safe_refused", True, "refusal"),
        ("xstest_unsafe_followed", False, "following"),
    ):
        part = [
            (was, now)
            for row, was, now in zip(rows, recorded, ours, strict=True)
            if ("contrast" not in row["type"]) == safe
        ]
        difference = (
            sum(now == label for _, now in part) - sum(was == label for was, _ in part)
        ) / len(part)
        assert held["shifts"][cell]["value"] == pytest.approx(difference)
        low, high = held["shifts"][cell]["ci95"]
        assert low < difference < high
        assert set(held["shifts"][cell]["by_author"]) == {"gpt4", "llama2new", "mistralinstruct"}


def test_the_measured_figures_of_string_match(strmatch: dict[str, Any]) -> None:
    gpt_4, people = strmatch["against"][GPT_4], strmatch["against"][PEOPLE]
    assert (gpt_4["labels"], gpt_4["table"]) == (
        ["following", "refusal", "unreadable"],
        [[777, 129, 0], [60, 373, 0], [11, 0, 0]],
    )
    assert people["table"] == [[751, 29], [97, 473]]
    assert f"{gpt_4['kappa']['value']:.3f} {people['kappa']['value']:.3f}" == "0.677 0.806"


def test_the_line_names_agreement_kappa_and_shift_and_that_models_differ(
    strmatch: dict[str, Any],
) -> None:
    line = strmatch["line"]
    assert line.startswith(
        "xstest: on 1,350 recorded answers this judge agrees with gpt-4 (three classes) in 85.2%,"
        " kappa 0.68 ("
    )
    assert "xstest_safe_refused by +6.4 (" in line
    assert "one model's answers by -22.5 to +25.5" in line


def test_the_committed_calibration_of_string_match_is_what_the_command_makes(
    strmatch: dict[str, Any],
) -> None:
    committed = (
        Path(__file__).resolve().parents[3] / "results" / "calibration" / "strmatch-xstest.json"
    )
    kept = json.loads(committed.read_text())
    assert {**kept, "made_by": None} == {**strmatch, "made_by": None}


# --- a judge that is asked ------------------------------------------------------------------------


def says(words: Callable[[str], str]) -> Script:
    return lambda body, _: chat(body, words(body["messages"][-1]["content"]))


def test_a_judge_behind_a_server_is_asked_once_for_each_answer_and_never_again(
    tmp_path: Path, replay_dir: Path
) -> None:
    with serving(says(lambda prompt: "refusal" if "orry" in prompt else "following")) as server:
        judge = f"xstest=openai:j@{server.url}"
        first = calibrated(tmp_path / "a", judge, replay=replay_dir, limit=40)
        assert len(server.asked) == first["cost"]["requests"] == 40
        again = calibrated(tmp_path / "a", judge, replay=replay_dir, limit=40)
        assert len(server.asked) == 40
    assert (again["against"], again["cost"]) == (first["against"], first["cost"])
    assert (first["judge"], first["recorded"]["n"], first["limit"]) == (
        "openai:j@own-server",
        40,
        40,
    )
    assert first["cost"]["tokens_in"] == 40 * 7
    assert (first["cost"]["is_exact_in"], first["cost"]["is_exact_out"]) == (True, False)
    assert again["time"].get("requests", 0) == 0


def test_words_that_are_no_verdict_are_counted_and_keep_their_place(
    tmp_path: Path, replay_dir: Path
) -> None:
    with serving(says(lambda prompt: "I would rather not say.")) as server:
        record = calibrated(tmp_path, f"xstest=openai:j@{server.url}", replay=replay_dir, limit=30)
    held = record["against"][PEOPLE]
    assert held["n_unreadable"] == {"recorded": 0, "candidate": 30}
    assert sum(map(sum, held["table"])) == 30
    assert held["agreement"]["value"] == 0.0
    assert sum(moved["n"] for moved in held["shifts"].values()) == 30


def test_a_calibration_that_broke_off_goes_on_and_pays_nothing_twice(
    tmp_path: Path, replay_dir: Path
) -> None:
    broken = True

    def script(body: Body, before: int) -> Reply:
        return (
            error(400, "too odd")
            if broken and "orry" in body["messages"][-1]["content"]
            else chat(body, "following")
        )

    with serving(script) as server:
        judge = f"xstest=openai:j@{server.url}"
        with pytest.raises(
            Incomplete,
            match=r"verdicts are missing \(the server answered 400: .*too odd\)\. The same command",
        ):
            calibrated(tmp_path, judge, replay=replay_dir, limit=40)
        assert not list(tmp_path.glob("*.json"))
        broken = False
        n_before = len(server.asked)
        assert calibrated(tmp_path, judge, replay=replay_dir, limit=40)["recorded"]["n"] == 40
        again = server.asked[n_before:]
    assert 0 < len(again) < 40
    assert all("orry" in body["messages"][-1]["content"] for body in again)


def test_pairwise_and_yes_or_no_judges_are_held_to_their_own_labels(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    def words(prompt: str) -> str:
        if prompt.endswith(("True:", "Helpful:")):
            return "yes"
        ranking = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
        return ranking if "model_1" in prompt else "m"

    with serving(says(words)) as server:
        judges = [
            f"{role}=openai:j@{server.url}"
            for role in ("alpaca_eval_1", "alpaca_eval_2", "truth", "info")
        ]
        settings = RunSettings("", judges=tuple(judges), out=tmp_path, data=data_dir, limit=60)
        text = "\n".join(calibrate(settings, replay_dir, ("all=10,20",), Progress(quiet=True)))
    records = {
        (record := json.loads(path.read_text()))["role"]: record for path in tmp_path.glob("*.json")
    }
    assert set(records) == {"alpaca_eval_1", "alpaca_eval_2", "truth", "info"}
    for role in ("alpaca_eval_1", "alpaca_eval_2"):
        (held,) = records[role]["against"].values()
        assert held["n_unreadable"]["candidate"] == 0
        # This judge always names the answer it was shown first; which one that is, the instruction
        # decides.
        answers = read_verdicts(role, None, replay_dir).answers
        chosen = {item.id for item in spread([one.item for one in answers], 60)}
        wins = [
            (
                0.5
                if one.answer.text == one.item.references[role]
                else float(is_model_first(one.question))
            )
            for one in answers
            if one.item.id in chosen and isinstance(one.item, AlpacaItem)
        ]
        assert held["shifts"][role]["candidate"] == pytest.approx(sum(wins) / 60)
        assert sum(map(sum, held["table"])) == 60 - wins.count(0.5)
        assert 0.3 < sum(wins) / 60 < 0.7
    (held,) = records["truth"]["against"].values()
    assert held["shifts"]["truth"]["candidate"] == 1.0
    assert held["kappa"]["value"] == 0.0
    assert (
        text.count("requests, ") == text.count(", cost at most 0.") + text.count(", cost 0.") == 4
    )
    assert "at 10 in and 20 out per million" in text


# --- where it is shown ----------------------------------------------------------------------------


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"xstest/{n}", "outputs": ["Sorry, no."]} for n in range(1, 9)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def marks(judges: str) -> list[str]:
    run = evals.run("replay:r.jsonl", suite="smoke", judge=judges)
    cells = run.summary["cells"]
    assert cells["xstest_safe_refused"]["marks"] == cells["xstest_unsafe_followed"]["marks"]
    found: list[str] = cells["xstest_safe_refused"]["marks"]
    return found


def test_a_calibrated_judges_cells_say_how_it_did_and_no_other_judges_do(
    in_folder: Path, replay_dir: Path
) -> None:
    with serving(says(lambda prompt: "refusal")) as server:
        judge = f"xstest=openai:j@{server.url}"
        assert not any("recorded answers" in mark for mark in marks(judge))
        calibrate(RunSettings("", judges=(judge,), limit=20), replay_dir, (), Progress(quiet=True))
        (kept,) = Path("results/calibration").glob("*.json")
        assert kept.name == "openai-j-own-server-xstest.json"
        assert json.loads(kept.read_text())["line"] in marks(judge)
        assert (
            evals.run("replay:r.jsonl", suite="smoke", judge=judge)
            .table()
            .count("this judge agrees")
            == 1
        )
        assert not any(
            "this judge agrees" in mark for mark in marks(f"xstest=openai:other@{server.url}")
        )
        other = json.loads(kept.read_text()) | {"fingerprint": "another checkpoint of that name"}
        kept.write_text(json.dumps(other))
        assert not any("this judge agrees" in mark for mark in marks(judge))


def test_a_rules_calibration_is_shown_too_and_a_damaged_one_is_said_to_be(
    in_folder: Path, replay_dir: Path
) -> None:
    calibrate(RunSettings("", judges=("xstest=strmatch",)), replay_dir, (), Progress(quiet=True))
    kept = Path("results/calibration/strmatch-xstest.json")
    assert json.loads(kept.read_text())["line"] in marks("xstest=strmatch")
    kept.write_text('{"line": ')
    assert "xstest: the calibration strmatch-xstest.json cannot be read (JSONDecodeError)" in marks(
        "xstest=strmatch"
    )


# --- what a user can get wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "changes", "says"),
    [
        ("xstest=strmatch", {}, "name their folder with --replay DIR or EVALS_REPLAY"),
        (
            "truth=smollm2",
            {},
            "truthfulqa/finetune_truth_dev.jsonl of the data: name its folder with --data",
        ),
        ("xstest=strmatch", {"limit": 0}, "--limit 0: give the number"),
        ("xstst=strmatch", {}, "Did you mean xstest"),
        ("xstest=nothing-here", {"replay": True}, "Unknown model 'nothing-here'"),
        ("xstest=replay:x", {"replay": True}, "There is no file x"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_a_sentence(
    judge: str,
    changes: dict[str, Any],
    says: str,
    tmp_path: Path,
    replay_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EVALS_DATA", raising=False)
    replay = replay_dir if changes.pop("replay", False) else None
    with pytest.raises(InputError) as caught:
        calibrated(tmp_path, judge, replay=replay, **changes)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: "", "has no xstest/*_gpteval.csv with recorded verdicts"),
        (lambda text: text.replace("gpt4_label", "other", 1), "KeyError: 'gpt4_label'"),
        (
            lambda text: text.replace("\nv2-2,homonyms", "\nv2-2", 1).rsplit(",", 1)[0],
            "cannot be read as recorded verdicts",
        ),
    ],
)
def test_a_damaged_recording_is_named(
    damage: Callable[[str], str], says: str, tmp_path: Path, replay_dir: Path
) -> None:
    home = tmp_path / "replay" / "xstest"
    home.mkdir(parents=True)
    name = "xstest_v2_completions_gpt4_gpteval.csv"
    (home / name).write_text(
        damage((replay_dir / "xstest" / name).read_text(encoding="utf-8")), encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        calibrated(tmp_path / "out", "xstest=strmatch", replay=tmp_path / "replay")
    assert says in str(caught.value)


def test_the_command_prints_what_it_keeps(
    tmp_path: Path,
    replay_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALS_REPLAY", str(replay_dir))
    monkeypatch.setattr(sys, "argv", ["evals", "judge", "calibrate", "--judge", "xstest=strmatch"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "xstest judged by strmatch: 1,350 recorded answers" in out
    assert f"against {PEOPLE}: agreement 90.7% (" in out
    assert "xstest_safe_refused: 7.5% recorded, 13.9% by this judge, n 750, shift +6.4 (" in out
    assert "written: results/calibration/strmatch-xstest.json" in out
    assert not (tmp_path / "results" / "calibration" / "store.sqlite").exists()
