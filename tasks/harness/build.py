"""Tasks made ready by lm-evaluation-harness: data loaded, prompts built, answers taken back."""

import contextlib
import io
import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from evals.errors import EvalsError, InputError, TaskFault, first_line
from evals.records import Completion, Generate, Item, ItemId, Message, Request, Sampling, Score
from tasks.harness.names import (
    INCLUDE,
    TRUST,
    UNSAFE,
    find,
    is_set,
    members,
    package,
    runs_programs,
)
from tasks.harness.programs import in_the_place_of_code_eval

_SEED, _NUMPY_SEED = 0, 1234
"""lm_eval.simple_evaluate's own: a task may shuffle its documents by them."""
_DEFAULT_MAX_NEW = 256
"""New tokens where a task says none: lm-eval's vLLM backend."""
_CHAT = "\x00chat\x00"
"""How a context begins that is a chat, as JSON; whoever renders it is not lm-eval."""
_AWAY = ("ConnectionError", "OfflineModeIsEnabled", "DatasetNotFoundError", "FileNotFoundError",
         "LocalEntryNotFoundError", "ConnectTimeout", "HfHubHTTPError")  # fmt: skip


@dataclass(frozen=True)
class HarnessItem(Item):
    """One document of one task, which is its group, with the requests that lm-eval made of it.

    kind: the requests' type.  asked: their arguments.
    """

    doc: Any
    number: int
    kind: str
    asked: tuple[tuple[Any, ...], ...]
    repeats: int

    @property
    def choices(self) -> tuple[str, ...]:
        """What is chosen from, in the order of `extracted`; of several contexts, these. Behind
        them may stand what has no context (acc_mutual_info).
        """
        if self.kind != "loglikelihood" or len(self.asked) < 2:
            return ()
        own = tuple(rest.strip() for context, rest in self.asked if context == self.asked[0][0])
        contexts = (_messages(context)[-1:] for context, _ in self.asked)
        return own if own[1:] else tuple(one.content for last in contexts for one in last)


@cache
def loaded(name: str, folders: str) -> dict[str, Any]:
    """The tasks behind a name, by name, with their data. folders: of the user's own tasks.

    Raises TaskFault where lm-eval cannot load one, with its reason; InputError for what wants a
    flag.
    """
    package()
    _refuse_unsafe(name)
    with _quiet():
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False)
        manager._index = _Names()
        try:
            with _seeded(), _code_eval_of(name):
                found: dict[str, Any] = manager.load([name])["tasks"]
        except EvalsError:
            raise
        # A task is its author's program, and may raise anything.
        except Exception as error:
            raise _cannot(name, error) from error
    for task_name, task in found.items():
        if getattr(task, "MULTIMODAL", False):
            raise TaskFault(f"lm-eval:{task_name} shows pictures or sounds: not done here.")
        # What it is under no setting of ours, for it is shared by several.
        task.shots_of_its_own = task.get_config("num_fewshot") if _is_usual(task) else None
    return found


def _code_eval_of(name: str) -> contextlib.AbstractContextManager[None]:
    """Ours, whoever loads it and when, but for tasks that a flag lets execute by themselves."""
    ran = _executed(name, os.environ.get(INCLUDE, ""))
    is_own = "here" in ran and "sandbox" not in ran
    return contextlib.nullcontext() if is_own else in_the_place_of_code_eval()


@cache
def _executed(name: str, folders: str) -> frozenset[str]:
    return frozenset(runs_programs(config) for _, config in members(name))


class _Names(dict[str, Any]):
    """lm-eval's index, each name looked up when it is asked for."""

    def get(self, name: str, default: Any = None) -> Any:
        """Its entry."""
        from lm_eval.tasks._index import Entry, Kind

        if name not in self.keys() and (one := find(name)):
            path = None if one.path is None else Path(one.path)
            self[name] = Entry(name, Kind[one.kind], path, tags=set(one.tasks))
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __missing__(self, name: str) -> Any:
        if (one := self.get(name)) is None:
            raise KeyError(name)
        return one


def tasks_of(name: str) -> dict[str, Any]:
    """`loaded`, with the user's folders as they are named now."""
    return loaded(name, os.environ.get(INCLUDE, ""))


def _is_usual(task: Any) -> bool:
    return hasattr(task, "get_config")


def _refuse_unsafe(name: str) -> None:
    """Raise InputError for code that runs only where a flag says so."""
    unsafe = [task for task, config in members(name) if runs_programs(config) == "here"]
    if unsafe and not is_set(UNSAFE):
        raise InputError(
            f"lm-eval:{name} runs programs that the model writes, in this process and not in the"
            f" sandbox ({_some(unsafe)}). --confirm-run-unsafe-code says that this is wanted."
        )
    # Later ones run no code of a data set's, and lm-eval leaves the wish out.
    if int(metadata.version("datasets").partition(".")[0]) >= 4 or is_set(TRUST):
        return
    kwargs = ((task, config.get("dataset_kwargs") or {}) for task, config in members(name))
    trusting = [task for task, one in kwargs if one.get("trust_remote_code")]
    if trusting:
        raise InputError(
            f"lm-eval:{name} runs code that comes with its data ({_some(trusting)})."
            " --trust-remote-code says that this is wanted."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _cannot(name: str, error: Exception) -> TaskFault:
    kinds = {type(one).__name__ for one in _chain(error)}
    if not kinds & set(_AWAY):
        need = " It names what to install." if isinstance(error, ImportError) else ""
        return TaskFault(
            f"lm-eval:{name} cannot be loaded by lm-evaluation-harness ({first_line(error)}).{need}"
        )
    wanted: dict[str, list[str]] = {}
    for _, config in members(name):
        own = wanted.setdefault(str(config.get("dataset_path")), [])
        own += [str(config["dataset_name"])] if config.get("dataset_name") else []
    calls = [
        f"load_dataset({path!r}{f', {parts[0]!r}' if parts else ''})" if len(parts) < 2
        else f"load_dataset({path!r}, NAME) for each NAME of {', '.join(sorted({*parts}))}"
        for path, parts in wanted.items()
    ]  # fmt: skip
    return TaskFault(
        f"lm-eval:{name} needs data that is not in the cache of `datasets` ({first_line(error)}).",
        calls,
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The seeds that lm-eval sets before it loads anything."""
    import numpy

    before, numpy_before = random.getstate(), numpy.random.get_state()
    random.seed(_SEED)
    numpy.random.seed(_NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(before)
        numpy.random.set_state(numpy_before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its progress bars and log lines."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def items_of(name: str, task: Any, settings: Any, start: str) -> Iterator[HarnessItem]:
    """A task's documents with their requests, in its order. start: how their ids begin. Raises
    TaskFault for requests that cannot be asked here.
    """
    shots = _shots(name, task, settings.num_fewshot)
    system = settings.system_instruction or None
    with _quiet():
        try:
            with _seeded():
                if _is_usual(task):
                    task.set_config("num_fewshot", shots)
                task.set_fewshot_seed(seed=settings.fewshot_seed)
                task.build_all_requests(
                    limit=settings.limit,
                    system_instruction=system,
                    apply_chat_template=settings.apply_chat_template,
                    fewshot_as_multiturn=settings.fewshot_as_multiturn
                    and settings.apply_chat_template,
                    chat_template=_as_json if settings.apply_chat_template else None,
                )
        except Exception as error:
            raise TaskFault(
                f"lm-eval:{name}: lm-evaluation-harness cannot build its prompts"
                f" ({first_line(error)})."
            ) from error
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    task._instances = None
    for number, instances in by_doc.items():
        instances.sort(key=lambda one: one.idx)
        first = instances[0]
        kinds = {one.request_type for one in instances}
        asked = tuple(one.args for one in instances)
        if len(kinds) > 1 or (len(asked) > 1 and kinds == {"generate_until"}):
            raise TaskFault(
                f"lm-eval:{name} asks several kinds of answers of one document, or several texts,"
                " which is not done here."
            )
        item = ItemId(f"{start}/{number}")
        made = HarnessItem(item, name, first.doc, number, first.request_type, asked, first.repeats)
        request_of(made)  # what cannot be asked is told before anything loads
        yield made


def _shots(name: str, task: Any, asked: int | None) -> int:
    own = getattr(task, "shots_of_its_own", None)
    if asked is not None and own == 0 and asked != 0:
        raise InputError(
            f"lm-eval:{name} is always asked without examples, its own file says so: leave"
            " num_fewshot out."
        )
    return int(own or 0) if asked is None else asked


# --- requests -------------------------------------------------------------------------------------


def _as_json(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """A chat as a context's text, until the model's own template renders it."""
    del add_generation_prompt  # False exactly where the last turn is the assistant's
    return _CHAT + json.dumps([[one["role"], one["content"]] for one in history])


def _messages(context: str) -> tuple[Message, ...]:
    if not context.startswith(_CHAT):
        return (Message("user", context),) if context else ()
    return tuple(Message(role, text) for role, text in json.loads(context.removeprefix(_CHAT)))


def request_of(item: HarnessItem) -> Request:
    """What to ask of one document. Raises TaskFault for what cannot be asked here."""
    for one in item.asked:
        if not all(isinstance(text, str) for text in one[: 1 if item.kind[0] == "g" else 2]):
            raise TaskFault(f"{item.id}: a request of lm-evaluation-harness is not a text.")
    is_chat = any(one[0].startswith(_CHAT) for one in item.asked)
    if item.kind == "generate_until":
        context, how = item.asked[0]
        sampling = sampling_of(f"lm-eval:{item.group}", how, item.repeats)
        messages = _messages(context) or (Message("user", ""),)
        return Generate(messages, sampling, raw=not is_chat, by_harness=True)
    if item.kind == "loglikelihood_rolling":
        texts = tuple((0, one[0]) for one in item.asked)
        return Score(((),), texts, rolling=True)
    contexts = list(dict.fromkeys(one[0] for one in item.asked))
    return Score(
        tuple(map(_messages, contexts)),
        tuple((contexts.index(one[0]), one[1]) for one in item.asked),
        raw=not is_chat,
    )


def sampling_of(where: str, how: Mapping[str, Any], repeats: int) -> Sampling:
    """A task's generation arguments, as lm-eval hands them to vLLM. Raises TaskFault for one that
    is not known here.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    given = dict(normalize_gen_kwargs(dict(how), default_max_gen_toks=_DEFAULT_MAX_NEW))
    stop = given.pop("until")
    max_new = int(given.pop("max_gen_toks"))
    given.pop("do_sample", None)
    # What lm-eval leaves out is vLLM's own, and that is 1.
    temperature = float(given.pop("temperature", 1.0))
    top_p = float(given.pop("top_p", 1.0))
    if given.get("num_beams") == 1:  # what vLLM does anyway
        del given["num_beams"]
    if given:
        raise TaskFault(
            f"{where}: generation arguments that are not known here: {', '.join(sorted(given))}."
        )
    n = repeats if temperature > 0 else 1
    return Sampling(max_new, temperature, top_p, n, tuple(filter(None, map(str, stop))))


# --- answers --------------------------------------------------------------------------------------


Processed = dict[str, tuple[Any, dict[str, Any]]]


def process(name: str, task: Any, item: HarnessItem, answer: Completion) -> tuple[Processed, str]:
    """By filter what it made of the first answer, and the metrics that the task counts of it; or
    why it cannot. name: what the task was loaded as.
    """
    from lm_eval.api.instance import Instance

    about = (item.group, item.number, item.repeats)
    instances = [
        Instance(item.kind, item.doc, arguments, at, about)
        for at, arguments in enumerate(item.asked)
    ]
    for instance, said in zip(instances, _said(item, answer), strict=True):
        instance.resps = said
    found: Processed = {}
    with _quiet(), _code_eval_of(name):
        task._instances = instances
        try:
            task.apply_filters()
            for kind in instances[0].filtered_resps:
                left = [one.filtered_resps[kind] for one in instances]
                found[kind] = left[0], task.process_results(item.doc, left)
        # The task's own code, on whatever a model may write.
        except Exception as error:  # noqa: BLE001
            return {}, f"lm-evaluation-harness cannot grade it ({first_line(error)})"
        finally:
            task._instances = None
    return found, ""


def probability_of_right(task: Any, item: HarnessItem, answer: Completion) -> float | None:
    """Of a task of choices, that of the right ones among all: the softmax of their log-likelihoods,
    lm-eval's own prob_norm. None where that cannot be told.
    """
    with _quiet():
        choices = task.doc_to_choice(item.doc)
        gold = (task.doc_to_text if task.multiple_input else task.doc_to_target)(item.doc)
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else -1
    right = set(gold) if isinstance(gold, list) else {gold}
    # Behind those of the choices may stand what they have without the question (acc_mutual_info).
    scores = [one.logprob for one in answer.scores or ()][: len(choices)]
    if len(scores) < len(choices) or not right <= set(range(len(scores))):
        return None
    top = max(scores)
    if not right or not math.isfinite(top):
        return None
    shares = [math.exp(one - top) for one in scores]
    return math.fsum(shares[at] for at in right) / math.fsum(shares)


def _said(item: HarnessItem, answer: Completion) -> list[list[Any]]:
    """What came back for each request, as often as lm-eval would have asked it."""
    if item.kind == "generate_until":
        texts = [output.text for output in answer.outputs]
        return [texts if len(texts) == item.repeats else texts[:1] * item.repeats]
    scores = answer.scores or ()
    if item.kind == "loglikelihood_rolling":
        return [[sum(one.logprob for one in scores)] * item.repeats]
    return [[(one.logprob, one.is_greedy)] * item.repeats for one in scores]
