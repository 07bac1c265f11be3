"""What a run sets of its engine by itself, by the weights, the machine and what is asked. Whatever
is not in RULES is vLLM's own choice, which goes by the GPU: sequences and tokens at a time, chunked
prefill, the share of the memory.
"""

import json
import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.generators import EngineSettings
from evals.generators.placing import Places, devices_of_a_copy, own_batch
from evals.models.resolve import Model
from evals.plan.gpu_hours import SHARE, Shape
from evals.plan.parallel import ACTIVATIONS, bytes_in_memory, shape_for
from evals.plan.work import Work

_FEWEST, _SMALLEST = 8, 256
"""Sequences at once, and tokens of a piece."""
_LOGIT_BYTES = 10
"""Of a scored token and word: a logit in 16 bits, its logarithm in 32, and what ranks it."""
_LOGITS_SHARE = 0.04
"""Of the GPU's memory: half of what vLLM leaves to all that its profile does not see."""
_COMPILE_S = 73.0
"""What compiling adds to a start on two cores, with an empty cache (results/bench/cpu.json)."""
_COMPILED_SAVES = 0.05
"""Of the generation, about, where the batch is full: 15 % in one try on 96 GSM8K items and -7 % in
another; 19 % on 24, which no queue of minutes is."""
_PROMPT_SHARE = 0.1
"""Of what a token takes to generate, one of a prompt."""
_CPU_PACE = 301 / 2 * 135e6
"""Tokens a second, core and parameter: a whole card's row of SmolLM2 on two cores."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a copy runs. kind: "GPU" or "core".  memory: bytes of one of its n GPUs.  own_seqs,
    own_tokens: what vLLM takes at a time by itself.  can_compile: whether a compiler is there.
    """

    kind: str
    n: int
    memory: float
    own_seqs: int
    own_tokens: int
    can_compile: bool


@dataclass(frozen=True, slots=True)
class Case:
    """All that a rule goes by. room: bytes of a copy's cache.  work: one copy's.  was_eager: how
    this run's answers so far were computed, None where there are none.
    """

    shape: Shape
    room: float
    work: Work
    machine: Machine
    was_eager: bool | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Arguments by vLLM's names, and why each is set so. at_a_time: sequences and tokens that it
    comes to, whoever says so.
    """

    arguments: Mapping[str, Any]
    why: Mapping[str, str]
    at_a_time: tuple[int, int]

    def apply(self, settings: EngineSettings) -> EngineSettings:
        """The settings with these arguments; none of theirs is among them."""
        own = EngineSettings.__dataclass_fields__
        fields = {name: value for name, value in self.arguments.items() if name in own}
        more = {name: value for name, value in self.arguments.items() if name not in own}
        if more:
            more |= json.loads(settings.engine_args or "{}")
            fields["engine_args"] = json.dumps(more, sort_keys=True)
        return replace(settings, **fields)

    @property
    def is_usual(self) -> bool:
        """Whether it is as the engine starts without it."""
        return all(one == ("enforce_eager", True) for one in self.arguments.items())

    def line(self) -> str:
        """For `--dry-run`, and a run's start."""
        sequences, tokens = self.at_a_time
        most = f"at a time up to {sequences:,} sequences, {tokens:,} tokens"
        return f"engine: {'; '.join([*self.why.values(), most])}"

    def record(self) -> dict[str, Any]:
        """For run.json."""
        sizes = dict(zip(_SIZES, self.at_a_time, strict=True))
        return {"set": dict(self.arguments), "why": dict(self.why), "at_a_time": sizes}


_SIZES = ("max_num_seqs", "max_num_batched_tokens")
Found = tuple[Any, str] | None


def _sequences(case: Case) -> Found:
    """No more at once than the cache holds: vLLM would begin others, take their place back, and
    compute them again.
    """
    if case.machine.kind != "GPU" or case.work.own < 1 or case.room <= 0:
        return None
    n = max(_FEWEST, int(case.room / (case.shape.kv_bytes * case.work.own)))
    if n >= case.machine.own_seqs:
        return None
    return n, f"{n} sequences at once, since the cache holds no more"


def _piece(case: Case) -> Found:
    """Of a prompt that is scored at every token, no more at a time than there is memory for its
    logits, which vLLM's profile does not see.
    """
    machine, vocabulary = case.machine, case.shape.vocabulary
    if machine.kind != "GPU" or not machine.memory or not vocabulary:
        return None
    n = max(_SMALLEST, int(_LOGITS_SHARE * machine.memory / (vocabulary * _LOGIT_BYTES)))
    if case.work.longest_scored <= n:
        return None
    return n, f"prompts in pieces of {n:,} tokens, for the logits of scored ones"


def _eager(case: Case) -> Found:
    """On a CPU compiled where that saves more than it costs; on a GPU vLLM compiles."""
    if case.machine.kind != "core":
        return None
    if case.was_eager is not None:
        return case.was_eager, f"{_word(case.was_eager)}, as this run's answers so far"
    if not case.machine.can_compile:
        return True, "eager, for there is no C++ compiler, or no Python.h"
    tokens = case.work.new + case.work.prompt * _PROMPT_SHARE
    generate_s = tokens * case.shape.parameters / (_CPU_PACE * case.machine.n)
    saves = generate_s * _COMPILED_SAVES
    figures = f"compiling would save about {saves:,.0f} s of {generate_s:,.0f} and takes"
    return saves < _COMPILE_S, f"{_word(saves < _COMPILE_S)}: {figures} {_COMPILE_S:.0f}"


def _word(is_eager: bool) -> str:
    return "eager" if is_eager else "compiled"


RULES: Mapping[str, Callable[[Case], Found]] = {
    "max_num_seqs": _sequences,
    "long_prefill_token_threshold": _piece,
    "enforce_eager": _eager,
}
"""By vLLM's names: what we know better than its defaults, and nothing else."""


def tune(case: Case, asked: Mapping[str, Any]) -> Tuning:
    """What the rules set of the case. asked: what the user gave, by vLLM's names; that stands."""
    found = {name: rule(case) for name, rule in RULES.items() if name not in asked}
    chosen = {name: one for name, one in found.items() if one is not None}
    why = {name: words for name, (_, words) in chosen.items()}
    eager = asked.get("enforce_eager")
    if eager is not None and case.was_eager not in (None, eager):
        why["enforce_eager"] = f"{_word(eager)} as asked; so far it was {_word(not eager)}"
    arguments = {name: value for name, (value, _) in chosen.items()}
    own = dict(zip(_SIZES, (case.machine.own_seqs, case.machine.own_tokens), strict=True))
    sequences, tokens = ({**own, **arguments, **asked}[name] for name in _SIZES)
    return Tuning(arguments, why, (sequences, tokens))


def tuned(
    model: Model,
    settings: EngineSettings,
    where: Places,
    work: Work,
    before: Mapping[str, Any],
) -> Tuning | None:
    """What to set for this work on this machine; None where it is not vLLM here that answers,
    or the model's size is not known. before: the run.json that the run goes on from, {} for none.
    """
    shape = shape_for(model) if model.kind == "weights" and where.kind and work.n else None
    if shape is None or model.files is None:
        return None
    n = devices_of_a_copy(settings)
    if where.kind == "core":
        n = max(1, where.n_devices // len(where.each))
    machine = Machine(where.kind, n, where.memory, *own_batch(settings), _has_compiler())
    weights = bytes_in_memory(model.files, settings.dtype, settings.quantization)
    asked = settings.arguments()
    case = Case(
        shape, room_of(weights or shape.weight_bytes, machine, asked),
        work.share(len(where.each)), machine,
        _was_eager(before) if where.kind == "core" else None,
    )  # fmt: skip
    return tune(case, asked)


def room_of(weights: float, machine: Machine, asked: Mapping[str, Any]) -> float:
    """Bytes of a copy's cache, about; 0 or less where it is not known or there is none."""
    if not machine.memory:
        return 0
    if said := asked.get("kv_cache_memory_bytes"):
        return float(said) * machine.n
    share: float = asked.get("gpu_memory_utilization", SHARE)
    return (machine.memory * share - ACTIVATIONS) * machine.n - weights


def _has_compiler() -> bool:
    """What torch compiles with: a compiler, and Python's own headers."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    return headers.exists() and any(map(shutil.which, names))


def _was_eager(before: Mapping[str, Any]) -> bool | None:
    """How the run has computed so far on a CPU; None where it has not."""
    sessions = before.get("sessions", [])
    for session in reversed(sessions):
        asked = session.get("engine", {}).get("enforce_eager")
        found = session.get("tuning", {}).get("set", {}).get("enforce_eager", asked)
        if found is not None:
            return bool(found)
    # Before there was a choice it was eager.
    asked_anything = any(one["phases"].get("generate", {}).get("requests") for one in sessions)
    return True if asked_anything else None
