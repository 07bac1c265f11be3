"""What an error of vLLM's means to its user. That the same command goes on is said only where a new
engine would get further: what is wrong in the checkpoint, the settings or a request is so again.
"""

from dataclasses import dataclass

from evals.errors import EnvironmentFault, EvalsError, InputError


@dataclass(frozen=True, slots=True)
class _Kind:
    """types: names of the error's classes, its own or one above.  words: in its text, any of which
    tells it as well.  raised: what the user gets, with `says`; {why}: the error in a line.
    """

    types: frozenset[str]
    words: tuple[str, ...]
    raised: type[EvalsError]
    says: str

    def holds(self, error: BaseException) -> bool:
        text = str(error).lower()
        names = {cls.__name__ for cls in type(error).__mro__}
        return bool(self.types & names) or any(word in text for word in self.words)


_NO_MEMORY = frozenset({"OutOfMemoryError", "MemoryError"})
_CONNECTION = frozenset({"ConnectionError", "HfHubHTTPError", "TransportError"})

_AT_LOAD = (
    # vLLM raises ValueError for a lack of memory as for a wrong setting; only its words tell.
    _Kind(
        _NO_MEMORY,
        ("memory",),
        EnvironmentFault,
        "{model} does not fit this machine: {why}. Use more GPUs (--tensor-parallel-size), a"
        " smaller --max-model-len, or wait until what else holds the memory has ended.",
    ),
    _Kind(
        _CONNECTION,
        (),
        EnvironmentFault,
        "The weights of {model} did not come: {why}. The same command goes on.",
    ),
    _Kind(frozenset({"Exception"}), (), InputError, "vLLM cannot load {model}: {why}"),
)
_WHILE_ANSWERING = (
    _Kind(
        frozenset({"EngineDeadError"}),
        ("its process ended",),
        EnvironmentFault,
        "The engine died: its process ended. Nothing is lost; the same command goes on.",
    ),
    _Kind(
        _NO_MEMORY,
        ("out of memory",),
        EnvironmentFault,
        "The engine ran out of memory: {why}. What was answered is kept, but the same settings end"
        " so again. Give a smaller --max-num-seqs or --gpu-memory-utilization, or more GPUs"
        " (--tensor-parallel-size).",
    ),
    _Kind(
        frozenset(
            {
                "VLLMClientError",
                "ValueError",
                "TypeError",
                "LookupError",
                "AttributeError",
                "NotImplementedError",
                "AssertionError",
            }
        ),
        (),
        InputError,
        "The engine cannot do what it is asked: {why}. What was answered is kept, but it would be"
        " asked the same again: change the setting that this is about, or leave the benchmark out"
        " with --tasks.",
    ),
    _Kind(
        frozenset({"Exception"}),
        (),
        EnvironmentFault,
        "The engine failed: {why}. What was answered is kept; if the same command ends so again, it"
        " is no accident of the machine.",
    ),
)


def load_error(model: str, error: Exception) -> EvalsError:
    """What to raise where an engine does not start."""
    return _told(_AT_LOAD, error, model)


def answering_error(error: Exception) -> EvalsError:
    """What to raise where an engine that was started stops answering."""
    return _told(_WHILE_ANSWERING, error)


def _told(kinds: tuple[_Kind, ...], error: Exception, model: str = "") -> EvalsError:
    kind = next(kind for kind in kinds if kind.holds(error))
    return kind.raised(kind.says.format(model=model, why=one_line(error)))


def one_line(error: BaseException) -> str:
    """What an error says first; of one of pydantic's, what it found wrong with each field."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return " ".join(
            "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors()).split()
        ).rstrip(".")[:400]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:400]
