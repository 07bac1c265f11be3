"""The harness behind a stand-in for a GPU's engine: recorded answers, handed over at the pace at
which an H200 decodes them.

No model and no GPU: what is measured is what the harness adds to a queue of seconds, and to one ten
times as long; and, by processor time, to one engine and to eight copies. A stand-in that keeps the
time of eight shares two cores, and Python's lock, with what it measures; counted, the harness has a
core of its own, as on any machine with GPUs.
"""

import pickle
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread

from evals.generators import Failure
from evals.generators.replay import recorded_row
from evals.models.prompts import Rendered
from evals.plan.make import Plan
from evals.plan.prefix import cached_each
from evals.plan.work import BLOCK
from evals.records import Completion, Output
from evals.runs.progress import Progress
from evals.runs.session import execute
from evals.storage.run_folder import RunFolder
from scripts.bench_parts import (
    COMMITTED_RUN,
    Figures,
    Options,
    averaged,
    first,
    in_our_order,
    plan_of,
    spread,
)

_BATCH = 256
_STEP_S = 0.0133
"""With it the short queue lasts the 3.4 s that 531 such requests to an 8B model took on an H200
(results/bench/h200.json).
"""
_MAX_NEW = 256
_PAIRS = 4
_PROMPT_TOKENS_S = 40_000
"""That an H200 computes of an 8B model: 0.6 of its 989 TFLOP/s, 16 GFLOP a token."""
_MOST_TOKENS = 8192
"""Of prompts in one step."""
_COUNTED = (
    (1, 10, _MAX_NEW, "<= 1.01"),
    (8, 20, _MAX_NEW, "<= 1.03"),
    (8, None, 2048, "<= 1.03"),
)
"""Copies, how long the queue is (None: all items), tokens of an answer at most, and what their
ratio is to be.
"""

Answers = dict[str, tuple[Completion, int]]
Done = list[tuple[Rendered, Completion | Failure]]


class Paced:
    """Continuous batching in a thread of its own: of up to 256 requests each takes one token a
    step. answers: by item, with their steps.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.begun = 0.0

    def stream(self, requests: Sequence[Rendered]) -> Iterator[Done]:
        """See Generator."""
        self.begun = time.monotonic()
        handed = SimpleQueue[Done | None]()
        Thread(target=self._decode, args=(requests, handed), daemon=True).start()
        while (done := handed.get()) is not None:
            yield done

    def _decode(self, requests: Sequence[Rendered], handed: SimpleQueue[Done | None]) -> None:
        waiting = iter(requests)
        left: dict[int, tuple[int, Rendered]] = {}
        step = 0
        while True:
            while len(left) < _BATCH and (request := next(waiting, None)) is not None:
                left[id(request)] = (step + self.answers[request.item_id][1], request)
            if not left:
                handed.put(None)
                return
            step += 1
            # By the clock, not by the step: lateness does not add up.
            time.sleep(max(0.0, self.begun + step * _STEP_S - time.monotonic()))
            ended = [request for last, request in left.values() if last <= step]
            for request in ended:
                del left[id(request)]
            if ended:
                handed.put([(request, self.answers[request.item_id][0]) for request in ended])

    def close(self) -> None:
        """Nothing to free."""


class Counted:
    """The same by a clock that nobody waits for: when answers come, prompts computed too, with the
    processor time that whoever takes them needs. computed: tokens of each prompt that no cache
    holds.  own_s: that time.  ready_s: when the last are taken.  at_s: when they came.
    """

    def __init__(self, answers: Answers, computed: Mapping[str, int], copies: int) -> None:
        self.answers, self.computed, self.copies = answers, computed, copies
        self.own_s = self.ready_s = self.at_s = self.ended = 0.0

    def stream(self, requests: Sequence[Rendered]) -> Iterator[Done]:
        """See Generator."""
        waiting = iter(requests)
        left: dict[int, tuple[int, Rendered]] = {}
        step = 0
        while True:
            n_new = 0
            while (
                len(left) < _BATCH * self.copies
                and n_new < _MOST_TOKENS * self.copies
                and (request := next(waiting, None)) is not None
            ):
                left[id(request)] = (step + self.answers[request.item_id][1], request)
                n_new += self.computed[request.item_id]
            if not left:
                self.ended = time.thread_time()
                return
            step += 1
            self.at_s += _STEP_S + n_new / (_PROMPT_TOKENS_S * self.copies)
            ended = [request for last, request in left.values() if last <= step]
            for request in ended:
                del left[id(request)]
            if not ended:
                continue
            done: Done = [(request, self.answers[request.item_id][0]) for request in ended]
            answers = pickle.dumps([answer for _, answer in done])
            begun = time.thread_time()
            if self.copies > 1:  # what is asked, and what it says, goes through a connection
                pickle.dumps(ended)
                done = list(zip(ended, pickle.loads(answers), strict=True))
            yield done
            own_s = time.thread_time() - begun
            self.own_s += own_s
            self.ready_s = max(self.ready_s, self.at_s) + own_s

    def close(self) -> None:
        """Nothing to free."""


def measure(options: Options) -> Figures:
    """Mean ratio of wall times with its 95 % interval, pairs in turns, for a queue as long as the
    H200's and one ten times as long; the same by processor time.
    """
    rows: list[Figures] = []
    raw: Figures = {}
    for times in (1, 2) if options.quick else (1, 10):
        plan, requests, answers = queue_of(options, times)
        ours_of(plan, answers)  # imports
        pairs = [
            (ours_of(plan, answers), alone(requests, answers))
            for _ in range(2 if options.quick else _PAIRS)
        ]
        about = f"our wall time / the stand-in's, {len(requests):,} requests at an H200's pace"
        rows.append(
            {"what": about, "target": "<= 1.03"}
            | averaged([ours / theirs for ours, theirs in pairs])
        )
        raw[str(len(requests))] = {
            "ours_s": [ours for ours, _ in pairs],
            "theirs_s": [theirs for _, theirs in pairs],
        }
    for copies, size, most, target in _COUNTED:
        plan, requests, answers = queue_of(options, 2 if options.quick else size, most)
        computed = computed_of(requests)
        counted(plan, answers, computed, copies)  # imports
        found = [
            counted(plan, answers, computed, copies) for _ in range(2 if options.quick else _PAIRS)
        ]
        who = "one engine" if copies == 1 else f"{copies} copies"
        who += f", answers of up to {most:,} tokens"
        about = f"by processor time, {len(requests):,} requests at an H200's pace, {who}"
        rows += [
            {"what": f"our time / the engine's {about}", "target": target}
            | averaged([one["ours_s"] / one["engine_s"] for one in found]),
            {"what": f"our processor time a request, {who}", "unit": " ms",
             "value": 1e3 * statistics.mean(one["own_s"] for one in found) / len(requests)},
        ]  # fmt: skip
        raw[f"{len(requests)} by processor time, {copies}, {most}"] = found
    return {"rows": rows, "raw": raw}


def queue_of(
    options: Options, times: int | None, most: int = _MAX_NEW
) -> tuple[Plan, list[Rendered], Answers]:
    """A run, what it asks in its order, and the answers, of at most so many tokens. times: None for
    every item, AlpacaEval's too.
    """
    n = 2 if options.quick else 32 * (times or 0)
    take = {
        "mmlu": first(12 * n),
        "gsm8k": first(n),
        "bbh": spread(max(1, n // 32), 16),
        "ifeval": first(n),
        "xstest": first(n),
    }
    if times is None:
        take = dict.fromkeys((*take, "alpaca_eval"), list)
    plan = plan_of(options, f"paced-{times}-{most}", take, max_new=most)
    requests = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    return plan, requests, recorded_answers(requests, most)


def computed_of(requests: Sequence[Rendered]) -> dict[str, int]:
    """Tokens of each prompt that no cache holds, by item."""
    cached = cached_each([request.token_ids for request in requests], BLOCK)
    return {
        request.item_id: len(request.token_ids) - held
        for request, held in zip(requests, cached, strict=True)
    }


def counted(plan: Plan, answers: Answers, computed: Mapping[str, int], copies: int) -> Figures:
    """Seconds of the engine and of ours, from the first request to the last grade written, and
    those that ours computed.
    """
    shutil.rmtree(plan.out, ignore_errors=True)
    engine = Counted(answers, computed, copies)
    execute(plan, Progress(quiet=True), lambda _: engine)
    tail_s = time.thread_time() - engine.ended
    return {
        "ours_s": engine.ready_s + tail_s,
        "engine_s": engine.at_s,
        "own_s": engine.own_s + tail_s,
        "tail_s": tail_s,
    }


def recorded_answers(requests: Sequence[Rendered], most: int) -> Answers:
    """What SmolLM2 said to each item, as far as the committed run has it; to others, what it said
    to some item of that task; up to so many tokens.
    """
    folder = RunFolder(COMMITTED_RUN)
    found: Answers = {}
    texts = {
        task: [recorded_row(row).completion.text for row in folder.samples(task)]
        for task in ("gsm8k", "bbh", "ifeval", "xstest")
    }
    texts["alpaca_eval"] = texts["ifeval"]  # which it has no answers to
    for request in requests:
        if request.candidates:
            found[request.item_id] = (
                Completion(
                    choice_logprobs={
                        label: -1.0 - n for n, (label, _) in enumerate(request.candidates)
                    }
                ),
                1,
            )
            continue
        # Seeded by the item: every measurement hands over the same texts.
        text = random.Random(request.item_id).choice(texts[request.item_id.partition("/")[0]])[
            : 4 * most
        ]
        n_tokens = max(1, len(text) // 4)
        found[request.item_id] = (
            Completion((Output(text, "stop", tuple(range(n_tokens))),)),
            n_tokens,
        )
    return found


def ours_of(plan: Plan, answers: Answers) -> float:
    """Seconds from the first request to the last grade written."""
    shutil.rmtree(plan.out, ignore_errors=True)
    engine = Paced(answers)
    execute(plan, Progress(quiet=True), lambda _: engine)
    return time.monotonic() - engine.begun


def alone(requests: Sequence[Rendered], answers: Answers) -> float:
    """Seconds of the same with nobody who does anything with the answers."""
    start = time.monotonic()
    for _ in Paced(answers).stream(requests):
        pass
    return time.monotonic() - start
