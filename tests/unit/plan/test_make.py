"""What will be asked: the items, the tasks, and everything that can be wrong before an engine
starts.
"""

import gc
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.plan.items import spread
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Item, ItemId
from evals.registry import BENCHMARKS
from evals.storage.run_folder import default_folder
from scripts.bench_parts import toy
from tests.toydata import failure

SMOKE = RunSettings("smollm2", suite="smoke")
groups = st.lists(st.sampled_from("abcdef"), max_size=60)


def items_of(names: list[str]) -> list[Item]:
    return [Item(ItemId(f"x/{index}"), name) for index, name in enumerate(names)]


def recording(path: Path, *rows: Mapping[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"replay:{path}"


# --- spread ---------------------------------------------------------------------------------------


@given(groups, st.integers(min_value=1, max_value=80))
def test_a_limit_takes_that_many_items_in_their_order(names: list[str], n: int) -> None:
    items = items_of(names)
    taken = spread(items, n)
    assert len(taken) == min(n, len(items))
    numbers = [int(item.id.split("/")[1]) for item in taken]
    assert numbers == sorted(set(numbers))


@given(groups, st.integers(min_value=1, max_value=80))
def test_a_limit_is_even_over_the_groups_as_far_as_they_reach(names: list[str], n: int) -> None:
    there = Counter(names)
    taken = Counter(item.group for item in spread(items_of(names), n))
    most = max(taken.values(), default=0)
    for group, size in there.items():
        assert taken[group] >= min(size, most - 1)


@given(groups, st.integers(min_value=1, max_value=80))
def test_a_limit_draws_the_same_items_every_time(names: list[str], n: int) -> None:
    items = items_of(names)
    assert spread(items, n) == spread(list(items), n)


@given(groups, st.integers(min_value=1, max_value=79))
def test_a_larger_limit_keeps_what_a_smaller_one_took(names: list[str], n: int) -> None:
    items = items_of(names)
    assert {item.id for item in spread(items, n)} <= {item.id for item in spread(items, n + 1)}


def test_a_limit_is_not_the_first_items() -> None:
    items = items_of(["a"] * 100)
    assert [item.id for item in spread(items, 10)] != [item.id for item in items[:10]]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (replace(SMOKE, suite="crad"), "Unknown suite 'crad'. Known: card, full, smoke."),
        (replace(SMOKE, tasks=("gsm",)), "Unknown task 'gsm'. Did you mean gsm8k?"),
        (replace(SMOKE, tasks=("gsm8k,mmul",)), "Unknown task 'mmul'. Did you mean mmlu?"),
        (replace(SMOKE, tasks=(" , ",)), "names no benchmark. Known: mmlu, gsm8k"),
        (replace(SMOKE, limit=0), "--limit 0: give the number of items"),
        (replace(SMOKE, limit=-3), "--limit -3: give the number of items"),
        (
            replace(SMOKE, chat_format="chatml"),
            "Unknown chat format 'chatml'. Known: auto, tulu, tokenizer, none.",
        ),
        (replace(SMOKE, judges=("xtest=m",)), "unknown role 'xtest'"),
        (replace(SMOKE, judges=("xstest=nonsense",)), "Unknown model 'nonsense'"),
        (replace(SMOKE, judges=("truth=strmatch",)), "strmatch is a rule that decides xstest only"),
        (replace(SMOKE, revision="main"), "--revision main goes with a hub id"),
        (
            replace(SMOKE, engine=EngineSettings(tensor_parallel_size=0)),
            "--tensor-parallel-size 0: give 1 or more",
        ),
        (
            replace(SMOKE, engine=EngineSettings(gpu_memory_utilization=5)),
            "--gpu-memory-utilization 5: give a share",
        ),
        (
            replace(SMOKE, engine=EngineSettings(max_model_len=0)),
            "--max-model-len 0: give 1 or more",
        ),
        (
            replace(SMOKE, model="openai:m@http://localhost:1/v1", chat_format="tulu"),
            "--chat-format tulu needs the model's tokenizer",
        ),
        (
            replace(SMOKE, model="openai:m@http://localhost:1/v1", chat_format="none"),
            "--chat-format none needs the model's tokenizer",
        ),
        (
            replace(
                SMOKE,
                model="openai:m@http://localhost:1/v1",
                tokenizer="openai:m@http://localhost:1/v1",
            ),
            "has no tokenizer",
        ),
        (
            replace(SMOKE, model="openai:m@http://example.com/v1", offline=True),
            "--offline forbids the server http://example.com/v1",
        ),
    ],
)
def test_bad_settings_are_named_before_anything_is_asked(settings: RunSettings, says: str) -> None:
    assert says in failure(lambda: make_plan(settings))


def test_the_openai_judges_need_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = {"id": "xstest/0", "outputs": ["no"]}
    message = failure(
        lambda: make_plan(
            RunSettings(recording(tmp_path / "r.jsonl", row), suite="smoke", judges=("current",))
        )
    )
    assert (
        message
        == "openai:gpt-4.1-2025-04-14 needs a key: set OPENAI_API_KEY, or name a server of your"
        " own: openai:NAME@URL."
    )


def test_a_judge_no_task_of_the_run_needs_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = {"id": "gsm8k/0", "outputs": ["42"]}
    plan = make_plan(
        RunSettings(recording(tmp_path / "r.jsonl", row), suite="smoke", judges=("card",))
    )
    assert list(plan.tasks) == ["gsm8k"]


def test_a_recording_cannot_judge(tmp_path: Path) -> None:
    recorded = recording(tmp_path / "r.jsonl", {"id": "xstest/0", "outputs": ["no"]})
    message = failure(lambda: make_plan(replace(SMOKE, judges=(f"xstest={recorded}",))))
    assert "it cannot judge" in message


def test_everything_missing_is_listed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judges = ("xstest=openai:gpt-9", "truth=nonsense")
    message = failure(
        lambda: make_plan(
            RunSettings("smolm3", tasks=("gsm8k,xstest,truthfulqa",), data=tmp_path, judges=judges)
        )
    )
    model, data, *about_judges = message.splitlines()
    assert "Unknown model 'smolm3'" in model
    assert "gsm8k (gsm8k/test.jsonl)" in data
    assert "truthfulqa (truthfulqa/TruthfulQA.csv)" in data
    assert "evals data fetch gsm8k truthfulqa xstest" in data
    assert len(about_judges) == 2
    assert "'nonsense'" in about_judges[0]
    assert "needs a key" in about_judges[1]


def test_a_recording_of_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        make_plan(
            RunSettings(
                recording(tmp_path / "r.jsonl", {"id": "squad/1", "outputs": ["x"]}), suite="smoke"
            )
        )


# --- what is asked --------------------------------------------------------------------------------


def test_two_items_with_one_id_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "toy", "scripts.bench_parts.toy:Toy")
    monkeypatch.setattr(
        toy.Toy, "items", lambda self, source: [toy.Sum(ItemId("toy/1"), "", "1 + 1?", "2")] * 2
    )
    settings = RunSettings(
        "openai:x@http://127.0.0.1:9/v1",
        suite="full",
        tasks=("toy",),
        data=toy.write_data(tmp_path, 2),
    )
    with pytest.raises(InputError, match="toy: two of its items have the id toy/1"):
        make_plan(settings)


def test_what_no_judge_decides_is_not_generated_unless_asked_for_by_name() -> None:
    skipped = {name: task.skipped for name, task in make_plan(SMOKE).tasks.items()}
    assert {name for name, why in skipped.items() if why} == {"alpaca_eval", "truthfulqa", "xstest"}
    assert (
        skipped["xstest"]
        == "no judge: set --judge xstest=MODEL (or --judge xstest=strmatch, which needs no model)"
    )
    plan = make_plan(replace(SMOKE, tasks=("xstest",)))
    assert plan.tasks["xstest"].skipped is None
    assert make_plan(SMOKE).render("xstest") == []
    assert make_plan(replace(SMOKE, judges=("xstest=strmatch",))).tasks["xstest"].skipped is None


def test_base_models_skip_alpaca_eval_as_on_the_card() -> None:
    plan = make_plan(replace(SMOKE, chat_format="none", judges=("all=smollm2",)))
    assert {name for name, task in plan.tasks.items() if task.skipped} == {"alpaca_eval"}
    assert plan.tasks["alpaca_eval"].skipped == "not run on base models, as on the card"
    assert plan.renderer.chat_format == "none"


def test_tasks_come_in_the_cards_order_however_they_are_named() -> None:
    assert list(make_plan(replace(SMOKE, tasks=("ifeval, mmlu", "gsm8k"))).tasks) == [
        "mmlu",
        "gsm8k",
        "ifeval",
    ]


def test_the_card_suite_takes_the_cards_subset_and_full_takes_all(data_dir: Path) -> None:
    settings = RunSettings("smollm2", tasks=("gsm8k",), data=data_dir)
    card, full = (
        make_plan(settings).tasks["gsm8k"].items,
        make_plan(replace(settings, suite="full")).tasks["gsm8k"].items,
    )
    assert (len(card), len(full)) == (200, 1319)
    assert card[0].id == "gsm8k/1309"
    limited = make_plan(replace(settings, limit=5)).tasks["gsm8k"].items
    assert len(limited) == 5
    assert {item.id for item in limited} <= {item.id for item in card}


def test_a_servers_context_is_that_of_its_tokenizers_folder() -> None:
    plan = make_plan(
        replace(
            SMOKE, model="openai:m@http://localhost:1/v1", tokenizer="smollm2", tasks=("ifeval",)
        )
    )
    assert plan.renderer.max_len == 8192
    assert plan.chat_format == "tokenizer"
    assert all(request.token_ids for request in plan.render("ifeval"))


def test_the_rows_name_may_be_given() -> None:
    plan = make_plan(replace(SMOKE, name="My 8B, step 2000"))
    assert plan.model.name == "My 8B, step 2000"
    assert plan.out == Path("results/my-8b--step-2000-smoke")


@given(st.text())
def test_a_run_folders_name_is_one_plain_word(name: str) -> None:
    folder = default_folder(name, "card")
    assert folder.endswith("-card")
    assert "/" not in folder
    assert not folder.startswith((".", "-"))
    assert Path(folder).name == folder


def test_planning_leaves_the_search_for_garbage_as_it_was() -> None:
    assert gc.isenabled()
    make_plan(SMOKE)
    failure(lambda: make_plan(replace(SMOKE, model="smolm2")))
    assert gc.isenabled()
