"""Which judge decides what. A judge is any generator, or a rule that needs no model (XSTest's
string match).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.errors import InputError, nearest
from evals.models.resolve import public_name
from evals.records import Choose, Completion, Finding, Request
from evals.storage.run_folder import default_folder

ROLES = ("alpaca_eval_1", "alpaca_eval_2", "xstest", "truth", "info")
CARD_JUDGES: Mapping[str, str] = {
    "alpaca_eval_1": "openai:gpt-4-0613",
    "alpaca_eval_2": "openai:gpt-4-1106-preview",
    "xstest": "openai:gpt-4-0613",
    "truth": "allenai/truthfulqa-truth-judge-llama2-7B",
    "info": "allenai/truthfulqa-info-judge-llama2-7B",
}


CALIBRATIONS = Path("results") / "calibration"
"""Where `evals judge calibrate` keeps what it found, below the working directory; a run looks
there, then in the clone.
"""
COUNTED_AS_UNREADABLE = "counted as unreadable verdicts"
"""How the note ends that says how many answers a judge's context did not take."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Who decides one role. model: a model argument, or the name of a rule when `is_rule`."""

    role: str
    model: str
    is_rule: bool = False

    @property
    def rule_fingerprint(self) -> str:
        """What stands for the fingerprint of a rule, which has no weights."""
        return f"rule/{self.model}"

    @property
    def is_card(self) -> bool:
        """True when this is the judge the card was made with."""
        return self.model == CARD_JUDGES.get(self.role)

    @property
    def mark(self) -> str | None:
        """What a cell decided by this judge must say beside its number;
        None for the card's judge.
        """
        if self.is_card:
            return None
        who = "the authors' string match" if self.is_rule else self.model
        card = CARD_JUDGES.get(self.role, "none")
        return (
            f"{self.role} judged by {who}, not by the card's judge ({card}); not comparable with"
            " published rows"
        )


def parse_judges(
    arguments: Sequence[str], rules: Mapping[str, Sequence[str]], extra_roles: Sequence[str] = ()
) -> dict[str, Judge]:
    """`--judge` arguments as judges by role: ROLE=MODEL, all=MODEL, or `card`. A later argument
    wins.

    rules: role -> names of the rules that can decide it.  Raises InputError on an unknown role or
    form, with the nearest names.
    """
    roles = (*ROLES, *(role for role in extra_roles if role not in ROLES))
    judges: dict[str, Judge] = {}
    for argument in arguments:
        role, _, model = argument.partition("=")
        if argument == "card":
            judges.update({name: Judge(name, found) for name, found in CARD_JUDGES.items()})
        elif not model:
            raise InputError(
                f"--judge {argument}: write ROLE=MODEL, all=MODEL or card. Roles:"
                f" {', '.join(roles)}."
            )
        elif role == "all":
            able = [name for name, known in rules.items() if model in known]
            judges.update({name: Judge(name, model, is_rule=bool(able)) for name in able or roles})
        elif role not in roles:
            raise InputError(
                f"--judge {argument}: unknown role {role!r}. {nearest(role, (*roles, 'all'))}"
            )
        elif (
            role not in (able := [name for name, known in rules.items() if model in known]) and able
        ):
            raise InputError(
                f"--judge {argument}: {model} is a rule that decides {', '.join(able)} only. Name a"
                f" model for {role}."
            )
        else:
            judges[role] = Judge(role, model, is_rule=model in rules.get(role, ()))
    return judges


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


def calibration_notes(role: str, name: str, fingerprint: str) -> list[str]:
    """What `evals judge calibrate` found about this very judge, as its file in CALIBRATIONS says;
    nothing where there is none.
    """
    for folder in (CALIBRATIONS, Path(__file__).resolve().parents[2] / CALIBRATIONS):
        path = folder / f"{default_folder(public_name(name), role)}.json"
        if path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                return (
                    [str(kept["line"])]
                    if (kept["judge"], kept["fingerprint"]) == (public_name(name), fingerprint)
                    else []
                )
            except (OSError, ValueError, LookupError, TypeError) as error:
                return [
                    f"{role}: the calibration {path.name} cannot be read ({type(error).__name__})"
                ]
    return []
