"""Task files that are lm-evaluation-harness's own, with public data in local files in place of the
hub's: HellaSwag with no shots and with 10, TruthfulQA's MC1 and MC2, MMLU, GSM8K.
"""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl

NAMES = ("hellaswag_0", "hellaswag_10", "truthfulqa_mc1", "truthfulqa_mc2", "mmlu_anatomy",
         "mmlu_astronomy", "gsm8k")  # fmt: skip
PREFIX = "local_"
"""Of their names: they are not the hub's."""
_N_TRAIN = 1000
Rows = Sequence[Mapping[str, Any]]


def write_tasks(folder: Path, data: Path, limit: int | None) -> None:
    """The task files and their rows, the first of each if limit is set. data: the benchmarks'
    public files.
    """
    import lm_eval
    import yaml

    own = Path(lm_eval.__file__).parent / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for name, shipped, more, splits in _tasks(data):
        files = {}
        for split, rows in splits.items():
            kept = rows[:limit] if split in ("test", "validation") else rows
            path = folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
            files[split] = str(path.resolve())
        content = {
            "include": str(own / shipped),
            "task": PREFIX + name,
            "tag": None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
            **more,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")


def _tasks(data: Path) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Rows]]]:
    """Name, lm-eval's file, what is changed in it, rows by split."""
    with gzip.open(data / "hellaswag" / "validation.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    # The rows are as lm-eval's function leaves them, so that it has nothing to do.
    about = {"process_docs": None, "doc_to_target": "gold"}
    splits = {"validation": rows[:-_N_TRAIN], "train": rows[-_N_TRAIN:]}
    for shots in (0, 10):
        more = {**about, "num_fewshot": shots}
        yield f"hellaswag_{shots}", "hellaswag/hellaswag.yaml", more, splits

    questions = json.loads((data / "truthfulqa" / "mc_task.json").read_text("utf-8"))
    kinds = ("mc1_targets", "mc2_targets")
    rows = [
        {"question": one["question"],
         **{kind: {"choices": list(one[kind]), "labels": list(one[kind].values())}
            for kind in kinds}}
        for one in questions
    ]  # fmt: skip
    for kind in ("mc1", "mc2"):
        yield (
            f"truthfulqa_{kind}",
            f"truthfulqa/truthfulqa_{kind}.yaml",
            {},
            {"validation": rows},
        )

    for subject in ("anatomy", "astronomy"):
        description = (
            f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        )
        more = {"description": description, "num_fewshot": 5}
        both = {split: list(_mmlu(data, split, subject)) for split in ("dev", "test")}
        yield f"mmlu_{subject}", "mmlu/default/_default_template_yaml", more, both

    test, train = (
        list(islice(read_jsonl((data / "gsm8k" / f"{split}.jsonl").read_bytes()), n))
        for split, n in (("test", None), ("train", _N_TRAIN))
    )
    yield "gsm8k", "gsm8k/gsm8k.yaml", {}, {"test": test, "train": train}


def _mmlu(data: Path, split: str, subject: str) -> Iterator[Mapping[str, Any]]:
    path = data / "mmlu" / split / f"{subject}_{split}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            yield {"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])}
