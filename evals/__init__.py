"""Give it a model, get the model card's row.

A run, as `evals run` makes it:

    import evals

    run = evals.run("out/step_2000", suite="card", judge="xstest=strmatch")
    print(run.table())
    gsm8k = run.cells["gsm8k"]
    print(gsm8k.percent, gsm8k.ci95_percent, gsm8k.n, gsm8k.marks)

What is already on disk, without a model:

    evals.score("results/my-8b-card")                            # graded again
    evals.diff("results/step_1000-card", "results/my-8b-card")   # two runs, item by item
    evals.check("results/step_1000-card", "results/my-8b-card", "release").verdict    # the gate
    evals.table("results/my-8b-card", published=True, format="latex")

What comes back, evals.Result, of a run or of grading it again:

    folder, summary       the run's folder, and all of its summary.json
    cells                 an evals.Cell for each of the card's columns by its key, and "average"
    warnings              answers cut off, empty, unreadable: a sentence each
    n_missing             answers and verdicts that are still to be had; is_complete: none
    table()               the card's table with this row, in Markdown

    a cell's fraction     0 to 1 (what is no share, such as a perplexity, as it is), or None
    percent               the same times 100, unrounded; None where is_share is not so
    ci95, ci95_percent    the 95 % interval of either, or None
    n, marks, reason      items; what in it is not the card's protocol; why there is no value

Whatever is wrong with the input or the machine is an evals.EvalsError whose text is one sentence.
evals.Card is a card as `evals cards` lists them, evals.Benchmark the class that a benchmark of
one's own derives from (tasks/README.md); help() of each class says more.
"""

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

__version__ = "0.1.0"
__all__ = ["check", "diff", "run", "run_adapters", "score", "table"]
# Classes are there by name: on a page about the package a class's own machinery would be most.

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from evals.benchmark import Benchmark as Benchmark
    from evals.cards.card import Card as Card
    from evals.compare.gate import Gate
    from evals.compare.runs import Comparison
    from evals.errors import EvalsError as EvalsError
    from evals.plan.named import Settings as Settings
    from evals.plan.named import SettingsOfEach
    from evals.report.result import Cell as Cell
    from evals.report.result import Result as Result

    PathLike = str | os.PathLike[str]

_CLASSES = {
    "Benchmark": "evals.benchmark",
    "Card": "evals.cards.card",
    "Cell": "evals.report.result",
    "EvalsError": "evals.errors",
    "Result": "evals.report.result",
    "Settings": "evals.plan.named",
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def __getattr__(name: str) -> Any:
    # `import evals` alone loads nothing: `evals --help` begins here too.
    from importlib import import_module

    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'evals' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})


def _said(function: "Callable[_P, _R]") -> "Callable[_P, _R]":
    """Arguments that it does not take are an InputError, with the nearest name, as all else is."""

    @wraps(function)
    def call(*args: _P.args, **given: _P.kwargs) -> _R:
        import inspect

        from evals.errors import InputError, nearest

        signature = inspect.signature(function)
        try:
            signature.bind(*args, **given)
        except TypeError as error:
            known = [name for name in signature.parameters if name != "settings"]
            wrong = [name for name in given if name not in known]
            hint = f" {nearest(wrong[0], known)}" if wrong else ""
            raise InputError(f"evals.{function.__name__}: {error}.{hint}") from None
        return function(*args, **given)

    return call


@_said
def run(
    model: str,
    *,
    on_progress: "Callable[[str, int, int], object] | None" = None,
    on_note: "Callable[[str], object] | None" = None,
    log: str | None = None,
    step: int | None = None,
    **settings: "Unpack[Settings]",
) -> "Result":
    """Evaluate `model` and write its run folder; the same call goes on where one was stopped.

    settings: the options of `evals run --help` by name, with underscores, as evals.Settings types
    them: suite="card", tasks="mmlu,gsm8k", data="/data/evals", judge="xstest=strmatch",
    dtype="float32", chat_template_kwargs={"enable_thinking": False}; several judges, tasks, stops:
    a list. Those about tasks of lm-evaluation-harness are variables here: EVALS_INCLUDE_PATH,
    EVALS_CONFIRM_RUN_UNSAFE_CODE, HF_DATASETS_TRUST_REMOTE_CODE.
    They are: base, batch_invariant, card, chat_format, chat_template, chat_template_kwargs, data,
    data_parallel_size, distributed_executor_backend, dtype, eager, engine_args,
    gpu_memory_utilization, judge, leave_out_added, limit, max_cost, max_model_len, max_num_seqs,
    name, offline, out, pipeline_parallel_size, price, quantization, reasoning, reasoning_marks,
    reasoning_parser, reasoning_tokens, repeats, revision, sandbox, seed, stop, stop_token_ids,
    store, suite, system_prompt, tasks, temperature, tensor_parallel_size, tokenizer,
    trust_remote_code, wait.
    on_progress(phase, done, total): called after every answer.  on_note(line): what a terminal
    would be told, warnings too.  log, step: a tracker ("wandb", "trackio" or "mlflow") and the
    training step that the numbers belong to there.
    Raises EvalsError: InputError for a setting that there is not, of a wrong type or impossible,
    before any weight is loaded; Incomplete where a judge was lost in mid-run.
    """
    from evals.plan.named import settings_by_name
    from evals.runs import session
    from evals.runs.progress import Reports

    asked = settings_by_name(model, settings)
    if log is not None:
        from evals.report.trackers import require

        require(log, asked.offline)
    done = session.run(asked, Reports(on_progress, on_note))
    result = _result(done.folder.path, done.summary, done.n_missing)
    said = list(result.warnings)
    if log is not None:
        from evals.report.trackers import log_run

        said += filter(None, [log_run(log, done, step, asked.data)])
    if on_note is not None:
        for line in said:
            on_note(f"warning: {line}")
    return result


@_said
def run_adapters(
    adapters: "Sequence[str]",
    base: str = "",
    *,
    on_progress: "Callable[[str, int, int], object] | None" = None,
    on_note: "Callable[[str], object] | None" = None,
    **settings: "Unpack[SettingsOfEach]",
) -> "list[Result]":
    """Evaluate LoRA adapters of one base on one engine, a run folder each, below out= if given.

    base: "" for the one that their configs name.  The rest: see run.
    """
    from evals.plan.adapters import make_plans, of_each
    from evals.plan.named import settings_by_name
    from evals.runs.progress import Reports
    from evals.runs.together import execute_all

    plans = make_plans(of_each(settings_by_name(base, settings), adapters))
    done = execute_all(plans, lambda: Reports(on_progress, on_note))
    return [_result(one.folder.path, one.summary, one.n_missing) for one in done]


@_said
def score(
    run: "PathLike",
    *,
    data: "PathLike | None" = None,
    reasoning: str | None = None,
    reasoning_marks: str = "<think>,</think>",
) -> "Result":
    """Grade a run's stored answers again with today's scorers, and write it; needs no model.

    reasoning: "auto", "strip" or "keep", in place of the run's own way.
    Raises InputError where the folder is no run, or the data is not here. The result's n_missing
    counts answers only.
    """
    from pathlib import Path

    from evals.plan.named import reading_by_name
    from evals.runs.rescore import rescore

    summary = rescore(Path(run), _path(data), reading_by_name(reasoning, reasoning_marks))
    n_missing = sum(t["n_items"] - t["n_answered"] for t in summary["tasks"].values())
    return _result(Path(run), summary, n_missing)


@_said
def diff(
    baseline: "PathLike",
    candidate: "PathLike",
    *,
    data: "PathLike | None" = None,
    card: str | None = None,
) -> "Comparison":
    """Two runs on the same items: `comparable.reason` (None where they can be compared), `columns`
    with their paired differences as fractions, p-values and intervals, and `p_holm`.

    data: folder of the public data, for length control and MMLU's probabilities.  card: a name or
    file, in place of the runs' own.
    Raises InputError where a folder is no run.
    """
    from evals.compare.runs import compare

    runs = _as_path("the baseline", baseline), _as_path("the candidate", candidate)
    return compare(*runs, _path(data), _text("card", card))


@_said
def check(
    baseline: "PathLike",
    candidate: "PathLike",
    policy: "PathLike | None" = None,
    *,
    data: "PathLike | None" = None,
    strict: bool = False,
    card: str | None = None,
) -> "Gate":
    """The gate on two run folders: `verdict` ("pass", "regressed", "undecided", "incomplete",
    "incomparable"), `exit_code`, and `columns`, what each column is held to and how it came out.

    policy: a TOML file, or the name of a ready one ("release", "quantised", "nightly"); None: every
    column may fall by one point.  data: folder of the public data, for length control and MMLU's
    probabilities.  strict: undecided is a failure too.  card: a name or file, in place of the
    baseline's own.
    Raises InputError where a folder is no run or a policy is wrong.
    """
    from evals.compare import gate
    from evals.compare.policy import Policy, read_policy
    from evals.errors import InputError

    runs = _as_path("the baseline", baseline), _as_path("the candidate", candidate)
    card = _text("card", card)
    if not isinstance(strict, bool):
        raise InputError(f"strict is {strict!r}. Give True or False.")
    rules = Policy()
    if policy is not None:
        rules = read_policy(_as_path("the policy", policy), runs[0], card)
    return gate.check(*runs, rules, data=_path(data), strict=strict, card=card)


@_said
def table(
    *runs: "PathLike",
    published: bool = False,
    format: str = "markdown",
    card: str | None = None,
    data: "PathLike | None" = None,
    with_ci: bool = False,
) -> str:
    """The card's table of some run folders, as `evals report` prints it.

    published: the card's own rows first.  format: markdown, html, latex, csv or json.
    A page to look at: evals.report.html.write_report.
    Raises InputError where a folder is no run.
    """
    from pathlib import Path

    from evals.errors import InputError
    from evals.report.formats import FORMATS
    from evals.report.rows import Layout, report_table

    if format not in FORMATS:
        raise InputError(f"evals.table: format {format!r}: known are {', '.join(FORMATS)}.")
    folders = [Path(run) for run in runs]
    layout = Layout(with_ci=with_ci, card=card)
    return FORMATS[format](report_table(folders, published, layout, _path(data)))


def _path(given: "PathLike | None") -> Any:
    return None if given is None else _as_path("a folder", given)


def _text(name: str, given: Any) -> Any:
    from evals.errors import InputError

    if not isinstance(given, str | None):
        raise InputError(f"{name} is {given!r}. Give it as a text.")
    return given


def _as_path(what: str, given: Any) -> Any:
    """A path given as a text or a Path. Raises InputError where it is something else."""
    from pathlib import Path

    from evals.errors import InputError

    if not isinstance(given, str | Path):
        raise InputError(f"{what.capitalize()} is {given!r}. Give it as a text or a Path.")
    return Path(given)


def _result(folder: Any, summary: Any, n_missing: int) -> "Result":
    from evals.report.result import Result

    return Result(folder, summary, n_missing)
