"""The callback that evals/README.md shows, in a real trainer, on the embedded model cut short."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.real_engine import ROOT, cut_short

TRAINING = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
start, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(start)
ids = tokenizer("Two and two is four.")["input_ids"]
how = TrainingArguments(
    out, max_steps=1, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
    learning_rate=1e-3,
)
Trainer(
    AutoModelForCausalLM.from_pretrained(start),
    how,
    train_dataset=[{"input_ids": ids, "labels": ids}] * 2,
    processing_class=tokenizer,
    callbacks=[Rows()],
).train()
"""


def test_it_gives_the_row_of_the_checkpoint_that_was_saved(tmp_path: Path) -> None:
    text = (ROOT / "evals" / "README.md").read_text("utf-8")
    (shown,) = (
        code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "Trainer" in code
    )
    # A share of a GPU; on a CPU the memory that an engine takes is a variable's to say.
    shown = shown.replace("gpu_memory_utilization=0.3", 'limit=1, tasks="mmlu,ifeval"')
    start = cut_short(tmp_path / "start", 2)
    done = subprocess.run(
        [sys.executable, "-c", shown + TRAINING, str(start), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(
        (tmp_path / "out" / "evals" / "checkpoint-1" / "summary.json").read_text("utf-8")
    )
    assert summary["cells"]["mmlu"]["n"] == summary["cells"]["ifeval"]["n"] == 1
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("1 {'mmlu'"))
    assert f"'ifeval': {100 * summary['cells']['ifeval']['value']}" in said
