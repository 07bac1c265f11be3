"""`evals replay` on AlpacaEval, XSTest, IFEval and TruthfulQA: what comes back, what cannot and
why, and what a changed verdict does.
"""

import csv
import gzip
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.fidelity.replay import Line, replay
from tests.replayed import Whole, replayed

BENCHMARKS = ("alpaca_eval", "ifeval", "truthfulqa", "xstest")
GPT4 = "GPT-4 (responses of 2023-11-07)"
PAPER = {"prompt_strict": 1, "instruction_strict": 1, "prompt_loose": 2, "instruction_loose": 2}
"""The paper's four accuracies: how many prompts or instructions ours are above."""
RESULTS = Path(__file__).resolve().parents[2] / "results"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, replay_dir: Path) -> Whole:
    return replayed(tmp_path_factory.mktemp("corpora"), BENCHMARKS, replay_dir, data_dir)


def test_no_figure_differs_without_an_explanation(whole: Whole) -> None:
    assert whole.code == 0
    assert Counter((figure["benchmark"], figure["state"]) for figure in whole.figures) == {
        ("alpaca_eval", "agrees"): 80,
        ("alpaca_eval", "-"): 9,
        ("ifeval", "agrees"): 6,
        ("ifeval", "explained"): 32,
        ("truthfulqa", "agrees"): 4,
        ("truthfulqa", "-"): 6,
        ("xstest", "agrees"): 59,
    }
    assert whole.lines[-1].startswith(
        "196 figures of 29 recordings: 149 agree at the printed precision, 32 differ by items that"
        " are named"
    )
    assert all("https://" in figure["source"] for figure in whole.figures)


def test_the_stored_figures_are_these(whole: Whole) -> None:
    stored = json.loads((RESULTS / "reproduction" / "figures.json").read_text("utf-8"))["figures"]
    assert [figure for figure in stored if figure["benchmark"] in BENCHMARKS] == whole.figures


def test_what_cannot_be_had_says_why(whole: Whole) -> None:
    missing = Counter(
        (figure["benchmark"], figure["figure"], figure["why"])
        for figure in whole.figures
        if figure["state"] == "-"
    )
    unfitted = (
        "the weights of this fit were not published, and the protocol fits AlpacaEval 2's column"
        " only"
    )
    assert missing == {
        ("alpaca_eval", "length_controlled_winrate", unfitted): 5,
        (
            "alpaca_eval",
            "length_controlled_winrate",
            "length control needs the hub's df_gamed.csv",
        ): 4,
    } | {
        ("truthfulqa", name, "the judge's weights are not among the recordings"): 1
        for role in ("truth", "info")
        for name in (
            f"{role}_dev_accuracy",
            f"{role}_accuracy_range, lowest",
            f"{role}_accuracy_range, highest",
        )
    }
    assert all(line.endswith(")") for line in whole.lines if line.startswith("- "))


def test_every_column_of_both_leaderboards_comes_back(whole: Whole) -> None:
    agreeing = Counter(
        figure["figure"] for figure in whole.of("alpaca_eval") if figure["state"] == "agrees"
    )
    columns = (
        "standard_error",
        "discrete_win_rate",
        "avg_length",
        "n_wins",
        "n_wins_base",
        "n_draws",
        "n_total",
    )
    assert agreeing == dict.fromkeys(columns, 9) | {
        "win_rate": 9 + 3,
        "length_controlled_winrate, from the published weights": 4,
        "lc_standard_error, from the published weights": 1,
    }
    full = [figure for figure in whole.of("alpaca_eval") if figure["figure"] == "win_rate"]
    assert all(abs(figure["difference"]) < 1e-9 for figure in full)
    assert Counter(figure["n"] for figure in full) == {805: 8, 804: 3, 803: 1}


def test_ifeval_differs_by_exactly_the_named_items(whole: Whole) -> None:
    n_named = Counter[str]()
    for figure in whole.of("ifeval"):
        named = [reason.partition(" ")[0] for reason in figure["why"].split("; ")]
        if figure["figure"].endswith("verdicts that come back"):
            is_undisputed = (figure["recording"], figure["figure"].partition(":")[0]) == (
                GPT4,
                "loose",
            )
            assert figure["published"] - figure["ours"] == (0 if is_undisputed else len(named))
            n_named.update([] if is_undisputed else named)
        elif figure["figure"] in PAPER:
            assert named == ["ifeval/1122", "ifeval/1129"]
            assert figure["difference"] == pytest.approx(
                100 * PAPER[figure["figure"]] / figure["n"], abs=0.005
            )
        elif "followed" in figure["figure"]:
            assert abs(figure["difference"]) <= len(named)
    assert n_named == {
        "ifeval/1122": 5,
        "ifeval/1129": 2,
        "ifeval/2785": 6,
        "ifeval/3456": 1,
        "ifeval/3617": 1,
        "ifeval/1259": 1,
        "ifeval/2309": 1,
        "ifeval/3112": 1,
    }


def test_the_cards_rule_moves_xstest_by_partial_refusals_only(whole: Whole) -> None:
    beside = {
        (figure["recording"], figure["figure"]): (figure["ours"], figure["card"])
        for figure in whole.of("xstest")
        if figure["rule"]
    }
    moved = {name: round(card - ours, 1) for name, (ours, card) in beside.items()}
    assert moved == {
        ("llama2new, final_label", "safe_prompts, 2_full_refusal"): 15.6,
        ("llama2new, final_label", "unsafe_prompts, 2_full_refusal"): 2.5,
        ("llama2new, gpt4_label", "safe_prompts, 2_full_refusal"): 3.6,
        ("llama2new, gpt4_label", "unsafe_prompts, 2_full_refusal"): 0.5,
        ("mistralinstruct, final_label", "safe_prompts, 2_full_refusal"): 0.8,
        ("mistralinstruct, final_label", "unsafe_prompts, 2_full_refusal"): 12.5,
        ("mistralinstruct, gpt4_label", "safe_prompts, 2_full_refusal"): 0.0,
        ("mistralinstruct, gpt4_label", "unsafe_prompts, 2_full_refusal"): 1.0,
        ("gpt4, final_label", "safe_prompts, 2_full_refusal"): 2.0,
        ("gpt4, final_label", "unsafe_prompts, 2_full_refusal"): 2.0,
    }


def test_the_truthfulqa_judges_are_asked_in_the_published_words_and_their_labels_are_read(
    whole: Whole,
) -> None:
    proven = {
        figure["figure"]: (figure["ours"], figure["n"], figure["why"])
        for figure in whole.of("truthfulqa")
        if figure["ours"] is not None
    }
    assert proven == {
        "truth: rows asked in the same words": (100, 2554, ""),
        "truth: labels read as given": (100, 2554, "1,082 of 2,554 positive"),
        "info: rows asked in the same words": (100, 2554, ""),
        "info: labels read as given": (100, 2554, "2,038 of 2,554 positive"),
    }


# Faults.


def changed(
    replay_dir: Path, to: Path, name: str, file: str, edit: Callable[[bytes], bytes]
) -> Path:
    """A copy of one corpus in which `file` was edited and README.json has its new checksum."""
    shutil.copytree(replay_dir / name, to / name, copy_function=shutil.copyfile)
    for folder in [to / name, *(path for path in (to / name).rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    target, readme = to / name / file, to / name / "README.json"
    target.write_bytes(edit(target.read_bytes()))
    about = json.loads(readme.read_text("utf-8"))
    (entry,) = [entry for entry in about["files"] if entry["path"] == file]
    entry["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    readme.write_text(json.dumps(about), "utf-8")
    return to / name


def lines_of(edit: Callable[[list[Row]], object]) -> Callable[[bytes], bytes]:
    """An edit of the rows of zipped JSON lines."""

    def edited(raw: bytes) -> bytes:
        rows = [
            json.loads(line) for line in gzip.decompress(raw).decode("utf-8").split("\n") if line
        ]
        edit(rows)
        return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())

    return edited


def cells_of(edit: Callable[[list[Row]], object]) -> Callable[[bytes], bytes]:
    """An edit of the rows of a CSV file."""

    def edited(raw: bytes) -> bytes:
        rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8"), newline="")))
        edit(rows)
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    return edited


def annotations_of(edit: Callable[[list[Row]], object]) -> Callable[[bytes], bytes]:
    """An edit of the rows of a JSON array."""

    def edited(raw: bytes) -> bytes:
        rows = json.loads(raw)
        edit(rows)
        return json.dumps(rows).encode()

    return edited


def differing(lines: list[Line]) -> dict[tuple[str, str], float | None]:
    """Recording and figure -> how far off, of the lines that say `differs`."""
    return {
        (line.recording, line.figure): line.difference for line in lines if line.state == "differs"
    }


def test_one_released_string_match_label_changed_is_noticed(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    def relabel(rows: list[Row]) -> None:
        assert rows[6]["strmatch_label"] == "1_full_compliance"
        rows[6]["strmatch_label"] = "2_full_refusal"

    corpus = changed(
        replay_dir, tmp_path, "xstest", "xstest_v2_completions_gpt4_streval.csv", cells_of(relabel)
    )
    assert differing(list(replay(corpus, data_dir))) == {
        ("gpt4, strmatch_label", "released labels that come back"): -1
    }


def test_rows_are_joined_by_number_in_any_order(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    corpus = changed(
        replay_dir,
        tmp_path,
        "xstest",
        "xstest_v2_completions_gpt4_gpteval.csv",
        cells_of(lambda rows: rows.reverse()),
    )
    assert differing(list(replay(corpus, data_dir))) == {}


def test_a_partial_refusal_that_becomes_a_full_one_moves_the_corpus_rule_and_not_the_cards(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    def harden(rows: list[Row]) -> None:
        row = next(
            row
            for row in rows
            if row["gpt4_label"] == "3_partial_refusal" and "contrast" not in row["type"]
        )
        row["gpt4_label"] = "2_full_refusal"

    corpus = changed(
        replay_dir,
        tmp_path,
        "xstest",
        "xstest_v2_completions_llama2new_gpteval.csv",
        cells_of(harden),
    )
    lines = list(replay(corpus, data_dir))
    name = "llama2new, gpt4_label"
    found = {
        figure: round(difference or 0, 6) for (_, figure), difference in differing(lines).items()
    }
    assert found == {"safe_prompts, 2_full_refusal": 0.4, "safe_prompts, 3_partial_refusal": -0.4}
    (line,) = [
        line
        for line in lines
        if (line.recording, line.figure) == (name, "safe_prompts, 2_full_refusal")
    ]
    assert line.card == pytest.approx(16.0)


MISTRAL = "mistralai__Mistral-7B-Instruct-v0.3"


def test_a_changed_answer_or_verdict_at_an_item_that_is_not_named_is_not_explained(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    """1122 alone is named for strict verdicts and accounts for itself alone. Loosely, counts agree
    by chance; verdicts do not.
    """

    def spoil(rows: list[Row]) -> None:
        answered, denied = [row for row in rows if row["follow_instruction_list"] == [True]][:2]
        answered["response"] = ""
        denied["follow_instruction_list"] = [False]

    file = f"m-ifeval/{MISTRAL}/eval_results_strict.jsonl.gz"
    corpus = only_model(changed(replay_dir, tmp_path, "ifeval", file, lines_of(spoil)), MISTRAL)
    found = differing(list(replay(corpus, data_dir)))
    assert {figure: round(difference or 0, 6) for (_, figure), difference in found.items()} == {
        "strict: prompts followed": -2,
        "strict: instructions followed": -2,
        "published_english_instruction_strict": round(100 * 490 / 834 - 59, 6),
        "strict: released verdicts that come back": -3,
        "loose: released verdicts that come back": -4,
    }


def only_model(corpus: Path, model: str) -> Path:
    """The corpus, in which only this model has published figures."""
    readme = corpus / "README.json"
    about = json.loads(readme.read_text("utf-8"))
    about["published"] = [record for record in about["published"] if record["model"] == model]
    readme.write_text(json.dumps(about), "utf-8")
    return corpus


def test_a_lost_preference_leaves_the_denominator_and_is_noticed(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    def forget(rows: list[Row]) -> None:
        row = next(row for row in rows if row["preference"] == 2)
        row["preference"] = None

    file = "alpaca_eval_gpt4/text_davinci_001/annotations.json"
    corpus = only_model(
        changed(replay_dir, tmp_path, "alpaca_eval", file, annotations_of(forget)),
        "text_davinci_001",
    )
    found = {
        figure: difference
        for (_, figure), difference in differing(list(replay(corpus, data_dir))).items()
    }
    assert set(found) == {"win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_total"}
    assert found["win_rate"] == pytest.approx(100 * (111 + 10) / 803 - 100 * (112 + 10) / 804)


FLAWS: dict[str, tuple[str, str, Callable[[bytes], bytes], str]] = {
    "a prompt's row is lost": (
        "xstest",
        "xstest_v2_completions_gpt4.csv",
        cells_of(lambda rows: rows.pop()),
        r"xstest_v2_completions_gpt4\.csv has no row about xstest/450",
    ),
    "verdicts about another prompt": (
        "ifeval",
        f"m-ifeval/{MISTRAL}/eval_results_loose.jsonl.gz",
        lines_of(lambda rows: rows[1].update(prompt="Write a poem about the sea.")),
        "row 2 is about another prompt, or one twice: 'Write a poem about the sea.'",
    ),
    "a verdict is missing": (
        "ifeval",
        f"m-ifeval/{MISTRAL}/eval_results_loose.jsonl.gz",
        lines_of(lambda rows: rows[0].pop("follow_instruction_list")),
        "row 1 has no 'follow_instruction_list'",
    ),
    "another reference": (
        "alpaca_eval",
        "alpaca_eval_gpt4/text_davinci_001/annotations.json",
        annotations_of(lambda rows: rows[0].update(output_1="another")),
        r"annotations\.json, row 1 is about no item of the benchmark",
    ),
    "a preference that is none": (
        "alpaca_eval",
        "alpaca_eval_gpt4/text_davinci_001/annotations.json",
        annotations_of(lambda rows: rows[0].update(preference=3)),
        r"annotations\.json, row 1: .*3 is neither a probability",
    ),
}


@pytest.mark.parametrize(("name", "file", "edit", "word"), FLAWS.values(), ids=FLAWS)
def test_rows_that_are_not_as_released_are_refused_in_one_sentence(
    name: str,
    file: str,
    edit: Callable[[bytes], bytes],
    word: str,
    tmp_path: Path,
    data_dir: Path,
    replay_dir: Path,
) -> None:
    corpus = changed(replay_dir, tmp_path, name, file, edit)
    if "/" in file:
        only_model(corpus, file.split("/")[1])
    with pytest.raises(InputError, match=word) as caught:
        list(replay(corpus, data_dir))
    assert str(caught.value).startswith(f"{corpus} is not the corpus its README.json describes (")
    assert "\n" not in str(caught.value)


def test_without_the_judges_development_sets_their_lines_say_so_and_a_damaged_one_is_refused(
    tmp_path: Path, data_dir: Path, replay_dir: Path
) -> None:
    data = tmp_path / "truthfulqa"
    data.mkdir()
    shutil.copyfile(data_dir / "truthfulqa" / "TruthfulQA.csv", data / "TruthfulQA.csv")
    lines = list(replay(replay_dir / "truthfulqa", tmp_path))
    assert {line.state for line in lines} == {"-"}
    assert lines[-1].why == "the data folder has no truthfulqa/finetune_info_dev.jsonl"
    (data / "finetune_truth_dev.jsonl").write_bytes(b"{}\n")
    with pytest.raises(InputError, match=r"truthfulqa/finetune_truth_dev\.jsonl is damaged"):
        list(replay(replay_dir / "truthfulqa", tmp_path))
