"""Where the prompts of two runs part: which items were asked something else, and the first token
that differs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from evals.errors import EvalsError, InputError
from evals.generators import EngineSettings
from evals.models.prompting import prompts_of
from evals.models.prompts import load_tokenizer
from evals.models.resolve import resolve
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import ItemId
from evals.storage.files import visible
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store

_N_BEFORE, _N_AFTER = 8, 4
"""Tokens shown around the first that differs."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """One run's prompts of one task. texts: by item.  sent: as the store kept them, else rendered
    again by today's program.
    """

    texts: Mapping[str, str]
    sent: bool


class Asked:
    """What a run asked. Prompts come from its store, else from its settings, data and tokenizer.

    lacks: why the tokenizer is not to be had ("" where it is).
    """

    def __init__(self, run: RunFolder, record: Mapping[str, Any], data: Path | None) -> None:
        self._run, self._record, self._data = run, record, data
        self.lacks = ""
        self.tokenizer: Any = None
        head = record["summary_header"]
        try:
            # offline: what is compared is what is here; nothing is fetched for it.
            files = resolve(
                str(record.get("model")),
                revision=head["model"].get("revision"),
                offline=True,
                **_base(record),
            ).tokenizer_files
            self.tokenizer = load_tokenizer(str(files)) if files is not None else None
        except EvalsError as error:
            self.lacks = str(error)

    def prompts(self, task: str, ids: Sequence[str]) -> Prompts:
        """The prompts of these items. Raises InputError or EnvironmentFault where they are neither
        kept nor to be rendered.
        """
        if self._record["summary_header"]["prompts_by"] == "recording":
            raise InputError("what a recording's model was asked is not known")
        path = self._run.store_of(self._record)
        if path is not None:
            store = Store(path, read_only=True)
            try:
                # "" names the question itself; the other names are those of its checks.
                kept = {
                    item_id: store.prompts(self._record["run_key"], ItemId(item_id)).get("", "")
                    for item_id in ids
                }
            finally:
                store.close()
            if any(kept.values()):
                return Prompts(kept, sent=True)
        return Prompts(
            {
                str(one.item_id): one.text
                for one in make_plan(self._settings(task), need_weights=False).render(task)
            },
            sent=False,
        )

    def _settings(self, task: str) -> RunSettings:
        head, engine = (
            self._record["summary_header"],
            self._record["sessions"][-1].get("engine", {}),
        )
        return RunSettings(
            str(self._record.get("model")), None, head["suite"], (task,), self._data,
            limit=head["limit"], chat_format=head["chat_format"],
            revision=head["model"].get("revision"), offline=True,
            engine=EngineSettings(max_model_len=engine.get("max_model_len")),
            # The folder, for the time that a template was told.
            out=self._run.path, prompts=prompts_of(self._record), **_base(self._record),
        )  # fmt: skip

    def pieces(self, text: str) -> tuple[list[int | str], list[str]]:
        """The prompt's token ids and their texts; its words, where there is no tokenizer."""
        if self.tokenizer is None:
            words = re.findall(r"\s+|\S+", text)
            return list(words), words
        # As the renderer calls it, so that a doubled BOS is seen.
        ids = self.tokenizer(text, add_special_tokens=True)["input_ids"]
        return list(ids), [self.tokenizer.decode([token_id]) for token_id in ids]


def _base(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's adapter was served on."""
    found = record.get("base")
    return {"base": found["model"], "base_revision": found["revision"]} if found else {}


def describe(task: str, ids: Sequence[str], asked: tuple[Asked, Asked]) -> list[str]:
    """How many of a task's prompts differ, and the first that does, with its first differing token
    between its neighbours.
    """
    try:
        sides = asked[0].prompts(task, ids), asked[1].prompts(task, ids)
    except EvalsError as error:
        return [f"{task}: prompts not at hand ({error})"]
    alike = _same_tokenizer(asked)
    found = []
    for item_id in ids:
        texts = sides[0].texts.get(item_id, ""), sides[1].texts.get(item_id, "")
        if texts[0] != texts[1] or (
            not alike and asked[0].pieces(texts[0])[0] != asked[1].pieces(texts[1])[0]
        ):
            found.append((item_id, texts))
    again = "" if all(side.sent for side in sides) else " (rendered again, not as sent)"
    if not found:
        return [f"{task}: all {len(ids):,} prompts are the same{again}"]
    lines = [f"{task}: {len(found):,} of {len(ids):,} prompts differ{again}; the first:"]
    return lines + first_difference(found[0][0], found[0][1], asked)


def first_difference(item_id: str, texts: tuple[str, str], asked: tuple[Asked, Asked]) -> list[str]:
    """The place where two prompts part, one line a run."""
    (ids_a, words_a), (ids_b, words_b) = asked[0].pieces(texts[0]), asked[1].pieces(texts[1])
    n = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids_a, ids_b, strict=False)))
    unit = "token" if asked[0].tokenizer is not None and asked[1].tokenizer is not None else "word"
    lines = [f"  {item_id}, {unit} {n + 1} of {len(ids_a):,} in A and {len(ids_b):,} in B"]
    for name, ids, words in (("A", ids_a, words_a), ("B", ids_b, words_b)):
        before, after = (
            "".join(words[max(0, n - _N_BEFORE) : n]),
            "".join(words[n + 1 : n + 1 + _N_AFTER]),
        )
        which = f" (id {ids[n]})" if n < len(ids) and isinstance(ids[n], int) else ""
        here = f"[{words[n]!r}]{which}" if n < len(words) else "[end of the prompt]"
        lines.append(visible(f"  {name}: …{before!r} {here} {after!r}…"))
    return lines


def _same_tokenizer(asked: tuple[Asked, Asked]) -> bool:
    """Whether equal texts give equal ids; without a tokenizer the texts are all there is."""
    if asked[0].tokenizer is None or asked[1].tokenizer is None:
        return True
    first, second = (getattr(one.tokenizer, "backend_tokenizer", None) for one in asked)
    return first is not None and second is not None and first.to_str() == second.to_str()
