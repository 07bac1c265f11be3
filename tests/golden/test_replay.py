"""`evals replay` on MMLU, GSM8K, BBH and HumanEval: every published figure comes back, and a corpus
that is not as released is noticed.
"""

import gzip
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.data.load import load_card_data
from evals.errors import InputError
from evals.fidelity.corpora import recordings
from evals.fidelity.replay import as_text, replay
from evals.registry import benchmark_class
from tests.replayed import Whole, command, replayed

BENCHMARKS = ("bbh", "gsm8k", "humaneval", "mmlu")
SOLUTIONS = "example_model_solutions.jsonl.gz"
RESULTS = Path(__file__).resolve().parents[2] / "results"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, replay_dir: Path) -> Whole:
    return replayed(tmp_path_factory.mktemp("corpora"), BENCHMARKS, replay_dir, data_dir)


def test_every_published_figure_comes_back_at_its_printed_precision(whole: Whole) -> None:
    assert whole.code == 0
    assert Counter((figure["benchmark"], figure["state"]) for figure in whole.figures) == {
        ("bbh", "agrees"): 55,
        ("bbh", "-"): 1,
        ("gsm8k", "agrees"): 12,
        ("humaneval", "agrees"): 7,
        ("mmlu", "agrees"): 175,
    }
    assert {
        figure["benchmark"]: figure["n"]
        for figure in whole.figures
        if figure["figure"] in ("accuracy", "mean accuracy", "pass@1")
    } == {"gsm8k": 1319, "humaneval": 164, "mmlu": 14_042}
    assert whole.lines[-1].startswith(
        "250 figures of 15 recordings: 249 agree at the printed precision, 0 differ"
    )


def test_the_stored_figures_are_these(whole: Whole) -> None:
    stored = json.loads((RESULTS / "reproduction" / "figures.json").read_text("utf-8"))["figures"]
    assert [figure for figure in stored if figure["benchmark"] in BENCHMARKS] == whole.figures


def test_what_cannot_be_had_says_why(whole: Whole) -> None:
    (figure,) = [figure for figure in whole.figures if figure["state"] == "-"]
    assert (figure["recording"], figure["figure"]) == (
        "code-davinci-002 cot",
        "multistep_arithmetic_two, with a calculator",
    )
    assert (figure["ours"], figure["published"], figure["n"]) == (None, 60.4, 250)
    (line,) = [line for line in whole.lines if line.startswith("- ")]
    assert line.endswith("(the calculator is not among the released files)")


def test_every_line_names_its_source_and_every_rule_has_the_cards_figure_beside_it(
    whole: Whole,
) -> None:
    assert all("https://" in figure["source"] for figure in whole.figures)
    assert {figure["benchmark"] for figure in whole.figures if not figure["rule"]} == {"humaneval"}
    assert all((figure["card"] is None) == (figure["rule"] == "") for figure in whole.figures)
    assert all(", difference +0" in line for line in whole.lines if line.startswith("agrees"))


def moved(whole: Whole, benchmark: str, digits: int) -> dict[tuple[str, str], tuple[float, float]]:
    """The figures that the card's rule moves: ours under the corpus's rule, then the card's."""
    return {
        (figure["recording"], figure["figure"]): (
            round(figure["ours"], digits),
            round(figure["card"], digits),
        )
        for figure in whole.figures
        if figure["benchmark"] == benchmark
        and figure["ours"] is not None
        and abs(figure["ours"] - figure["card"]) > 1e-9
    }


def test_the_cards_rule_moves_bbh_by_deleted_punctuation_and_a_missing_calculator(
    whole: Whole,
) -> None:
    cot, direct = "code-davinci-002 cot", "code-davinci-002 direct"
    plain = {
        (cot, "dyck_languages"): (56.8, 57.2),
        (cot, "multistep_arithmetic_two"): (47.6, 49.2),
        (direct, "dyck_languages"): (46.8, 58.0),
        (direct, "multistep_arithmetic_two"): (1.2, 2.0),
    }
    again = {(name, f"{task}, with a calculator"): values for (name, task), values in plain.items()}
    del again[cot, "multistep_arithmetic_two, with a calculator"]
    again[cot, "object_counting, with a calculator"] = (96.0, 93.2)
    assert moved(whole, "bbh", 1) == plain | again


def test_the_cards_rule_moves_gsm8k_by_signs_points_and_what_follows_the_answer(
    whole: Whole,
) -> None:
    assert moved(whole, "gsm8k", 4) == {
        ("6b_finetuning", "accuracy"): (0.2168, 0.2214),
        ("6b_finetuning", "correct answers"): (286, 292),
        ("6b_finetuning", "released flags that come back"): (1319, 1313),
        ("Meta-Llama-3.1-8B-Instruct", "accuracy"): (84.0030, 82.9416),
        ("gpt-3.5-turbo-0125", "accuracy"): (80.3639, 78.5444),
        ("gemma-2-2b-it", "accuracy"): (51.6300, 51.8575),
        ("Meta-Llama-3.1-8B-Instruct", "outputs without an answer"): (0.3791, 0.0),
        ("gemma-2-2b-it", "outputs without an answer"): (0.3791, 0.0),
    }


def test_the_cards_rule_moves_mmlu_by_weights_of_subjects_and_two_options_written_twice(
    whole: Whole,
) -> None:
    assert moved(whole, "mmlu", 4) == {
        ("openai_gpt-4-0613", "mean accuracy"): (0.8244, 0.8400),
        ("openai_gpt-4-1106-preview", "mean accuracy"): (0.7955, 0.8101),
        ("meta_llama-3-70b", "mean accuracy"): (0.7934, 0.7866),
        ("google_text-unicorn@001", "mean accuracy"): (0.7860, 0.7799),
        ("google_gemini-1.5-flash-preview-0514", "mean accuracy"): (0.7776, 0.7747),
        ("meta_llama-3-70b", "international_law"): (0.9008, 0.8926),
        ("google_gemini-1.5-flash-preview-0514", "sociology"): (0.9005, 0.8955),
    }


def test_the_same_corpus_gives_the_same_lines_again(
    whole: Whole, data_dir: Path, replay_dir: Path
) -> None:
    again = [as_text(line) for line in replay(replay_dir / "bbh", data_dir)]
    assert again == [line for line in whole.lines if " bbh  " in line]


def copied(replay_dir: Path, to: Path) -> Path:
    """GSM8K's corpus as files that may be changed."""
    folder = to / "gsm8k"
    for file in sorted((replay_dir / "gsm8k").rglob("*")):
        if file.is_file():
            target = folder / file.relative_to(replay_dir / "gsm8k")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


def change(folder: Path, edit: Callable[[list[Row]], object]) -> None:
    """Edit the rows of the paper's solutions and put the file's new checksum into README.json."""
    file, readme = folder / SOLUTIONS, folder / "README.json"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    edit(rows)
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    about = json.loads(readme.read_text("utf-8"))
    (entry,) = [entry for entry in about["files"] if entry["path"] == SOLUTIONS]
    entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    readme.write_text(json.dumps(about), "utf-8")


def test_one_changed_answer_makes_the_figures_differ_and_the_exit_code_1(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)

    def answer_wrongly(rows: list[Row]) -> None:
        row = rows[0]["175b_verification"]
        assert row["is_correct"]
        row["solution"] = row["solution"].replace("A: 18", "A: 19")

    change(folder, answer_wrongly)
    done = command(folder, "--data", data_dir)
    assert done.returncode == 1
    assert done.stderr.startswith("evals: 3 published figures did not come back")
    differing = [line for line in done.stdout.splitlines() if line.startswith("differs")]
    assert [
        "correct answers: ours 741, published 742, difference -1" in line for line in differing
    ] == [False, True, False]
    assert all("175b_verification" in line for line in differing)
    assert Counter(line.split()[0] for line in done.stdout.splitlines()[:-1]) == {
        "agrees": 9,
        "differs": 3,
    }


def test_a_tampered_file_is_named_and_nothing_is_scored(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)
    file = folder / "zeroeval" / "gemma-2-2b-it.json.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    done = command(folder, "--data", data_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"evals: {file} is damaged: its SHA-256 is not the one in README.json. Get the corpus"
        " again.\n"
    )


def test_a_folder_without_readme_is_no_corpus(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)
    (folder / "README.json").unlink()
    done = command(folder, "--data", data_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert "README.json" in done.stderr
    assert done.stderr.count("\n") == 1


FLAWS: dict[str, tuple[Callable[[list[Row]], object], str]] = {
    "a row is lost": (
        lambda rows: rows.pop(),
        r"example_model_solutions\.jsonl\.gz has no row about gsm8k/1318",
    ),
    "a question is there twice": (
        lambda rows: rows.append(rows[1]),
        "row 1320 is about the same item as .*, row 2",
    ),
    "another question": (
        lambda rows: rows.append(rows[1] | {"question": "Why?"}),
        "row 1320 is about no item of the benchmark",
    ),
    "a system is missing": (
        lambda rows: rows[7].pop("6b_finetuning"),
        "row 8 has no '6b_finetuning'",
    ),
    "a solution is no text": (
        lambda rows: rows[7]["6b_finetuning"].update(solution=18),
        "row 8, '6b_finetuning': 'solution' is 18, not a str",
    ),
}


@pytest.mark.parametrize(("edit", "word"), FLAWS.values(), ids=FLAWS)
def test_rows_that_are_not_as_released_are_refused_in_one_sentence(
    edit: Callable[[list[Row]], object], word: str, tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)
    change(folder, edit)
    with pytest.raises(InputError, match=word) as caught:
        list(replay(folder, data_dir))
    assert str(caught.value).startswith(f"{folder} is not the corpus its README.json describes (")
    assert "\n" not in str(caught.value)


def test_another_models_files_of_the_same_form_are_read(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    """Names of models stand in files' names; of a second model beside it is said which is meant."""
    for name in ("ifeval", "bbh"):
        folder = tmp_path / name
        about = json.loads((replay_dir / name / "README.json").read_text("utf-8"))
        for file in about["files"]:
            original = replay_dir / name / file["path"]
            file["path"] = re.sub(
                "gpt4_20231107(_145030)?|code-davinci-002", "mine-7b", file["path"]
            )
            (folder / file["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / file["path"]).symlink_to(original)
        benchmark = benchmark_class(name)(chat=True)
        source = load_card_data([benchmark.dataset], data_dir)[name]
        items = list(benchmark.items(source))
        first = next(recordings(name, folder, about, items))
        tasks = {record.get("task", "") for record in about["published"]}
        wanted = {one.id for one in items if name == "ifeval" or one.group in tasks}
        assert set(first.answers) == wanted
        assert first.name == ("mine-7b cot" if name == "bbh" else about["published"][0]["model"])
    about["files"].append({"path": "theirs-cot/boolean_expressions_few_shot.json.gz"})
    with pytest.raises(ValueError, match=r"lists 2 files called \*-cot/boolean_expressions_"):
        next(recordings(name, folder, about, items))


def test_a_models_name_that_begins_with_anothers_has_its_own_file(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    about = json.loads((replay_dir / "humaneval" / "README.json").read_text("utf-8"))
    paths = {"gpt-4": "a-gpt-4.jsonl", "gpt-4-turbo": "a-gpt-4-turbo.jsonl"}
    for record, entry, (name, path) in zip(
        about["published"], about["files"], paths.items(), strict=False
    ):
        (tmp_path / path).symlink_to(replay_dir / "humaneval" / entry["path"])
        record["model"], entry["path"], entry["source"] = name, path, {"repository": path}
    about |= {"published": about["published"][:2], "files": about["files"][:2]}
    benchmark = benchmark_class("humaneval")(chat=True)
    items = list(benchmark.items(load_card_data([benchmark.dataset], data_dir)["humaneval"]))
    assert {
        recording.name: recording.figures[-1].source.rpartition(", ")[2]
        for recording in recordings("humaneval", tmp_path, about, items)
    } == paths


def test_a_file_that_readme_json_does_not_list_is_not_read(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    """Neither its checksum nor whether it lies in the folder was looked at."""
    folder = copied(replay_dir, tmp_path)
    shutil.move(folder / "zeroeval" / "gemma-2-2b-it.json.gz", tmp_path)
    readme = folder / "README.json"
    about = json.loads(readme.read_text("utf-8"))
    (record,) = [one for one in about["published"] if one["model"] == "gemma-2-2b-it"]
    about["published"] = [record | {"model": "../../gemma-2-2b-it"}]
    about["files"] = [one for one in about["files"] if "gemma" not in one["path"]]
    readme.write_text(json.dumps(about), "utf-8")
    with pytest.raises(InputError, match=r"lists 0 files called zeroeval/\.\./\.\./gemma-2-2b-it"):
        list(replay(folder, data_dir))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"set": "zeroval"}, r"README\.json has 'zeroval'\. Did you mean zeroeval\?"),
        ({"accuracy": "0.2"}, r"the published accuracy is '0\.2', not a number"),
        ({"set": 5}, r"README\.json has 5\. Known: example_model_solutions, zeroeval"),
        ({"set": "zeroeval", "model": 7}, "a value is of another kind: "),
    ],
)
def test_a_record_of_readme_json_that_cannot_be_read_is_said_in_one_sentence(
    changed: Row, word: str, tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)
    readme = folder / "README.json"
    about = json.loads(readme.read_text("utf-8"))
    about["published"] = [about["published"][0] | changed]
    readme.write_text(json.dumps(about), "utf-8")
    with pytest.raises(InputError, match=word) as caught:
        list(replay(folder, data_dir))
    assert "\n" not in str(caught.value)


def test_a_record_of_readme_json_without_a_field_is_said_to_lack_it(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    folder = copied(replay_dir, tmp_path)
    readme = folder / "README.json"
    about = json.loads(readme.read_text("utf-8"))
    del about["published"][0]["where"]
    readme.write_text(json.dumps(about), "utf-8")
    with pytest.raises(InputError, match=r"README\.json has no 'where'"):
        list(replay(folder, data_dir))
