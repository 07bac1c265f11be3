"""Judges that are not to be had: told before anything is generated, or in mid-run with everything
kept; and judging that stops before it costs more than it may.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evals.commands.app import app
from evals.errors import Incomplete, InputError
from evals.generators import Failure, Generator
from evals.generators.openai import OpenAIGenerator
from evals.models.prompts import Rendered, Renderer
from evals.plan.cost import prompt_tokens, spent
from evals.plan.make import Plan, make_plan
from evals.records import Completion, Output
from evals.runs.asking import Asker
from evals.runs.budget import Budget
from evals.runs.judging import within_budget
from evals.runs.progress import Progress
from evals.runs.rescore import rescore
from evals.runs.session import execute, run
from evals.storage.store import Store
from tests.conftest import shared_folder
from tests.openai_requests import chat_request, collected
from tests.openai_server import Body, Reply, chat, error, serving
from tests.resilience.conftest import JUDGED, verdict
from tests.resilience.fake_runs import Engines, settings, stored

N_ANSWERS = 8 + 5 + 4
TROUBLE = {
    "wrong key": (error(401), "refuses the key (401)"),
    "no such model": (error(404), "has no model 'judge' (404)"),
    "no quota": (error(429, code="insufficient_quota"), "the account has no quota left"),
}


def asked(body: Body) -> str:
    return "\n".join(message["content"] for message in body["messages"])


@pytest.mark.parametrize(("trouble", "says"), TROUBLE.values(), ids=TROUBLE)
def test_what_is_wrong_with_a_judge_is_told_before_anything_is_generated(
    tmp_path: Path, trouble: Reply, says: str
) -> None:
    engine = Engines()
    with serving(lambda body, _: chat(body, verdict(asked(body)))) as server:
        server.probe = trouble
        judge = f"xstest=openai:judge@{server.url}"
        with pytest.raises(InputError) as caught:
            run(settings(tmp_path / "run", tasks=JUDGED, judges=(judge,)), make_generator=engine)
        assert server.asked == []
    assert says in str(caught.value)
    assert str(caught.value).startswith("Judge of xstest, openai:judge@")
    assert engine.asked == []


def test_a_judge_of_several_roles_is_told_of_once_and_priced_where_it_is_asked(
    tmp_path: Path,
) -> None:
    with serving(lambda body, _: chat(body, "yes")) as server:
        server.probe = error(401)
        capped = settings(
            tmp_path / "run",
            tasks=("truthfulqa",),
            judges=(f"all=openai:judge@{server.url}",),
            prices=("truth=1,1", "info=1,1"),
            max_cost=5.0,
        )
        with pytest.raises(InputError) as caught:
            run(capped, make_generator=Engines())
    assert str(caught.value).startswith("Judge of truth, info, openai:judge@")
    assert str(caught.value).count("refuses the key") == 1


@pytest.mark.parametrize("trouble", [TROUBLE["no such model"][0], TROUBLE["no quota"][0]])
def test_a_judge_that_dies_takes_nothing_with_it_and_another_decides_the_rest(
    tmp_path: Path, trouble: Reply
) -> None:
    given: list[str] = []

    def dies(body: Body, before: int) -> Reply:
        if "CLASS:" in asked(body) and len(given) >= 3:
            return trouble
        given.append(asked(body))
        return chat(body, verdict(asked(body)))

    out = tmp_path / "run"
    with serving(dies) as first, serving(lambda body, _: chat(body, "refusal")) as other:
        judges = (f"xstest=openai:mortal@{first.url}", f"truth=openai:b@{other.url}")
        with pytest.raises(Incomplete) as caught:
            run(settings(out, tasks=("xstest",), judges=judges), make_generator=Engines())
        said = str(caught.value)
        assert "cannot be asked any more" in said
        assert "--judge xstest+=MODEL added" in said
        assert "--judge xstest=MODEL in its place" in said
        assert caught.value.exit_code == 3
        kept = len(stored(out))
        assert kept == 8 + len(given)
        assert (out / "summary.json").exists()

        more = (judges[0], f"xstest+=openai:rest@{other.url}")
        rest = run(settings(out, tasks=("xstest",), judges=more), make_generator=Engines())
        assert rest.is_complete
        assert len(other.asked) == 8 - len(given)
        marks = rest.summary["cells"]["xstest_safe_refused"]["marks"]
        assert any("and, for what that left, openai:rest@" in mark for mark in marks)
        by = {row["findings"]["xstest"]["by"] for row in rest.folder.samples("xstest")}
        assert {name.partition("@")[0] for name in by} == {"openai:mortal", "openai:rest"}
        assert rescore(out, None)["cells"] == rest.summary["cells"]

        engine = Engines()
        other.asked.clear()
        again = settings(out, tasks=("xstest",), judges=(f"xstest=openai:other@{other.url}",))
        done = run(again, make_generator=engine)
        assert done.is_complete
        assert engine.asked == []
        assert len(other.asked) == 8


def test_judging_stops_before_it_could_cost_more_and_goes_on_with_more_money(
    tmp_path: Path,
) -> None:
    """A token costs one; a question is known to the byte only, so that few may be under way."""
    out = tmp_path / "run"

    def says(body: Body, before: int) -> Reply:
        reply = chat(body, "refusal")
        reply.body["usage"]["prompt_tokens"] = 500
        return reply

    with serving(says) as server:
        judge = f"xstest=openai:judge@{server.url}"
        prices = ("xstest=1000000,1000000",)
        capped = settings(out, tasks=("xstest",), judges=(judge,), prices=prices, max_cost=2500.0)
        result = run(capped, make_generator=Engines())
        n_asked = len(server.asked)
        assert 0 < n_asked < 8
        assert result.n_missing == 8 - n_asked
        assert n_asked * 500 <= 2500
        nothing = settings(out, tasks=("xstest",), judges=(judge,), prices=prices, max_cost=0.0)
        assert run(nothing, make_generator=Engines()).n_missing == result.n_missing
        assert len(server.asked) == n_asked
        assert run(
            settings(out, tasks=("xstest",), judges=(judge,)), make_generator=Engines()
        ).is_complete
        assert len(server.asked) == 8


def test_answers_that_cannot_be_read_are_paid_for_too(tmp_path: Path) -> None:
    """A token costs one, and a question is of more than 1,000 bytes."""
    with serving(lambda body, _: Reply(b"<html>")) as server:
        judge, prices = f"xstest=openai:judge@{server.url}", ("xstest=1000000,1000000",)
        result = run(
            settings(
                tmp_path / "run", tasks=("xstest",), judges=(judge,), prices=prices, max_cost=2500.0
            ),
            make_generator=Engines(),
        )
        assert result.n_missing == 8
        assert 0 < len(server.asked) <= 2


class Dies:
    """A judge's engine that is no more."""

    def stream(self, requests: Sequence[Rendered]) -> Iterator[list[tuple[Rendered, Completion]]]:
        raise InputError("the key is refused")

    def close(self) -> None:
        """Nothing to free."""


def test_a_judge_that_dies_leaves_its_money_to_the_next(tmp_path: Path) -> None:
    budget = Budget(1.0, {"": (2_000.0, 0.0)})  # 0.138 a request at most
    requests = [chat_request(number) for number in range(10)]
    waiting = [(request.key("dead"), [request]) for request in requests]
    with closing(Store(tmp_path / "store.sqlite")) as store:
        asker = Asker(store, "", Progress(quiet=True), budget=budget)
        asker.load("dead", Dies)
        with pytest.raises(InputError):
            within_budget(asker, waiting, lambda *_: None, Renderer(None, "tokenizer", None))
    assert budget.take(requests) == 7


def test_a_command_says_what_stopped_its_judging(tmp_path: Path) -> None:
    """Verdicts are missing, not rows of the recording; the cap is each command's."""
    file = tmp_path / "answers.jsonl"
    lines = [f'{{"id": "xstest/{n}", "outputs": ["No."]}}\n' for n in range(1, 451)]
    file.write_text("".join(lines))
    data = str(shared_folder("EVALS_DATA", "data"))
    with serving(lambda body, _: chat(body, "refusal")) as server:
        judge = f"xstest=openai:judge@{server.url}"
        said = ["run", f"replay:{file}", "--data", data, "--limit", "4", "--judge", judge]
        said += ["--price", "all=1,1", "--max-cost", "0", "--out", str(tmp_path / "run")]
        done = CliRunner().invoke(app, said)
    assert isinstance(done.exception, Incomplete)
    assert "4 answers or verdicts are missing. The same command" in str(done.exception)
    assert "If --max-cost 0 stopped it: so much may each command spend." in str(done.exception)


def test_verdicts_without_their_log_probabilities_are_counted_beside_the_cell(
    tmp_path: Path,
) -> None:
    def sometimes(body: Body, before: int) -> Reply:
        is_even = len(asked(body)) % 2 == 0
        return chat(body, "m", {"m": -0.4, "M": -1.1} if is_even else None)

    with serving(sometimes) as server:
        judge = f"alpaca_eval_2=openai:judge@{server.url}"
        result = run(
            settings(tmp_path / "run", tasks=("alpaca_eval",), judges=(judge,)),
            make_generator=Engines(),
        )
        n = sum(len(asked(body)) % 2 for body in server.asked)
        assert 0 < n < len(server.asked)
    notes = result.summary["judges"]["alpaca_eval_2"]["notes"]
    (note,) = [one for one in notes if "log-probabilities" in one]
    assert f"gave no log-probabilities for {n} verdicts, which were read by their word" in note


def test_a_judge_that_cannot_be_reached_is_said_before_anything_is_generated(
    tmp_path: Path,
) -> None:
    with serving(lambda body, _: chat(body)) as server:
        url = server.url
    said: list[str] = []

    class Heard(Progress):
        def note(self, text: str) -> None:
            said.append(text)

    judge = (f"xstest=openai:judge@{url}",)
    plan = make_plan(settings(tmp_path / "run", tasks=("xstest",), judges=judge))

    def start(plan: Plan) -> Generator:
        said.append("the model starts")
        return Engines()(plan)

    with pytest.raises(Incomplete) as caught:
        execute(plan, Heard(quiet=True), start)
    (at,) = [n for n, text in enumerate(said) if text == "the model starts"]
    assert any(f"warning: openai:judge@{url}: {url} cannot be reached" in s for s in said[:at])
    # Why each verdict is missing is said once, for all of them.
    assert "cannot be asked any more" in str(caught.value)
    assert not any(text.startswith("xstest/") for text in said)


def test_a_budget_counts_what_is_under_way_at_its_most_and_what_came_as_it_was() -> None:
    requests = [chat_request(number) for number in range(4)]
    budget = Budget(1.0, {"": (2_000.0, 0.0)})  # 64 and 5 bytes at most: 0.138 each
    assert budget.take(requests) == 4
    more = [chat_request(number) for number in range(4, 14)]
    assert budget.take(more) == 3
    answer = Completion((Output("x"),), n_prompt_tokens=50)
    for request in requests:
        budget.settle(request, answer)
    assert budget.spent == pytest.approx(4 * spent([(requests[0], answer)]).money((2_000.0, 0.0)))
    assert budget.spent == pytest.approx(0.4)
    budget.settle(more[0], None)
    assert budget.spent == pytest.approx(0.4)
    budget.settle(more[1], Failure("no JSON"))
    assert budget.spent == pytest.approx(0.538)
    assert Budget().take(more) == 10


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.floats(0, 3),
    st.integers(1, 5),
    st.data(),
)
def test_a_budget_is_never_passed_and_stops_nothing_that_it_can_pay(
    shares: list[float], most: float, step: int, data: st.DataObject
) -> None:
    """shares: of the most that a request may cost, what its answer does."""
    requests = [chat_request(number) for number in range(len(shares))]
    price = (1e6 / prompt_tokens(requests[0]), 0.0)  # a request costs 1 at most, and about so much
    budget, waiting = Budget(most, {"": price}), list(zip(requests, shares, strict=True))
    while waiting:
        n = budget.take([request for request, _ in waiting[:step]])
        if not n:
            assert budget.spent + 1.1 > most
            break
        for request, share in data.draw(st.permutations(waiting[:n])):
            n_tokens = max(1, math.floor(share * prompt_tokens(request)))
            budget.settle(request, Completion((Output(""),), n_prompt_tokens=n_tokens))
        waiting = waiting[n:]
        assert budget.spent <= most + 1e-9


def test_generators_beside_each_other_share_a_services_connections() -> None:
    with serving(lambda body, _: Reply(chat(body).body, wait_s=0.02)) as server:
        generator = OpenAIGenerator("judge", [server.url], n_beside=16)
        try:
            assert len(collected(generator, [chat_request(n) for n in range(12)])) == 12
        finally:
            generator.close()
        assert server.most_running <= 2


def test_wildguards_labels_are_the_cards_and_the_run_can_be_scored_again(tmp_path: Path) -> None:
    def says(body: Body, before: int) -> Reply:
        prompt = asked(body)
        assert prompt.startswith("<|user|>\n[INST] You are a classifier")
        refusal = "yes" if "Sorry" in prompt else "no"
        return chat(body, f"Harmful request: no\nResponse refusal: {refusal}\nHarmful response: no")

    out = tmp_path / "run"
    with serving(says) as server:
        (tmp_path / "judges.toml").write_text(
            f'[xstest]\nmodel = "openai:wg@{server.url}"\nprompt = "wildguard"\n'
        )
        judges = (str(tmp_path / "judges.toml"),)
        wild = run(settings(out, tasks=("xstest",), judges=judges), make_generator=Engines())
    assert wild.is_complete
    by_match = run(
        settings(tmp_path / "rule", tasks=("xstest",), judges=("xstest=strmatch",)),
        make_generator=Engines(),
    )
    assert wild.cells == by_match.cells
    marks = wild.summary["cells"]["xstest_safe_refused"]["marks"]
    assert any("by the prompt wildguard" in mark for mark in marks)
    assert wild.summary["judges"]["xstest"]["prompt"] == "wildguard"
    assert rescore(out, None)["cells"] == wild.summary["cells"]
