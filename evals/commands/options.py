"""Options that several commands share."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the public data files (default: $EVALS_DATA)."),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder that `evals run --out` wrote.")
]


PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=IN,OUT",
        help=(
            "What a million tokens to and from a judge cost you, for the bound of its cost; or"
            " all=IN,OUT."
        ),
    ),
]
CardOption = Annotated[
    str | None,
    typer.Option(
        "--card",
        metavar="NAME|FILE",
        help="The card: one that `evals cards` lists, or a TOML file of yours.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Open no connection but to this machine.")
]
MaxLenOption = Annotated[
    int | None, typer.Option(help="Context in tokens (default: the model's own).")
]
TensorParallelOption = Annotated[int | None, typer.Option(help="GPUs the weights are split over.")]


SystemPromptOption = Annotated[
    str | None, typer.Option(metavar="TEXT|@FILE", help="Put before every conversation.")
]
ChatTemplateOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Jinja, in place of the tokenizer's own.")
]
TemplateKwargsOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="Given to the template, e.g. '{\"enable_thinking\": false}'."
    ),
]
StopOption = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Ends an answer too. May be repeated.")
]
StopIdsOption = Annotated[
    str | None, typer.Option(metavar="IDS", help="Token ids that end an answer too, e.g. 2,7.")
]
LeaveOutOption = Annotated[
    bool, typer.Option("--leave-out-added", help="Without what the tokenizer puts after a prompt.")
]

ReasoningOption = Annotated[
    str,
    typer.Option(
        metavar="auto|strip|keep",
        help=(
            "Reasoning before an answer: auto, not graded where a block is opened; strip, nor what"
            " stands before any closing mark; keep, graded."
        ),
    ),
]
ReasoningMarksOption = Annotated[
    str, typer.Option(metavar="OPEN,CLOSE", help="What stands around reasoning.")
]
ReasoningTokensOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        help=(
            "Room for reasoning beside the protocol's limit, for judges other than the card's too."
            " MMLU's letter and HumanEval's raw completion have no place for any."
        ),
    ),
]
ReasoningParserOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="vLLM's reasoning parser, in place of the marks.")
]
REASONING_MARKS = "<think>,</think>"


def prompt_settings(
    system_prompt: str | None,
    chat_template: Path | None,
    chat_template_kwargs: str | None,
    stop: list[str] | None,
    stop_token_ids: str | None,
    leave_out_added: bool,
) -> Any:
    """The options above as evals.models.prompting.PromptSettings.

    Raises InputError where a file cannot be read or an id is no number.
    """
    from evals.models.prompting import PromptSettings, ids_of, text_of_file

    if system_prompt is not None and system_prompt.startswith("@"):
        system_prompt = text_of_file("--system-prompt", Path(system_prompt[1:]))
    template = text_of_file("--chat-template", chat_template) if chat_template else None
    ids = ids_of(stop_token_ids or "")
    return PromptSettings(
        system_prompt, template, chat_template_kwargs, tuple(stop or ()), ids, leave_out_added
    )


def choice(option: str, value: str, known: tuple[str, ...]) -> Any:
    """The value, if it is one of those known. Raises typer's BadParameter with the known ones."""
    if value not in known:
        raise typer.BadParameter(f"{option} {value}: known are {', '.join(known)}.")
    return value


IncludeOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--include-path",
        metavar="DIR",
        help="Task files of your own, for --tasks lm-eval:NAME and cards. Also EVALS_INCLUDE_PATH.",
    ),
]
UnsafeOption = Annotated[
    bool,
    typer.Option(
        "--confirm-run-unsafe-code",
        help="Let tasks of lm-evaluation-harness run programs that the model wrote.",
    ),
]


def harness_settings(include: Sequence[Path] | None, unsafe: bool, trust: bool = False) -> None:
    """What tasks of lm-evaluation-harness are made with; for whatever this process does."""
    # Variables: a run's folder is read by other commands, which know no settings of a run's.
    if include:
        before = os.environ.get("EVALS_INCLUDE_PATH", "")
        paths = [*(str(one.absolute()) for one in include), *filter(None, [before])]
        os.environ["EVALS_INCLUDE_PATH"] = os.pathsep.join(paths)
    if unsafe:
        os.environ["EVALS_CONFIRM_RUN_UNSAFE_CODE"] = "1"
    if trust:
        os.environ["HF_DATASETS_TRUST_REMOTE_CODE"] = "1"
