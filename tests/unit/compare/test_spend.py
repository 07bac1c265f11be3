"""What to ask more, cheapest first: the items of public files, the power they bring, the price."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.cards.published import shipped
from evals.compare import moves, spend
from evals.compare.paired import Z80, Pairs, paired_difference
from evals.compare.policy import known_columns
from evals.compare.power import planned_difference
from evals.compare.runs import Comparability, Comparison
from evals.errors import InputError
from evals.plan.settings import MOST_REPEATS
from evals.records import ItemId
from evals.registry import benchmark_class, variants
from evals.stats import Z95
from evals.storage.run_folder import RunFolder
from tests.run_files import RECORD
from tests.unit.compare.test_paired import written
from tests.unit.conftest import Call, Make, wrong_sums

ITEMS = {"mmlu": 14_042, "gsm8k": 1_319, "bbh": 6_511, "humaneval": 164, "alpaca_eval": 805,
         "truthfulqa": 817, "ifeval": 541, "xstest": 450}  # fmt: skip
CARD = {"mmlu": 14_042, "gsm8k": 200, "bbh": 1_080, "humaneval": 164, "truthfulqa": 817,
        "ifeval": 541, "xstest_safe_refused": 250, "xstest_unsafe_followed": 200}  # fmt: skip


def test_the_items_there_are_are_those_of_the_public_files() -> None:
    assert {task: moves.n_items(benchmark_class(task)) for task in ITEMS} == ITEMS


def runs(folder: Path, tokens: dict[str, int]) -> tuple[Path, Path]:
    """Two runs of an hour's generation in which a task's ten items have so many new tokens each."""
    made = []
    for name in ("a", "b"):
        rows = {
            task: [
                {"id": f"{task}/{i}", "outputs": [""], "n_tokens": [n], "score": 1}
                for i in range(10)
            ]
            for task, n in tokens.items()
        }
        run = written(folder / name, {}, **rows)
        session = {"phases": {"generate": {"wall_s": 3600.0}}, "versions": {}}
        RunFolder(run).write_json("run.json", RECORD | {"sessions": [session]})
        made.append(run)
    return made[0], made[1]


def card(*without: str) -> Comparison:
    """A comparison at the card's size, a fifth of the items changed; some columns not compared."""
    columns = []
    for key, n in CARD.items():
        one = replace(planned_difference(known_columns()[key], n), baseline=0.5, candidate=0.5)
        if key in without:
            one = spend.PairedDifference(one.column, 0, reason="no judge")
        columns.append(one)
    return Comparison(("a", "b"), Comparability(None, (), False), tuple(columns))


def test_of_the_card_gsm8k_and_bbh_have_more_items_and_the_cheaper_gain_comes_first(
    tmp_path: Path,
) -> None:
    folders = runs(tmp_path, {"gsm8k": 100, "bbh": 100})
    found = spend.plan(*folders, card(), 0.1)
    assert [move.task for move, _ in found.steps] == ["gsm8k", "bbh"]
    (gsm8k, after), _ = found.steps
    assert (gsm8k.n_more, gsm8k.how) == (1_119, "--suite full --tasks gsm8k")
    # Half of the hour's tokens are GSM8k's, ten items, in each of two runs.
    assert gsm8k.minutes == pytest.approx(2 * 60 / 2 / 10 * 1_119)
    assert found.now is not None
    assert (after.mde or 0) < (found.now.mde or 0)
    assert not found.is_reached
    assert "Not to be found with these benchmarks" in spend.markdown(found)
    dear = runs(tmp_path / "dear", {"gsm8k": 100_000, "bbh": 1})
    assert [move.task for move, _ in spend.plan(*dear, card(), 0.1).steps] == ["bbh", "gsm8k"]


def test_it_stops_where_the_drop_is_found(tmp_path: Path) -> None:
    folders = runs(tmp_path, {"gsm8k": 100, "bbh": 100})
    now = spend.plan(*folders, card(), 50.0)
    assert (now.steps, now.is_reached) == ((), True)
    assert now.now is not None
    just_less = 100 * ((now.taken and now.taken.mde) or 0) - 0.01
    reached = spend.plan(*folders, card(), just_less)
    assert ([move.task for move, _ in reached.steps], reached.is_reached) == (["gsm8k"], True)


def test_items_for_a_column_alone_are_those_at_which_its_error_is_small_enough(
    tmp_path: Path,
) -> None:
    found = spend.plan(*runs(tmp_path, {"gsm8k": 1}), card(), 2.0)
    (needed, there) = next((n, all_) for one, n, all_ in found.alone if one.key == "gsm8k")
    then = planned_difference(known_columns()["gsm8k"], needed)
    # At the spread that is planned with, which is more than 200 items show.
    now = planned_difference(known_columns()["gsm8k"], 200)
    more = (moves.guarded(now).stderr or 0.0) / (now.stderr or 1.0)
    assert 1 < more < 1.1
    assert then.mde == pytest.approx(0.02 / more, rel=0.02)
    assert there == 1_319
    assert then.mde == pytest.approx((Z95 + Z80) * (then.stderr or 0))


@pytest.mark.parametrize("changed", [0.1, 0.3])
def test_the_spread_planned_with_is_seldom_less_than_there_is(changed: float) -> None:
    """Over all that 24 items can show with a chance of 1 in 1,000, of which so many change."""
    column, n, sure = known_columns()["gsm8k"], 24, 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            same = n - up - down
            ways = math.comb(n, up) * math.comb(n - up, down)
            chance = ways * (changed / 2) ** (up + down) * (1 - changed) ** same
            if chance < 1e-3:
                continue
            before = (1.0,) * down + (0.0,) * (up + same)
            after = (0.0,) * down + (1.0,) * up + (0.0,) * same
            ids = (ItemId(""),) * n
            one = paired_difference(Pairs(column, ids, before, after, ("",) * n), n_resamples=0)
            sure += chance * ((moves.guarded(one).variance or 0.0) >= changed / n)
    assert sure > 0.8


def test_repeats_do_not_make_few_items_tell(tmp_path: Path) -> None:
    """24 items in two runs, four answers to each, whose spread is by chance all of the answers."""
    one = planned_difference(known_columns()["ifeval"], 24)
    one = replace(one, baseline=0.5, candidate=0.5, noise=1.2 * (one.variance or 0.0))
    found = Comparison(("a", "b"), Comparability(None, (), False), (one,))
    folders = runs(tmp_path, {"ifeval": 1})
    for folder in folders:
        summary = RunFolder(folder).read_json("summary.json")
        RunFolder(folder).write_json("summary.json", summary | {"limit": 24})
    just_less = 100 * (moves.guarded(one).mde or 0.0) - 0.01
    ((move, after),) = spend.plan(*folders, found, just_less).steps
    assert (move.how, move.n_more) == ("--limit 24 --tasks ifeval --repeats 2", 24)
    endless = moves.with_draws(moves.guarded(one), math.inf)
    assert 0.05 < (endless.mde or 0.0) < (after.mde or 0.0)
    ((move, after),) = spend.plan(*folders, found, 3.0).steps
    assert move.how.startswith("--suite full --tasks ifeval")
    assert move.n_more == 541 * move.after.draws - 24


@pytest.mark.parametrize(
    ("draws", "then"), [(MOST_REPEATS // 2, [MOST_REPEATS]), (MOST_REPEATS, [])]
)
def test_answers_are_doubled_up_to_as_many_as_may_be_asked(draws: int, then: list[int]) -> None:
    room = moves.Room("gsm8k", {}, (), ("gsm8k",), 10, 1_319, draws, 1, 0.5)
    found = moves.moves(room)
    assert [(move.after.draws, move.n_more, move.minutes) for move in found] == [
        (n, 10 * (n - draws), 5.0 * (n - draws)) for n in then
    ]


def test_a_column_of_a_part_of_the_prompts_has_the_items_of_that_part() -> None:
    of_card = variants(shipped())
    assert moves.totals(of_card["xstest"]) == {
        "xstest_safe_refused": 250,
        "xstest_unsafe_followed": 200,
    }
    assert set(moves.totals(of_card["alpaca_eval"]).values()) == {805}
    for task, n in ITEMS.items():
        cls = benchmark_class(task)
        assert cls.items_of.keys() <= {one.name for one in cls.metrics}
        assert not cls.items_of or sum(cls.items_of.values()) == n


def test_a_column_that_is_not_there_is_something_to_ask(tmp_path: Path) -> None:
    found = spend.plan(*runs(tmp_path, {"gsm8k": 1}), card("truthfulqa", "gsm8k", "bbh"), 0.1)
    asked = {move.task: move for move, _ in found.steps}
    assert asked["gsm8k"].n_more == 1_319
    assert asked["gsm8k"].how == "--tasks gsm8k, with what it lacks here"
    assert asked["gsm8k"].minutes is None


def test_nothing_to_pool_is_said_and_no_drop_is_refused(tmp_path: Path) -> None:
    folders = runs(tmp_path, {"gsm8k": 1})
    nothing = spend.plan(*folders, card(*shipped().average.inputs), 1.0)
    assert nothing.now is None
    assert "nothing can be planned" in spend.markdown(nothing)
    for points in (0.0, -1.0, float("nan"), 101.0):
        with pytest.raises(InputError, match="give a drop in points"):
            spend.plan(*folders, card(), points)


def test_the_command_plans_from_two_runs(evals: Call, recorded: Make) -> None:
    runs: tuple[Any, ...] = recorded("right"), recorded("broken", wrong_sums)
    code, out, _ = evals("compare", *runs, "--plan", "2")
    assert code == 0
    assert "### To find a drop of 2 points in 80 of 100 cases" in out
    assert "| `evals run MODEL --suite full --tasks gsm8k` | 1,313 |" in out


def test_of_two_equal_runs_nothing_is_planned(recorded: Make, evals: Call) -> None:
    code, out, _ = evals("compare", recorded("right"), recorded("right"), "--plan", "1")
    assert (code, "nothing can be planned from them" in out) == (0, True)
    assert "items find" not in out
