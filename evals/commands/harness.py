"""`evals lm-eval`: lm-evaluation-harness' own command, answered by our engine."""

import sys

import typer


def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness' own command on our engine and store.

    Arguments are those of `lm_eval run`. --model_args names the model as `evals run` does, with its
    options about model and engine: --model_args pretrained=out/my-8b,dtype=float32
    --tasks hellaswag
    """
    from lm_eval.__main__ import cli_evaluate

    from evals.runs.lm_eval_model import register

    register()
    given = context.args if "--model" in context.args else ["--model", "evals", *context.args]
    sys.argv = ["lm_eval", "run", *given]
    cli_evaluate()
