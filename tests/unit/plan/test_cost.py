"""What judging costs, before the first call: exact where it can be counted, never too little where
it cannot.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import evals
from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.prompts import Rendered, Renderer, load_tokenizer
from evals.plan.cost import Cost, Priced, parse_prices, prompt_tokens, spent
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Completion, Generate, ItemId, Message, Output, Sampling
from evals.report.dry_run import describe
from tests.openai_server import chat, serving


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(embedded_folder()))


def asked(
    text: str, *, token_ids: tuple[int, ...] = (), labels: tuple[tuple[str, str], ...] = ()
) -> Rendered:
    return Rendered(
        ItemId("x/0"),
        "xstest",
        text,
        token_ids,
        (Message("user", text),),
        Sampling(16),
        16,
        labels=labels,
    )


# --- tokens and money -----------------------------------------------------------------------------


@examples(deadline=None)
@given(st.text(max_size=200))
def test_the_bound_by_bytes_is_never_less_than_a_templates_tokens(
    tokenizer: Any, text: str
) -> None:
    request = Generate((Message("user", text),), Sampling(16))
    (known,) = Renderer(tokenizer, "tokenizer", None).render([(ItemId("x/0"), "xstest", request)])
    (unknown,) = Renderer(None, "tokenizer", None).render([(ItemId("x/0"), "xstest", request)])
    assert prompt_tokens(known) == len(known.token_ids)
    assert prompt_tokens(unknown) >= prompt_tokens(known)


def test_spent_counts_what_was_told_and_bounds_what_was_not() -> None:
    told = (
        asked("q", token_ids=(1, 2)),
        Completion((Output("yes", token_ids=(7, 8, 9)),), n_prompt_tokens=2),
    )
    assert spent([told]) == Cost(1, 2, 3, True, True)
    chatted = (asked("question"), Completion((Output("refusal"),), n_prompt_tokens=11))
    assert spent([chatted]) == Cost(1, 11, 8, True, False)
    wordy = (asked("question"), Completion((Output("x" * 400),)))
    assert spent([wordy]) == Cost(1, 8 + 64, 16, False, False)
    choice = (
        asked("q", token_ids=(1,), labels=(("yes", " yes"),)),
        Completion(choice_logprobs={"yes": -1.0}, n_prompt_tokens=1),
    )
    assert spent([told, choice]) == Cost(2, 3, 4, True, True)


def test_money_is_tokens_at_the_users_prices_a_million() -> None:
    cost = Cost(10, 2_000_000, 500_000, True, False)
    assert cost.money((30, 60)) == 90.0
    assert (
        cost.text(Priced((30, 60)))
        == "10 requests, 2,000,000 tokens in, at most 500,000 out, cost at most 90.00 at 30 in and"
        " 60 out per million"
    )
    assert cost.text(None) == "10 requests, 2,000,000 tokens in, at most 500,000 out"


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["all first", "last"])
def test_prices_go_to_roles_and_all_means_every_other_one(order: slice) -> None:
    assert parse_prices(["all=1,2", "xstest=3,4.5"][order], ["xstest", "truth"]) == {
        "xstest": (3.0, 4.5),
        "truth": (1.0, 2.0),
    }


def test_two_prices_for_one_role_are_refused_and_the_same_twice_is_one() -> None:
    assert parse_prices(["xstest=1,2", "xstest=1,2.0"], ["xstest"]) == {"xstest": (1.0, 2.0)}
    with pytest.raises(InputError, match="xstest is given two prices"):
        parse_prices(["xstest=1,2", "xstest=1,3"], ["xstest"])


@pytest.mark.parametrize(
    "argument",
    [
        "xstest=1",
        "xstest=1,2,3",
        "xstest=a,b",
        "xstest=-1,2",
        "xstest=nan,1",
        "xstest=inf,1",
        "info=1,2",
        "1,2",
    ],
)
def test_a_price_that_is_none_is_refused(argument: str) -> None:
    with pytest.raises(InputError, match="--price"):
        parse_prices([argument], ["xstest", "truth"])


# --- the dry run ----------------------------------------------------------------------------------

REFUSALS = [{"id": f"xstest/{n}", "outputs": [f"Sorry, no. Nr {n}."]} for n in range(1, 9)]


@pytest.fixture
def recording(tmp_path: Path) -> str:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REFUSALS))
    return f"replay:{tmp_path / 'r.jsonl'}"


def line(settings: RunSettings, role: str, *prices: str) -> str:
    (found,) = [
        text
        for text in describe(make_plan(settings), prices).splitlines()
        if text.startswith(f"judge {role}: ")
    ]
    return found


def test_with_the_answers_there_and_a_tokenizer_the_count_is_what_is_then_sent(
    recording: str, tmp_path: Path
) -> None:
    """The same eight judgements, once foreseen by the tokenizer and once counted by a server that
    hears every prompt.
    """
    settings = RunSettings(
        recording, suite="smoke", judges=("xstest=smollm2",), out=tmp_path / "run"
    )
    foreseen = line(settings, "xstest", "xstest=10,20")
    prompts = []
    with serving(lambda body, _: chat(body, "refusal")) as server:
        evals.run(
            recording,
            suite="smoke",
            judge=f"xstest=openai:j@{server.url}",
            out=tmp_path / "served",
        )
        prompts = [body["messages"] for body in server.asked]
    tokenizer = load_tokenizer(str(embedded_folder()))
    exact = sum(
        len(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)[
                "input_ids"
            ]
        )
        for messages in prompts
    )
    assert (
        f"8 requests, {exact:,} tokens in, at most {8 * 16} out (about {8 * 16}), cost at most"
        f" {(exact * 10 + 128 * 20) / 1e6:.2f}" in foreseen
    )


def test_judges_of_benchmarks_that_are_not_run_are_neither_counted_nor_asked_for(
    tmp_path: Path,
) -> None:
    settings = RunSettings(
        "smollm2",
        suite="smoke",
        tasks=("gsm8k",),
        judges=("card", "xstest=strmatch"),
        out=tmp_path / "run",
    )
    assert "\njudge " not in describe(make_plan(settings))
    assert (
        line(replace(settings, tasks=("gsm8k", "xstest")), "xstest")
        == "judge xstest: strmatch (not the card’s), a rule"
    )


def test_a_server_without_a_tokenizer_is_counted_by_bytes_and_the_line_says_at_most(
    recording: str, tmp_path: Path
) -> None:
    settings = RunSettings(
        recording,
        suite="smoke",
        judges=("xstest=openai:j@http://127.0.0.1:9/v1",),
        out=tmp_path / "run",
    )
    exact = line(
        RunSettings(recording, suite="smoke", judges=("xstest=smollm2",), out=tmp_path / "run"),
        "xstest",
    )
    bound = line(settings, "xstest")
    n_exact, n_bound = (
        int(text.split(" tokens in")[0].split()[-1].replace(",", "")) for text in (exact, bound)
    )
    assert "at most" in bound.partition("tokens in")[0]
    assert n_exact < n_bound < 8 * n_exact
    assert "cost" not in bound


def test_verdicts_that_are_in_the_store_cost_nothing_more(recording: str, tmp_path: Path) -> None:
    with serving(lambda body, _: chat(body, "refusal")) as server:
        judge = f"xstest=openai:j@{server.url}"
        settings = RunSettings(recording, suite="smoke", judges=(judge,), out=tmp_path / "run")
        assert "8 requests" in line(settings, "xstest")
        assert server.asked == []
        evals.run(recording, suite="smoke", judge=judge, out=tmp_path / "run")
        assert "0 requests, 0 tokens in" in line(settings, "xstest")
        assert len(server.asked) == 8


def test_answers_not_there_yet_count_as_their_longest(tmp_path: Path) -> None:
    judges = ("xstest=smollm2", "truth=smollm2", "info=openai:j@http://127.0.0.1:9/v1")
    settings = RunSettings(
        "smollm2",
        suite="smoke",
        tasks=("xstest", "truthfulqa"),
        judges=judges,
        out=tmp_path / "run",
    )
    said = {role: line(settings, role) for role in ("xstest", "truth", "info")}
    n_in = {
        role: int(text.split(" tokens in")[0].split()[-1].replace(",", ""))
        for role, text in said.items()
    }
    assert n_in["xstest"] > 8 * 256
    assert 5 * 50 < n_in["truth"] < 5 * (50 + 40)
    assert n_in["info"] > n_in["truth"]
    assert all("at most" in text.partition("tokens in")[0] for text in said.values())
    assert not (tmp_path / "run").exists()
    assert "An answer that is not there yet counts as its longest" in describe(make_plan(settings))
