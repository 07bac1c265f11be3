"""Which judge decides what. A judge is any generator, or a rule that needs no model (XSTest's
string match).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evals.cards.published import shipped_folder
from evals.models.resolve import public_name
from evals.plan.known_judges import known_judges
from evals.records import Choose, Completion, Finding, Generate, Message, Request, Score
from evals.storage.run_folder import default_folder

CARD_JUDGES: Mapping[str, str] = {
    role: known_judges().by_name[name].model for role, name in known_judges().sets["card"].items()
}


CALIBRATIONS = Path("results") / "calibration"
"""Where `evals judge calibrate` keeps what it found, below the working directory; a run looks
there, then among those that travel with the program.
"""
COUNTED_AS_UNREADABLE = "counted as unreadable verdicts"
"""How the note ends that says how many answers a judge's context did not take."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a judge is asked, where that is not as the protocol says; None leaves the protocol's.

    system: "user" puts the system's message before the user's, for templates without a system's
    turn.  chat_format: of a judge with weights.  max_tokens: room for its answer, reasoning and
    all.
    """

    system: str | None = None
    chat_format: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None

    def words(self) -> str:
        """What is not the protocol's, "" where nothing is."""
        return ", ".join(
            f"{name} {value}" for name, value in asdict(self).items() if value is not None
        )

    def apply(self, ask: Request) -> Request:
        """A question as this judge is asked it."""
        if isinstance(ask, Score):
            return ask
        if self.system == "user":
            ask = replace(ask, messages=_without_system(ask.messages))
        if isinstance(ask, Generate):
            own = {"temperature": self.temperature, "top_p": self.top_p}
            changed: dict[str, Any] = {k: v for k, v in own.items() if v is not None}
            if self.max_tokens is not None:
                changed["max_tokens"] = self.max_tokens
            ask = replace(ask, sampling=replace(ask.sampling, **changed))
        return ask


AS_THE_CARD = Asking()


def _without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    system = "\n\n".join(one.content for one in messages if one.role == "system")
    others = [one for one in messages if one.role != "system"]
    if not system or not others:
        return tuple(messages)
    first = replace(others[0], content=f"{system}\n\n{others[0].content}")
    return (first, *others[1:])


@dataclass(frozen=True, slots=True)
class Judge:
    """Who decides one role. model: a model argument, or the name of a rule when `is_rule`.
    prompt: the name of the benchmark's prompt that it is asked by, "" for the card's.  after: the
    model whose verdicts stand where it gave any; it is not asked again.
    """

    role: str
    model: str
    is_rule: bool = False
    prompt: str = ""
    asking: Asking = AS_THE_CARD
    after: str = ""

    @property
    def rule_fingerprint(self) -> str:
        """What stands for the fingerprint of a rule, which has no weights."""
        return f"rule/{self.model}"

    @property
    def is_card(self) -> bool:
        """True when this is the judge the card was made with, asked as it was."""
        is_same = self.model == CARD_JUDGES.get(self.role)
        return is_same and not (self.prompt or self.after) and self.asking == AS_THE_CARD

    @property
    def mark(self) -> str | None:
        """What a cell decided by this judge must say beside its number;
        None for the card's judge.
        """
        if self.is_card:
            return None
        who = "the authors' string match" if self.is_rule else self.model
        who = f"{self.after} and, for what that left, {who}" if self.after else who
        who += f" by the prompt {self.prompt}" if self.prompt else ""
        who += f" asked with {said}" if (said := self.asking.words()) else ""
        card = CARD_JUDGES.get(self.role, "none")
        return (
            f"{self.role} judged by {who}, not by the card's judge ({card}); not comparable with"
            " published rows"
        )

    def record(self) -> dict[str, Any]:
        """What a summary holds of prompt and asking; nothing where they are the card's."""
        asked = {k: v for k, v in asdict(self.asking).items() if v is not None}
        named = {"prompt": self.prompt, "asked": asked, "after": public_name(self.after)}
        return {k: v for k, v in named.items() if v and (k != "after" or self.after)}


def judge_of_record(role: str, entry: Mapping[str, Any]) -> Judge:
    """The judge of a summary's entry."""
    is_rule = entry["name"] == "strmatch"
    asking = Asking(**entry.get("asked", {}))
    prompt, after = entry.get("prompt", ""), entry.get("after", "")
    return Judge(role, entry["name"], is_rule, prompt, asking, after)


def finding_of(request: Request, answer: Completion, by: str) -> Finding:
    """A judge's answer as evidence: its words, and the probability of the positive candidate, which
    then decides.

    What is no answer of the judge's has no words: no half of a text may pass for its verdict.
    """
    reasoning = answer.outputs[0].reasoning if answer.outputs else None
    if not answer.is_answer:
        ended = next(one.finish_reason for one in answer.outputs if not one.is_answer)
        return Finding(by=by, text="", ended=ended, reasoning=reasoning)
    if isinstance(request, Choose):
        import math

        positive = request.candidates[0][0]
        logprobs = answer.choice_logprobs or {}
        if positive in logprobs:
            # A server's log-probability may come out a little above 0.
            return Finding(
                by=by, text=answer.text or None, probability=min(1.0, math.exp(logprobs[positive]))
            )
        return Finding(by=by, text=answer.text, reasoning=reasoning)
    return Finding(by=by, text=answer.text, top_logprobs=answer.top_logprobs, reasoning=reasoning)


def calibration_file(judge: Judge) -> str:
    """What the file is called in which a calibration of this judge is kept."""
    prompt = f"-{judge.prompt.replace(':', '-')}" if judge.prompt else ""
    return f"{default_folder(public_name(judge.model) + prompt, judge.role)}.json"


def calibration_of(judge: Judge, fingerprint: str | None) -> Mapping[str, Any] | None:
    """What `evals judge calibrate` kept about this very judge, asked this very way; None where
    there is nothing. fingerprint: of its weights, None where they are not known any more.

    Raises OSError, ValueError, LookupError or TypeError where it cannot be read.
    """
    for folder in (CALIBRATIONS, shipped_folder("calibration")):
        path = folder / calibration_file(judge)
        if path.is_file():
            try:
                kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except RecursionError as error:
                raise ValueError(f"{path}: {error}") from None
            how = {name: kept[name] for name in ("prompt", "asked", "after") if name in kept}
            is_same = (kept["judge"], how) == (public_name(judge.model), judge.record())
            return kept if is_same and fingerprint in (None, kept["fingerprint"]) else None
    return None


def calibration_notes(judge: Judge, fingerprint: str) -> list[str]:
    """What a cell says of the judge's calibration; nothing where there is none."""
    try:
        kept = calibration_of(judge, fingerprint)
        return [] if kept is None else [str(kept["line"])]
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = f"cannot be read ({type(error).__name__})"
        return [f"{judge.role}: the calibration {calibration_file(judge)} {why}"]
