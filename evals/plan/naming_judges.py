"""The words of --judge: which judge decides what, and what became of those it means."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark, roles_of
from evals.cards.published import shipped
from evals.cards.toml import read_toml
from evals.errors import InputError, first_line, nearest
from evals.models.resolve import OPENAI_URL
from evals.plan.judges import AS_THE_CARD, CARD_JUDGES, Asking, Judge
from evals.plan.known_judges import known_judges

FORMS = (
    "write ROLE=MODEL, all=MODEL or card; or ROLE=NAME (evals judge list has the names),"
    " alpaca_eval_2=annotator:NAME, current, or a file FILE.toml"
)


def parse_judges(
    arguments: Sequence[str], rules: Mapping[str, Sequence[str]], extra_roles: Sequence[str] = ()
) -> dict[str, Judge]:
    """`--judge` arguments as judges by role: ROLE=MODEL, or a set: all=MODEL, card, current,
    FILE.toml. What names a role goes before a set; ROLE+=MODEL decides what the role's judge left.

    rules: role -> names of the rules that can decide it.  An annotator's judge has no model yet.
    Raises InputError on an unknown role or form, with the nearest names; and where a role is given
    two judges.
    """
    roles = tuple(dict.fromkeys((*CARD_JUDGES, *extra_roles)))
    of_set: dict[str, Judge] = {}
    named: dict[str, Judge] = {}
    rest: dict[str, Judge] = {}
    for argument in arguments:
        role, _, model = argument.partition("=")
        into = rest if role.endswith("+") else named
        role = role.removesuffix("+")
        if argument.partition("@")[0] in known_judges().sets:
            found, into = _of_set(argument), of_set
        elif argument.endswith(".toml") and role not in (*roles, "all"):
            found, into = _of_file(Path(argument), roles, rules), of_set
        elif not model:
            meant = nearest(argument, known_judges().sets)
            hint = f" {meant}" if meant.startswith("Did you mean") else ""
            raise InputError(f"--judge {argument}: {FORMS}. Roles: {', '.join(roles)}.{hint}")
        elif role == "all":
            able = [name for name, known in rules.items() if model in known]
            found, into = [_judge(name, model, rules, argument) for name in able or roles], of_set
        elif role not in roles:
            raise InputError(
                f"--judge {argument}: unknown role {role!r}. {nearest(role, (*roles, 'all'))}"
            )
        else:
            found = [_judge(role, model, rules, argument)]
        for one in found:
            if into.setdefault(one.role, one) != one:
                raise InputError(
                    f"--judge {argument}: {one.role} is given two judges, {into[one.role].model}"
                    f" and {one.model}. Name one."
                )
    found_all = {**of_set, **named}
    for role, judge in rest.items():
        found_all[role] = _after(found_all.get(role), judge)
    return {role: _at_own_url(found_all[role]) for role in sorted(found_all, key=roles.index)}


def _after(first: Judge | None, second: Judge) -> Judge:
    """The second judge, for what the first has left. Raises InputError where they do not mix."""
    what = f"--judge {second.role}+={second.model or second.prompt}"
    if first is None:
        raise InputError(
            f"{what}: name whose verdicts shall stand, too: --judge {second.role}=MODEL."
        )
    if first.is_rule or second.is_rule or not second.model or first.prompt != second.prompt:
        raise InputError(
            f"{what}: it must be a model that is asked by the same prompt as {first.model}. Let it"
            f" decide all: --judge {second.role}=MODEL."
        )
    return replace(second, asking=first.asking, after=first.model)


def _of_set(argument: str) -> list[Judge]:
    """`card`, `current`; with @URL, its judges of a service asked at another address."""
    name, at, url = argument.partition("@")
    known = known_judges()
    found = [Judge(role, known.by_name[one].model) for role, one in known.sets[name].items()]
    return [
        replace(one, model=f"{one.model}@{url}") if at and one.model.startswith("openai:") else one
        for one in found
    ]


def _at_own_url(judge: Judge) -> Judge:
    """The judge at OPENAI_BASE_URL, where that is set and the judge names no address: another
    service's model, whatever it is called, and so never taken for the card's. One address has one
    spelling, so that two roles of a model there are one judge.
    """
    url = os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/")
    if not judge.model.startswith("openai:"):
        return judge
    if "@" in judge.model or url in ("", OPENAI_URL):
        return replace(judge, model=judge.model.rstrip("/").removesuffix(f"@{OPENAI_URL}"))
    return replace(judge, model=f"{judge.model}@{url}")


def _judge(role: str, model: str, rules: Mapping[str, Sequence[str]], argument: str) -> Judge:
    """A judge from the words behind a role."""
    able = [name for name, known in rules.items() if model in known]
    if able and role not in able:
        raise InputError(
            f"--judge {argument}: {model} is a rule that decides {', '.join(able)} only. Name a"
            f" model for {role}."
        )
    if able:
        return Judge(role, model, is_rule=True)
    if model.startswith("annotator:"):
        return Judge(role, "", prompt=model)
    known = known_judges().by_name.get(model)
    if known is None:
        return Judge(role, model)
    if known.roles and role not in known.roles:
        raise InputError(
            f"--judge {argument}: {model} decides {', '.join(known.roles)} only. Name another for"
            f" {role}."
        )
    return Judge(role, known.model, prompt=known.prompt)


def _of_file(path: Path, roles: Sequence[str], rules: Mapping[str, Sequence[str]]) -> list[Judge]:
    """The judges of a file: a table a role with `model`, and as far as they are not the card's
    `prompt` and the fields of Asking.
    """
    try:
        table = read_toml(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--judge {path}: cannot be read ({first_line(error)}).") from None
    if not table:
        raise InputError(f"--judge {path} names no judge: write a table a role, e.g. [xstest].")
    found = []
    for role, entry in table.items():
        where = f"--judge {path}, [{role}]"
        if role not in roles:
            raise InputError(f"{where}: unknown role {role!r}. {nearest(role, roles)}")
        if not isinstance(entry, dict):
            raise InputError(f"{where}: write a table, with model = and a model's name.")
        own = dict(entry)
        model, prompt = own.pop("model", ""), own.pop("prompt", "")
        if not (isinstance(model, str) and isinstance(prompt, str) and (model or prompt)):
            raise InputError(f"{where}: model and prompt are names, and one of them must be there.")
        judge = _judge(role, model or prompt, rules, f"{role}={model or prompt}")
        asking = _asking(own, where)
        if judge.is_rule and (prompt or asking != AS_THE_CARD):
            raise InputError(f"{where}: {model} is a rule, which is asked nothing.")
        found.append(replace(judge, prompt=prompt or judge.prompt, asking=asking))
    return found


_CHECKS: Mapping[str, tuple[str, Any]] = {
    "system": ('"user"', lambda v: v == "user"),
    "chat_format": ("tulu, tokenizer or none", lambda v: v in ("tulu", "tokenizer", "none")),
    "temperature": ("0 to 2", lambda v: _is_number(v) and 0 <= v <= 2),
    "top_p": ("above 0, at most 1", lambda v: _is_number(v) and 0 < v <= 1),
    "max_tokens": ("a whole number, 1 or more", lambda v: type(v) is int and v >= 1),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _asking(given: Mapping[str, Any], where: str) -> Asking:
    for name, value in given.items():
        if name not in _CHECKS:
            names = [one.name for one in fields(Asking)]
            raise InputError(
                f"{where}: unknown {name!r}. {nearest(name, ('model', 'prompt', *names))}"
            )
        form, is_good = _CHECKS[name]
        if not is_good(value):
            raise InputError(f"{where}: {name} = {value!r}; give {form}.")
    return Asking(**given)


# --- judges for benchmarks ------------------------------------------------------------------------


def judges_of(
    arguments: Sequence[str], classes: Iterable[type[Benchmark[Any]]]
) -> dict[str, Judge]:
    """The judges that --judge names, with their models. Raises InputError also where a prompt does
    not exist or is none of the role's, and where one model is asked in two chat formats, or a
    server in any.
    """
    classes = list(classes)
    rules = {role: tuple(cls.rules) for cls in classes for role in cls.judge_roles}
    judges = parse_judges(arguments, rules, tuple(rules))
    for cls in classes:
        own = {
            role: judges[role].prompt
            for role in cls.judge_roles
            if role in judges and judges[role].prompt
        }
        if not own:
            continue
        benchmark = cls(chat=True)
        try:
            benchmark.take_prompts(own)
        except LookupError as error:
            raise InputError(f"--judge: {error.args[0]}") from None
        for role in own:
            model = judges[role].model or benchmark.prompts_model(role)
            judges[role] = _at_own_url(replace(judges[role], model=model))
    formats: dict[str, set[str | None]] = {}
    for role, judge in judges.items():
        if judge.asking.chat_format and judge.model.startswith("openai:"):
            raise InputError(
                f"--judge: the {role} judge is a server, which renders its questions itself:"
                " chat_format goes with weights."
            )
        formats.setdefault(judge.model, set()).add(judge.asking.chat_format)
    for model, found in formats.items():
        if len(found) > 1:
            raise InputError(f"--judge: {model} is to be asked in two chat formats. Choose one.")
    return judges


def prompts_of_judges(judges: Mapping[str, Judge], roles: Sequence[str]) -> dict[str, str]:
    """The prompts that are not the card's, by role."""
    return {r: judges[r].prompt for r in roles if r in judges and judges[r].prompt}


def gone(judges: Mapping[str, Judge], today: date) -> dict[str, str]:
    """Judges that nobody can ask any more, by role: since when, and who can decide instead."""
    found = {}
    for role, judge in judges.items():
        known = known_judges().of_model(judge.model)
        if known is not None and not judge.is_rule and known.is_gone(today):
            found[role] = f"{known.name} is {known.life(today)}"
    return found


def instead(role: str, today: date) -> str:
    """The flags that name a judge of the role that can be had."""
    known = known_judges()
    able = [
        one.name
        for one in known.by_name.values()
        if not one.is_gone(today) and (not one.roles or role in one.roles)
    ]
    able.sort(key=lambda name: name != known.sets["current"].get(role))
    flags = [f"--judge {role}={name}" for name in able]
    return " or ".join([*flags, f"any other model, --judge {role}=MODEL"])


def columns_of(cls: type[Benchmark[Any]], role: str) -> list[str]:
    """The headings of the default card's columns that a role decides."""
    return [
        column.heading
        for column in shipped().columns
        if column.benchmark == cls.name and role in roles_of(cls, column.metric)
    ]


def refusal(lost: Mapping[str, str], classes: Iterable[type[Benchmark[Any]]], today: date) -> str:
    """What to say of judges that are gone: which columns they decided, and what can be used."""
    lines = []
    for cls in classes:
        for role in cls.judge_roles:
            if role in lost:
                decides = columns_of(cls, role)
                lines.append(
                    f"Judge of {role} ({', '.join(decides)}): {lost[role]}. Instead:"
                    f" {instead(role, today)}."
                )
    lines.append(
        "All of them at once: --judge current. Its cells say that another judge decided, and are"
        " not comparable with published rows. Whoever serves these models at an address of their"
        " own: --judge card@URL."
    )
    return "\n".join(lines)
