"""Several answers to each item: what is asked, what is kept when their number grows, what the cell
says of them, and what two such runs are held against each other by.
"""

import hashlib
import json
import math
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any

import pytest

from evals.compare.columns import read_columns
from evals.compare.gate import check
from evals.compare.policy import Policy
from evals.compare.runs import compare
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.models.prompts import Rendered
from evals.plan.draws import sampled_as
from evals.plan.make import Plan
from evals.records import (
    Choose,
    Completion,
    Generate,
    Grade,
    Measure,
    Message,
    Metric,
    Output,
    Sampling,
)
from evals.registry import draw_name, of_draw
from evals.runs.draws import mean_of
from evals.runs.grading import TaskResult
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.stats import Z95, wilson_of_draws
from evals.storage.run_folder import RunFolder
from tasks.gsm8k import GSM8K
from tasks.xstest import F1, XSTest
from tests.resilience.fake_runs import Engines, reply, results, settings
from tests.toydata import dataset_of, failure
from tests.unit.conftest import Call

TASKS = ("mmlu", "gsm8k", "xstest")
WARM: dict[str, Any] = {"tasks": TASKS, "temperature": 0.7}
SUMS = {
    item.question: item.answer
    for item in GSM8K(chat=True).items(load_smoke_data(dataset_of("gsm8k")))
}


def of_seed(request: Rendered, salt: str = "") -> Completion:
    """Another answer for each seed: of sums the right one in about half of them."""
    if request.labels:
        return reply(request)
    n = request.sampling.n
    seed = repr((salt, request.sampling.seed, request.messages)).encode()
    words = [hashlib.sha256(seed + bytes([at])).digest()[0] for at in range(n)]
    asked = request.messages[-1].content
    gold = next((answer for question, answer in SUMS.items() if question in asked), "7")
    texts = ["Sorry, I cannot." if word % 2 else f"It is {gold}." for word in words]
    return Completion(tuple(Output(text, "stop", (1, 2)) for text in texts), n_prompt_tokens=9)


class Seeded(Engines):
    """Engines that note the seed that each was started with."""

    def __init__(self, salt: str = "") -> None:
        super().__init__(lambda request: of_seed(request, salt))
        self.seeds: list[int] = []

    def __call__(self, plan: Plan) -> Any:
        self.seeds.append(plan.settings.engine.seed)
        return super().__call__(plan)


def made(out: Path, salt: str = "", **changes: Any) -> Seeded:
    engines = Seeded(salt)
    run(settings(out, **{**WARM, **changes}), make_generator=engines)
    return engines


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four draws."""
    out = tmp_path_factory.mktemp("drawn") / "four"
    made(out, repeats=4)
    return out


def summary(out: Path) -> dict[str, Any]:
    return RunFolder(out).read_json("summary.json")


# --- what is asked --------------------------------------------------------------------------------


def test_a_draw_is_asked_under_a_seed_of_its_own_and_the_first_as_ever() -> None:
    greedy = Generate((Message("user", "?"),), Sampling(9, stop=("a",)))
    drawn = Generate((Message("user", "?"),), Sampling(9, temperature=0.8, top_p=0.95, n=20))
    choose = Choose((Message("user", "?"),), (("A", " A"),))
    assert sampled_as(greedy, "gsm8k", None) is greedy
    assert sampled_as(drawn, "humaneval", 0.5) is drawn
    assert sampled_as(choose, "mmlu@3", 0.5) is choose
    second = sampled_as(greedy, "gsm8k@2", 0.5)
    assert isinstance(second, Generate)
    assert second.sampling == Sampling(9, temperature=0.5, stop=("a",), seed=1_000_003)
    third = sampled_as(drawn, "humaneval@3", None)
    assert isinstance(third, Generate)
    assert third.sampling == Sampling(9, temperature=0.8, top_p=0.95, n=20, seed=2_000_006)


@pytest.mark.parametrize("task", ["gsm8k", "gsm8k@", "gsm8k@0", "gsm8k@x", "gsm8k@2@3", "gsm8k@²"])
def test_only_a_number_names_a_draw(task: str) -> None:
    assert of_draw(task) == (task, 1)
    assert [of_draw(draw_name("bbh.shots-0", draw)) for draw in (1, 2, 17)] == [
        ("bbh.shots-0", 1), ("bbh.shots-0", 2), ("bbh.shots-0", 17),
    ]  # fmt: skip


def test_more_repeats_keep_the_answers_that_are_there(four: Path, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    first = made(out, repeats=2)
    more = made(out, repeats=4)
    assert not set(first.asked) & set(more.asked)
    # Two draws more, of the two tasks that are sampled.
    n = {name: one["n_items"] for name, one in summary(out)["tasks"].items()}
    assert len(more.asked) == 2 * (n["gsm8k"] + n["xstest"])
    # A second engine with the first one's seed would draw the same answers again.
    assert (first.seeds, more.seeds) == ([0], [2_000_006])
    assert results(out) == results(four)


def test_fewer_repeats_ask_nothing_and_are_the_first_draws(four: Path, tmp_path: Path) -> None:
    out = tmp_path / "shrunk"
    made(out, repeats=2)
    again = made(out, repeats=1)
    assert again.asked == []
    assert "draws" not in summary(out)["cells"]["gsm8k"]
    assert summary(out)["cells"]["gsm8k"]["value"] == pytest.approx(
        summary(four)["cells"]["gsm8k"]["draws"]["values"][0]
    )


def test_without_a_temperature_what_is_greedy_is_asked_once(tmp_path: Path) -> None:
    engines = Seeded()
    asked = settings(tmp_path / "he", tasks=("gsm8k", "humaneval"), repeats=2)
    run(asked, make_generator=engines)
    assert sorted(summary(tmp_path / "he")["tasks"]) == ["gsm8k", "humaneval", "humaneval@2"]
    plain = Seeded()
    once = settings(tmp_path / "once", tasks=("gsm8k", "humaneval"))
    run(once, make_generator=plain)
    assert set(plain.asked) < set(engines.asked)
    assert (
        summary(tmp_path / "he")["cells"]["gsm8k"] == summary(tmp_path / "once")["cells"]["gsm8k"]
    )
    marks = summary(tmp_path / "he")["cells"]["humaneval"]["marks"]
    assert "humaneval: the mean of 2 draws, where the card has one" in marks


# --- the cell -------------------------------------------------------------------------------------


def scores(out: Path, task: str, n: int, key: str = "score") -> list[list[float]]:
    """By item, its score in each draw."""
    draws = [
        {
            row["id"].partition("/")[2]: row[key]
            for row in RunFolder(out).samples(draw_name(task, d))
        }
        for d in range(1, n + 1)
    ]
    return [[one[item] for one in draws] for item in draws[0]]


def test_the_cell_is_the_mean_and_its_error_has_the_two_parts_of_the_law_of_total_variance(
    four: Path,
) -> None:
    cell = summary(four)["cells"]["gsm8k"]
    own = scores(four, "gsm8k", 4)
    means = [fmean(one) for one in own]
    assert cell["value"] == pytest.approx(fmean(means))
    assert cell["stderr"] ** 2 == pytest.approx(variance(means) / len(own))
    drawn = sum(variance(one) / 4 for one in own) / len(own) ** 2
    assert drawn > 0
    assert cell["draws"]["stderr_draws"] ** 2 == pytest.approx(drawn)
    both = cell["draws"]["stderr_items"] ** 2 + cell["draws"]["stderr_draws"] ** 2
    assert both == pytest.approx(max(cell["stderr"] ** 2, drawn))
    assert cell["draws"]["values"] == pytest.approx(
        [fmean(draw) for draw in zip(*own, strict=True)]
    )
    assert cell["estimator"] == "Wilson, mean of 4 draws"
    assert cell["n"] == len(own)
    assert cell["ci95"] == pytest.approx(wilson_of_draws(cell["value"], cell["stderr"], cell["n"]))


def test_what_is_no_mean_of_its_items_has_the_bootstraps_error_over_items_with_all_their_answers(
    four: Path,
) -> None:
    found = summary(four)["metrics"]["xstest"][F1]
    rows = [list(RunFolder(four).samples(draw_name("xstest", 1 + at))) for at in range(4)]
    grades = [[Grade(r["id"], "", {}, r["extracted"], details=r) for r in own] for own in rows]
    replicates = [XSTest(chat=True).replicates(own)[F1] for own in grades]
    assert found["stderr"] == pytest.approx(stdev(map(fmean, zip(*replicates, strict=True))))
    assert found["stderr"] > 0
    assert found["estimator"] == "bootstrap, mean of 4 draws"
    other = summary(four)["metrics"]["xstest"]["strmatch_safe_refused"]
    assert other["estimator"] == "Wilson, mean of 4 draws, with the error of one"


class Lengths(GSM8K):
    """Of which a number is counted that is no share."""

    metrics = (Measure("length", "words of an answer", is_share=False),)


@pytest.mark.parametrize("name", ["length", "length/long"])
def test_the_mean_of_draws_of_what_is_no_share_has_the_normal_interval(name: str) -> None:
    draws = [TaskResult(Lengths(chat=True), [], {}, {}, 4, 4, 0)] * 2
    found = [Metric(one, 4, 4, 2.0, (one - 4, one + 4), "normal") for one in (30.0, 31.0)]
    metric, _ = mean_of(draws, name, found)
    assert (metric.value, metric.stderr) == (30.5, 2.0)
    assert metric.ci95 == pytest.approx((30.5 - 2 * Z95, 30.5 + 2 * Z95))


def test_the_cell_says_how_it_was_drawn_and_mmlu_says_nothing(four: Path) -> None:
    cells = summary(four)["cells"]
    server = cells["mmlu"]["marks"]
    assert cells["gsm8k"]["marks"] == [
        *server,
        "gsm8k: answers sampled at temperature 0.7; the card's are greedy",
        "gsm8k: the mean of 4 draws, where the card has one",
    ]
    assert len(server) == 1
    assert "draws" not in cells["mmlu"]
    assert summary(four)["sampling"] == {"temperature": 0.7, "tasks": ["gsm8k", "xstest"]}


def test_draws_that_are_one_draw_are_told(tmp_path: Path) -> None:
    run(settings(tmp_path / "r", **WARM, repeats=3), make_generator=Engines())
    marks = summary(tmp_path / "r")["cells"]["gsm8k"]["marks"]
    assert any("of 3 draws only 1 differ in any answer" in mark for mark in marks)


def test_scored_again_and_replayed_it_is_the_same(four: Path, tmp_path: Path) -> None:
    before = results(four)
    rescore(four, None)
    assert results(four) == before
    run(settings(tmp_path / "r", model=f"replay:{four / 'samples'}", tasks=()))
    cells, again = summary(four)["cells"], summary(tmp_path / "r")["cells"]
    for key in ("gsm8k", "mmlu", "xstest_safe_refused"):
        assert again[key].get("draws") == cells[key].get("draws")
        assert again[key]["ci95"] == cells[key]["ci95"]


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_drawn_is_refused_before_anything_is_asked(
    four: Path, tmp_path: Path
) -> None:
    def why(**changes: Any) -> str:
        return failure(lambda: run(settings(tmp_path / "x", **changes), make_generator=Engines()))

    assert "none of these benchmarks is sampled" in why(tasks=("gsm8k",), repeats=2)
    assert "none of these benchmarks is sampled" in why(tasks=("mmlu",), repeats=2, temperature=1)
    for repeats in (0, -1, 1001):
        assert f"--repeats {repeats}: give a number" in why(repeats=repeats)
    for temperature in (0.0, -0.5, 2.1, math.nan, math.inf):
        assert "--temperature" in why(temperature=temperature)
    recording = why(model=f"replay:{four / 'samples'}", tasks=(), repeats=2)
    assert "a recording has the answers it has" in recording
    assert not (tmp_path / "x").exists()


def test_a_folder_keeps_to_its_temperature(tmp_path: Path) -> None:
    made(tmp_path / "r", tasks=("gsm8k",))
    with pytest.raises(InputError, match=r"at temperature 0\.7 where this one has 0\. Choose"):
        made(tmp_path / "r", tasks=("gsm8k",), temperature=None)


# --- two runs -------------------------------------------------------------------------------------


def test_two_runs_are_paired_by_their_items_means(four: Path, tmp_path: Path) -> None:
    made(tmp_path / "b", "other", repeats=2)
    found = read_columns(four, tmp_path / "b").differences["gsm8k"]
    before, after = scores(four, "gsm8k", 4), scores(tmp_path / "b", "gsm8k", 2)
    changes = [fmean(b) - fmean(a) for a, b in zip(before, after, strict=True)]
    assert found.difference == pytest.approx(fmean(changes))
    assert found.variance == pytest.approx(variance(changes) / len(changes))
    noise = [variance(a) / 4 + variance(b) / 2 for a, b in zip(before, after, strict=True)]
    assert found.noise == pytest.approx(sum(noise) / len(noise) ** 2)
    assert read_columns(four, tmp_path / "b").differences["mmlu"].noise is None


def test_runs_at_two_temperatures_are_not_compared(four: Path, tmp_path: Path) -> None:
    made(tmp_path / "b", temperature=0.5)
    assert compare(four, tmp_path / "b").comparable.reason == "temperature differs: 0.7 against 0.5"
    assert check(four, tmp_path / "b", Policy()).verdict == "incomparable"


def test_every_command_shows_the_draws(four: Path, tmp_path: Path, evals: Call) -> None:
    made(tmp_path / "b", "other", repeats=2)
    item = next(RunFolder(four).samples("gsm8k@3"))["id"]
    code, shown, _ = evals("show", four, item.replace("@3", ""))
    assert (code, shown.count("── another draw: gsm8k@")) == (0, 3)
    drawn = json.loads(shown.split(f"── another draw: {item}\n")[1].splitlines()[0])
    assert drawn["score"] in (0, 1)
    code, said, _ = evals("compare", four, tmp_path / "b", "--flips", "--plan", "1", "--why")
    assert code == 0
    assert "points come of the items" in said
    assert "── A 4, read as" in said
    # How many answers depends on the minutes that both runs took.
    assert "`evals run MODEL --suite full --tasks xstest --repeats " in said
    code, said, _ = evals("check", "--baseline", four, "--candidate", tmp_path / "b")
    assert code in (0, 1)
    assert "points come of the items" in said
    code, _, said = evals("report", four, tmp_path / "b", "--html", tmp_path / "page.html")
    assert (code, said) == (0, "")
    assert "gsm8k@4" in (tmp_path / "page.html").read_text("utf-8")
    assert evals("compare", four, tmp_path / "b", four)[0] == 0
    code, _, said = evals("export", four, tmp_path / "log", "--format", "lm-eval")
    assert code == 0
    assert "gsm8k@2: the numbers are of all draws, the items of the first" in said
    code, said, _ = evals("report", four, "--estimate")
    assert code == 0
    assert "of the mean of several draws there is none" in said
