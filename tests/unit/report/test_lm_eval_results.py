"""Other people's results: every limit and deviation that lm-evaluation-harness wrote into its file
is in the row's name or a cell's mark.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evals.cards.published import shipped
from evals.commands.app import app
from evals.errors import InputError
from evals.report.lm_eval_results import _METRICS, _shots_of_card, read_row
from evals.report.table import LIMITED, TableRow, make_table

SUBJECTS = {"mmlu_anatomy": 135, "mmlu_virology": 166}
WHOLE: dict[str, Any] = {
    "results": {
        "mmlu": {"acc,none": 0.65, "acc_stderr,none": 0.01, "sample_len": 301},
        "gsm8k": {"exact_match,flexible-extract": 0.5, "sample_len": 1319},
        "ifeval": {"prompt_level_loose_acc,none": 0.3, "sample_len": 541},
    },
    "group_subtasks": {"mmlu": ["mmlu_stem"], "mmlu_stem": list(SUBJECTS), "gsm8k": []},
    "versions": {"mmlu": 2, "gsm8k": 3.0, "ifeval": 4.0},
    "n-shot": {"mmlu_anatomy": 5, "mmlu_virology": 5, "gsm8k": 5, "ifeval": 0},
    "n-samples": {
        name: {"original": n, "effective": n}
        for name, n in {**SUBJECTS, "gsm8k": 1319, "ifeval": 541}.items()
    },
    "config": {
        "model": "hf",
        "model_args": {"pretrained": "me/my-8b"},
        "model_dtype": "torch.bfloat16",
        "limit": None,
        "gen_kwargs": {},
        "bootstrap_iters": 100000,
    },
    "lm_eval_version": "0.4.13",
    "transformers_version": "4.57",
    "model_source": "hf",
    "model_name": "me/my-8b",
    "chat_template": "{{ messages }}",
    "chat_template_sha": "0123456789abcdef" * 4,
    "system_instruction": None,
    "fewshot_as_multiturn": True,
}
"""What 0.4.13 writes of a whole run, cut down to what says how it was made."""


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content with other values, objects joined; `...` takes a key out."""
    found = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = changed(found[key], value)
        elif value is ...:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def row(folder: Path, **changes: Any) -> TableRow:
    """The row of a whole run's file with these changes."""
    file = folder / "results_2026-11-25.json"
    file.write_text(json.dumps(changed(WHOLE, changes)))
    return read_row(file)


WITHOUT = dict.fromkeys(
    (
        "group_subtasks",
        "versions",
        "n-shot",
        "n-samples",
        "config",
        "lm_eval_version",
        "model_source",
        "chat_template",
        "chat_template_sha",
        "system_instruction",
        "fewshot_as_multiturn",
    ),
    ...,
)
"""A file that says nothing but its numbers."""


def test_of_a_whole_run_everything_is_said_once(tmp_path: Path) -> None:
    found = row(tmp_path)
    assert (found.name, found.group) == ("me/my-8b (lm-evaluation-harness)", "lm-eval")
    prompts = "prompts by a chat template (SHA-256 0123456789ab)"
    protocol = "another protocol than the card's"
    harness = "lm-evaluation-harness 0.4.13"
    assert {key: cell.marks for key, cell in found.cells.items()} == {
        "mmlu": (
            f"{harness}, task mmlu, version 2, acc, 5-shot: {protocol}",
            f"{prompts}, the shots as turns of their own",
            "the model ran through hf",
        ),
        "gsm8k": (
            f"{harness}, task gsm8k, version 3, exact_match (flexible-extract), 5-shot where the"
            f" card has 8-shot: {protocol}",
            f"{prompts}, the shots as turns of their own",
            "the model ran through hf",
        ),
        "ifeval": (
            f"{harness}, task ifeval, version 4, prompt_level_loose_acc, 0-shot: {protocol}",
            prompts,
            "the model ran through hf",
        ),
    }


def test_an_old_file_that_says_nothing_is_read(tmp_path: Path) -> None:
    found = row(tmp_path, **WITHOUT)
    assert (found.name, found.group) == ("me/my-8b (lm-evaluation-harness)", "lm-eval")
    assert found.cell("mmlu").marks == (
        "lm-evaluation-harness, task mmlu, acc: another protocol than the card's",
    )


# --- a part of the items --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (100, "limit 100"),
        (100.0, "limit 100"),
        (0.1, "limit 0.1"),
        (0, "limit 0"),
        ("100", "limit 100"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_limited_run_stands_apart_and_says_so_in_name_and_cells(
    tmp_path: Path, limit: Any, words: str, old: bool
) -> None:
    found = row(tmp_path, **(WITHOUT if old else {}) | {"config": {"limit": limit}})
    assert (found.name, found.group) == (f"me/my-8b (lm-evaluation-harness, {words})", LIMITED)
    assert all(
        f"a limited run: {words} of each task" in cell.marks for cell in found.cells.values()
    )


def test_the_table_puts_it_with_our_own_limited_runs_and_a_bold_number_is_never_its(
    tmp_path: Path,
) -> None:
    row(tmp_path, config={"limit": 50})
    file = str(tmp_path / "results_2026-11-25.json")
    done = CliRunner().invoke(app, ["report", file, "--published", "--bold", "--by-size"])
    assert done.exit_code == 0, done.output
    above, apart = done.stdout.split("Limited runs, on a few items of each benchmark")
    assert "me/my-8b" not in above
    assert "| me/my-8b (lm-evaluation-harness, limit 50) | 65.0[" in apart
    whole = row(tmp_path)
    limited = row(tmp_path, config={"limit": 50})
    assert make_table([limited, whole]).rows == (whole, limited)


@pytest.mark.parametrize(
    ("changes", "key", "mark"),
    [
        ({"n-samples": {"gsm8k": {"effective": 100}}}, "gsm8k", "task gsm8k: 100 of its 1,319"),
        ({"n-samples": {"mmlu_virology": {"effective": 1}}}, "mmlu", "task mmlu: 136 of its 301"),
        (
            {"results": {"mmlu": {"sample_count": {"acc,none": 300, "acc_norm,none": 301}}}},
            "mmlu",
            "task mmlu: 300 of its 301",
        ),
    ],
)
def test_items_that_are_lacking_without_a_limit_are_counted(
    tmp_path: Path, changes: dict[str, Any], key: str, mark: str
) -> None:
    """`--samples` names items one by one, and leaves no limit in the file."""
    found = row(tmp_path, **changes)
    assert found.name == "me/my-8b (lm-evaluation-harness, a part of the items)"
    assert found.group == LIMITED
    assert f"{mark} items" in found.cell(key).marks
    assert not any("of its" in m for k in found.cells if k != key for m in found.cell(k).marks)


def test_a_lacking_item_of_a_task_without_a_column_is_nobodys(tmp_path: Path) -> None:
    found = row(tmp_path, **{"n-samples": {"hellaswag": {"original": 9, "effective": 1}}})
    assert found.group == "lm-eval"


def test_a_share_that_an_old_version_wrote_for_a_count_is_no_count(tmp_path: Path) -> None:
    found = row(tmp_path, **{"config": {"limit": 0.1}, "n-samples": {"gsm8k": {"effective": 0.1}}})
    assert not any("of its" in mark for mark in found.cell("gsm8k").marks)
    assert found.group == LIMITED


# --- prompts and model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "mark"),
    [
        ({"n-shot": {"mmlu": 0}}, "mmlu", "0-shot where the card has 5-shot"),
        ({"n-shot": {"mmlu_virology": 3}}, "mmlu", "3 and 5-shot where the card has 5-shot"),
        ({"n-shot": {"gsm8k": 8}}, "gsm8k", "8-shot: another"),
        ({"n-shot": {"ifeval": 1}}, "ifeval", "1-shot where the card has 0-shot"),
        ({"chat_template": None, "chat_template_sha": None}, "mmlu", "prompts as raw text"),
        ({"chat_template_sha": ...}, "mmlu", "prompts by a chat template, the shots"),
        ({"chat_template": ...}, "mmlu", "prompts by a chat template (SHA-256 0123456789ab)"),
        ({"fewshot_as_multiturn": False}, "mmlu", "the shots in one turn"),
        ({"system_instruction": "Think\naloud."}, "ifeval", "system instruction: Think aloud."),
        ({"system_instruction": ..., "system_instruction_sha": "ab"}, "mmlu", "instruction: ab"),
        ({"lm_eval_version": None, "git_hash": "8bc4608"}, "mmlu", "-harness commit 8bc4608, "),
        ({"versions": {"gsm8k": "Yaml"}}, "gsm8k", "task gsm8k, version Yaml, "),
        (
            {"config": {"gen_kwargs": {"temperature": 0.7, "do_sample": True}}},
            "gsm8k",
            "generation settings of its own: temperature=0.7, do_sample=True",
        ),
        (
            {"config": {"gen_kwargs": "temperature=0.7,top_p=0.9"}},
            "ifeval",
            "generation settings of its own: temperature=0.7, top_p=0.9",
        ),
        (
            {"config": {"model_dtype": "torch.float16"}},
            "mmlu",
            "weights in float16; the card's were in bfloat16",
        ),
        (
            {"config": {"model_args": "pretrained=me/my-8b,load_in_4bit=True,revision=step9"}},
            "mmlu",
            "the model ran through hf with load_in_4bit=True, revision=step9",
        ),
        (
            {"config": {"model_args": {"pretrained": "me/base", "peft": "me/my-8b"}}},
            "mmlu",
            "the model ran through hf with pretrained=me/base",
        ),
        (
            {"config": {"model_args": {"an_argument_of_2030": 7}}, "model_source": "vllm"},
            "mmlu",
            "the model ran through vllm with an_argument_of_2030=7",
        ),
    ],
)
def test_what_the_file_says_is_said_beside_the_cell(
    tmp_path: Path, changes: dict[str, Any], key: str, mark: str
) -> None:
    assert any(mark in found for found in row(tmp_path, **changes).cell(key).marks)


def test_settings_of_generation_are_not_said_where_nothing_is_generated(tmp_path: Path) -> None:
    found = row(tmp_path, config={"gen_kwargs": {"temperature": 0.7}})
    assert not any("generation" in mark for mark in found.cell("mmlu").marks)


def test_keys_addresses_and_places_stay_out(tmp_path: Path) -> None:
    arguments = (
        "pretrained=me/my-8b,token=hf_SECRET,base_url=http://10.0.0.7/v1,tokenizer=/home/me/tok,"
        "tensor_parallel_size=8,gpu_memory_utilization=0.9,batch_size=auto,add_bos_token=True,"
        "think_end_token=</think>"
    )
    marks = row(tmp_path, config={"model_args": arguments}).cell("mmlu").marks
    assert marks[-1] == (
        "the model ran through hf with tokenizer=tok, add_bos_token=True, think_end_token=</think>"
    )
    for private in ("SECRET", "10.0.0.7", "/home", "parallel", "0.9", "auto"):
        assert not any(private in mark for mark in marks)


def test_a_row_is_named_after_a_folder_not_after_its_place(tmp_path: Path) -> None:
    found = row(tmp_path, model_name="/home/me/out/my-8b")
    assert found.name == "my-8b (lm-evaluation-harness)"


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    found = row(tmp_path, system_instruction="x" * 5000)
    assert max(map(len, found.cell("mmlu").marks)) < 200


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["config", "n-samples", "n-shot", "versions", "group_subtasks"])
@pytest.mark.parametrize("value", [[], "text", 7])
def test_a_part_that_is_no_object_is_refused_by_name(tmp_path: Path, part: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"no result file of .*{part} is no object"):
        row(tmp_path, **{part: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"n-samples": {"gsm8k": 3}},
        {"n-samples": {"gsm8k": {"original": ...}}},
        {"group_subtasks": {"mmlu": 3}},
    ],
)
def test_a_part_that_cannot_be_read_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is no result file"):
        row(tmp_path, **changes)


def test_a_group_that_holds_itself_ends(tmp_path: Path) -> None:
    assert row(tmp_path, group_subtasks={"mmlu_stem": ["mmlu", "mmlu_anatomy"]}).cells


# --- what it rests on -----------------------------------------------------------------------------


def test_the_cards_shots_are_those_of_its_headings() -> None:
    columns = {column.key: column for column in shipped().columns}
    for key in _METRICS:
        named = re.search(r"(\d+)-shot", columns[key].heading)
        assert _shots_of_card(key) == (int(named[1]) if named else 0)


def test_the_installed_harness_writes_these_names() -> None:
    import lm_eval

    schema = (Path(lm_eval.__file__).parent / "result_schema.py").read_text("utf-8")
    for name in WHOLE:
        assert f'"{name}"' in schema
    for name in ("limit", "gen_kwargs", "model_args", "model_dtype", "original", "effective"):
        assert f"    {name}: " in schema
    assert "    sample_count: " in schema
