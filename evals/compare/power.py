"""What drop a limited run could show, said before it is paid for."""

from evals.compare.paired import PairedDifference, Pairs, average_difference, paired_difference
from evals.compare.policy import Policy
from evals.compare.words import in_points
from evals.plan.make import Plan
from evals.records import Column, Grade, ItemId

CHANGED = 0.2
"""Share of the items taken to change their score between two checkpoints, up or down."""


def planned_difference(column: Column, n: int, changed: float = CHANGED) -> PairedDifference:
    """What two runs of n items would give if the share `changed` of them changed, as many up as
    down; its mde is the point.
    """
    n_changed = round(changed * n)
    before = [float(i < n_changed and i % 2 == 0) for i in range(n)]
    after = [float(i < n_changed and i % 2 == 1) for i in range(n)]
    return paired_difference(
        Pairs(column, (ItemId(""),) * n, tuple(before), tuple(after), ("",) * n), n_resamples=0
    )


def detectable_drops(plan: Plan) -> dict[str, float]:
    """Column heading -> the smallest true drop, a fraction, that `evals check` calls regressed in
    80 of 100 cases (above 1: none).

    For columns that will be asked for, and the Average where all its inputs are.
    """
    found: dict[str, PairedDifference] = {}
    for task in plan.tasks.values():
        planned = task.benchmark.summarize(
            [Grade(item.id, item.group, {}, missing="not answered") for item in task.items]
        )
        for column in task.benchmark.columns if not task.skipped else ():
            if not column.is_share:
                continue  # it has no points
            found[column.key] = planned_difference(column, planned[column.metric].n_items)
    everything = [*found.values(), average_difference(found, plan.card.average)]
    return {
        one.column.heading: Policy().rest.drop + one.mde
        for one in everything
        if one.mde is not None
    }


def sentence(plan: Plan) -> str:
    """The drops in one sentence, in points."""
    drops = in_points(detectable_drops(plan))
    allowed = f"{Policy().rest.drop * 100:.1f}"
    return (
        f"limit {plan.settings.limit}: the smallest drop, in points, that `evals check` with an"
        f" allowed drop of {allowed} would call regressed in 80 of 100 cases, if {CHANGED:.0%} of"
        f" the items change their score: {drops}"
    )
