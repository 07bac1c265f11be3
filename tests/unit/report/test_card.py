"""A model card brought up to date: table, metadata, result files; every other byte stays; the hub's
own parser reads it back.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from typer.testing import CliRunner

from evals.cards.published import shipped
from evals.commands.app import app
from evals.errors import CheckFailed, InputError
from evals.registry import benchmark_class, read_settings
from evals.report import front_matter
from evals.report.card import BEGIN, END, renewed, update
from evals.report.front_matter import FrontMatter
from evals.report.leaderboards import leaderboards
from evals.storage.run_folder import RunFolder
from tests.readmes import has_every_byte
from tests.run_files import RECORD, summary

ROOT = Path(__file__).resolve().parents[3]
TULU = ROOT.parent / "shared" / "MODEL_CARD.txt"
SHA = "0123456789abcdef0123456789abcdef01234567"


def run_folder(
    folder: Path, name: str = "My 8B", value: float = 0.655, **cells: float | None
) -> Path:
    """A run with every cell at one value but those named."""
    values: dict[str, float | None] = dict.fromkeys(shipped().keys, value) | cells
    found = {
        key: {
            "value": value,
            "n": 1319,
            "n_items": 1319,
            "stderr": 0.01,
            "ci95": [0.6, 0.7],
            "estimator": "Wilson",
            "reason": None,
            "marks": ["judged by another"] if key.startswith("xstest") else [],
        }
        for key, value in values.items()
    }
    model = {
        "name": name,
        "id": "me/my-8b",
        "fingerprint": "f",
        "revision": None,
        "dtype": "auto",
        "quantization": None,
    }
    data = {"gsm8k": {"revision": SHA, "tables": {}}, "mmlu": {"revision": None, "tables": {}}}
    RunFolder(folder).write_json(
        "summary.json", summary(found, protocol="llama-3.1-tulu-2/1", model=model, data=data)
    )
    session = RECORD["sessions"][0] | {"ended": "2026-11-26T18:50:55+00:00"}
    RunFolder(folder).write_json("run.json", RECORD | {"sessions": [session]})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run")


def card(folder: Path, text: str) -> Path:
    file = folder / "card" / "README.md"
    file.parent.mkdir()
    file.write_bytes(text.encode())
    return file


OTHERS = """model-index:
- name: My 8B
  results:
  - task: {type: text-generation, name: Text Generation}
    dataset:
      name: IFEval (0-Shot)
      type: HuggingFaceH4/ifeval
      args: {num_few_shot: 0}
    metrics:
    - type: inst_level_strict_acc and prompt_level_strict_acc
      value: 55.4
      name: strict accuracy
    source:
      url: https://example.org/board
      name: A leaderboard
"""
PLAIN = "license: apache-2.0\nlanguage: [en]\n"
ODD = """# a comment first
"license" :   'apache-2.0'   # and one behind
tags: [ a,
        b ]


base_model:
    - "meta-llama/Meta-Llama-3.1-70B"
text: |
  model-index: not this one
   and more
empty:
date: 2024-08-19
"""
BODY = (
    "\n# Model Card for X\n\nWords — ünïcode, trailing spaces   \n\n## Performance\n\n| a | b"
    " |\n|---|---|\n| 1 | 2 |[^1]\n"
)
BODY += "\n[^1]: the card's own\n\n## Use\n"
SHAPES = {
    "plain": f"---\n{PLAIN}---\n{BODY}",
    "odd formatting": f"---\n{ODD}---\n{BODY}",
    "others' results in the middle": (
        f"---\n{PLAIN}{OTHERS}\n# about the tags\ntags: [x]\n---\n{BODY}"
    ),
    "others' results last": f"---\n{PLAIN}{OTHERS}---\n{BODY}",
    "no metadata": BODY.lstrip(),
    "empty file": "",
    "no end of line": "# X",
    "empty metadata": f"---\n\n---\n{BODY}",
    "blank lines before": f"\n \n---\n{PLAIN}---\n{BODY}",
    "windows": f"---\n{PLAIN}{OTHERS}---\n{BODY}".replace("\n", "\r\n"),
    "byte order mark": f"\ufeff---\n{PLAIN}---\n{BODY}",
    "rule of dashes in the body": f"# X\n\n---\n\nlicense: none\n\n---\n{BODY}",
    "fenced heading": f"---\n{PLAIN}---\n```\n## Performance\n```\n{BODY}",
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_everything_but_ours_stays_byte_for_byte_and_a_second_time_changes_nothing(
    tmp_path: Path, run: Path, text: str
) -> None:
    file = card(tmp_path, text)
    assert file in update(file, [run])
    after = file.read_bytes().decode()
    before, now = FrontMatter.of(text), FrontMatter.of(after)
    assert has_every_byte(now.text, before.text)
    if before.tail:
        assert (now.head, now.tail) == (before.head, before.tail)
    end = "\r\n" if "\r\n" in text else "\n"
    start, stop = now.body.index(end * 2 + BEGIN), now.body.index(END) + len(END + end)
    rest = now.body[:start] + now.body[stop:]
    assert rest[: len(before.body)] == before.body
    assert rest[len(before.body) :].strip() == (
        "" if "Performance" in before.body else "## Evaluation"
    )
    assert ("\n" in after.replace("\r\n", "")) == (end == "\n")
    assert update(file, [run]) == []
    assert file.read_bytes().decode() == after


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_the_hubs_parser_reads_our_numbers_back_and_the_others_too(
    tmp_path: Path, run: Path, text: str
) -> None:
    file = card(tmp_path, text)
    update(file, [run])
    loaded = ModelCard.load(file)
    ours = [
        result
        for result in loaded.data.eval_results
        if (result.dataset_args or {}).get("suite") == "card"
    ]
    assert {result.metric_name: result.metric_value for result in ours}["GSM8k 8-shot cot"] == 65.5
    assert len(ours) == 10
    gsm8k = next(result for result in ours if result.dataset_type == "openai/gsm8k")
    assert (gsm8k.dataset_config, gsm8k.dataset_split, gsm8k.dataset_revision) == (
        "main",
        "test",
        SHA,
    )
    mmlu = next(result for result in ours if result.dataset_type == "cais/mmlu")
    assert (mmlu.dataset_config, mmlu.dataset_split) == ("all", "test")
    others = [result for result in loaded.data.eval_results if result not in ours]
    assert [result.metric_value for result in others] == ([55.4] if "leaderboard" in text else [])
    assert loaded.data.license == (
        None if "license" not in FrontMatter.of(text).data else "apache-2.0"
    )
    assert BEGIN in loaded.text


def test_the_tulu_card_keeps_every_line_and_has_the_table_under_its_heading(
    tmp_path: Path, run: Path
) -> None:
    if not TULU.is_file():
        pytest.skip("the model card's text is not beside the repository")
    body = TULU.read_text("utf-8").replace("\nPerformance\n", "\n## Performance\n", 1)
    file = card(tmp_path, f"---\n{PLAIN}---\n{body}")
    update(file, [run], "https://example.org/run")
    after = file.read_text("utf-8")
    start = after.index("\n\n" + BEGIN)
    assert after[:start].endswith("\n## Performance")
    assert (
        after[:start].partition("---\n")[2].partition("---\n")[2]
        + after[after.index(END) + len(END) + 1 :]
        == body
    )
    (source,) = {result.source_url for result in ModelCard.load(file).data.eval_results}
    assert source == "https://example.org/run"
    assert update(file, [run], "https://example.org/run") == []


def test_new_numbers_replace_the_old_ones_and_nothing_else(tmp_path: Path, run: Path) -> None:
    file = card(tmp_path, SHAPES["others' results in the middle"])
    update(file, [run])
    first = file.read_text("utf-8")
    changed = update(file, [run_folder(tmp_path / "run", value=0.7)])
    assert first.replace("65.5", "70.0") == file.read_text("utf-8")
    assert {path.name for path in changed} == {"README.md", "evals-gsm8k.yaml"}


def test_a_result_file_is_the_hubs_and_says_how_it_was_asked(tmp_path: Path, run: Path) -> None:
    file = card(tmp_path, "# X\n")
    update(file, [run], "https://example.org/run")
    home = file.parent / ".eval_results"
    assert [path.name for path in home.iterdir()] == ["evals-gsm8k.yaml"]
    text = (home / "evals-gsm8k.yaml").read_text("utf-8")
    (gsm8k,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (gsm8k.dataset_id, gsm8k.task_id, gsm8k.value) == ("openai/gsm8k", "gsm8k", 65.5)
    assert (gsm8k.source_url, gsm8k.source_name) == ("https://example.org/run", "evals")
    # Quoted, as the hub's page has it: bare it would be a date, not a text.
    assert "date: '2026-11-26'\n" in text
    assert str(gsm8k.notes).startswith("8-shot CoT, one greedy answer")
    assert str(gsm8k.notes).endswith("chat format tulu; 95 % interval 60.0 to 70.0")


def test_the_whole_split_is_the_leaderboards_and_a_deviation_from_the_card(
    tmp_path: Path, run: Path
) -> None:
    summary = RunFolder(run).read_json("summary.json")
    RunFolder(run).write_json("summary.json", summary | {"suite": "full"})
    file = card(tmp_path, "# X\n")
    update(file, [run])
    assert (file.parent / ".eval_results" / "evals-gsm8k.yaml").exists()
    assert "gsm8k: items all, the card's 200" in file.read_text("utf-8")


OTHER_SHOTS = {"key": "gsm8k", "heading": "G", "benchmark": "gsm8k", "settings": {"shots": 4}}


@pytest.mark.parametrize(
    ("cell", "about", "words"),
    [
        ({"n": 200}, {}, "it is of 200 of the 1,319 items; evals run asks all with --suite full"),
        ({"n": 1318}, {}, "it is of 1,318 of the 1,319 items"),
        ({"marks": ["weights quantized"]}, {}, "weights quantized"),
        (
            {},
            {
                "card": {"title": "t", "protocol": "p", "column": [OTHER_SHOTS], "average": {}},
                "data": {},
            },
            "it was asked with shots = 4",
        ),
    ],
)
def test_a_number_that_is_none_of_the_leaderboards_has_no_file_and_the_reason_is_said(
    tmp_path: Path, run: Path, cell: dict[str, Any], about: dict[str, Any], words: str
) -> None:
    summary = RunFolder(run).read_json("summary.json")
    summary["cells"]["gsm8k"] |= cell
    RunFolder(run).write_json("summary.json", summary | about)
    file = card(tmp_path, "# X\n")
    called = CliRunner().invoke(app, ["card", str(file), "--run", str(run)])
    assert f"gsm8k is not for openai/gsm8k's leaderboard: {words}" in called.stderr
    assert not (file.parent / ".eval_results").exists()


def test_data_sets_without_a_leaderboard_are_named(run: Path) -> None:
    (said,) = renewed("", [run]).left_out
    assert said.startswith("no leaderboard of the hub is known for cais/mmlu, lukaemon/bbh, ")
    assert "openai/gsm8k" not in said


def test_a_harness_task_without_a_leaderboard_is_named_and_not_its_form_of_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ROOT / "results" / "smollm2-135m-instruct-hellaswag"
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(run / "tasks"))
    (said,) = renewed("", [run]).left_out
    assert said.startswith("no leaderboard of the hub is known for lm-eval.hellaswag_local (")


def test_every_leaderboard_is_of_a_benchmark_of_ours_and_has_its_sources() -> None:
    for board in leaderboards():
        cls = benchmark_class(board.benchmark)
        assert cls.dataset.hub_id == board.dataset
        assert board.metric in {one.name for one in cls.metrics}
        hub = cls.dataset.tables["test"].hub
        assert (hub.config, hub.split) == (board.config, board.split)
        assert read_settings(cls, board.settings)
        assert board.sources
        assert all(url.startswith("https://") for url in board.sources)


def test_a_cell_without_a_value_leaves_table_metadata_and_files_and_other_peoples_files_stay(
    tmp_path: Path, run: Path
) -> None:
    file = card(tmp_path, "# X\n")
    update(file, [run])
    theirs = file.parent / ".eval_results" / "gsm8k.yaml"
    theirs.write_text("- by: hand\n")
    changed = update(file, [run_folder(tmp_path / "run", gsm8k=None)])
    assert [path.name for path in changed] == ["README.md", "evals-gsm8k.yaml"]
    assert not (file.parent / ".eval_results" / "evals-gsm8k.yaml").exists()
    assert theirs.read_text() == "- by: hand\n"
    assert "openai/gsm8k" not in file.read_text("utf-8")


def test_footnotes_of_the_card_and_of_the_table_keep_apart(tmp_path: Path, run: Path) -> None:
    file = card(tmp_path, SHAPES["plain"])
    update(file, [run])
    text = file.read_text("utf-8")
    assert "[^evals-1]: judged by another\n" in text
    assert text.count("[^1]") == 2


def test_more_runs_are_more_rows_and_the_metadata_is_of_the_first(
    tmp_path: Path, run: Path
) -> None:
    file = card(tmp_path, "# X\n")
    update(file, [run, run_folder(tmp_path / "other", "Another", 0.4)])
    text = file.read_text("utf-8")
    assert "| Another | 40.0 |" in text
    assert {result.metric_value for result in ModelCard.load(file).data.eval_results} == {65.5}


@pytest.mark.parametrize(
    ("part", "words"), [({"suite": "smoke"}, "the smoke suite"), ({"limit": 5}, "a limit of 5")]
)
def test_a_run_of_a_part_of_the_data_is_a_row_and_no_metadata(
    tmp_path: Path, run: Path, part: dict[str, Any], words: str
) -> None:
    file = card(tmp_path, SHAPES["others' results last"])
    update(file, [run])
    summary = RunFolder(run).read_json("summary.json")
    RunFolder(run).write_json("summary.json", summary | part)
    called = CliRunner().invoke(app, ["card", str(file), "--run", str(run)])
    assert f"a run with {words}, not of the datasets" in called.stderr
    text = file.read_text("utf-8")
    assert "| My 8B (" in text
    assert "openai/gsm8k" not in text
    assert [result.dataset_type for result in ModelCard.load(file).data.eval_results] == [
        "HuggingFaceH4/ifeval"
    ]
    assert not list((file.parent / ".eval_results").iterdir())


def test_the_command_checks_with_exit_code_1_and_writes_without(tmp_path: Path, run: Path) -> None:
    file = card(tmp_path, "# X\n")
    command = ["card", str(file), "--run", str(run)]
    stale = CliRunner().invoke(app, [*command, "--check"])
    assert isinstance(stale.exception, CheckFailed)
    assert "README.md" in str(stale.exception)
    assert file.read_text() == "# X\n"
    assert CliRunner().invoke(app, command).stdout.splitlines()[0] == str(file)
    assert CliRunner().invoke(app, [*command, "--check"]).stdout == "up to date\n"
    assert CheckFailed.exit_code == 1


def test_checking_writes_nothing_and_says_what_is_stale(tmp_path: Path, run: Path) -> None:
    file = card(tmp_path, "# X\n")
    assert len(update(file, [run], write=False)) == 2
    assert [path.name for path in file.parent.iterdir()] == ["README.md"]
    assert file.read_text() == "# X\n"
    update(file, [run])
    file.write_text(file.read_text("utf-8").replace("65.5", "99.9", 1))
    assert update(file, [run], write=False) == [file]


def bomb(form: str, first: str) -> str:
    """Some hundred bytes of YAML that stand for gigabytes: each value is ten of the last."""
    tens = [f"a{n}: &a{n} {form.format(', '.join([f'*a{n - 1}'] * 10))}\n" for n in range(1, 10)]
    return f"a0: &a0 {first}\n" + "".join(tens)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{END} {BEGIN}", "once each"),
        (f"{BEGIN}", "once each"),
        (f"{BEGIN}{END}{BEGIN}{END}", "once each"),
        ("---\n{license: mit, tags: [a]}\n---\n", "in braces"),
        ("---\n- a\n---\n", "no YAML mapping"),
        ("---\na: [\n---\n", "no valid YAML"),
        ("---\nreleased: 2024-02-30\n---\n", "no valid YAML: day is out of range"),
        ("---\nmodel-index: 7\n---\n", "not a list of models"),
        ("---\nmodel-index: []\nmodel-index: []\n---\n", "twice"),
        ("---\nmodel-index: &a []\nothers: *a\n---\n", "replaced alone"),
        (f"---\n{bomb('[{}]', '[' + 'x, ' * 9 + 'x]')}---\n", "aliases have more than 10,000,000"),
        (f"---\n&r\na: &a [{'*r, ' * 20000}]\nb: [{'*a, ' * 1000}]\n---\n", "aliases have more"),
        (f"---\n{bomb('{{<<: [{}]}}', '{x: 1}')}---\n", "aliases have more than 10,000,000"),
    ],
)
def test_a_card_that_cannot_be_edited_safely_is_refused_and_left_alone(
    tmp_path: Path, run: Path, text: str, words: str
) -> None:
    file = card(tmp_path, text)
    with pytest.raises(InputError, match=words):
        update(file, [run])
    assert file.read_text() == text
    assert not (file.parent / ".eval_results").exists()


def test_a_missing_card_and_one_that_is_no_text_are_refused(tmp_path: Path, run: Path) -> None:
    for name in ("nowhere/README.md", "card.md"):
        with pytest.raises(InputError, match="There is no"):
            update(tmp_path / name, [run])
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        update(tmp_path / "README.md", [run])


def test_a_folder_as_training_leaves_it_gets_the_card_that_an_empty_one_becomes(
    tmp_path: Path, run: Path
) -> None:
    empty = card(tmp_path, "")
    update(empty, [run])
    (tmp_path / "model").mkdir()
    fresh = tmp_path / "model" / "README.md"
    update(fresh, [run], write=False)
    assert not fresh.exists()
    update(fresh, [run])
    assert fresh.read_bytes() == empty.read_bytes()


def test_the_front_matter_is_found_where_the_hub_finds_it() -> None:
    assert (
        front_matter._BLOCK.pattern.replace("(?:\\r\\n|\\n|$)", "(\\r\\n|\\n|$)")
        == REGEX_YAML_BLOCK.pattern
    )


def test_names_of_models_cannot_break_out_of_the_block(tmp_path: Path) -> None:
    file = card(tmp_path, "# X\n")
    update(file, [run_folder(tmp_path / "run", f"a {END} | b\n---\nlicense: x")])
    text = file.read_text("utf-8")
    assert FrontMatter.of(text).body.count(END) == 1
    assert update(file, [tmp_path / "run"]) == []
    metadata: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    assert list(metadata) == ["model-index"]
    assert json.dumps(metadata)
