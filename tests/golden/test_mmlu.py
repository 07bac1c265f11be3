"""MMLU against PROTOCOL 3.1 and 8, against pandas, and against the leaderboard's figures for
recorded answers.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from evals.data.dataset import LoadedSource, content_hash
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.fidelity.corpora.mmlu import recordings
from evals.records import Choose, Completion, Grade, ItemId, Message
from tasks.mmlu import LETTERS, MMLU, SUBJECTS, MMLUItem, read_questions
from tests.llama3 import Llama3Tokenizer, llama3_tokenizer

NAN_ITEMS = {
    "mmlu/college_computer_science/10",
    "mmlu/college_computer_science/94",
    "mmlu/college_mathematics/8",
    "mmlu/college_mathematics/21",
    "mmlu/college_mathematics/60",
    "mmlu/college_physics/60",
    "mmlu/electrical_engineering/41",
    "mmlu/electrical_engineering/68",
    "mmlu/electrical_engineering/107",
    "mmlu/electrical_engineering/117",
}


@pytest.fixture(scope="module")
def source(data_dir: Path) -> LoadedSource:
    return load_card_data([MMLU.dataset], data_dir)["mmlu"]


@pytest.fixture(scope="module")
def items(source: LoadedSource) -> list[MMLUItem]:
    return list(MMLU(chat=False).items(source))


@pytest.fixture(scope="module")
def tokenizer() -> Llama3Tokenizer:
    found = llama3_tokenizer()
    if found is None:
        pytest.skip("llama-models, which ships the Llama 3 tokenizer, is not installed")
    return found


def choice(letter: str) -> Completion:
    return Completion(choice_logprobs={each: 0.0 if each == letter else -9.0 for each in LETTERS})


def text(messages: Sequence[Message]) -> str:
    (message,) = messages
    assert message.role == "user"
    return message.content


def rendered(messages: Sequence[Message], request: Choose, chat: bool) -> str:
    return (
        f"<|user|>\n{text(messages)}\n<|assistant|>\n{request.opening}"
        if chat
        else text(messages) + request.opening
    )


def test_items_are_all_test_rows_by_subject(items: list[MMLUItem]) -> None:
    assert len(items) == 14_042
    assert len(SUBJECTS) == 57
    assert list(SUBJECTS) == sorted(SUBJECTS)
    assert list(dict.fromkeys(item.group for item in items)) == list(SUBJECTS)
    assert items[0].id == "mmlu/abstract_algebra/0"
    assert len({item.id for item in items}) == 14_042
    assert {len(item.shots) for item in items} == {5}
    assert MMLU(chat=True).drawn(items) == items


@pytest.mark.parametrize("table", ["dev", "test"])
def test_the_rows_have_the_pinned_content(table: str, source: LoadedSource) -> None:
    assert content_hash(source.rows(table)) == MMLU.dataset.content_sha256(table)


def test_the_header_has_two_spaces_before_the_subject(items: list[MMLUItem]) -> None:
    prompt = text(MMLU(chat=False).request(items[0]).messages)
    assert prompt.startswith(
        "The following are multiple choice questions (with answers) about  abstract"
        " algebra.\n\nFind all c in Z_3"
    )
    law, *_ = [item for item in items if item.group == "professional_law"]
    assert "about  professional law.\n\n" in text(MMLU(chat=False).request(law).shorter[-1])


def test_base_and_chat_share_the_text_and_differ_in_the_opening(items: list[MMLUItem]) -> None:
    base, chat = MMLU(chat=False).request(items[0]), MMLU(chat=True).request(items[0])
    assert base.messages == chat.messages
    assert base.shorter == chat.shorter
    assert text(base.messages).endswith("\nAnswer:")
    assert (base.opening, chat.opening) == ("", "The answer is:")
    assert (base.raw, base.max_prompt_tokens) == (False, 2048)
    assert base.candidates == (("A", " A"), ("B", " B"), ("C", " C"), ("D", " D"))


def test_shorter_prompts_drop_the_last_shot_first(items: list[MMLUItem]) -> None:
    request = MMLU(chat=False).request(items[0])
    prompts = [text(request.messages), *map(text, request.shorter)]
    header = (
        "The following are multiple choice questions (with answers) about  abstract algebra.\n\n"
    )
    question = prompts[-1].removeprefix(header)
    assert len(prompts) == 6
    assert prompts == [
        header + "".join(items[0].shots[:n_shots]) + question for n_shots in range(5, -1, -1)
    ]
    assert question.count("Answer:") == 1


def test_every_prompt_is_what_pandas_makes_of_the_public_files(
    items: list[MMLUItem], data_dir: Path
) -> None:
    """The original read the files with pandas' defaults; every cell of every prompt is printed as
    pandas prints it.
    """
    import pandas as pd

    def printed(split: str, subject: str) -> list[tuple[str, ...]]:
        frame = pd.read_csv(data_dir / "mmlu" / split / f"{subject}_{split}.csv", header=None)
        return list(
            zip(
                *([f"{value}" for value in frame.iloc[:, column].tolist()] for column in range(6)),
                strict=True,
            )
        )

    def asked(cells: tuple[str, ...]) -> str:
        return f"{cells[0]}\nA. {cells[1]}\nB. {cells[2]}\nC. {cells[3]}\nD. {cells[4]}\nAnswer:"

    benchmark = MMLU(chat=False)
    of_subject: dict[str, list[MMLUItem]] = {}
    for item in items:
        of_subject.setdefault(item.group, []).append(item)
    for subject, group in of_subject.items():
        header = (
            "The following are multiple choice questions (with answers) about "
            f" {subject.replace('_', ' ')}.\n\n"
        )
        shots = "".join(f"{asked(cells)} {cells[5]}\n\n" for cells in printed("dev", subject))
        for item, cells in zip(group, printed("test", subject), strict=True):
            assert text(benchmark.request(item).messages) == header + shots + asked(cells), item.id
            assert item.answer == cells[5]


def test_the_ten_none_cells_are_printed_nan_and_no_shot_has_one(items: list[MMLUItem]) -> None:
    assert {
        item.id for item in items if "None" in item.choices or item.question == "None"
    } == NAN_ITEMS
    benchmark = MMLU(chat=True)
    for item in items:
        if item.id in NAN_ITEMS:
            request = benchmark.request(item)
            line = f"\n{LETTERS[item.choices.index('None')]}. nan\n"
            assert all(line in text(messages) for messages in (request.messages, *request.shorter))
    assert not [
        shot for item in items for shot in item.shots if ". nan\n" in shot or ". None\n" in shot
    ]


def test_the_letters_with_their_space_are_single_llama3_tokens(
    items: list[MMLUItem], tokenizer: Llama3Tokenizer
) -> None:
    ids = [
        tokenizer.encode(candidate, add_special_tokens=False)
        for _, candidate in MMLU(chat=False).request(items[0]).candidates
    ]
    assert ids == [[362], [426], [356], [423]]
    assert tokenizer.encode("A", add_special_tokens=False) == [32]
    assert tokenizer.encode("<|assistant|>\n", add_special_tokens=False) == [27, 91, 78191, 91, 397]
    assert tokenizer.encode("A") == [128000, 32]


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        (
            False,
            {
                ("high_school_european_history", 3): 162,
                ("high_school_european_history", 2): 3,
                ("high_school_us_history", 4): 199,
                ("high_school_us_history", 3): 1,
                ("professional_law", 4): 3,
            },
        ),
        (
            True,
            {
                ("high_school_european_history", 3): 160,
                ("high_school_european_history", 2): 5,
                ("high_school_us_history", 4): 202,
                ("high_school_us_history", 3): 1,
                ("professional_law", 4): 4,
            },
        ),
    ],
)
def test_llama3_shortens_as_many_prompts_as_the_protocol_says(
    chat: bool,
    expected: dict[tuple[str, int], int],
    items: list[MMLUItem],
    tokenizer: Llama3Tokenizer,
) -> None:
    benchmark = MMLU(chat=chat)
    around: dict[str, int] = {}
    shortened: Counter[tuple[str, int]] = Counter()

    def length(whole: str) -> int:
        return len(tokenizer.encode(whole, add_special_tokens=False))

    for item in items:
        request = benchmark.request(item)
        question = text(request.shorter[-1])
        if item.group not in around:
            around[item.group] = length(rendered(request.messages, request, chat)) - length(
                question
            )
        # A token is at least one byte, and joining texts moves only the few tokens at the seam:
        # what is skipped is short.
        room = 2048 - 50 - around[item.group]
        if len(question.encode()) < room or length(question) < room:
            continue
        n_shots = 5
        for messages in (request.messages, *request.shorter):
            if length(rendered(messages, request, chat)) <= 2048:
                break
            n_shots -= 1
        if n_shots < 5:
            shortened[item.group, n_shots] += 1
    assert shortened == expected
    assert sum(shortened.values()) == (372 if chat else 368)


def test_every_gold_letter_scores_one(items: list[MMLUItem]) -> None:
    benchmark = MMLU(chat=False)
    grades = [benchmark.grade(item, choice(benchmark.gold(item)), {}) for item in items]
    assert [
        grade.id
        for item, grade in zip(items, grades, strict=True)
        if grade.extracted != item.answer
    ] == []
    metrics = benchmark.summarize(grades)
    assert (metrics["mmlu"].value, metrics["mmlu"].n, metrics["mmlu"].n_items) == (
        1.0,
        14_042,
        14_042,
    )
    assert list(metrics) == ["mmlu", *(f"mmlu/{subject}" for subject in SUBJECTS), "macro"]
    assert metrics["macro"].value == 1.0


@pytest.mark.parametrize("tied", ["AB", "BC", "BD", "CD", "ABCD", "ACD"])
def test_equally_likely_letters_go_to_the_earlier_whatever_their_order(tied: str) -> None:
    item = MMLUItem(ItemId("mmlu/x/0"), "x", "?", ("1", "2", "3", "4"), tied[0], ())
    logprobs = {letter: -1.0 if letter in tied else -math.inf for letter in reversed(LETTERS)}
    grade = MMLU(chat=False).grade(item, Completion(choice_logprobs=logprobs), {})
    assert (grade.extracted, grade.scores) == (tied[0], {"mmlu": 1.0})


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"A": -1.0, "B": -1.0, "C": -1.0}, dict.fromkeys("ABCD", math.nan)]
)
def test_an_answer_without_all_letters_is_missing_and_keeps_its_place(
    logprobs: dict[str, float] | None,
) -> None:
    benchmark = MMLU(chat=False)
    item = MMLUItem(ItemId("mmlu/x/0"), "x", "?", ("1", "2", "3", "4"), "A", ())
    grade = benchmark.grade(item, Completion(choice_logprobs=logprobs), {})
    assert grade.scores == {}
    assert grade.missing
    metric = benchmark.summarize([grade, benchmark.grade(item, choice("A"), {})])["mmlu"]
    assert (metric.value, metric.n, metric.n_items) == (None, 1, 2)


def test_the_mean_is_over_questions_not_over_subjects() -> None:
    grades = [
        Grade(ItemId("mmlu/a/0"), "a", {"mmlu": 1.0}),
        *(Grade(ItemId(f"mmlu/b/{i}"), "b", {"mmlu": 0.0}) for i in range(3)),
    ]
    assert MMLU(chat=False).summarize(grades)["mmlu"].value == 0.25


@pytest.mark.parametrize("row", ["q,1,2,3,4", "q,1,2,3,4,E", "q,1,2,3,4,5,A", "q,1,2,3,4,a", ""])
def test_a_row_of_another_form_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="row 1 "):
        list(read_questions(BytesIO(f"q,1,2,3,4,A\n{row}\n".encode())))


def test_a_subject_without_its_shots_is_refused(source: LoadedSource) -> None:
    dev = [row for row in source.rows("dev") if row["part"] != "virology"]
    with pytest.raises(InputError, match="mmlu/virology: the dev file has 0 questions, not 5"):
        list(
            MMLU(chat=False).items(LoadedSource({"dev": dev, "test": source.rows("test")}, "test"))
        )


def test_a_hub_row_becomes_the_row_of_the_file() -> None:
    hub = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 2, "subject": "virology"}
    table = MMLU.dataset.tables["test"]
    (row,) = table.read(BytesIO(b"q,1,2,3,4,C\n"))
    assert table.canonical(table.hub.adapt(hub), "virology") == table.canonical(row, "virology")


def test_recorded_letters_are_scored_as_the_leaderboard_did_but_for_options_written_twice(
    items: list[MMLUItem], replay_dir: Path
) -> None:
    """HELM compares the options' texts. What that changes is named item by item: the right option
    stands there under two letters.
    """
    about = json.loads((replay_dir / "mmlu" / "README.json").read_text("utf-8"))
    benchmark = MMLU(chat=False)
    words, favoured = Counter[str](), {}
    for recording in recordings(replay_dir / "mmlu", about, items):
        texts = {item.id: recording.answers[item.id].completion.text for item in items}
        grades = {
            item.id: benchmark.grade(item, recording.answers[item.id].completion, {})
            for item in items
        }
        for item in items:
            letter = texts[item.id]
            options = dict(zip(LETTERS, item.choices, strict=True))
            assert grades[item.id].scores == {"mmlu": float(letter == item.answer)}, item.id
            if letter not in LETTERS:
                words[recording.name] += 1
            elif letter != item.answer and options[letter] == options[item.answer]:
                favoured.setdefault(recording.name, []).append((item.id, letter, item.answer))
    everyones = ("mmlu/high_school_macroeconomics/183", "A", "D")
    assert favoured == {
        "openai_gpt-4-0613": [everyones],
        "openai_gpt-4-1106-preview": [everyones],
        "meta_llama-3-70b": [everyones, ("mmlu/international_law/51", "B", "A")],
        "google_text-unicorn@001": [everyones],
        "google_gemini-1.5-flash-preview-0514": [("mmlu/sociology/197", "D", "C")],
    }
    assert words == {
        "openai_gpt-4-0613": 26,
        "openai_gpt-4-1106-preview": 749,
        "google_text-unicorn@001": 1,
        "google_gemini-1.5-flash-preview-0514": 91,
    }


def test_the_smoke_items_are_in_the_public_format() -> None:
    benchmark = MMLU(chat=True)
    smoke = list(benchmark.items(load_smoke_data(MMLU.dataset)))
    assert Counter(item.group for item in smoke) == {"astronomy": 6, "elementary_mathematics": 6}
    assert {item.answer for item in smoke} == set(LETTERS)
    assert (
        benchmark.summarize([benchmark.grade(item, choice(item.answer), {}) for item in smoke])[
            "mmlu"
        ].value
        == 1.0
    )


def test_a_line_break_within_a_cell_stays_as_it_is() -> None:
    assert next(read_questions(BytesIO(b'"a\r\nb",w,x,y,z,A\n')))["question"] == "a\r\nb"


def test_letters_that_are_all_impossible_are_no_answer(items: list[MMLUItem]) -> None:
    impossible = Completion(choice_logprobs=dict.fromkeys("ABCD", -math.inf))
    grade = MMLU(chat=True).grade(items[0], impossible, {})
    assert (grade.id, grade.scores, grade.missing) == (
        items[0].id,
        {},
        "the model gave no log-probability for every letter",
    )
    assert (
        MMLU(chat=True)
        .grade(
            items[0], Completion(choice_logprobs=dict.fromkeys("ABCD", -math.inf) | {"B": -1.0}), {}
        )
        .extracted
        == "B"
    )


def test_a_question_is_the_files_first_cell(items: list[MMLUItem], source: LoadedSource) -> None:
    assert [item.question for item in items] == [row["question"] for row in source.rows("test")]


def test_without_shots_every_prompt_is_what_the_original_makes_with_ntrain_0(
    data_dir: Path,
) -> None:
    """The header, a blank line and the question as pandas prints it; 14,042 of them, in both modes
    the same text.
    """
    import pandas as pd

    source = load_card_data([MMLU.dataset], data_dir)["mmlu"]
    chat, base = (MMLU(chat=mode, settings=MMLU.Settings(shots=0)) for mode in (True, False))
    frames: dict[str, Any] = {}
    total = 0
    for item in chat.named_items(source):
        total += 1
        name, subject, row = item.id.split("/")
        if subject not in frames:
            file = data_dir / "mmlu" / "test" / f"{subject}_test.csv"
            frames[subject] = pd.read_csv(file, header=None).astype(object)
        question, *choices, _ = frames[subject].iloc[int(row)].tolist()
        options = "".join(
            f"\n{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True)
        )
        words = subject.replace("_", " ")
        asked = chat.request(item)
        assert text(asked.messages) == (
            f"The following are multiple choice questions (with answers) about  {words}.\n\n"
            f"{question}{options}\nAnswer:"
        )
        assert base.request(item).messages == asked.messages
        assert (asked.shorter, asked.opening, name) == ((), "The answer is:", "mmlu.shots-0")
        assert base.request(item).opening == ""
    assert total == 14042
