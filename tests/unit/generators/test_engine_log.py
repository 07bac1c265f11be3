"""An engine's log, as vLLM writes it, tells where its start is and how it ended."""

from pathlib import Path

import pytest

from evals.generators.engine_log import last_lines, phase

LINES = (
    ("INFO [api_utils.py:286] non-default args: {'enforce_eager': True}", "starting"),
    ("WARNING Enforce eager set, disabling torch.compile, CUDAGraphs, and", "starting"),
    ("INFO Initializing a V1 LLM engine with config: 'cudagraph_mode': 1", "starting"),
    ("Fetching 4 files:  25%|##5       | 1/4", "downloading weights"),
    ("INFO [cpu_model_runner.py:68] Starting to load model /m...", "loading weights"),
    ("Loading safetensors checkpoint shards:  50% Completed | 2/4", "loading weights"),
    ("INFO [default_loader.py:501] Loading weights took 0.73 seconds", "weights loaded"),
    ("INFO Model loading took 14.99 GiB memory and 12.1 seconds", "weights loaded"),
    ("INFO [backends.py:1167] Dynamo bytecode transform time: 4.21 s", "compiling"),
    ("INFO torch.compile took 31.02 s in total", "compiling"),
    ("INFO [kv_cache_utils.py:2327] GPU KV cache size: 23,296 tokens, Maximum", "warming up"),
    ("Capturing CUDA graphs (PIECEWISE):   3%|3", "capturing graphs"),
    ("INFO Graph capturing finished in 20 secs, took 0.62 GiB", "capturing graphs"),
)  # fmt: skip


def test_each_phase_is_told_by_the_last_line_that_tells_of_one(tmp_path: Path) -> None:
    log = tmp_path / "copy-1.log"
    assert phase(log) == "starting"
    written = ""
    for line, name in LINES:
        written += f"(EngineCore pid=7) {line}\r"  # bars end their lines so
        log.write_text(written)
        assert phase(log) == name, line
    log.write_text(written + "\nWARNING something else\n")
    assert phase(log) == "capturing graphs"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ", and empty."),
        ("one\n\n  two \n", "; it ends:\n    one\n      two"),
        ("\n".join(map(str, range(100))), "; it ends:\n    92\n" + "".join(
            f"    {n}\n" for n in range(93, 100))),
        ("x" * 5000, "; it ends:\n    " + "x" * 300),
    ],
)  # fmt: skip
def test_the_end_of_a_log_is_short(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    assert last_lines(tmp_path / "log") == f"Its log is {tmp_path / 'log'}{says}".rstrip()
