"""The command line: parses, calls, prints. Heavy imports stay inside the commands, so that --help answers at once."""

import sys
from collections import namedtuple
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from evals import __version__
from evals.commands import interrupt
from evals.commands.compare import check, compare
from evals.commands.options import DataOption, RunArgument, choice
from evals.commands.report import card, export, report, show_table
from evals.errors import CheckFailed, EvalsError, Incomplete

_DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")

app = typer.Typer(
    name="evals",
    help="Give it a model, get the model card's row: eight benchmarks, one vLLM engine, one table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # formatting the help with rich takes longer than everything else it does
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Where the benchmarks' data comes from, and whether it is on this machine."
)
app.add_typer(data_app, name="data")
judge_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Judges held against recorded verdicts.")
app.add_typer(judge_app, name="judge")

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Hub id, folder, smollm2 (embedded), a card row's short name (tulu-2-llama-3.1-8b-dpo), openai:NAME@URL, or replay:FILE.",
    ),
]
SuiteOption = Annotated[str, typer.Option(help="card: the card's subsets. full: every item. smoke: a few items of ours, no data needed.")]
FormatOption = Annotated[str, typer.Option(help="auto, tulu, tokenizer (its own template) or none (base model).")]
TasksOption = Annotated[str, typer.Option(metavar="NAMES", help="Only these benchmarks, e.g. mmlu,gsm8k.")]
LimitOption = Annotated[
    int | None, typer.Option(metavar="N", help="N items of each benchmark, spread over its subjects or tasks by a fixed seed.")
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=IN,OUT", help="What a million tokens to and from a judge cost you, for the bound of its cost; or all=IN,OUT."
    ),
]


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    """Options of the program itself."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    model: ModelArgument,
    name: Annotated[str | None, typer.Option(help="The row's name in the table (default: the model's).")] = None,
    suite: SuiteOption = "card",
    tasks: TasksOption = "",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder (default: results/<model>-<suite>).")] = None,
    limit: LimitOption = None,
    chat_format: FormatOption = "auto",
    revision: Annotated[str | None, typer.Option(help="Hub revision: branch, tag or commit.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer's folder or hub id, for openai:NAME@URL: exact token ids are then sent.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=MODEL",
            help="Roles: alpaca_eval_1, alpaca_eval_2, xstest, truth, info, all. `card`: the card's judges; xstest=strmatch: no model.",
        ),
    ] = None,
    sandbox: Annotated[
        str, typer.Option(help="auto, or require: refuse to run HumanEval's programs without namespace isolation.")
    ] = "auto",
    store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Share one store of completions between runs (default: in the run folder).")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection but to this machine.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked, and stop.")] = False,
    price: PriceOption = None,
    tensor_parallel_size: Annotated[int | None, typer.Option(help="GPUs the weights are split over.")] = None,
    pipeline_parallel_size: Annotated[int | None, typer.Option(help="Stages the layers are split over.")] = None,
    data_parallel_size: Annotated[int | None, typer.Option(help="Copies of the model.")] = None,
    distributed_executor_backend: Annotated[str | None, typer.Option(help="mp, uni or ray.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    quantization: Annotated[str | None, typer.Option(help="As vLLM names it; the card used none.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens (default: the model's own).")] = None,
    gpu_memory_utilization: Annotated[float | None, typer.Option(help="Share of the memory the engine may take.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Sequences in one batch.")] = None,
    enforce_eager: Annotated[bool | None, typer.Option("--eager/--compile", help="Default: eager on CPU, compiled on GPU.")] = None,
    seed: Annotated[int, typer.Option(help="Engine seed: names one draw of HumanEval's samples.")] = 0,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")] = False,
    batch_invariant: Annotated[
        bool,
        typer.Option("--batch-invariant", help="GPU: answers that do not depend on what else is in the batch."),
    ] = False,
) -> None:
    """Evaluate MODEL and write its row. The same command again goes on where it stopped."""
    from evals.generators import EngineSettings
    from evals.plan import RunSettings

    engine = EngineSettings(
        tensor_parallel_size, pipeline_parallel_size, data_parallel_size, choice("--dtype", dtype, _DTYPES), max_model_len,
        gpu_memory_utilization, quantization, max_num_seqs, enforce_eager, distributed_executor_backend, seed, trust_remote_code,
        batch_invariant,
    )  # fmt: skip
    settings = RunSettings(
        model, name, suite, (tasks,) if tasks else (), data, out, limit, chat_format, revision, tokenizer, tuple(judge or ()),
        choice("--sandbox", sandbox, ("auto", "require")), store, offline, engine,
    )  # fmt: skip
    if dry_run:
        from evals.dry_run import describe

        print(describe(settings, price or ()))
        return
    if price:
        raise typer.BadParameter("--price goes with --dry-run.")
    from evals import runner
    from evals.progress import Progress

    result = runner.run(settings, Progress())
    for task in result.summary["tasks"].values():
        for warning in task["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)
    _print_table([result.summary])
    if not result.is_complete:
        more = "The same command asks for them again; the rest is kept."
        if model.startswith("replay:"):
            more = "Add their rows to the file and score it into another --out."
        raise Incomplete(f"{result.n_missing} answers or verdicts are missing. {more}")


app.command()(report)
app.command()(card)
app.command()(export)
app.command()(compare)
app.command()(check)


@app.command()
def replay(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="Folder of recorded outputs with its README.json, or a folder of such folders.")
    ],
    data: DataOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every line to FILE too.")] = None,
) -> None:
    """Score recorded outputs of real models and compare with the figures published for them: one line a figure."""
    from evals.fidelity.replay import as_json, as_text, tally
    from evals.fidelity.replay import replay as replay_corpora
    from evals.run_folder import RunFolder

    lines = []
    for line in replay_corpora(corpus, data):
        lines.append(line)
        print(as_text(line), flush=True)
    print(tally(lines))
    if json_file is not None:
        RunFolder(json_file.parent).write_json(json_file.name, as_json(lines))
    if n_differ := sum(line.state == "differs" for line in lines):
        raise CheckFailed(f"{n_differ} published figures did not come back; the lines above that begin with `differs` name them.")


@app.command()
def prompts(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    model: Annotated[str, typer.Option(help="As for `evals run`; only its tokenizer is loaded.")],
    chat_format: FormatOption = "auto",
    suite: SuiteOption = "card",
    data: DataOption = None,
    limit: LimitOption = None,
    revision: Annotated[str | None, typer.Option()] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens (default: the model's own).")] = None,
    offline: Annotated[bool, typer.Option("--offline")] = False,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code")] = False,
) -> None:
    """Print every prompt of TASK as JSON lines: id, prompt, prompt_token_ids, sampling, candidates."""
    from evals.generators import EngineSettings
    from evals.plan import RunSettings
    from evals.show import prompt_lines

    engine = EngineSettings(max_model_len=max_model_len, trust_remote_code=trust_remote_code)
    settings = RunSettings(
        model, None, suite, (task,), data, limit=limit, chat_format=chat_format, revision=revision, offline=offline, engine=engine
    )
    for line in prompt_lines(settings):
        print(line)


@app.command()
def score(run_folder: RunArgument, data: DataOption = None) -> None:
    """Grade the stored completions again; needs no model."""
    from evals.rescore import rescore

    _print_table([rescore(run_folder, data)])


@app.command()
def show(run_folder: RunArgument, item_id: Annotated[str, typer.Argument(metavar="ITEM_ID")], data: DataOption = None) -> None:
    """Print everything behind one item: prompt, output, extracted answer, gold, grade, the judge's words."""
    from evals.show import describe_item

    print(describe_item(run_folder, item_id, data))


@app.command(name="tasks")
def list_tasks() -> None:
    """List the benchmarks and the cells of the card they fill."""
    from evals.registry import BENCHMARKS, benchmark_class

    for name in BENCHMARKS:
        cls = benchmark_class(name)
        judges = f"  judged: {', '.join(cls.judge_roles)}" if cls.judge_roles else ""
        print(f"{name:12} {' | '.join(column.heading for column in cls.columns)}{judges}")


@judge_app.command("calibrate")
def judge_calibrate(
    judge: Annotated[list[str], typer.Option(metavar="ROLE=MODEL", help="As for `evals run`; a server, weights, or xstest=strmatch.")],
    data: DataOption = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="EVALS_REPLAY", help="Folder with xstest/ and alpaca_eval/ as their authors released them."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="N recorded answers of each role, spread by a fixed seed.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Default: results/calibration, where `evals run` looks for what to say beside a cell."),
    ] = None,
    store: Annotated[Path | None, typer.Option(metavar="FILE", help="Store of verdicts (default: in the output folder).")] = None,
    price: PriceOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection but to this machine.")] = False,
    tensor_parallel_size: Annotated[int | None, typer.Option(help="GPUs the weights are split over.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32; as in the runs it shall speak for.")] = "auto",
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens (default: the model's own).")] = None,
) -> None:
    """Hold a judge against recorded verdicts: agreement, Cohen's kappa, the shift it puts on the column, cost and time."""
    from evals.fidelity.calibration import calibrate
    from evals.generators import EngineSettings
    from evals.plan import RunSettings
    from evals.progress import Progress

    engine = EngineSettings(tensor_parallel_size, dtype=choice("--dtype", dtype, _DTYPES), max_model_len=max_model_len)
    settings = RunSettings("", data=data, out=out, limit=limit, judges=tuple(judge), store=store, offline=offline, engine=engine)
    print(*calibrate(settings, replay, price or (), Progress()), sep="\n")


@data_app.command("list")
def data_list(data: DataOption = None) -> None:
    """List every dataset: hub id, revision, licence, public address, files, and whether it is here."""
    from evals.commands.data import listing

    print(listing(data))


@data_app.command("verify")
def data_verify(data: DataOption = None) -> None:
    """Check every file against its checksum and row count; list everything missing or damaged at once."""
    from evals.commands.data import verify

    print(verify(data))


@data_app.command("fetch")
def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Default: all.")] = None,
    mirror: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Read hub repositories from DIR/<owner>/<name> instead of the hub.")
    ] = None,
) -> None:
    """Bring datasets from the hub at their pinned revisions and keep them in the user's cache."""
    from evals.commands.data import fetch_all

    for line in fetch_all(names or [], mirror):
        print(line)


def _print_table(summaries: list[Any]) -> None:
    from evals.report.table import make_table, row_from_summary

    show_table(make_table([row_from_summary(summary) for summary in summaries]), None)


def main() -> None:
    """The console command: shows an error as one sentence and exits with its code."""
    import os

    try:
        # Not standalone: typer then raises what is wrong with the words of a command, and returns 130 for Ctrl-C.
        with interrupt.watched():
            code = app(prog_name="evals", standalone_mode=False)
    except EvalsError as error:
        if os.environ.get("EVALS_TRACEBACK"):
            raise
        print(f"evals: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        print(_wrong_words(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = interrupt.EXIT_CODE
    if code == interrupt.EXIT_CODE:
        _stopped()
    sys.exit(code or 0)


def _wrong_words(error: TyperException) -> str:
    """One sentence for what is wrong with a command's words, and where its help is; the help itself where there are no words."""
    command = getattr(getattr(error, "ctx", None), "command_path", "evals")
    sentence = " ".join(error.format_message().split()).removeprefix("Invalid value: ").rstrip(".")
    return error.message if "Usage:" in error.message else f"evals: {sentence}. See: {command} --help"


def _stopped() -> NoReturn:
    print("\nevals: stopped. What was answered is kept; the same command goes on.", file=sys.stderr)
    # Where the interrupt passed through the standard library's compiling of source (a dataclass being made), CPython remembers it although
    # it was caught, and ends the process by SIGINT in place of our status, unless source is compiled and run again.
    namedtuple("Forgotten", "")
    sys.exit(interrupt.EXIT_CODE)


if __name__ == "__main__":
    main()
