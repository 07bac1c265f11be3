"""Requests to an OpenAI-compatible server and what became of them."""

from collections.abc import Sequence

from evals.generators import Failure
from evals.generators.openai import OpenAIGenerator
from evals.models.prompts import Rendered
from evals.records import Completion, ItemId, Message, Sampling
from tests.openai_server import Body, OpenAIServer, Reply, Script, completion

KEY = "sk-planted-0123456789abcdef"
LETTERS = (("A", " A"), ("B", " B"), ("C", " C"), ("D", " D"))
Answers = dict[str, Completion | Failure]
GREEDY = Sampling(max_tokens=8)


def ids_request(number: int, sampling: Sampling = GREEDY) -> Rendered:
    return Rendered(
        ItemId(f"x/{number}"),
        "",
        "text",
        (5, number),
        (Message("user", "?"),),
        sampling,
        sampling.max_tokens,
    )


def chat_request(number: int, sampling: Sampling = GREEDY) -> Rendered:
    return Rendered(
        ItemId(f"x/{number}"),
        "",
        "text",
        (),
        (Message("user", f"say {number}"),),
        sampling,
        sampling.max_tokens,
    )


def choose_request(*, ids: bool) -> Rendered:
    candidates = (
        tuple((label, 100 + index) for index, (label, _) in enumerate(LETTERS)) if ids else ()
    )
    message = (Message("user", "which?"),)
    return Rendered(
        ItemId("x/0"),
        "",
        "text",
        (5, 6) if ids else (),
        message,
        Sampling(max_tokens=1),
        1,
        candidates,
        LETTERS,
    )


def answers(
    server: OpenAIServer, requests: Sequence[Rendered], *, retries: int = 4, concurrency: int = 4
) -> Answers:
    generator = OpenAIGenerator("m", [server.url], concurrency, retries=retries, first_wait_s=0.01)
    try:
        return collected(generator, requests)
    finally:
        generator.close()


def collected(
    generator: OpenAIGenerator, requests: Sequence[Rendered], into: Answers | None = None
) -> Answers:
    found: Answers = {} if into is None else into
    for batch in generator.stream(requests):
        for request, answer in batch:
            assert request.item_id not in found
            found[request.item_id] = answer
    return found


def first_then(trouble: Reply) -> Script:
    """Trouble the first time a prompt is asked, a right answer after that."""

    def script(body: Body, before: int) -> Reply:
        return trouble if before == 0 else completion(body)

    return script


def answered(answer: Completion | Failure) -> Completion:
    assert isinstance(answer, Completion), answer
    return answer


def failed(answer: Completion | Failure) -> str:
    assert isinstance(answer, Failure), answer
    return answer.reason
