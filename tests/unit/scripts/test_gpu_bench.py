"""scripts/bench --gpu: what is measured next and for how long, what is kept, where it goes on."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench_parts import gpu
from scripts.bench_parts.gpu import PARTS, SHAPES, Part, made, main, next_part, passes, read, write

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
    ("takes", "until", "n"),
    [
        ([10, 10, 10, 10], 35, 3),  # the fourth would end at 40
        ([10, 10, 10, 10], 40, 4),
        ([90], 35, 1),  # the first in any case
        ([5, 20, 5, 5], 44, 2),  # as long as the longest before it
        ([1] * 9, 100, 4),  # four are enough
    ],
)
def test_a_pass_begins_where_it_would_end_in_time(takes: list[int], until: float, n: int) -> None:
    clock = [0.0]
    done = []
    for turn in passes(Part("x", 1, 4), until, lambda: clock[0]):
        done.append(turn)
        clock[0] += takes[turn]
    assert done == list(range(n))


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
    assert main(asked) == 3
    kept = read(tmp_path)
    assert [name for name in NAMES if not kept[name].get("done")] == ["order"]
    assert kept["order"]["tries"] == 2
    said = capsys.readouterr()
    assert said.out.count("| a thing | 1.5 |") == len(NAMES)
    assert "not done: order" in said.err
    # Mended, it is all there is left to do.
    write(tmp_path, "order", {"tries": 0})
    monkeypatch.setattr(gpu, "WORKER", ("-c", code.replace('name != "order"', "True")))
    assert main(asked) == 0
    assert (tmp_path / "gpu.md").read_text().startswith("# scripts/bench --gpu\n")


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
