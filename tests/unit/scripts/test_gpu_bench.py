"""scripts/bench --gpu: what is measured next and for how long, what is kept, where it goes on."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench_parts import gpu, gpu_parts
from scripts.bench_parts.gpu import main, measured, next_part, passes, read, write
from scripts.bench_parts.gpu_parts import PARTS, SHAPES, made
from scripts.bench_parts.tasks import CASES

DONE = {"done": True, "tries": 1}
BROKE_OFF = {"tries": 1, "rows": []}
NAMES = [part.name for part in PARTS]


@pytest.mark.parametrize(
    ("kept", "left_s", "name", "seconds"),
    [
        ({}, 500, "overhead mixed", 200),
        ({NAMES[0]: DONE}, 300, "overhead humaneval", 60),
        # What never began comes before what broke off.
        ({NAMES[0]: BROKE_OFF}, 500, "overhead humaneval", 60),
        ({NAMES[0]: BROKE_OFF} | dict.fromkeys(NAMES[1:], DONE), 77, "overhead mixed", 77),
        (dict.fromkeys(NAMES[:-1], DONE), 50, "tasks", 50),
    ],
)
def test_the_most_important_comes_first_and_has_its_share_of_the_time(
    kept: dict[str, Any], left_s: float, name: str, seconds: float
) -> None:
    found = next_part(kept, left_s)
    assert found is not None
    assert (found[0].name, found[1]) == (name, pytest.approx(seconds))


@pytest.mark.parametrize(
    ("kept", "left_s"),
    [
        ({}, 0),
        (dict.fromkeys(NAMES, DONE), 500),
        # Begun twice and never ended: it does not work on this machine.
        (dict.fromkeys(NAMES[1:], DONE) | {NAMES[0]: {"tries": 2}}, 500),
    ],
)
def test_nothing_is_begun_without_time_or_when_all_is_done(
    kept: dict[str, Any], left_s: float
) -> None:
    assert next_part(kept, left_s) is None


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([DONE, BROKE_OFF])))
def test_the_shares_of_what_is_open_are_all_of_the_time(kept: dict[str, Any]) -> None:
    left_s, spent = 100.0, 0.0
    while (found := next_part(kept, left_s - spent)) is not None:
        spent += found[1]
        kept = kept | {found[0].name: DONE}
    assert all(kept[name]["done"] for name in NAMES)
    assert spent <= left_s + 1e-6


@pytest.mark.parametrize(
    ("takes", "until", "n_done", "n"),
    [
        ([10, 10, 10, 10], 35, 0, 3),  # the fourth would end at 40
        ([10, 10, 10, 10], 40, 0, 4),
        ([90], 35, 0, 1),  # the first in any case
        ([5, 20, 5, 5], 44, 0, 2),  # as long as the longest before it
        ([1] * 9, 100, 0, 4),  # four are enough
        ([1] * 9, 100, 3, 1),
        ([90, 1], 35, 2, 1),
        ([1], 100, 4, 0),
    ],
)
def test_a_pass_begins_where_it_would_end_in_time(
    takes: list[int], until: float, n_done: int, n: int
) -> None:
    clock = [0.0]
    done = []
    for turn in passes(4, until, n_done, lambda: clock[0]):
        clock[0] += takes[len(done)]
        done.append(turn)
    assert done == list(range(n_done, n_done + n))


PASSES: dict[str, Any] = {
    "overhead mixed": lambda n: {"ratios": [1.0 + n]},
    "overhead humaneval": lambda n: {"ratios": [1.0 + n]},
    "overhead mmlu": lambda n: {"ratios": [1.0 + n]},
    "order": lambda n: {"ours": 2.0, "other": 2.0 + 2 * n},
    "cache": lambda n: {"cached": 3, "best": 4},
    "sleep": lambda n: {"wake": 1.5},
    "tasks": lambda n: {case.name: [1.0, 2.0 * n] for case in CASES},
}
"""What a pass of each part finds."""


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_passes_join_those_that_an_earlier_command_made(part: gpu_parts.Part) -> None:
    one = PASSES[part.name]
    begun = replace(part, passes=3, each=lambda _, turns: map(one, turns))
    earlier = [one(0)]
    found = list(measured(None, begun, list(earlier), float("inf")))  # type: ignore[arg-type]
    assert len(found) == 2
    assert found[-1]["raw"] == [one(0), one(1), one(2)]
    values = {"overhead": 2, "order": 2, "cache": 0.75, "sleep": 1.5, "tasks": 2}
    assert {row["value"] for row in found[-1]["rows"]} == {values[part.name.split()[0]]}


def test_the_shapes_model_is_what_its_name_says(tmp_path: Path) -> None:
    from evals.plan.gpu_hours import shape_of

    # Llama 3.1 8B less what its vocabulary has more, 128,256 words to 49,152, in and out.
    found = shape_of(made(tmp_path, SHAPES["8b"], "smollm2"))
    assert found is not None
    assert found.parameters == pytest.approx(8.03e9 - 2 * (128_256 - 49_152) * 4096, rel=1e-3)
    assert found.kv_bytes == 131_072


WORKER = """
import json, pathlib, sys
spec = json.loads(sys.argv[1])
path = pathlib.Path(spec["out"]) / "gpu.json"
kept = json.loads(path.read_text()) if path.exists() else {}
for name in NAMES:
    one = kept.setdefault(name, {})
    if one.get("done") or one.get("tries", 0) == 2:
        continue
    one["tries"] = one.get("tries", 0) + 1
    one["rows"] = [{"what": "a thing", "value": 1.5}]
    one["done"] = name != "order"
    path.write_text(json.dumps(kept))
    if name == "order":
        sys.exit(1)
"""


def test_a_part_that_fails_leaves_the_others_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = WORKER.replace("NAMES", repr(NAMES))
    monkeypatch.setattr(gpu, "WORKER", ("-c", code))
    asked = argparse.Namespace(budget=3600, out=tmp_path, data=tmp_path, shape="tiny", model="m")
    assert main(asked) == 1
    kept = read(tmp_path)
    assert [name for name in NAMES if not kept[name].get("done")] == ["order"]
    assert kept["order"]["tries"] == 2
    said = capsys.readouterr()
    assert said.out.count("| a thing | 1.5 |") == len(NAMES)
    assert "does not work here: order.\n" in said.err
    # Mended, it is all there is left to do.
    write(tmp_path, "order", {"tries": 0})
    monkeypatch.setattr(gpu, "WORKER", ("-c", code.replace('name != "order"', "True")))
    assert main(asked) == 0
    assert (tmp_path / "gpu.md").read_text().startswith("# scripts/bench --gpu\n")


def test_what_the_budget_breaks_off_is_gone_on_with_however_often(tmp_path: Path) -> None:
    before = {"order": {"tries": 1}, "cache": {"tries": 2}, "sleep": {"tries": 1}}
    for name, one in before.items():
        write(tmp_path, name, one)
    write(tmp_path, "order", {"tries": 2})  # under way at the end
    write(tmp_path, "sleep", {"tries": 2, "done": True})
    gpu.forgive(tmp_path, before)
    assert read(tmp_path) == {
        "order": {"tries": 1}, "cache": {"tries": 2}, "sleep": {"tries": 2, "done": True},
    }  # fmt: skip


def test_an_engine_that_does_not_start_is_not_started_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "order", BROKE_OFF)
    monkeypatch.setattr(gpu, "WORKER", ("-c", "raise SystemExit(1)"))
    asked = argparse.Namespace(budget=3600, out=tmp_path, data=tmp_path, shape="tiny", model="m")
    assert main(asked) == 1


def test_figures_are_written_whole_beside_the_others(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    write(tmp_path, "order", BROKE_OFF)
    write(tmp_path, "cache", DONE)
    write(tmp_path, "order", DONE)
    assert read(tmp_path) == {"order": DONE, "cache": DONE}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert json.loads((tmp_path / "gpu.json").read_text()) == read(tmp_path)
