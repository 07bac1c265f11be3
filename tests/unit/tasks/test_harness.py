"""Tasks of lm-evaluation-harness through this program, held against its own evaluator: both ask the
same model, whose answers are a function of what it is asked.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.compare import gate_report
from evals.compare.gate import check
from evals.compare.policy import Policy, Rule, read_policy
from evals.compare.runs import compare
from evals.compare.series_page import write_page
from evals.compare.text import markdown as comparison_text
from evals.data.dataset import LoadedSource
from evals.generators.fake import FakeGenerator
from evals.generators.replay import recorded_row
from evals.models.prompts import Rendered
from evals.plan.settings import RunSettings
from evals.records import Completion, Output, Scored
from evals.registry import benchmark_class, harness_tasks
from evals.report.card import update
from evals.report.html import write_report
from evals.report.run_row import row_from_summary
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.stats import effective_wilson
from evals.storage.run_folder import RunFolder
from tasks.harness.build import tasks_of
from tests.harness_tasks import GROUPS, TASKS, write_tasks
from tests.toydata import failure
from tests.unit.conftest import paired_columns

Score = tuple[float, bool]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def included(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))


def chance(*texts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x00".join(texts).encode()).digest()[:4], "big")


def likelihood(context: str, continuation: str) -> Score:
    draw = chance(context.rstrip(), context[len(context.rstrip()) :] + continuation)
    return -(draw % 9973) / 970, draw % 3 == 0


def written(prompt: str) -> str:
    number = chance(prompt) % 40
    return (f"It has {number}.", f"So #### {number}", "no idea", "", "$7.50 or 8")[number % 5]


def answer(request: Rendered) -> Completion:
    if not request.text.strip() and not request.scored:
        return Completion((Output(written(request.text)),))
    blocks = request.text.split("\n── scored: ")
    if len(blocks) == 1:
        return Completion((Output(written(request.text)),))
    scores, context = [], blocks[0]
    for block in blocks[1:]:
        rest, newline, after = block.partition("\n")
        scores.append(Scored(*likelihood(context, json.loads(rest)), 1))
        # Behind a continuation the next context may stand.
        context = after if newline else context
    return Completion(scores=tuple(scores))


NAMES = (*(name for name in TASKS if name not in ("birds", "beasts")), "animals")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Mapping[str, Any]:
    """What lm-eval's evaluator makes of all of them, with its samples."""
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    class Same(LM):
        def loglikelihood(self, requests: Any, **_: Any) -> Any:
            return [likelihood(*one.args) for one in requests]

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> Any:
            return [likelihood("", one.args[0])[0] for one in requests]

        def generate_until(self, requests: Any, **_: Any) -> Any:
            return [written(one.args[0]) for one in requests]

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = manager.load(list(NAMES))
    for task in found["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(1234)
    results = evaluate(Same(), found, bootstrap_iters=0)
    assert results is not None
    return results


ASKED = tuple(f"lm-eval:{name}" for name in NAMES)


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        settings = RunSettings("smollm2", tasks=ASKED, out=tmp_path_factory.mktemp("run"))
        return run(settings, make_generator=lambda _: FakeGenerator(answer)).folder


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_of_every_document_is_lm_evals_own(
    name: str, theirs: Mapping[str, Any], ours: RunFolder
) -> None:
    benchmark = benchmark_class(f"lm-eval:{name}")(chat=True)
    rows = {row["id"]: row["metrics"] for row in ours.samples(benchmark.name)}
    n = 0
    tasks = ["birds", "beasts"] if name == "animals" else [name]
    for task, sample in [(one, sample) for one in tasks for sample in theirs["samples"][one]]:
        own = f"{task}/{sample['doc_id']}" if name in GROUPS else sample["doc_id"]
        found = rows[f"lm-eval.{name}/{own}"]
        for metric in sample["metrics"]:
            key = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
            assert flat(found[key]) == pytest.approx(flat(sample[metric])), (task, key)
            n += 1
    assert n >= len(rows) * len(benchmark.metrics) / 2
    summary = ours.read_json("summary.json")["metrics"][benchmark.name]
    for key, value in theirs["results"][name].items():
        metric, _, filtered = key.partition(",")
        if filtered and "_stderr" not in metric:
            measure = metric if filtered == "none" else key
            assert summary[measure]["value"] == pytest.approx(value, rel=1e-8), measure
            assert summary[measure]["ci95"], measure


def flat(value: Any) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value
    return [n for one in value for n in flat(one)] if isinstance(value, list | tuple) else [value]


def test_a_group_is_weighed_as_it_says_and_its_tasks_have_rows(ours: RunFolder) -> None:
    found = ours.read_json("summary.json")["metrics"]["lm-eval.animals"]
    birds, beasts = (found[f"acc/{task}"] for task in ("birds", "beasts"))
    assert (birds["n"], beasts["n"]) == (8, 4)
    assert found["acc"]["value"] == pytest.approx((8 * birds["value"] + 4 * beasts["value"]) / 12)
    halves = [found[f"acc_norm/{task}"]["value"] for task in ("birds", "beasts")]
    assert found["acc_norm"]["value"] == pytest.approx(sum(halves) / 2)
    assert found["acc"]["estimator"] == "stratified"


def test_tags_and_groups_without_a_number_stand_for_their_tasks() -> None:
    assert harness_tasks("lm-eval:of_a_tag") == ["lm-eval.beasts", "lm-eval.birds"]
    assert harness_tasks("lm-eval:unweighed") == ["lm-eval.birds", "lm-eval.sums"]
    assert harness_tasks("lm-eval:animals") == ["lm-eval.animals"]
    assert "name them (beasts, birds)" in failure(lambda: benchmark_class("lm-eval:of_a_tag"))


def test_a_run_goes_on_where_it_was_killed_and_is_the_same_to_the_byte(
    tmp_path: Path, ours: RunFolder
) -> None:
    settings = RunSettings("smollm2", tasks=ASKED, out=tmp_path / "killed")

    class Killed(FakeGenerator):
        def stream(self, requests: Any) -> Any:
            for done in super().stream(requests):
                yield done
                if len(self.asked) > 50:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, make_generator=lambda _: Killed(answer, batch=13))
    again = FakeGenerator(answer)
    killed = run(settings, make_generator=lambda _: again).folder
    assert 0 < len(again.asked) < 100
    for file in ["summary.json", *(f"samples/lm-eval.{name}.jsonl.gz" for name in NAMES)]:
        assert (killed.path / file).read_bytes() == (ours.path / file).read_bytes()


def test_a_run_is_replayed_and_scored_without_a_model(tmp_path: Path, ours: RunFolder) -> None:
    replay = f"replay:{ours.path / 'samples'}"
    replayed = run(RunSettings(replay, tasks=ASKED, out=tmp_path / "replay")).folder
    before, after = (values_in(one) for one in (ours, replayed))
    # A line of samples has ten digits of a number.
    assert after == pytest.approx(before, rel=1e-8)
    (replayed.path / "summary.json").unlink()
    rescore(replayed.path, None)
    assert values_in(replayed) == after


def values_in(folder: RunFolder) -> dict[str, float]:
    """Every metric's value."""
    metrics = folder.read_json("summary.json")["metrics"]
    return {f"{a} {b}": one["value"] for a, own in metrics.items() for b, one in own.items()}


def test_what_is_no_share_has_a_bootstrap_interval(ours: RunFolder) -> None:
    found = ours.read_json("summary.json")["metrics"]["lm-eval.pages"]["word_perplexity"]
    low, high = found["ci95"]
    cells = row_from_summary(ours.read_json("summary.json")).cells
    assert cells["pages_word_perplexity"].text == f"{found['value']:.3f}"
    assert found["estimator"] == "bootstrap"
    assert low < found["value"] < high
    assert math.isclose(high - low, 2 * 1.959963984540054 * found["stderr"], rel_tol=1e-6)


def test_a_share_that_is_no_mean_has_a_share_s_interval(ours: RunFolder) -> None:
    found = ours.read_json("summary.json")["metrics"]["lm-eval.ends_scores"]["f1"]
    assert found["estimator"] == "bootstrap"
    ends = effective_wilson(found["value"], found["stderr"], found["n"])
    assert found["ci95"] == pytest.approx(ends)


def test_a_cell_says_whose_task_it_is_and_how_it_is_asked(ours: RunFolder) -> None:
    summary = ours.read_json("summary.json")
    (mark, *_) = summary["cells"]["letters_acc"]["marks"]
    assert "letters, version 2.0: its own number of examples, without a chat template" in mark
    assert "letters, version 2.0" in summary["data"]["lm-eval.letters"]["revision"]


def other(request: Rendered) -> Completion:
    """What another model says: every log-likelihood by a tenth less."""
    found = answer(request)
    if found.scores is None:
        return found
    return replace(found, scores=tuple(replace(s, logprob=1.1 * s.logprob) for s in found.scores))


@pytest.fixture(scope="module")
def another(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Another model's run of two of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        settings = RunSettings("smollm2", tasks=PAIR, out=tmp_path_factory.mktemp("run"))
        return run(settings, make_generator=lambda _: FakeGenerator(other)).folder


PAIR = ("lm-eval:pages", "lm-eval:ends")


def test_a_perplexity_is_compared_in_its_own_unit_and_held_by_a_relative_drop(
    ours: RunFolder, another: RunFolder, tmp_path: Path
) -> None:
    values = [
        f.read_json("summary.json")["cells"]["pages_word_perplexity"] for f in (ours, another)
    ]
    before, after = (one["value"] for one in values)
    assert before > 1
    (row,) = (
        line.split(" | ")
        for line in comparison_text(compare(ours.path, another.path)).splitlines()
        if line.startswith("| pages word_perplexity")
    )
    assert row[0] == "| pages word_perplexity (lower is better, in its own unit)"
    assert row[2:4] == [f"{before:.3f}", f"{after:.3f}"]
    assert row[4].startswith(f"{after - before:+.4f} [")
    free = {one.difference.key: one for one in check(ours.path, another.path, Policy()).columns}
    assert free["pages_word_perplexity"].state == "not compared"
    assert "a relative_drop holds it" in gate_report.explain(free["pages_word_perplexity"])
    held = Policy(columns={"pages_word_perplexity": Rule(relative_drop=0.0001)})
    found = {one.difference.key: one for one in check(ours.path, another.path, held).columns}
    assert found["pages_word_perplexity"].drop.limit == pytest.approx(0.0001 * before)
    assert found["pages_word_perplexity"].state in ("regressed", "undecided")
    file = tmp_path / "policy.toml"
    file.write_text("[columns]\npages_word_perplexity = {relative_drop = 2.0}\n")
    rule = read_policy(file, ours.path).columns["pages_word_perplexity"]
    assert rule.relative_drop == pytest.approx(0.02)
    floor = Policy(columns={"pages_word_perplexity": Rule(floor=0.5)})
    assert "it is no share" in failure(lambda: check(ours.path, another.path, floor))


def test_nothing_but_a_share_is_a_percentage_on_any_page(
    tmp_path: Path, ours: RunFolder, another: RunFolder
) -> None:
    metrics = ours.read_json("summary.json")["metrics"]["lm-eval.pages"]
    write_report(tmp_path / "page.html", [another.path, ours.path])
    write_page(tmp_path / "steps.html", [another.path, ours.path])
    for name in ("page.html", "steps.html"):
        page = (tmp_path / name).read_text("utf-8")
        for one in metrics.values():
            assert f"{one['value']:.3f}" in page, name
            assert f">{100 * one['value']:.1f}<" not in page, name
    assert "what is no share in its own unit" in (tmp_path / "page.html").read_text("utf-8")


def test_a_row_is_printed_where_the_task_is_not_here_any_more(
    ours: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = ours.read_json("summary.json")
    before = row_from_summary(summary)
    monkeypatch.setenv("EVALS_INCLUDE_PATH", "")
    assert row_from_summary(summary) == before


def test_a_model_card_has_it_in_its_table_and_names_no_data_set_for_it(
    tmp_path: Path, ours: RunFolder
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# M\n")
    update(readme, [ours.path])
    text = readme.read_text("utf-8")
    assert f"| {row_from_summary(ours.read_json('summary.json')).name} |" in text
    assert "model-index" not in text


def test_a_cards_perplexity_is_printed_as_it_is(tmp_path: Path) -> None:
    card = tmp_path / "mine.toml"
    column = 'benchmark = "lm-eval:pages"\nmetric = "byte_perplexity"\nlower_is_better = true\n'
    average = '[average]\nof = ["pages"]\n'
    card.write_text(
        f'title = "Mine"\n[[column]]\nkey = "pages"\nheading = "Pages"\n{column}{average}'
    )
    settings = RunSettings("smollm2", card=str(card), out=tmp_path / "run")
    summary = run(settings, make_generator=lambda _: FakeGenerator(answer)).summary
    value = summary["cells"]["pages"]["value"]
    cells = row_from_summary(summary).cells
    assert cells["pages"].text == cells["average"].text == f"{value:.3f}"
    assert summary["cells"]["average"]["ci95"] == pytest.approx(summary["cells"]["pages"]["ci95"])


def test_two_runs_are_compared_document_by_document(ours: RunFolder) -> None:
    found = paired_columns(ours.path, ours.path)
    one = found["ends_acc"]
    assert (one.n, one.difference, one.reason) == (12, 0.0, None)
    assert found["pages_word_perplexity"].difference == 0.0


@pytest.mark.parametrize("name", ["ends", "ends_information", "who", "letters", "animals"])
def test_the_probability_of_the_right_choice_is_lm_evals_own(
    name: str, ours: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it counts for its Brier score, a pair of the right choice and all probabilities."""
    benchmark = benchmark_class(f"lm-eval:{name}")(chat=True)
    assert benchmark.finer
    assert set(benchmark.finer) <= {"acc", "acc_norm", "acc_bytes"}
    for task in tasks_of(name).values():
        monkeypatch.setitem(task._metric_fn_list, "brier_score", None)
    items = {item.id: item for item in benchmark.items(LoadedSource({}, ""))}
    for row in ours.samples(benchmark.name):
        item, completion = items[row["id"]], recorded_row(row).completion
        said = [(one.logprob, one.is_greedy) for one in completion.scores or ()]
        gold, shares = tasks_of(name)[item.group].process_results(item.doc, said)["brier_score"]
        found = benchmark.finer_scores(item, completion, {})
        assert found == pytest.approx(dict.fromkeys(benchmark.finer, float(shares[gold])))


def test_where_choices_or_their_numbers_are_not_there_there_is_no_probability(
    ours: RunFolder,
) -> None:
    assert benchmark_class("lm-eval:sums").finer == {}
    benchmark = benchmark_class("lm-eval:ends")(chat=True)
    item = next(iter(benchmark.items(LoadedSource({}, ""))))
    for scores in ((), (Scored(-1.0, True, 1),), (Scored(-math.inf, False, 1),) * 9):
        assert benchmark.finer_scores(item, Completion(scores=scores), {}) == {}


def test_unknown_names_and_broken_files_are_said(folder: Path) -> None:
    said = failure(lambda: benchmark_class("lm-eval:endss"))
    assert "no task 'endss'" in said
    assert "ends" in said
