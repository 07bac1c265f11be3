"""GSM8K against PROTOCOL 3.2, 3.9 and 8, and against graded outputs of real models."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from evals.data.dataset import LoadedSource, content_hash
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.extract import compared_form, exact_match, extract_last_number
from evals.fidelity.corpora import Recording, released_verdict
from evals.fidelity.corpora.gsm8k import recordings
from evals.records import Completion, Generate, ItemId, Output
from tasks.gsm8k import GSM8K, GSM8KItem, _item, prompt_prefix


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tulu(request: Generate) -> str:
    (message,) = request.messages
    return f"<|user|>\n{message.content}\n<|assistant|>\n{request.opening}"


def completion(text: str) -> Completion:
    return Completion((Output(text),))


def index(item: GSM8KItem) -> int:
    return int(item.id.split("/")[1])


@pytest.fixture(scope="module")
def source(data_dir: Path) -> LoadedSource:
    return load_card_data([GSM8K.dataset], data_dir)["gsm8k"]


@pytest.fixture(scope="module")
def items(source: LoadedSource) -> list[GSM8KItem]:
    return list(GSM8K(chat=False).items(source))


@pytest.fixture(scope="module")
def drawn(items: list[GSM8KItem]) -> list[GSM8KItem]:
    return list(GSM8K(chat=False).drawn(items))


def test_the_prompt_prefix_is_the_published_one() -> None:
    assert len(prompt_prefix()) == 2294
    assert (
        sha256(prompt_prefix())
        == "bc98d2864d2c74ae324561ed4fa497c577cd251cc06aeae2c2a23bd5ef60c404"
    )


def test_the_public_file_is_the_one_the_protocol_names(data_dir: Path) -> None:
    raw = (data_dir / "gsm8k" / "test.jsonl").read_bytes()
    assert (
        hashlib.sha256(raw).hexdigest()
        == "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"
    )


def test_items_are_the_whole_file_in_its_order(items: list[GSM8KItem]) -> None:
    assert len(items) == 1319
    assert [item.id for item in items] == [f"gsm8k/{i}" for i in range(1319)]
    assert {item.group for item in items} == {""}


def test_the_rows_have_the_pinned_content(source: LoadedSource) -> None:
    assert content_hash(source.rows("test")) == GSM8K.dataset.content_sha256("test")


def test_the_card_subset_is_the_draw_of_the_protocol(
    items: list[GSM8KItem], drawn: list[GSM8KItem]
) -> None:
    order = [index(item) for item in drawn]
    assert order[:12] == [1309, 228, 51, 563, 501, 457, 285, 209, 1116, 178, 1209, 864]
    assert order[-5:] == [994, 438, 270, 1169, 1180]
    assert len(order) == 200
    assert sum(order) == 130_924
    assert (
        sha256(",".join(map(str, order)))
        == "2d58f22b994a781f5eaeebb877f58a9ab231cd57437017f3056523e2a5a25e71"
    )
    assert (
        sha256(",".join(map(str, sorted(order))))
        == "28a684df3f6266086b6a47301eb8c5260b7cc27bdb22ab0ea7cb372acaa23048"
    )
    assert (drawn[0].answer, drawn[-1].answer) == ("2280", "5600")


def test_the_draw_neither_reads_nor_moves_the_global_random_state(
    items: list[GSM8KItem], drawn: list[GSM8KItem]
) -> None:
    random.seed(7)
    before = random.getstate()
    assert GSM8K(chat=True).drawn(items) == drawn
    assert random.getstate() == before


def test_the_draw_refuses_a_file_that_is_too_short(items: list[GSM8KItem]) -> None:
    with pytest.raises(InputError, match="draws 200 questions, there are 199"):
        GSM8K(chat=False).drawn(items[:199])


def test_the_base_prompt_of_the_first_drawn_item_is_byte_identical(drawn: list[GSM8KItem]) -> None:
    request = GSM8K(chat=False).request(drawn[0])
    (message,) = request.messages
    assert (message.role, request.opening, request.raw) == ("user", "", False)
    assert len(message.content) == 2531
    assert (
        sha256(message.content)
        == "ddf5ce04c8500ed7ccacfd139e0188663fdda9930c18c724eca044ad5f137cca"
    )


def test_the_tulu_prompt_of_the_first_drawn_item_is_byte_identical(drawn: list[GSM8KItem]) -> None:
    rendered = tulu(GSM8K(chat=True).request(drawn[0]))
    assert len(rendered) == 2554
    assert sha256(rendered) == "9bbe852726629222410b5e1be425ad22ea4b519dabb5064902179dfd9dc78485"


@pytest.mark.parametrize(("chat", "stop"), [(False, ("\n",)), (True, ())])
def test_sampling_is_greedy_and_only_base_models_are_stopped(
    chat: bool, stop: tuple[str, ...], drawn: list[GSM8KItem]
) -> None:
    sampling = GSM8K(chat=chat).request(drawn[0]).sampling
    assert (sampling.temperature, sampling.top_p, sampling.n, sampling.seed) == (0.0, 1.0, 1, None)
    assert (sampling.max_tokens, sampling.stop) == (512, stop)


def test_outer_blanks_of_a_question_are_dropped_and_inner_ones_kept() -> None:
    item = GSM8KItem(ItemId("gsm8k/0"), "", " How  many?\n", "", "18")
    assert (
        GSM8K(chat=True).request(item).messages[0].content
        == f"{prompt_prefix()}Question: How  many?"
    )
    assert (
        GSM8K(chat=False).request(item).messages[0].content
        == f"{prompt_prefix()}Question: How  many?\nAnswer:"
    )


def test_golds_have_no_separators_and_none_is_zero(items: list[GSM8KItem]) -> None:
    assert sum("," in item.solution.rpartition("####")[2] for item in items) == 14
    assert all(float(item.answer) for item in items)
    negative = [item for item in items if item.answer.startswith("-")]
    assert len(negative) == 2


def test_no_negative_gold_is_drawn(drawn: list[GSM8KItem]) -> None:
    assert not [item for item in drawn if item.answer.startswith("-")]


def test_every_gold_answer_scores_one(items: list[GSM8KItem]) -> None:
    benchmark = GSM8K(chat=True)
    grades = [
        benchmark.grade(item, completion(f"So the answer is {benchmark.gold(item)}."), {})
        for item in items
    ]
    assert [grade.id for grade in grades if grade.scores != {"gsm8k": 1.0} or grade.unparsed] == []
    metric = benchmark.summarize(grades)["gsm8k"]
    assert (metric.value, metric.n, metric.n_items) == (1.0, 1319, 1319)


def test_every_published_solution_scores_one(items: list[GSM8KItem]) -> None:
    benchmark = GSM8K(chat=False)
    assert [
        item.id
        for item in items
        if benchmark.grade(item, completion(item.solution), {}).scores["gsm8k"] != 1.0
    ] == []


@pytest.mark.parametrize(
    ("output", "extracted", "compared"),
    [
        ("So the answer is 1,234.", "1234", "1234"),
        ("$18.00 in total", "18.00", "1800"),
        ("$1,000,000.00", "1000000.00", "100000000"),
        ("= -7", "7", "7"),
        ("= -7.5", "-7.5", "75"),
        ("twelve", "twelve", "twelve"),
        ("3/4", "4", "4"),
        ("18. There are 3 boxes.", "3", "3"),
        ("1,2,3", "3", "3"),
        ("half is .5", ".5", "5"),
        ("", "", ""),
    ],
)
def test_extraction_and_compared_form_of_the_protocols_cases(
    output: str, extracted: str, compared: str
) -> None:
    assert extract_last_number(output).text == extracted
    assert compared_form(extracted) == compared


@pytest.mark.parametrize(
    ("output", "gold", "score", "unparsed"),
    [
        ("So the answer is 18.", "18", 1.0, False),
        ("$18.00 in total", "18", 0.0, False),
        ("= -7", "7", 1.0, False),
        ("eighteen", "18", 0.0, True),
        ("", "18", 0.0, True),
        ("EIGHTEEN!", "eighteen", 1.0, True),
    ],
)
def test_grading_keeps_the_originals_quirks(
    output: str, gold: str, score: float, unparsed: bool
) -> None:
    item = GSM8KItem(ItemId("gsm8k/0"), "", "?", "", gold)
    grade = GSM8K(chat=False).grade(item, completion(output), {})
    assert grade.scores == {"gsm8k": score}
    assert grade.unparsed is unparsed


def test_a_completion_without_any_output_is_unparsed_and_wrong() -> None:
    grade = GSM8K(chat=False).grade(
        GSM8KItem(ItemId("gsm8k/0"), "", "?", "", "18"), Completion(), {}
    )
    assert (grade.scores["gsm8k"], grade.unparsed) == (0.0, True)


def test_a_solution_without_its_marker_names_the_row() -> None:
    source = LoadedSource({"test": [{"part": "", "question": "?", "answer": "18"}]}, "test")
    with pytest.raises(InputError, match="gsm8k/0"):
        GSM8K(chat=False).items(source)


@pytest.fixture(scope="module")
def recorded(items: list[GSM8KItem], replay_dir: Path) -> dict[str, Recording]:
    about = json.loads((replay_dir / "gsm8k" / "README.json").read_text("utf-8"))
    return {
        recording.name: recording for recording in recordings(replay_dir / "gsm8k", about, items)
    }


@pytest.mark.parametrize(
    ("system", "n_correct"), [("6b_finetuning", 286), ("175b_verification", 742)]
)
def test_grades_agree_with_the_released_ones_except_for_signs_and_points(
    system: str, n_correct: int, items: list[GSM8KItem], recorded: dict[str, Recording]
) -> None:
    """The paper's own flags: only the deleted sign and the deleted decimal point may make a
    difference, in our favour.
    """
    benchmark = GSM8K(chat=False)
    answers = recorded[system].answers
    differing = {}
    for item in items:
        answer = answers[item.id]
        grade = benchmark.grade(item, answer.completion, answer.findings)
        if bool(grade.scores["gsm8k"]) != released_verdict(answer):
            differing[index(item)] = (answer.completion.text.rpartition("A: ")[2], item.answer)
    quirks = {
        93: ("3.6", "36"),
        306: ("-10", "10"),
        441: ("-80", "80"),
        1099: ("-2", "2"),
        1164: ("-9", "9"),
        1216: ("-20", "20"),
    }
    assert differing == (quirks if system == "6b_finetuning" else {})
    assert sum(map(released_verdict, answers.values())) == n_correct


def test_exact_match_agrees_with_lm_evals_copy_of_the_metric_on_recorded_outputs(
    items: list[GSM8KItem], recorded: dict[str, Recording]
) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate

    compared = 0
    for recording in recorded.values():
        for item in items:
            extracted = extract_last_number(recording.answers[item.id].completion.text).text
            theirs = exact_match_hf_evaluate(
                [extracted], [item.answer], ignore_case=True, ignore_punctuation=True
            )
            assert exact_match(extracted, item.answer) == bool(theirs["exact_match"]), (
                recording.name,
                item.id,
            )
            compared += 1
    assert compared == 5 * 1319


def test_the_smoke_items_are_in_the_public_format_and_their_solutions_score_one() -> None:
    benchmark = GSM8K(chat=True)
    smoke = benchmark.items(load_smoke_data(GSM8K.dataset))
    grades = [benchmark.grade(item, completion(item.solution), {}) for item in smoke]
    assert len(smoke) == 6
    assert benchmark.summarize(grades)["gsm8k"].value == 1.0


def test_exactly_as_many_questions_as_the_card_draws_are_enough(items: list[GSM8KItem]) -> None:
    assert sorted(item.id for item in GSM8K(chat=True).drawn(items[:200])) == sorted(
        item.id for item in items[:200]
    )


def test_the_answer_stands_after_the_last_marker() -> None:
    assert _item({"question": "q", "answer": "8 #### of 9\n#### 1,234"}, 0).answer == "1234"
