"""Several adapters of one base in one command: a run each."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evals.errors import InputError
from evals.models.adapters import CONFIG
from evals.plan.make import Plan, make_plan
from evals.plan.settings import RunSettings
from evals.storage.run_folder import default_folder


def of_each(settings: RunSettings, adapters: Sequence[str]) -> list[RunSettings]:
    """One run's settings for each adapter. The settings' model, "" for none, is their base; of
    several, `out` is the folder that theirs go below.

    Raises InputError where one base is named twice, or two runs would have one folder.
    """
    if settings.model and settings.base:
        raise InputError(
            f"With --adapter, MODEL is the base: {settings.model}. Leave out --base"
            f" {settings.base}, or MODEL."
        )
    base = settings.model or settings.base
    each = [
        replace(
            settings,
            model=adapter,
            base=base or None,
            base_revision=settings.base_revision or settings.revision,
            revision=None,
        )
        for adapter in adapters
    ]
    if len(adapters) == 1:
        return each
    if settings.name:
        raise InputError(
            f"--name {settings.name} is one row's, and several adapters have a row each: leave it"
            " out."
        )
    folders = [default_folder(_name(adapter), settings.suite) for adapter in adapters]
    if twice := [one for one, folder in zip(adapters, folders, strict=True)
                 if folders.count(folder) > 1]:  # fmt: skip
        raise InputError(
            f"{' and '.join(twice)} would share the run folder {folders[adapters.index(twice[0])]}:"
            " run them one by one, with --out, or rename them."
        )
    below = settings.out
    return [
        replace(one, out=below / folder if below else None)
        for one, folder in zip(each, folders, strict=True)
    ]


def _name(adapter: str) -> str:
    folder = Path(os.path.expanduser(adapter))
    return folder.resolve().name if os.path.isdir(folder) else adapter.rpartition("/")[2]


def make_plans(each: Sequence[RunSettings]) -> list[Plan]:
    """A plan of each. Raises InputError for whatever is wrong with one, where one is no adapter,
    and where their bases are not the same: one engine holds one.
    """
    plans = [make_plan(settings) for settings in each]
    if whole := [plan.model.argument for plan in plans if plan.model.adapter is None]:
        raise InputError(
            f"--adapter {whole[0]} is no adapter (it holds no {CONFIG}): run it on its own."
        )
    bases = {(plan.model.source, plan.model.revision): plan.model for plan in plans}
    if len(bases) > 1:
        of = [
            f"{one.argument} of {one.base.argument if one.base else one.argument}"
            for one in bases.values()
        ]
        raise InputError(
            f"Adapters of one command have one base: here {', '.join(of)}. Name it with --base"
            " MODEL, or run them apart."
        )
    return plans
