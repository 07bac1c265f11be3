"""BIG-Bench Hard against PROTOCOL 3.3, 3.9 and 8, and against recorded outputs of a real model."""

import hashlib
import json
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest

from evals.data.dataset import LoadedSource, content_hash
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.extract import compared_form, exact_match, extract_bbh_answer
from evals.fidelity.corpora.bbh import recordings
from evals.records import Completion, Grade, ItemId, Output
from tasks.bbh import BBH, TASKS, BBHItem, read_examples, task_prompt


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def completion(text: str) -> Completion:
    return Completion((Output(text),))


def index(item: BBHItem) -> int:
    return int(item.id.split("/")[2])


@pytest.fixture(scope="module")
def source(data_dir: Path) -> LoadedSource:
    return load_card_data([BBH.dataset], data_dir)["bbh"]


@pytest.fixture(scope="module")
def items(source: LoadedSource) -> list[BBHItem]:
    return list(BBH(chat=False).items(source))


@pytest.fixture(scope="module")
def drawn(items: list[BBHItem]) -> dict[str, list[int]]:
    by_task: dict[str, list[int]] = {}
    for item in BBH(chat=False).drawn(items):
        by_task.setdefault(item.group, []).append(index(item))
    return by_task


def test_the_27_prompts_are_the_published_ones() -> None:
    assert len(TASKS) == 27
    assert list(TASKS) == sorted(TASKS)
    joined = "\0".join(task_prompt(task) for task in TASKS)
    assert sha256(joined) == "abaf6249714be50fec45712c9506928c2ea8903e024c6c6e7225b0fd79bda519"


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_byte_identical_to_the_authors_file(task: str, data_dir: Path) -> None:
    text = (data_dir / "bbh" / "cot-prompts" / f"{task}.txt").read_text(encoding="utf-8")
    assert task_prompt(task) == text.split("\n", 2)[2].strip()


def test_items_are_all_files_in_alphabetical_order(items: list[BBHItem]) -> None:
    sizes = Counter(item.group for item in items)
    assert len(items) == 6511
    assert list(sizes) == list(TASKS)
    others = {task: size for task, size in sizes.items() if size != 250}
    assert others == {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
    assert items[250].id == "bbh/causal_judgement/0"
    assert len({item.id for item in items}) == 6511


def test_the_rows_have_the_pinned_content(source: LoadedSource) -> None:
    assert content_hash(source.rows("test")) == BBH.dataset.content_sha256("test")


def test_the_card_subset_is_the_alphabetical_draw_of_the_protocol(
    drawn: dict[str, list[int]],
) -> None:
    assert list(drawn) == list(TASKS)
    assert {len(set(indices)) for indices in drawn.values()} == {40}
    assert drawn["boolean_expressions"][:5] == [163, 28, 6, 189, 70]
    assert drawn["word_sorting"][:5] == [184, 104, 125, 142, 194]
    sums = {
        "boolean_expressions": 4636,
        "causal_judgement": 3603,
        "date_understanding": 4965,
        "penguins_in_a_table": 2730,
        "snarks": 3980,
        "word_sorting": 4970,
    }
    assert {task: sum(drawn[task]) for task in sums} == sums
    listing = ";".join(f"{task}:{','.join(map(str, sorted(drawn[task])))}" for task in TASKS)
    assert sha256(listing) == "2caa82676933aef5316437d2ac9a7123a8da28fa7871feea5b0a488ef4358bdf"


def test_the_draw_refuses_a_task_that_is_too_short(items: list[BBHItem]) -> None:
    short = [item for item in items if item.group != "snarks" or index(item) < 39]
    with pytest.raises(InputError, match="bbh/snarks: the card draws 40 questions, there are 39"):
        BBH(chat=False).drawn(short)


def test_base_and_chat_prompts_end_as_the_settings_sheet_says(items: list[BBHItem]) -> None:
    item = items[0]
    base, chat = BBH(chat=False).request(item), BBH(chat=True).request(item)
    question = f"{task_prompt(item.group)}\n\nQ: {item.question}"
    assert (base.messages[0].content, base.opening) == (f"{question}\nA:", "")
    assert (chat.messages[0].content, chat.opening) == (question, "A:")
    assert len(base.messages) == len(chat.messages) == 1
    assert not question.endswith("step by step.")


@pytest.mark.parametrize(("chat", "stop"), [(False, ("\n\n",)), (True, ())])
def test_sampling_is_greedy_and_only_base_models_are_stopped(
    chat: bool, stop: tuple[str, ...], items: list[BBHItem]
) -> None:
    sampling = BBH(chat=chat).request(items[0]).sampling
    assert (sampling.temperature, sampling.top_p, sampling.n, sampling.seed) == (0.0, 1.0, 1, None)
    assert (sampling.max_tokens, sampling.stop) == (512, stop)


@pytest.mark.parametrize(
    ("output", "extracted", "compared", "found"),
    [
        ("So the answer is (B).", "(B)", "b", True),
        ("So the answer is } ] >.", "} ] >", "  ", True),
        ("the answer is -219.", "-219", "219", True),
        ("the answer is (A). Wait, the answer is (B).", "(A)", "a", True),
        ("The answer is (A)\nfoo.", "The answer is (A)\nfoo.", "the answer is a\nfoo", False),
        ("the answer is 3.5.", "3", "3", True),
        ("The answer is: (C).", "The answer is: (C).", "the answer is c", False),
        ("|he answer is yes.", "yes", "yes", True),
        ("  so be it \n", "so be it", "so be it", False),
        ("", "", "", False),
    ],
)
def test_extraction_and_compared_form_of_the_protocols_cases(
    output: str, extracted: str, compared: str, found: bool
) -> None:
    assert extract_bbh_answer(output) == (extracted, found)
    assert compared_form(extracted) == compared


def test_every_gold_answer_scores_one(items: list[BBHItem]) -> None:
    benchmark = BBH(chat=True)
    assert [item.id for item in items if "." in item.target] == []
    grades = [
        benchmark.grade(item, completion(f"So the answer is {benchmark.gold(item)}."), {})
        for item in items
    ]
    assert [grade.id for grade in grades if grade.scores != {"bbh": 1.0} or grade.unparsed] == []
    metrics = benchmark.summarize(grades)
    assert (metrics["bbh"].value, metrics["bbh"].n, metrics["bbh"].n_items) == (1.0, 6511, 6511)
    assert list(metrics) == ["bbh", *(f"bbh/{task}" for task in TASKS), "micro"]


def test_dyck_targets_collapse_to_their_number_of_spaces(items: list[BBHItem]) -> None:
    targets = [item.target for item in items if item.group == "dyck_languages"]
    assert len(set(targets)) == 59
    assert Counter(map(compared_form, targets)) == {"": 81, " ": 97, "  ": 72}


def test_two_texts_of_punctuation_alone_match_as_in_2024() -> None:
    assert exact_match("]", ")")
    assert exact_match("] ]", "> }")
    assert not exact_match("] ]", ")")


def test_signs_vanish_in_multistep_arithmetic(items: list[BBHItem]) -> None:
    targets = {item.target for item in items if item.group == "multistep_arithmetic_two"}
    assert (len(targets), len(set(map(compared_form, targets)))) == (185, 152)


def test_malformed_upstream_targets_are_kept(items: list[BBHItem]) -> None:
    targets = {item.target for item in items}
    assert {"Monsters, Inc", "dearth, wind, & fire", "rita, sue and bob poo"} <= targets
    (cut,) = [item for item in items if item.id == "bbh/snarks/88"]
    assert cut.question.endswith("(A) The NB")


def test_the_mean_is_over_tasks_not_over_questions() -> None:
    benchmark = BBH(chat=False)
    one_right = BBHItem(ItemId("bbh/a/0"), "a", "?", "yes")
    three_wrong = [BBHItem(ItemId(f"bbh/b/{i}"), "b", "?", "yes") for i in range(3)]
    grades = [benchmark.grade(one_right, completion("the answer is yes."), {})]
    grades += [benchmark.grade(item, completion("the answer is no."), {}) for item in three_wrong]
    assert benchmark.summarize(grades)["bbh"].value == 0.5


def test_a_file_without_examples_is_refused() -> None:
    with pytest.raises(KeyError, match="examples"):
        read_examples(BytesIO(b'{"canary": ""}'))


def test_scores_on_recorded_outputs_are_the_released_ones_but_for_deleted_punctuation(
    items: list[BBHItem], replay_dir: Path
) -> None:
    """Codex on 14 tasks of the paper: twelve come out exactly as released, two profit from the
    signs and brackets that do not count.
    """
    from lm_eval.api.metrics import exact_match_hf_evaluate

    folder = replay_dir / "bbh"
    about = json.loads((folder / "README.json").read_text("utf-8"))
    benchmark = BBH(chat=False)
    gained: dict[str, dict[str, int]] = {}
    for recording in recordings(folder, about, items):
        right = Counter[str]()
        for item in items:
            if item.id not in recording.answers:
                continue
            grade = benchmark.grade(item, recording.answers[item.id].completion, {})
            theirs = exact_match_hf_evaluate(
                [grade.extracted], [item.target], ignore_case=True, ignore_punctuation=True
            )
            assert grade.scores["bbh"] == float(theirs["exact_match"]), item.id
            right[item.group] += grade.scores["bbh"] == 1
        released = {
            figure.name: figure.printed * 2.5
            for figure in recording.figures
            if figure.name in TASKS
        }
        assert len(released) == 14
        assert len(recording.answers) == 14 * 250
        differences = {task: right[task] - n_right for task, n_right in released.items()}
        gained[recording.name] = {
            task: round(difference)
            for task, difference in differences.items()
            if abs(difference) > 1e-6
        }
    assert gained == {
        "code-davinci-002 cot": {"dyck_languages": 1, "multistep_arithmetic_two": 4},
        "code-davinci-002 direct": {"dyck_languages": 28, "multistep_arithmetic_two": 2},
    }


def test_the_readme_of_the_recordings_holds_the_released_metrics(replay_dir: Path) -> None:
    folder = replay_dir / "bbh"
    for record in json.loads((folder / "README.json").read_text("utf-8"))["published"]:
        for mode in ("cot", "direct"):
            file = (
                folder
                / f"code-davinci-002-{mode}"
                / f"{record['task']}_few_shot_template_0-255000_eval_metrics.jsonl"
            )
            assert json.loads(file.read_text("utf-8")) | {"n": 250} == record[mode]


def test_the_smoke_items_are_in_the_public_format() -> None:
    benchmark = BBH(chat=True)
    smoke = list(benchmark.items(load_smoke_data(BBH.dataset)))
    grades = [
        benchmark.grade(item, completion(f"So the answer is {item.target}."), {}) for item in smoke
    ]
    assert Counter(item.group for item in smoke) == {
        "boolean_expressions": 2,
        "object_counting": 2,
        "word_sorting": 2,
    }
    assert benchmark.summarize(grades)["bbh"].value == 1.0


def test_exactly_as_many_questions_as_the_card_draws_are_enough(items: list[BBHItem]) -> None:
    few = [item for item in items if index(item) < 40]
    assert len(BBH(chat=True).drawn(few)) == len(few) == 27 * 40


def test_an_answer_without_its_phrase_is_unparsed_and_one_with_it_is_not(
    items: list[BBHItem],
) -> None:
    assert BBH(chat=True).grade(items[0], completion("I do not know"), {}).unparsed
    assert not BBH(chat=True).grade(items[0], completion("So the answer is True."), {}).unparsed


def test_a_question_is_the_files_input(items: list[BBHItem], source: LoadedSource) -> None:
    assert [(item.question, item.target) for item in items] == [
        (row["input"], row["target"]) for row in source.rows("test")
    ]


def test_the_micro_mean_counts_questions_and_the_column_tasks(items: list[BBHItem]) -> None:
    benchmark = BBH(chat=True)
    snarks = [item for item in items if item.group == "snarks"]
    grades = [Grade(item.id, item.group, {"bbh": float(item.group != "snarks")}) for item in items]
    metrics = benchmark.summarize(grades)
    assert metrics["bbh"].value == pytest.approx(26 / 27)
    assert metrics["micro"].value == pytest.approx((6511 - len(snarks)) / 6511)
