"""The words of --judge: sets, names, annotators, files; what is gone, and what is refused."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.fidelity.listing import listing
from evals.plan.cost import check_cap, prices_of
from evals.plan.judges import AS_THE_CARD, CARD_JUDGES, Asking, Judge, judge_of_record
from evals.plan.known_judges import known_judges
from evals.plan.make import make_plan
from evals.plan.naming_judges import gone, instead, judges_of, parse_judges, refusal
from evals.plan.settings import RunSettings
from evals.records import Choose, Generate, Message, Sampling
from evals.registry import BENCHMARKS, benchmark_class
from evals.report.dry_run import describe

CLASSES = [benchmark_class(name) for name in BENCHMARKS]
TODAY = date(2026, 11, 29)
GPT_4_1 = "openai:gpt-4.1-2025-04-14"


def named(*arguments: str) -> dict[str, Judge]:
    return judges_of(arguments, CLASSES)


# --- the table ------------------------------------------------------------------------------------


def test_every_set_names_a_judge_for_every_role_that_may_decide_it() -> None:
    known = known_judges()
    for roles in known.sets.values():
        assert roles.keys() == CARD_JUDGES.keys() == known.roles.keys()
        for role, name in roles.items():
            judge = known.by_name[name]
            assert not judge.roles or role in judge.roles


def test_what_is_known_of_a_judge_has_its_page_and_day_and_an_end_its_source() -> None:
    for judge in known_judges().by_name.values():
        has_facts = judge.price is not None or judge.gpu_gb is not None
        assert has_facts == bool(judge.facts) == (judge.read is not None)
        assert (judge.ends is None) == (not judge.source)


@pytest.mark.parametrize(
    ("day", "is_gone"), [(date(2026, 10, 22), False), (date(2026, 10, 23), True)]
)
def test_a_judge_is_gone_from_its_day_on(day: date, is_gone: bool) -> None:
    judge = known_judges().by_name["gpt-4-0613"]
    assert judge.is_gone(day) is is_gone
    assert ("gone since 2026-10-23" in judge.life(day)) is is_gone
    assert ("xstest" in gone(named("card"), day)) is is_gone


# --- what the words mean --------------------------------------------------------------------------


def test_current_names_the_successors_by_the_cards_prompts() -> None:
    judges = named("current")
    assert {role: judge.model for role, judge in judges.items()} == {
        "alpaca_eval_1": GPT_4_1,
        "alpaca_eval_2": GPT_4_1,
        "xstest": GPT_4_1,
        "truth": CARD_JUDGES["truth"],
        "info": CARD_JUDGES["info"],
    }
    assert all(not judge.prompt for judge in judges.values())
    assert gone(judges, TODAY) == {}
    assert set(gone(judges, date(2027, 1, 14))) == {"alpaca_eval_1", "alpaca_eval_2", "xstest"}


def test_a_name_brings_its_model_and_its_prompt() -> None:
    judge = named("xstest=wildguard")["xstest"]
    assert (judge.model, judge.prompt) == ("allenai/wildguard", "wildguard")
    assert judge.mark is not None
    assert "by the prompt wildguard" in judge.mark


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("weighted_alpaca_eval_gpt-4o-mini-2024-07-18", "openai:gpt-4o-mini-2024-07-18"),
        ("mistral-large-2402_ranking", "openai:mistral-large-2402@https://api.mistral.ai/v1"),
        ("lmsys_gpt4", "openai:gpt-4"),
    ],
)
def test_an_annotators_model_is_read_from_its_configuration(name: str, model: str) -> None:
    judge = named(f"alpaca_eval_2=annotator:{name}")["alpaca_eval_2"]
    assert (judge.model, judge.prompt) == (model, f"annotator:{name}")
    assert not judge.is_card


def test_the_cards_judges_at_an_address_of_ones_own_are_not_gone_and_not_the_cards() -> None:
    judges = named("card@http://localhost:8000/v1")
    assert judges["xstest"].model == "openai:gpt-4-0613@http://localhost:8000/v1"
    assert judges["truth"].model == CARD_JUDGES["truth"]
    assert gone(judges, TODAY) == {}
    assert judges["xstest"].mark is not None


def test_the_providers_own_address_makes_no_other_judge() -> None:
    judges = named("xstest=openai:gpt-4-0613@https://api.openai.com/v1")
    assert judges == named("xstest=openai:gpt-4-0613")
    assert set(gone(judges, TODAY)) == {"xstest"}


def test_openai_base_url_is_an_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert named("card") == named("card@http://localhost:8000/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert named("card")["xstest"].is_card


def test_a_server_has_one_spelling_for_all_its_roles() -> None:
    url = "openai:j@http://localhost:8000/v1"
    judges = named(f"truth={url}/", f"info={url}")
    assert {judge.model for judge in judges.values()} == {url}


def test_what_names_a_role_goes_before_a_set_wherever_it_stands() -> None:
    assert named("xstest=strmatch", "current") == named("current", "xstest=strmatch")
    assert named("current", "xstest=strmatch")["xstest"].is_rule


def test_a_file_says_how_judges_are_asked(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[xstest]\nmodel = "out/guard"\nprompt = "wildguard"\nmax_tokens = 512\n'
        '[alpaca_eval_1]\nmodel = "out/judge"\nsystem = "user"\nchat_format = "tulu"\n'
        '[alpaca_eval_2]\nprompt = "annotator:alpaca_eval_clf_gpt4_turbo"\nmodel = "out/judge-2"\n'
        '[truth]\nmodel = "truth-judge"\n'
    )
    judges = named(str(file))
    assert judges["xstest"] == Judge(
        "xstest", "out/guard", prompt="wildguard", asking=Asking(max_tokens=512)
    )
    assert judges["alpaca_eval_1"].asking == Asking(system="user", chat_format="tulu")
    assert judges["alpaca_eval_2"].model == "out/judge-2"
    assert judges["truth"].is_card
    for role, judge in judges.items():
        assert judge_of_record(role, {"name": judge.model, **judge.record()}) == judge


@pytest.mark.parametrize(("temperature", "top_p"), [(0, 1), (2, 0.01)])
def test_both_ends_of_what_may_be_asked_for_are_taken(
    temperature: float, top_p: float, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[xstest]\nmodel = "a/b"\ntemperature = {temperature}\ntop_p = {top_p}\n')
    assert named(str(file))["xstest"].asking == Asking(temperature=temperature, top_p=top_p)


def test_a_judge_may_be_asked_without_a_systems_turn_and_with_more_room() -> None:
    ask = Generate(
        (Message("system", "Be fair."), Message("user", "Which?")), Sampling(16, n_logprobs=5)
    )
    asked = Asking(system="user", temperature=0.5, max_tokens=512).apply(ask)
    assert asked == Generate(
        (Message("user", "Be fair.\n\nWhich?"),), Sampling(512, 0.5, n_logprobs=5)
    )
    assert AS_THE_CARD.apply(ask) == ask
    alone, system = (Generate((one,), ask.sampling) for one in reversed(ask.messages))
    assert Asking(system="user").apply(alone) == alone
    assert Asking(system="user").apply(system) == system
    assert Asking(top_p=0.9).apply(ask).sampling == replace(ask.sampling, top_p=0.9)
    choose = Choose((Message("user", "True:"),), candidates=(("yes", " yes"),), raw=True)
    assert Asking(max_tokens=512).apply(choose) == choose


# --- what is refused ------------------------------------------------------------------------------

BAD = {
    "two judges for a role": (["xstest=a/b", "xstest=c/d"], "xstest is given two judges"),
    "two sets": (["card", "current"], "alpaca_eval_1 is given two judges"),
    "an annotator that does not exist": (
        ["alpaca_eval_2=annotator:weighted_alpaca_eval_gpt4_turob"],
        "no annotator 'weighted_alpaca_eval_gpt4_turob'. Did you mean weighted_alpaca_eval_gpt4",
    ),
    "an annotator by function call": (
        ["alpaca_eval_2=annotator:alpaca_eval_gpt4_turbo_fn"],
        "answers by a function call",
    ),
    "an annotator of another interface": (
        ["alpaca_eval_2=annotator:claude_2"],
        "asks by anthropic_completions",
    ),
    "an annotator read at its last token": (
        ["alpaca_eval_2=annotator:weighted_alpaca_eval_cot_gpt4_turbo"],
        "log-probabilities of its last token",
    ),
    "a pool of annotators": (["alpaca_eval_1=annotator:alpaca_farm"], "is a pool of several"),
    "an annotator for another role": (
        ["xstest=annotator:alpaca_eval_gpt4"],
        "xstest has no judge's prompt called 'annotator:alpaca_eval_gpt4'. It has: wildguard",
    ),
    "a rest of nothing": (["xstest+=a/b"], "name whose verdicts shall stand"),
    "a rest by another prompt": (["xstest=a/b", "xstest+=wildguard"], "by the same prompt"),
    "a rest of a rule's": (["xstest=strmatch", "xstest+=a/b"], "by the same prompt"),
    "a judge of another role": (["truth=wildguard"], "wildguard decides xstest only"),
    "a rule of another role": (["truth=strmatch"], "decides xstest only"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=BAD)
def test_bad_words_are_refused_in_one_sentence(arguments: Sequence[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        named(*arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_FILES = {
    "no TOML": ("[xstest", "cannot be read"),
    "nothing": ("\n", "names no judge"),
    "a server in a chat format": (
        '[xstest]\nmodel = "openai:j@http://h/v1"\nchat_format = "tulu"',
        "the xstest judge is a server, which renders its questions itself",
    ),
    "an unknown role": ('[xtest]\nmodel = "a/b"', "unknown role 'xtest'. Did you mean xstest?"),
    "no model": ("[xstest]\nmax_tokens = 5", "one of them must be there"),
    "an unknown field": ('[xstest]\nmodel = "a/b"\nmax_token = 5', "Did you mean max_tokens?"),
    "a budget that is none": ('[xstest]\nmodel = "a/b"\nmax_tokens = 0', "1 or more"),
    "a budget that is a truth": ('[xstest]\nmodel = "a/b"\nmax_tokens = true', "1 or more"),
    "a temperature that is none": ('[xstest]\nmodel = "a/b"\ntemperature = "hot"', "give 0 to 2"),
    "a temperature above 2": ('[xstest]\nmodel = "a/b"\ntemperature = 2.1', "give 0 to 2"),
    "a temperature below 0": ('[xstest]\nmodel = "a/b"\ntemperature = -0.1', "give 0 to 2"),
    "a temperature that is a truth": ('[xstest]\nmodel = "a/b"\ntemperature = true', "0 to 2"),
    "no share of the tokens": ('[xstest]\nmodel = "a/b"\ntop_p = 0', "above 0, at most 1"),
    "more than all tokens": ('[xstest]\nmodel = "a/b"\ntop_p = 1.1', "above 0, at most 1"),
    "another turn": ('[xstest]\nmodel = "a/b"\nsystem = "assistant"', 'give "user"'),
    "another format": ('[xstest]\nmodel = "a/b"\nchat_format = "llama"', "tulu, tokenizer"),
    "a model in a number": ("[xstest]\nmodel = 5", "model and prompt are names"),
    "a rule that is asked": ('[xstest]\nmodel = "strmatch"\nmax_tokens = 5', "asked nothing"),
    "a text for a table": ('xstest = "a/b"', "write a table"),
    "one model in two formats": (
        '[truth]\nmodel = "a/b"\nchat_format = "tulu"\n[info]\nmodel = "a/b"',
        "in two chat formats",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        named(str(file))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_may_begin_with_a_mark_of_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[truth]\nmodel = "truth-judge"\n', "utf-8-sig")
    assert named(str(file)) == named("truth=truth-judge")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("curent", "Did you mean current?"),
        ("xstest=wild-guard", "Of the judges with a name: Did you mean wildguard?"),
        ("xstest=GPT-4.1", "Of the judges with a name: Did you mean gpt-4.1"),
    ],
)
def test_a_name_that_is_almost_one_is_told_which(word: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(RunSettings("smollm2", suite="smoke", judges=(word,)))
    assert hint in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        parse_judges(["none.toml"], {})


def test_the_refusal_says_for_which_columns_and_gives_flags_that_are_taken() -> None:
    said = refusal(gone(named("card"), TODAY), CLASSES, TODAY)
    for column in ("AlpacaEval 1", "AlpacaEval 2 LC", "XSTest safe but ref."):
        assert column in said
    for role in ("alpaca_eval_1", "alpaca_eval_2", "xstest"):
        flags = [one for one in instead(role, TODAY).split(" or ") if "=MODEL" not in one]
        assert flags[0] == f"--judge {role}=gpt-4.1"
        for flag in flags:
            named(flag.removeprefix("--judge "))


def test_card_is_refused_with_everything_else_that_is_wrong() -> None:
    with pytest.raises(InputError, match="gpt-4-1106-preview is gone since") as caught:
        make_plan(RunSettings("smolm3", judges=("card",), data=Path("nowhere")))
    assert "--judge current" in str(caught.value)
    assert "Unknown model 'smolm3'" in str(caught.value)
    assert "needs a key" not in str(caught.value)


def test_a_judge_that_is_not_to_be_had_hides_no_estimate(tmp_path: Path) -> None:
    judges = ("card", "truth=smollm2", "info=nonsense")
    settings = RunSettings("smollm2", suite="smoke", judges=judges, out=tmp_path / "run")
    said = describe(make_plan(settings, need_judges=False)).splitlines()
    (truth,) = [line for line in said if line.startswith("judge truth: ")]
    assert "requests" in truth
    for role in ("alpaca_eval_1", "alpaca_eval_2", "xstest", "info"):
        (line,) = [line for line in said if line.startswith(f"judge {role}: ")]
        assert "not to be had, and the run would be refused: " in line
    assert sum(line.split(" ")[0] in BENCHMARKS for line in said) == len(BENCHMARKS)


def test_what_a_judge_without_a_key_would_take_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = RunSettings(
        "smollm2",
        suite="smoke",
        tasks=("xstest",),
        judges=("xstest=gpt-4.1",),
        out=tmp_path / "run",
    )
    (line,) = (
        line
        for line in describe(make_plan(settings, need_judges=False)).splitlines()
        if line.startswith("judge xstest: ")
    )
    assert "would be refused: openai:gpt-4.1-2025" in line
    assert "set OPENAI_API_KEY" in line
    assert re.search(r"\. It would take \d+ requests, at most [\d,]+ tokens in .*US dollars", line)


def test_judges_of_tasks_that_are_not_run_are_not_missed() -> None:
    settings = RunSettings("smollm2", suite="smoke", tasks=("gsm8k",), judges=("card",))
    assert list(make_plan(settings).tasks) == ["gsm8k"]


def test_the_list_names_the_cards_judge_and_whoever_is_alive_and_where_it_was_read() -> None:
    lines = list(listing(TODAY))
    said = "\n".join(lines)
    for role, known in known_judges().roles.items():
        assert f"{role}: " in said
        assert known.without in said
        assert f"--judge {role}={known_judges().sets['card'][role]}" in said
    for line in lines:
        flag = re.match(r"  --judge (\S+=[^:\s]+)  ", line)
        if flag and not flag[1].endswith("=MODEL"):
            assert not gone(named(flag[1]), TODAY) or "[card]" in line
    assert "--judge truth=gpt-4-turbo" not in said
    assert "not verified: its size on disk" in said
    assert "[card, current]" in said


# --- prices ---------------------------------------------------------------------------------------


def test_a_list_price_has_its_day_and_ones_own_has_none() -> None:
    found = prices_of(["xstest=1,2"], named("current"))
    assert (found["xstest"].price, found["xstest"].listed) == ((1.0, 2.0), None)
    assert (found["alpaca_eval_2"].price, found["alpaca_eval_2"].listed) == (
        (2.0, 8.0),
        date(2026, 11, 29),
    )
    assert "truth" not in found


@pytest.mark.parametrize(
    ("most", "judge", "says"),
    [
        (-1.0, "xstest=gpt-4.1", "give an amount"),
        (float("nan"), "xstest=gpt-4.1", "give an amount"),
        (5.0, "xstest=openai:m@http://h/v1", "the price of openai:m@http://h/v1 is not known"),
        (5.0, "all=openai:m@http://h/v1", "--price truth=IN,OUT --price info=IN,OUT, for a"),
    ],
)
def test_a_cap_that_could_be_passed_unseen_is_refused(most: float, judge: str, says: str) -> None:
    judges = named(judge)
    with pytest.raises(InputError) as caught:
        check_cap(most, judges, prices_of([], judges))
    assert says in str(caught.value)
