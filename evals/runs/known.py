"""What a run has found out so far about its items."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evals.models.prompts import Rendered
from evals.plan.questions import Question
from evals.records import Finding, ItemId
from evals.runs.grading import Graded
from evals.storage.spool import Spool


@dataclass
class Known:
    """What is known so far.

    places: of items without an answer: their task and their place in it.  keys: by task, in item
    order, where in the store the answer is.  graded: by task, in item order, those that wait for
    nothing.  findings: of those that wait.
    capped: by task that was asked as a whole, how many requests are cut to the room left in the
    model's context.
    questions: by judge's model.  n_ready: by task, so many of its first items are graded.  n_bos:
    begin-of-sequence ids of the first prompt, None while there
    is none.
    """

    places: dict[ItemId, tuple[str, int]] = field(default_factory=dict)
    keys: defaultdict[str, Spool[str]] = field(default_factory=lambda: defaultdict(Spool))
    graded: defaultdict[str, Spool[Graded | None]] = field(
        default_factory=lambda: defaultdict(Spool)
    )
    findings: dict[ItemId, dict[str, Finding]] = field(default_factory=dict)
    capped: dict[str, int] = field(default_factory=dict)
    questions: dict[str, list[Question]] = field(default_factory=dict)
    judge_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    n_bos: int | None = None
    n_ready: Counter[str] = field(default_factory=Counter)
    _later: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def expect(self, task: str, places: range, keyed: Sequence[tuple[str, Rendered]]) -> None:
        """These requests are asked for neighbouring items of a task, each with its store key, in
        the items' order.
        """
        self.places.update(
            {
                request.item_id: (task, place)
                # A skipped task has items, but no requests.
                for place, (_, request) in zip(places, keyed, strict=False)
            }
        )
        self.graded[task].extend(None for _ in keyed)
        self.keys[task].extend(key for key, _ in keyed)

    def grade(self, task: str, place: int, graded: Graded) -> None:
        """An item waits for nothing more."""
        self.graded[task][place] = graded
        later = self._later[task]
        later.add(place)
        while self.n_ready[task] in later:
            later.remove(self.n_ready[task])
            self.n_ready[task] += 1

    def found(self, item_id: ItemId, check: str, finding: Finding) -> None:
        """A check of an item that waits is decided."""
        self.findings[item_id][check] = finding

    @property
    def n_unjudged(self) -> int:
        """Questions that no judge has answered."""
        asked = (question for questions in self.questions.values() for question in questions)
        return sum(question.role not in self.findings[question.item_id] for question in asked)
