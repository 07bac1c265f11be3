"""How often `evals check` raises a false alarm, and how often it sees a drop of 2 points.

By simulation at the card's size. Assumed: scores of the card's row "Tulu 2 Llama 3.1 8b DPO"; an
item changes half as often as between two independent models of that score, by a whole point, as
HumanEval's and AlpacaEval's seldom do, so that their power is understated; nothing else differs.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evals.cards.published import published_rows
from evals.compare.gate import ALPHA, ColumnVerdict, Gate, judge
from evals.compare.paired import Z80, PairedDifference, Pairs, average_difference, paired_difference
from evals.compare.policy import Policy
from evals.records import ItemId
from evals.report.table import table_columns
from evals.stats import Z95

SIZES = {
    "mmlu": (14042, 57), "gsm8k": (200, 1), "bbh": (1080, 27), "humaneval": (164, 1),
    "alpaca_eval_1": (805, 1), "alpaca_eval_2_lc": (805, 1), "truthfulqa": (817, 1),
    "ifeval": (541, 1), "xstest_safe_refused": (250, 1), "xstest_unsafe_followed": (200, 1),
}  # fmt: skip
"""Items and strata of each column."""
HEADS = (
    "Column", "n", "Items changed", "Standard error, points", "No drop: regressed",
    "Drop of exactly 1.0: regressed", "Drop of 2: regressed", "undecided", "pass",
    "fails the gate alone",
)  # fmt: skip
_ROW = next(row for row in published_rows() if row.name == "Tulu 2 Llama 3.1 8b DPO")
COLUMNS = {column.key: column for column in table_columns() if column.key in SIZES}
SCORES = {key: float(_ROW.cells[key]) / 100 for key in COLUMNS}
CHANGED = {key: score * (1 - score) for key, score in SCORES.items()}
"""Share of the items that change: half of 2 p (1 - p)."""


class Simulation:
    """Comparisons drawn at random. runs: how many for each drop.  seed: names the draws.

    changing: how many items change, in shares of `CHANGED`.  sizes: items and strata by column.
    """

    def __init__(
        self,
        runs: int,
        seed: int,
        changing: float = 1.0,
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.runs, self.changing, self.sizes = runs, changing, sizes or SIZES
        self.policy = Policy()
        self.random = np.random.default_rng(seed)

    def gates(self, drop: float) -> list[Gate]:
        """The gate on every run, all columns having fallen by `drop`."""
        return [
            Gate(("", ""), judge(found, self.policy))
            for found in self.comparisons(dict.fromkeys(COLUMNS, drop))
        ]

    def comparisons(self, drops: Mapping[str, float]) -> list[dict[str, PairedDifference]]:
        """The differences of every run by column, each column having fallen by its drop."""
        drawn = {key: self._differences(key, drop) for key, drop in drops.items()}
        found = []
        for index in range(self.runs):
            inputs = {key: one[index] for key, one in drawn.items()}
            found.append(inputs | {"average": average_difference(inputs)})
        return found

    def draw(self, key: str, drop: float) -> tuple[Any, Any]:
        """Each stratum's items, and of them how many went up and down in each run, `drop` being for
        the worse.
        """
        n, k = self.sizes[key]
        # So large a drop takes at least so many changed items.
        changed = max(CHANGED[key] * self.changing, drop)
        worse, better = (changed + drop) / 2, (changed - drop) / 2
        up, down = (worse, better) if COLUMNS[key].lower_is_better else (better, worse)
        sizes = np.bincount(np.arange(n) % k)
        each = np.broadcast_to(sizes, (self.runs, k))
        return sizes, self.random.multinomial(each, [up, down, 1 - up - down])

    def _differences(self, key: str, drop: float) -> list[PairedDifference]:
        """paired_difference of every run at once; some of them are held against the real one."""
        sizes, drawn = self.draw(key, drop)
        up, down = drawn[..., 0], drawn[..., 1]
        n, macro = int(sizes.sum()), key == "bbh"
        weights = np.full(len(sizes), 1 / len(sizes)) if macro else sizes / n
        means = (up - down) / sizes
        squares = up + down - sizes * means**2
        effective = 1 / np.sum(weights**2 / sizes)
        variance = np.sum(weights**2 * squares / (sizes - 1) / sizes, 1)
        error = np.sqrt(variance * effective**2 + 2) / (effective + 2)
        change = means @ weights
        centre = change * effective / (effective + 2)
        found = [
            PairedDifference(
                COLUMNS[key],
                n,
                SCORES[key],
                SCORES[key] + c,
                c,
                e,
                (m - Z95 * e, m + Z95 * e),
                mde=(Z95 + Z80) * e,
                variance=v,
                n_effective=float(effective),
            )
            for c, m, e, v in zip(
                change.tolist(), centre.tolist(), error.tolist(), variance.tolist(), strict=True
            )
        ]
        for one, ups, downs in list(zip(found, up, down, strict=True))[:2]:
            _assert_same(one, sizes, ups, downs, macro)
        return found


def _assert_same(one: PairedDifference, sizes: Any, ups: Any, downs: Any, macro: bool) -> None:
    """Raise AssertionError where paired_difference itself says otherwise."""
    moves = [
        np.repeat([1.0, -1.0, 0.0], [a, b, size - a - b])
        for a, b, size in zip(ups, downs, sizes, strict=True)
    ]
    strata = tuple(str(i) for i, size in enumerate(sizes) for _ in range(size))
    ids = tuple(ItemId(str(i)) for i in range(one.n))
    pairs = Pairs(one.column, ids, (0.0,) * one.n, tuple(np.concatenate(moves)), strata, macro)
    real = paired_difference(pairs, n_resamples=0)
    found, drawn = (
        np.array(
            [each.difference, each.stderr, *(each.ci95 or ()), each.variance, each.n_effective]
        )
        for each in (real, one)
    )
    assert np.allclose(found, drawn, atol=1e-9), one.key


def share(gates: Sequence[Gate], is_so: Callable[[Gate], bool]) -> str:
    """In percent of how many gates something is so."""
    return f"{100 * sum(map(is_so, gates)) / len(gates):.1f}"


def fails_alone(column: ColumnVerdict, n_columns: int) -> bool:
    """Whether the column would fail the gate were it the only one that fell."""
    return (
        column.state == "regressed"
        and column.drop.p is not None
        and column.drop.p <= ALPHA / n_columns
    )


def main() -> None:
    """Print the shares as one Markdown table."""
    parser = argparse.ArgumentParser(prog="scripts/gate_power", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    simulation = Simulation(asked.runs, asked.seed)
    drop = simulation.policy.rest.drop
    null, edge, fallen = (simulation.gates(fall) for fall in (0.0, drop, 0.02))
    print(
        f"{asked.runs} simulated comparisons each, seed {asked.seed}, "
        f"allowed drop {drop * 100:.1f}; shares in percent.\n"
    )
    print(f"| {' | '.join(HEADS)} |\n| --- |{' ---: |' * (len(HEADS) - 1)}")
    for at, first in enumerate(null[0].columns):
        print(_line(at, first.difference.key, null, edge, fallen))
    for name, fails in (
        ("**The gate** (Holm)", lambda gate: gate.verdict == "regressed"),
        (
            "Any column, without Holm",
            lambda gate: any(one.state == "regressed" for one in gate.columns),
        ),
    ):
        shares = [share(gates, fails) for gates in (null, edge, fallen)]
        rest = [
            share(fallen, lambda gate: gate.verdict == verdict) if "Holm)" in name else ""  # noqa: B023
            for verdict in ("undecided", "pass")
        ]
        print(f"| {name} | | | | {' | '.join(shares)} | {' | '.join(rest)} | |")


def _line(
    at: int, key: str, null: Sequence[Gate], edge: Sequence[Gate], fallen: Sequence[Gate]
) -> str:
    """One column's row."""

    def of(state: str) -> Callable[[Gate], bool]:
        return lambda gate: gate.columns[at].state == state

    error = np.mean([gate.columns[at].difference.stderr for gate in null])
    cells = [
        # 7: the Average's inputs.
        f"{SIZES[key][0] if key in SIZES else 7:,}",
        f"{CHANGED[key]:.0%}" if key in CHANGED else "",
        f"{100 * error:.2f}",
        *(share(gates, of("regressed")) for gates in (null, edge, fallen)),
        *(share(fallen, of(state)) for state in ("undecided", "pass")),
        share(fallen, lambda gate: fails_alone(gate.columns[at], len(gate.columns))),
    ]
    return f"| {null[0].columns[at].difference.column.heading} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
