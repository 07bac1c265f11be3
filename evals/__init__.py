"""Give it a model, get the model card's row.

import evals
run = evals.run("smollm2", suite="smoke")
print(run.table())
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "run"]

if TYPE_CHECKING:
    from evals.runner import RunResult


def run(model: str, **settings: Any) -> "RunResult":
    """Evaluate `model` and write its run folder.

    settings: fields of evals.plan.RunSettings, e.g. suite="card", tasks=("mmlu",), data=Path("data"), judges=("xstest=strmatch",).
    Raises evals.errors.EvalsError with one sentence for anything wrong with the input or the machine.
    """
    from evals import runner
    from evals.plan import RunSettings

    return runner.run(RunSettings(model=model, **settings))
