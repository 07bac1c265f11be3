"""`evals run`, `prompts` and `score`: parse, call, print. Heavy imports stay inside."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.commands.grouped import show_all
from evals.commands.options import (
    REASONING_MARKS,
    CardOption,
    ChatTemplateOption,
    DataOption,
    IncludeOption,
    LeaveOutOption,
    MaxLenOption,
    OfflineOption,
    PriceOption,
    ReasoningMarksOption,
    ReasoningOption,
    ReasoningParserOption,
    ReasoningTokensOption,
    RunArgument,
    StopIdsOption,
    StopOption,
    SystemPromptOption,
    TemplateKwargsOption,
    TensorParallelOption,
    UnsafeOption,
    choice,
    harness_settings,
    prompt_settings,
)
from evals.commands.report import show_rows
from evals.errors import Incomplete

if TYPE_CHECKING:
    from evals.plan.make import Plan
    from evals.plan.settings import RunSettings
    from evals.runs.writing import RunResult

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help=(
            "Hub id, folder (of a model or a LoRA adapter), smollm2 (embedded), a card row's short"
            " name (tulu-2-llama-3.1-8b-dpo), openai:NAME@URL, or replay:FILE."
        ),
    ),
]
SuiteOption = Annotated[
    str,
    typer.Option(help="card: its subsets; full: every item; smoke: a few of ours."),
]
FormatOption = Annotated[
    str, typer.Option(help="auto, tulu, tokenizer (its template) or none (base model).")
]
TasksOption = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Only these benchmarks, e.g. mmlu,lm-eval:hellaswag. See: evals tasks.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="N items of each benchmark, spread over its subjects or tasks by a fixed seed.",
    ),
]


BaseOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="What an adapter is served on (default: the base its config names)."
    ),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="MODEL's revision on the hub: branch, tag or commit.")
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that comes with the model or a task's data."
    ),
]


def run(
    model: ModelArgument = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help=(
                "LoRA adapter of MODEL, or of the base its config names. Several share one engine"
                " and have a run folder each, below --out if given."
            ),
        ),
    ] = None,
    base: BaseOption = None,
    revision: RevisionOption = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer's folder or hub id, for openai:NAME@URL: exact token ids are then sent."
        ),
    ] = None,
    suite: SuiteOption = "card",
    card: CardOption = None,
    tasks: TasksOption = "",
    data: DataOption = None,
    limit: LimitOption = None,
    repeats: Annotated[
        int,
        typer.Option(
            metavar="K",
            help=(
                "K answers to each item of the benchmarks that are sampled: HumanEval, and with"
                " --temperature the others but MMLU. A larger K keeps the answers that are there."
            ),
        ),
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Sample what the card generates greedily; marked so."),
    ] = None,
    include_path: IncludeOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder (default: results/<model>-<suite>)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The row's name in the table (default: the model's).")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Share one store of completions between runs (default: in the run folder).",
        ),
    ] = None,
    offline: OfflineOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, and stop.")
    ] = False,
    parameters: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="With --dry-run: GPU-hours of a model so large, e.g. 70b."
        ),
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help=(
                "How long to wait for servers that are not up yet, or all lost, e.g. 15m (default:"
                " no time)."
            ),
        ),
    ] = "",
    log: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER",
            help="Log numbers, table and page of the run to wandb, trackio or mlflow.",
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="With --log: the training step of this model."),
    ] = None,
    chat_format: FormatOption = "auto",
    system_prompt: SystemPromptOption = None,
    chat_template: ChatTemplateOption = None,
    chat_template_kwargs: TemplateKwargsOption = None,
    stop: StopOption = None,
    stop_token_ids: StopIdsOption = None,
    leave_out_added: LeaveOutOption = False,
    reasoning: ReasoningOption = "auto",
    reasoning_marks: ReasoningMarksOption = REASONING_MARKS,
    reasoning_tokens: ReasoningTokensOption = 0,
    reasoning_parser: ReasoningParserOption = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=MODEL",
            help=(
                "Or `current`, the card's successors; FILE.toml. Roles: alpaca_eval_1,"
                " alpaca_eval_2, xstest, truth, info, all (evals judge list)."
            ),
        ),
    ] = None,
    price: PriceOption = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="MONEY",
            help=(
                "Ask judges nothing that could cost this command more, all together; what came is"
                " kept."
            ),
        ),
    ] = None,
    sandbox: Annotated[
        str,
        typer.Option(
            help="auto, or require: refuse to run HumanEval's programs without namespace isolation."
        ),
    ] = "auto",
    confirm_run_unsafe_code: UnsafeOption = False,
    tensor_parallel_size: TensorParallelOption = None,
    pipeline_parallel_size: Annotated[
        int | None, typer.Option(help="Stages the layers are split over.")
    ] = None,
    data_parallel_size: Annotated[
        int | None,
        typer.Option(help="Copies of the model (default: as many as the GPUs hold)."),
    ] = None,
    distributed_executor_backend: Annotated[
        str | None, typer.Option(help="mp, uni or ray (default: vLLM's choice).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    quantization: Annotated[
        str | None, typer.Option(help="As vLLM names it; the card used none.")
    ] = None,
    max_model_len: MaxLenOption = None,
    gpu_memory_utilization: Annotated[
        float | None,
        typer.Option(help="Share of the memory the engine may take (default: vLLM's)."),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            help="Sequences at a time (default: vLLM's, or fewer where the cache holds fewer)."
        ),
    ] = None,
    enforce_eager: Annotated[
        bool | None,
        typer.Option(
            "--eager/--compile",
            help="Default: compiled on GPUs, and on CPUs where the queue repays it.",
        ),
    ] = None,
    engine_args: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE|JSON",
            help=(
                "More of vLLM's own arguments, those that leave answers as they are, e.g."
                " max_num_batched_tokens=8192. May be repeated."
            ),
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Engine seed: names one draw of HumanEval's samples.")
    ] = 0,
    trust_remote_code: TrustOption = False,
    batch_invariant: Annotated[
        bool,
        typer.Option(
            "--batch-invariant",
            help="GPU: answers that do not depend on what else is in the batch.",
        ),
    ] = False,
    help_all: Annotated[
        bool,
        typer.Option(
            "--help-all",
            is_eager=True,
            callback=show_all,
            show_default=False,
            help="The same, every option explained.",
        ),
    ] = False,
) -> None:
    """Evaluate MODEL and write its row. The same command again goes on where it stopped."""
    from evals.generators import EngineSettings
    from evals.generators.engine_args import engine_args_of
    from evals.models.reasoning import ReasoningSettings, marks_of
    from evals.plan.adapters import of_each
    from evals.plan.settings import RunSettings

    harness_settings(include_path, confirm_run_unsafe_code, trust_remote_code)
    engine = EngineSettings(
        tensor_parallel_size, pipeline_parallel_size, data_parallel_size,
        dtype, max_model_len, gpu_memory_utilization, quantization,
        max_num_seqs, enforce_eager, distributed_executor_backend, seed, trust_remote_code,
        batch_invariant, engine_args_of(engine_args or ()),
    )  # fmt: skip
    prompting = prompt_settings(
        system_prompt, chat_template, chat_template_kwargs, stop, stop_token_ids, leave_out_added
    )
    if model is None and not adapter:
        raise typer.BadParameter("name a model, or --adapter FOLDER.", param_hint="'MODEL'")
    settings = RunSettings(
        model or "", name, suite, (tasks,) if tasks else (), data, out, limit, chat_format,
        revision, base, None, tokenizer, tuple(judge or ()),
        choice("--sandbox", sandbox, ("auto", "require")), store, offline, engine, prompting,
        ReasoningSettings(
            reasoning, marks_of(reasoning_marks), reasoning_tokens, reasoning_parser
        ),
        card, tuple(price or ()), max_cost, repeats, temperature, wait,
    )  # fmt: skip
    each = of_each(settings, adapter) if adapter else [settings]
    if dry_run:
        print("\n\n".join(described(one, price or (), parameters) for one in each))
        return
    if parameters is not None:
        raise typer.BadParameter("--parameters goes with --dry-run.")
    if step is not None and log is None:
        raise typer.BadParameter("--step goes with --log.")
    if log is not None:
        from evals.report.trackers import require

        require(log, offline)
    results = [measured(each[0])] if len(each) == 1 else measured_together(each)
    for task in (task for result in results for task in result.summary["tasks"].values()):
        for warning in task["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)
    show_rows([result.summary for result in results])
    for result in results:
        if log is not None:
            from evals.report.trackers import log_run
            from evals.storage.files import visible

            if why := log_run(log, result, step, data):
                print(visible(f"warning: {why}"), file=sys.stderr)
        _say_what_next(result.folder.path)
    broken = dict.fromkeys(name for result in results for name in result.broken)
    said = []
    if n_missing := sum(result.n_missing - len(result.broken) for result in results):
        how = _how_to_have_them(settings, results)
        said.append(f"{n_missing} answers or verdicts are missing. {how}")
    if broken:
        said.append(
            f"{', '.join(broken)} could not be asked; the table says why. Mended, the same command"
            " asks them, and keeps the rest."
        )
    if said:
        raise Incomplete(" ".join(said))


def _how_to_have_them(settings: "RunSettings", results: Sequence["RunResult"]) -> str:
    """What to do about answers or verdicts that are missing."""
    tasks = [task for result in results for task in result.summary["tasks"].values()]
    lacks_answers = any(task["n_answered"] < task["n_items"] for task in tasks)
    if lacks_answers and settings.model.startswith("replay:"):
        return "Add their rows to the file and score it into another --out."
    again = "The same command asks for them again; the rest is kept."
    if settings.max_cost is None:
        return again
    return (
        f"{again} If --max-cost {settings.max_cost:g} stopped it: so much may each command spend."
    )


def _say_what_next(folder: Path) -> None:
    """Where the run is, and two commands that are worth knowing."""
    import shlex

    run = shlex.quote(str(folder))
    print(
        f"The run is in {run}. To look at every item: evals report {run} --html page.html — against"
        f" another run: evals compare OTHER {run}",
        file=sys.stderr,
    )


def measured(settings: "RunSettings") -> "RunResult":
    """The run, carried out, with its progress on the terminal."""
    from evals.plan.make import make_plan
    from evals.runs.progress import Progress, heard
    from evals.runs.session import execute

    progress = Progress()
    with heard(progress):
        plan = make_plan(settings)
    return execute(plan, progress, notes=_power(plan))


def measured_together(each: Sequence["RunSettings"]) -> list["RunResult"]:
    """The runs of several adapters, carried out."""
    from evals.plan.adapters import make_plans
    from evals.runs.progress import Progress
    from evals.runs.together import execute_all

    plans = make_plans(each)
    return execute_all(plans, Progress, [_power(plan) for plan in plans])


def described(
    settings: "RunSettings", prices: Sequence[str] = (), parameters: str | None = None
) -> str:
    """What the run would ask, and what is to be said about its folder."""
    from evals.models.bases import adapter_notes
    from evals.plan.earlier import earlier_run
    from evals.plan.make import make_plan
    from evals.report.dry_run import describe

    plan = make_plan(settings, need_judges=False)
    notes = [*adapter_notes(plan.model), *plan.view.notes(), *earlier_run(plan)]
    return "\n".join([describe(plan, prices, parameters), *_power(plan), *plan.faults, *notes])


def _power(plan: "Plan") -> list[str]:
    """For a limited run: what drop it could show at all."""
    from evals.compare import power

    return [power.sentence(plan)] if plan.settings.limit is not None else []


def prompts(
    task: Annotated[str, typer.Argument(metavar="TASK", help="As --tasks of `evals run`.")],
    model: Annotated[str, typer.Option(help="As for `evals run`; only its tokenizer is loaded.")],
    base: BaseOption = None,
    chat_format: FormatOption = "auto",
    suite: SuiteOption = "card",
    card: CardOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    system_prompt: SystemPromptOption = None,
    chat_template: ChatTemplateOption = None,
    chat_template_kwargs: TemplateKwargsOption = None,
    stop: StopOption = None,
    stop_token_ids: StopIdsOption = None,
    leave_out_added: LeaveOutOption = False,
    reasoning_tokens: ReasoningTokensOption = 0,
    revision: RevisionOption = None,
    max_model_len: MaxLenOption = None,
    offline: OfflineOption = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Print every prompt of TASK as JSON lines.

    Each has id, prompt, prompt_token_ids, sampling and candidates.
    """
    from evals.generators import EngineSettings
    from evals.models.reasoning import ReasoningSettings
    from evals.plan.settings import RunSettings
    from evals.report.show import prompt_lines

    engine = EngineSettings(max_model_len=max_model_len, trust_remote_code=trust_remote_code)
    prompting = prompt_settings(
        system_prompt, chat_template, chat_template_kwargs, stop, stop_token_ids, leave_out_added
    )
    settings = RunSettings(
        model,
        None,
        suite,
        (task,),
        data,
        limit=limit,
        chat_format=chat_format,
        revision=revision,
        base=base,
        offline=offline,
        engine=engine,
        prompts=prompting,
        reading=ReasoningSettings(reasoning_tokens=reasoning_tokens),
        card=card,
    )
    for line in prompt_lines(settings):
        print(line)


def score(
    run_folder: RunArgument,
    data: DataOption = None,
    reasoning: Annotated[
        str | None,
        typer.Option(metavar="auto|strip|keep", help="In place of the run's own, as for `run`."),
    ] = None,
    reasoning_marks: ReasoningMarksOption = REASONING_MARKS,
) -> None:
    """Grade the stored completions again; needs no model."""
    from evals.plan.named import reading_by_name
    from evals.runs.rescore import rescore

    summary = rescore(run_folder, data, reading_by_name(reasoning, reasoning_marks))
    show_rows([summary])
    tasks = summary["tasks"].values()
    if n_missing := sum(task["n_items"] - task["n_answered"] for task in tasks):
        raise Incomplete(f"{n_missing:,} answers are missing: the run's own command asks for them.")
