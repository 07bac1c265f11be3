"""The harness behind a stand-in for a GPU's engine: recorded answers, handed over at the pace at
which an H200 decodes them.

No model and no GPU: what is measured is what the harness adds to a queue of seconds, and to one ten
times as long.
"""

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread

from evals.generators import Failure
from evals.generators.replay import recorded_row
from evals.models.prompts import Rendered
from evals.plan.make import Plan
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


def measure(options: Options) -> Figures:
    """Mean ratio of wall times with its 95 % interval, pairs in turns, for a queue as long as the
    H200's and one ten times as long.
    """
    rows: list[Figures] = []
    raw = {}
    for times in (1, 2) if options.quick else (1, 10):
        n = 2 if options.quick else 32 * times
        take = {
            "mmlu": first(12 * n),
            "gsm8k": first(n),
            "bbh": spread(max(1, n // 32), 16),
            "ifeval": first(n),
            "xstest": first(n),
        }
        plan = plan_of(options, f"paced-{times}", take, max_new=_MAX_NEW)
        requests = in_our_order([request for task in plan.tasks for request in plan.render(task)])
        answers = recorded_answers(requests)
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
        raw[len(requests)] = {
            "ours_s": [ours for ours, _ in pairs],
            "theirs_s": [theirs for _, theirs in pairs],
        }
    return {"rows": rows, "raw": raw}


def recorded_answers(requests: Sequence[Rendered]) -> Answers:
    """What SmolLM2 said to each item, as far as the committed run has it; to others, what it said
    to some item of that task.
    """
    folder = RunFolder(COMMITTED_RUN)
    found: Answers = {}
    texts = {
        task: [recorded_row(row).completion.text for row in folder.samples(task)]
        for task in ("gsm8k", "bbh", "ifeval", "xstest")
    }
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
            : 4 * _MAX_NEW
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
