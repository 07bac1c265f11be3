"""What is mixed into vLLM's workers, wherever they run. One class for every engine: vLLM refuses a
second one with a method of the first's in the same process, a judge's after an adapter's.
"""

from evals.generators.lora import LoraWorker
from evals.generators.scored_rows import ScoringWorker


class Worker(LoraWorker, ScoringWorker):
    """Questions about adapters, and scored tokens alone."""


WORKER = f"{Worker.__module__}.{Worker.__qualname__}"
