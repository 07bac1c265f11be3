"""Give it a model, get the model card's row.

import evals
run = evals.run("smollm2", suite="smoke")
print(run.table())
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "check", "run", "run_adapters"]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.compare.gate import Gate
    from evals.plan.settings import RunSettings
    from evals.report.result import Result


def run(model: str, **settings: Any) -> "Result":
    """Evaluate `model` and write its run folder.

    settings: fields of RunSettings (evals.plan.settings), EngineSettings (evals.generators),
    PromptSettings and ReasoningSettings (evals.models) by name, e.g. suite="card",
    tasks="mmlu,gsm8k", data="/data/evals", judges="xstest=strmatch", dtype="float32"; texts where
    paths or tuples are meant are taken.
    Raises evals.errors.EvalsError with one sentence for anything wrong with the input or the
    machine.
    """
    # Here and not above: `import evals` alone loads nothing.
    from evals.report.result import Result
    from evals.runs import session

    done = session.run(_settings(model, settings))
    return Result(done.folder, done.summary, done.n_missing)


def run_adapters(adapters: "Sequence[str]", base: str = "", **settings: Any) -> "list[Result]":
    """Evaluate LoRA adapters of one base on one engine, a run folder each, below out= if given.

    base: "" for the one that their configs name.  settings: see run.
    """
    from evals.plan.adapters import make_plans, of_each
    from evals.report.result import Result
    from evals.runs.progress import Progress
    from evals.runs.together import execute_all

    plans = make_plans(of_each(_settings(base, settings), adapters))
    done = execute_all(plans, lambda: Progress(quiet=True))
    return [Result(one.folder, one.summary, one.n_missing) for one in done]


def _settings(model: str, settings: dict[str, Any]) -> "RunSettings":
    """Settings by name as RunSettings. Raises InputError for one that there is not."""
    from dataclasses import fields
    from pathlib import Path

    from evals.errors import InputError, nearest
    from evals.generators import EngineSettings
    from evals.models.prompting import PromptSettings
    from evals.models.reasoning import ReasoningSettings, marks_of
    from evals.plan.settings import RunSettings

    grouped = {
        "engine": EngineSettings,
        "prompts": PromptSettings,
        "reading": ReasoningSettings,
    }
    of = {name: {field.name for field in fields(cls)} for name, cls in grouped.items()}
    known = {field.name for field in fields(RunSettings)}.union(*of.values())
    for name in settings:
        if name not in known:
            raise InputError(f"evals.run has no setting {name!r}. {nearest(name, sorted(known))}")
    # A bare text would be taken for a sequence of letters.
    for name in ("tasks", "judges", "stop", "prices"):
        if isinstance(settings.get(name), str):
            settings[name] = (settings[name],)
    if isinstance(settings.get("reasoning_marks"), str):
        settings["reasoning_marks"] = marks_of(settings["reasoning_marks"])
    for name in ("data", "out", "store"):
        if settings.get(name) is not None:
            settings[name] = Path(settings[name])
    for group, cls in grouped.items():
        if given := {name: settings.pop(name) for name in sorted(of[group] & settings.keys())}:
            settings[group] = cls(**given)
    return RunSettings(model=model, **settings)


def check(
    baseline: "Path | str",
    candidate: "Path | str",
    policy: "Path | str | None" = None,
    *,
    data: "Path | str | None" = None,
    strict: bool = False,
) -> "Gate":
    """The gate on two run folders: `verdict` ("pass", "regressed", "undecided", "incomplete",
    "incomparable"), `exit_code`, and `columns`, what each column is held to and how it came out.

    policy: a TOML file, or the name of a ready one ("release", "quantised", "nightly"); None: every
    column may fall by one point.  data: folder of the public data, for length control and MMLU's
    probabilities.  strict: undecided is a failure too.
    Two runs without a policy: evals.compare.runs.compare(Path, Path), differences as fractions.
    Raises evals.errors.InputError with one sentence where a folder is no run or a policy is wrong.
    """
    from pathlib import Path

    from evals.compare import gate
    from evals.compare.policy import Policy, read_policy

    rules = Policy() if policy is None else read_policy(Path(policy), Path(baseline))
    where = None if data is None else Path(data)
    return gate.check(Path(baseline), Path(candidate), rules, data=where, strict=strict)
