"""Getting answers: from the store what is there, from an engine the rest. The only place that
starts, feeds and stops engines.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from evals.generators import Failure, Generator, Moved
from evals.models.prompts import Rendered, Renderer
from evals.plan.work import Work, work_of
from evals.records import Completion, ItemId
from evals.runs.budget import Budget
from evals.runs.progress import Progress
from evals.storage.store import Store

Land = Callable[[Rendered, Completion], None]
Waiting = list[tuple[str, list[Rendered]]]


def longest_first(waiting: Waiting) -> Waiting:
    """Long generations first, so that the tail is short; within a length the order stays, so
    prompts that share a prefix stay together.
    """
    return sorted(waiting, key=lambda entry: -entry[1][0].max_new_tokens * entry[1][0].sampling.n)


@dataclass
class Asker:
    """Answers requests through one engine at a time.

    run: names the run in the store.  failures: why a request got no answer, by item and check name.
    refused: why a request was answered with none, by key, before `ask` came to it; this run does
    not ask it again.
    budget: what judges may cost.  lost: judges that cannot be asked any more, by model, and why.
    """

    store: Store
    run: str
    progress: Progress
    failures: dict[tuple[ItemId, str], str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    lost: dict[str, str] = field(default_factory=dict)
    _engine: Generator | None = None
    _engine_of: str = ""

    @property
    def loaded(self) -> str:
        """The name of the model whose engine is running, "" when none is."""
        return self._engine_of

    def ask(self, by: str, keyed: Sequence[tuple[str, Rendered]], land: Land) -> Waiting:
        """Land what the store has, and return the rest, equal requests together, in the order for
        an engine.
        """
        self.store.link(self.run, ((r.item_id, r.check, key, by, r.text) for key, r in keyed))
        by_key: dict[str, list[Rendered]] = {}
        for key, request in keyed:
            by_key.setdefault(key, []).append(request)
        waiting: Waiting = []
        for key, answer in self.store.get_each(by_key):
            if not isinstance(answer, Completion):
                if key in self.refused:
                    self.fail(by_key[key], self.refused[key])
                else:
                    waiting.append((key, by_key[key]))
                continue
            for request in by_key[key]:
                land(request, answer)
        return longest_first(waiting)

    def stream(self, waiting: Waiting, land: Land, renderer: Renderer) -> None:
        """Have the engine answer what waits. Each answer is committed before it lands, and lands
        before it is counted.

        The phase it is counted in is the caller's to begin.
        """
        assert self._engine is not None, "load an engine first"
        # By identity: generators hand back the requests they were given, and a request's hash goes
        # through all its token ids.
        of = {id(requests[0]): (key, requests) for key, requests in waiting}
        for done in self._engine.stream([requests[0] for _, requests in waiting]):
            if isinstance(done, Moved):
                self.progress.moved(done.texts)
                continue
            answered = [
                (*of[id(request)], whole(renderer.cut(request, answer)))
                for request, answer in done
                if isinstance(answer, Completion)
            ]
            self.store.put((key, answer) for key, _, answer in answered)
            for request, failure in done:
                if isinstance(failure, Failure):
                    self.fail(of[id(request)][1], failure.reason)
            for _, requests, answer in answered:
                for request in requests:
                    land(request, answer)
            if (ahead := self.progress.ahead) is not None:
                for request, found in done:
                    ahead.answered(request, found if isinstance(found, Completion) else None)
            self.progress.advance(len(done), **counts(answer for _, _, answer in answered))

    def fail(self, requests: Sequence[Rendered], reason: str) -> None:
        """These requests have no answer, for this reason."""
        self.failures.update({(request.item_id, request.check): reason for request in requests})

    def load(self, name: str, start: Callable[[], Generator]) -> None:
        """Have this model's engine running, and no other."""
        if self._engine is not None and self._engine_of == name:
            return
        self.close()
        self.progress.start(f"load {name}")
        self.progress.note(f"load {name}")
        self._engine = start()
        self._engine_of = name
        self.progress.stop()

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._engine_of = None, ""


def whole(answer: Completion) -> Completion:
    """The answer with lone halves of surrogate pairs replaced, as engines do: no tokenizer, judge
    or UTF-8 file takes them.
    """
    if all(_is_whole(one.text) and _is_whole(one.reasoning or "") for one in answer.outputs):
        return answer
    outputs = (
        replace(
            one,
            text=_whole(one.text),
            reasoning=None if one.reasoning is None else _whole(one.reasoning),
        )
        for one in answer.outputs
    )
    return replace(answer, outputs=tuple(outputs))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def work(waiting: Waiting) -> Work:
    """What it takes to answer what waits."""
    return work_of(requests[0] for _, requests in waiting)


def counts(answers: Iterable[Completion]) -> dict[str, float]:
    """Their tokens, as Progress counts them."""
    found = {"prompt_tokens": 0.0, "cached_tokens": 0.0, "output_tokens": 0.0}
    for answer in answers:
        found["prompt_tokens"] += answer.n_prompt_tokens
        found["cached_tokens"] += answer.n_cached_tokens
        found["output_tokens"] += answer.n_output_tokens
    return found
