"""The time left: on what was seen of two real runs while they ran, and on the answers of the stored
run of all that needs no judge, in the order they were asked, at the speeds of three machines.
"""

import gzip
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from evals.generators import Text
from evals.models.prompts import Rendered
from evals.plan.prefix import cached_each
from evals.plan.work import work_of
from evals.records import Completion, ItemId, Output, Sampling
from evals.runs.ahead import Ahead
from evals.runs.asking import longest_first

SAMPLES = Path(__file__).resolve().parents[3] / "results/smollm2-135m-instruct-card/samples"
ASKED = {
    "humaneval": (512, 130, 0.0),
    "xstest": (8192, 40, 0.0),
    "ifeval": (2048, 60, 0.0),
    "bbh": (512, 800, 0.8),
    "gsm8k": (512, 900, 0.85),
    "mmlu": (1, 700, 0.83),
}
"""Limit of an answer, tokens of a prompt and the share that its neighbours begin with."""
EVERY = 4
"""Of so many items one is asked, so that all the rest is smaller by it: the batch, what is computed
in a step, and how much an engine does in a second.
"""
BATCH, ROOM = 256 // EVERY, 8192 // EVERY


def recorded() -> list[tuple[Rendered, list[int]]]:
    """The requests of a run as they were queued, with the lengths of what came."""
    found = {}
    for task, (most, n_prompt, shared) in ASKED.items():
        with gzip.open(SAMPLES / f"{task}.jsonl.gz", "rt") as lines:
            for at, line in enumerate(list(lines)[::EVERY]):
                row = json.loads(line)
                lengths = row.get("n_tokens") or [1]
                same = int(n_prompt * shared)
                ids = (1,) * same + tuple(range(at * 1000, at * 1000 + n_prompt - same))
                sampling = Sampling(most, n=len(lengths))
                one = Rendered(ItemId(row["id"]), "", "", ids, (), sampling, most)
                found[row["id"]] = (one, lengths)
    queued = longest_first([(one.item_id, [one]) for one, _ in found.values()])
    return [found[key] for key, _ in queued]


Step = tuple[float, list[tuple[Rendered, Completion]], Mapping[Text, int]]
RECORDED = Path(__file__).with_name("recorded_times.json")
"""Of SmolLM2-135M-Instruct on two cores, ten items of each of five benchmarks, both times the same
answers, many of which repeat themselves up to the limit: of each request its kind, tokens of its
prompt, the request whose beginning it shares and how many tokens of it, its limit, tokens found in
the cache, the step after which it began, tokens of its answer; then seconds and steps, eager and
compiled.
"""


def timeline(
    asked: Sequence[tuple[Rendered, list[int]]], prefill: float, step_s: float, each_s: float
) -> Iterator[Step]:
    """What a batching engine would show, now and then: seconds, answers, tokens under way."""
    cached = list(cached_each((one.token_ids for one, _ in asked), 16))
    waiting = [(at, n) for at, (_, lengths) in enumerate(asked) for n in lengths][::-1]
    left = [len(lengths) for _, lengths in asked]
    batch: list[tuple[int, int, int]] = []
    ended: dict[int, list[int]] = {}
    seconds, now, shown = 0.0, 0, 0.0
    done: list[tuple[Rendered, Completion]] = []
    while waiting or batch:
        computed = 0
        while waiting and len(batch) < BATCH and computed < ROOM:
            at, n = waiting.pop()
            one, lengths = asked[at]
            computed += len(one.token_ids) - cached[at] if left[at] == len(lengths) else 0
            heapq.heappush(batch, (now + n, now, at))
        # To the next end: all steps until then are alike.
        steps = 1 if waiting and len(batch) < BATCH else max(1, batch[0][0] - now)
        seconds += EVERY * computed / prefill + steps * (step_s + EVERY * each_s * len(batch))
        now += steps
        while batch and batch[0][0] <= now:
            end, begun, at = heapq.heappop(batch)
            left[at] -= 1
            ended.setdefault(at, []).append(end - begun)
            if not left[at]:
                del ended[at]
                one, lengths = asked[at]
                outputs = tuple(Output("", token_ids=(0,) * n) for n in lengths)
                choice = one.max_new_tokens == 1
                counts = {"n_prompt_tokens": len(one.token_ids), "n_cached_tokens": cached[at]}
                done.append((one, Completion(() if choice else outputs, **counts)))  # type: ignore[arg-type]
        if seconds > shown * 1.005 or not (waiting or batch):
            texts = Counter(Text(asked[at][0].kind, now - begun) for _, begun, at in batch)
            for at, over in ended.items():
                texts.update(Text(asked[at][0].kind, n, is_over=True) for n in over)
            yield seconds, done, texts
            done, shown = [], seconds


@pytest.mark.parametrize(
    ("prefill", "step_s", "each_s", "within"),
    [
        # by evals/plan/gpu_hours.py, of 8B on an H200 and of 70B on four H100
        pytest.param(37_000, 0.0045, 56e-6, 1.5, id="8B"),
        pytest.param(13_400, 0.0175, 107e-6, 1.5, id="70B"),
        # as measured on two CPU cores: prompts cost less beside answers than on any GPU
        pytest.param(2_034, 0.05, 2.8e-3, 2.0, id="CPU"),
    ],
)
def test_from_a_third_of_the_run_on_the_time_left_is_about_right(
    prefill: float, step_s: float, each_s: float, within: float
) -> None:
    asked = recorded()
    found = wrong(
        Ahead(work_of(one for one, _ in asked)), timeline(asked, prefill, step_s, each_s), within
    )
    assert found == {}


def wrong(ahead: Ahead, steps: Iterable[Step], within: float) -> dict[float, float]:
    """Where in a run from its third on, as a share of its time, which multiple of the time left was
    said, if it was more or less than it by that factor.
    """
    said = []
    for seconds, answers, texts in steps:
        for one, answer in answers:
            ahead.answered(one, answer)
        ahead.moved(texts, seconds)
        if share := ahead.share(seconds):
            said.append((seconds, seconds * (1 - share) / share))
    took = said[-1][0]
    assert said[-1][1] == pytest.approx(0, abs=1e-6)
    ratios = {
        round(seconds / took, 3): left / (took - seconds)
        for seconds, left in said
        if took / 3 <= seconds <= 0.98 * took
    }
    assert len(ratios) > 50
    return {at: ratio for at, ratio in ratios.items() if not 1 / within < ratio < within}


def seen(rows: Sequence[Sequence[int]], marks: Sequence[tuple[float, int]]) -> Iterator[Step]:
    """What a recorded run showed. The first it yields are its requests, without answers."""
    asked: list[Rendered] = []
    for at, (kind, n, like, shared, most, *_) in enumerate(rows):
        ids = asked[like].token_ids[:shared] if shared else ()
        ids += tuple(range(at * 10_000, at * 10_000 + n - shared))
        asked.append(Rendered(ItemId(f"{kind}/{at}"), "", "", ids, (), Sampling(most), most))
    yield 0.0, [(one, Completion()) for one in asked], {}
    before = 0
    for seconds, now in marks:
        answers, texts = [], Counter[Text]()
        for one, (kind, n, *_, most, n_cached, begun, n_new) in zip(asked, rows, strict=True):
            if before < begun + n_new <= now:
                outputs = (Output("", token_ids=(0,) * n_new),) if most > 1 else ()
                answers.append((one, Completion(outputs, None, None, n, n_cached)))
            elif begun < now < begun + n_new:
                texts[Text(str(kind), now - begun)] += 1
        before = now
        yield seconds, answers, texts


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_it_is_about_right_of_real_runs_whose_longest_answers_take_most_of_the_time(
    how: str,
) -> None:
    found = json.loads(RECORDED.read_text("utf-8"))
    steps = seen(found["asked"], found[how])
    asked = [one for one, _ in next(steps)[1]]
    assert wrong(Ahead(work_of(asked)), steps, 1.5) == {}
