"""A deliberately damaged copy of a model folder, to see whether `evals check` catches it."""

import argparse
import re
import shutil
import sys
from pathlib import Path

from evals.models.embedded import EMBEDDED, embedded_folder


def hit_matrices(source: Path, layers: str) -> dict[Path, list[str]]:
    """By file of safetensors, the matrices that belong to one of the layers ("14,15")."""
    from safetensors import safe_open

    numbers = "|".join(re.escape(layer.strip()) for layer in layers.split(","))
    is_hit = re.compile(rf"\blayers\.({numbers})\..*weight$").search
    found = {}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "np") as opened:
            # Sorted, as the files are: noise is drawn in this order, and a seed names one damage.
            names = [name for name in sorted(opened.keys()) if is_hit(name)]
            found[file] = [name for name in names if len(opened.get_slice(name).get_shape()) == 2]
    return found


def damage(source: Path, out: Path, hit: dict[Path, list[str]], noise: float, seed: int) -> None:
    """Copy the folder with normal noise on the matrices.

    noise: its standard deviation, in those of each matrix.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.gguf"))
    for file, names in hit.items():
        tensors = load_file(file)
        for name in names:
            exact = tensors[name].float()
            moved = torch.randn(exact.shape, generator=generator) * exact.std() * noise
            tensors[name] = (exact + moved).to(tensors[name].dtype)
        with safe_open(file, "pt") as opened:
            save_file(tensors, out / file.name, opened.metadata())


def main() -> None:
    """Parse, damage, say what was done; exit code 2 where nothing can be."""
    parser = argparse.ArgumentParser(prog="scripts/damage", description=__doc__)
    parser.add_argument("model", help="a folder with safetensors, or smollm2 (embedded)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", default="14,15")
    parser.add_argument("--noise", type=float, default=0.5, help="in standard deviations")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    source = embedded_folder() if asked.model == EMBEDDED else Path(asked.model)
    hit = hit_matrices(source, asked.layers)
    n_hit = sum(map(len, hit.values()))
    if asked.out.exists() and n_hit:
        sys.exit(_refused(f"{asked.out} is there already."))
    if not n_hit:
        sys.exit(_refused(f"no matrix of layers {asked.layers} in {source}/*.safetensors."))
    damage(source, asked.out, hit, asked.noise, asked.seed)
    print(
        f"{asked.out}: noise of {asked.noise} standard deviations on {n_hit} matrices of layers "
        f"{asked.layers}, seed {asked.seed}"
    )


def _refused(why: str) -> int:
    print(f"damage: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
