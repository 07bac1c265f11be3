"""AlpacaEval 1 and 2: open instructions, a judge that prefers the model's answer or a reference's.

Papers: Li et al. 2023, "AlpacaEval: An Automatic Evaluator of Instruction-following Models"; Dubois
et al. 2024, "Length-Controlled AlpacaEval" (arXiv 2404.04475). Data:
https://github.com/tatsu-lab/alpaca_eval, hub tatsu-lab/alpaca_eval (non-commercial use).

Protocol: the instruction is the single user turn; greedy, at most 8,192 new tokens. One answer
serves both columns. AlpacaEval 1:
gpt-4 ranks it against text-davinci-003's; the win rate. AlpacaEval 2: gpt-4-1106-preview names the
better of it and gpt-4-1106-preview's own answer, weighted by the log-probabilities of the two
names; the win rate a logistic fit predicts at equal lengths. Which answer the judge reads first
depends on the instruction alone (tasks/alpaca_judges.py). Annotations that cannot be read leave the
denominator.

Differs from the published set-up in:
- The judges are dated OpenAI models, which are gone; any other judge makes the cells
  approximations. It is asked by the card's prompt, or by another annotator of the package.
- The chat turns of a judge's prompt are split before the answers are filled in: an answer that
  contains `<|im_end|>` cannot rewrite the judge's prompt. Answers without such marks give the same
  messages.
- The length-controlled fit needs df_gamed.csv of the hub's repository; without it the cell is
  empty, never another number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evals import stats
from evals.benchmark import ANY_NUMBER, Benchmark, roles_needed, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row, read_csv, read_json
from evals.errors import InputError
from evals.records import (
    Check,
    Completion,
    Findings,
    Generate,
    Grade,
    Item,
    ItemId,
    Measure,
    Message,
    Metric,
    Sampling,
)
from tasks import length_control
from tasks.alpaca_judges import (
    ANNOTATORS,
    DRAW,
    PREFIX,
    annotator,
    judge_request,
    preference_for_model,
)

_FIELDS = ("dataset", "instruction", "output", "generator")


@dataclass(frozen=True)
class Settings:
    """AlpacaEval's settings."""

    max_new_tokens: int = setting(8192, "new tokens at most", ANY_NUMBER)


@dataclass(frozen=True)
class AlpacaItem(Item):
    """One instruction. references: judge's role -> the answer the model's is compared with."""

    instruction: str
    references: Mapping[str, str]


def _last_column(row: Row) -> Row:
    return {"instruction_difficulty": list(row.values())[-1]}


class AlpacaEval(Benchmark[AlpacaItem]):
    """AlpacaEval under the card's protocol: both columns from one answer.

    gamed: rows of df_gamed.csv, kept by `items` for `summarize`, which alone needs them; empty when
    the data has none.
    """

    name = "alpaca_eval"
    Settings = Settings
    metrics = (
        Measure("alpaca_eval_1", "share won against text-davinci-003", "win_rate"),
        Measure(
            "alpaca_eval_2_lc",
            "share won against gpt-4-1106-preview, as if both answers were equally long",
            "length_controlled_win_rate",
        ),
        Measure(
            "alpaca_eval_2_win_rate", "share won against gpt-4-1106-preview as it is", "win_rate"
        ),
    )
    headline = ("alpaca_eval_1", "alpaca_eval_2_lc")
    judge_roles = tuple(ANNOTATORS)
    labels: ClassVar[Mapping[str, Mapping[str, float]]] = {
        role: {"model": 1.0, "draw": 0.5, "reference": 0.0} for role in ANNOTATORS
    }
    parts = "sources"
    usual_tokens = 400
    runs_on_base = False
    dataset = Dataset(
        name="alpaca_eval",
        hub_id="tatsu-lab/alpaca_eval",
        licence="CC-BY-NC-4.0",
        url="https://github.com/tatsu-lab/alpaca_eval",
        revision="2edc6fad8be6b14ea7230aabfd08188da6b8b814",
        tables={
            "references_1": Table(
                "alpaca_eval/alpaca_eval.json",
                _FIELDS,
                read_json,
                HubTable(file="alpaca_eval.json"),
            ),
            "references_2": Table(
                "alpaca_eval/alpaca_eval_gpt4_baseline.json",
                _FIELDS,
                read_json,
                HubTable(file="alpaca_eval_gpt4_baseline.json"),
            ),
            "df_gamed": Table(
                "alpaca_eval/df_gamed.csv",
                length_control.GAMED_FIELDS,
                read_csv,
                HubTable(file="df_gamed.csv"),
                optional=True,
            ),
            "difficulties": Table(
                "alpaca_eval/instruction_difficulty.recovered.csv",
                ("instruction_difficulty",),
                read_csv,
                HubTable(file="instruction_difficulty.csv", adapt=_last_column),
                optional=True,
            ),
        },
    )

    gamed: Sequence[Row] = ()

    def take_prompts(self, prompts: Mapping[str, str]) -> None:
        """Annotators of the package, as PREFIX and their names."""
        for role, name in prompts.items():
            if not name.startswith(PREFIX):
                raise InputError(
                    f"{role} has no judge's prompt called {name!r}: write {PREFIX}NAME with an"
                    " annotator of the package alpaca_eval."
                )
            annotator(name)
        self.prompts = dict(prompts)

    def prompts_model(self, role: str) -> str:
        """The model that the annotator's configuration names."""
        return annotator(self.prompts[role]).model

    def _by(self, role: str) -> tuple[str, ...]:
        return (self.prompts[role],) if role in self.prompts else ()

    def items(self, source: Source) -> Sequence[AlpacaItem]:
        """All instructions in file order. Raises InputError where the two reference files disagree
        about a row.
        """
        self.gamed = source.rows("df_gamed")
        first, second = source.rows("references_1"), source.rows("references_2")
        if len(first) != len(second):
            raise InputError(
                f"alpaca_eval: {len(first)} references in alpaca_eval.json, {len(second)} in"
                " alpaca_eval_gpt4_baseline.json."
            )
        return [_item(*rows, index) for index, rows in enumerate(zip(first, second, strict=True))]

    def lacks(self) -> Sequence[str]:
        """The file that the length-controlled fit needs."""
        if self.gamed or "alpaca_eval_2" not in roles_needed(self, self.columns):
            return ()
        return (
            "alpaca_eval_2: AlpacaEval 2 LC will be -, since its length-controlled fit needs"
            " alpaca_eval/df_gamed.csv, and the data has none. Bring it with: evals data fetch"
            " alpaca_eval - or put the file df_gamed.csv of the hub's dataset tatsu-lab/alpaca_eval"
            " into the folder alpaca_eval of your data.",
        )

    def _references(self, item: AlpacaItem) -> Mapping[str, str]:
        """Of the judges that its columns need: of two variants each may have one of them."""
        needed = roles_needed(self, self.columns)
        return {role: text for role, text in item.references.items() if role in needed}

    def request(self, item: AlpacaItem) -> Generate:
        """The instruction as it is."""
        most = self.settings.max_new_tokens
        return Generate((Message("user", item.instruction),), Sampling(max_tokens=most))

    def checks(self, item: AlpacaItem, answer: Completion) -> Sequence[Check]:
        """Each judge's question; none where the answer equals the reference, which is a draw."""
        return [
            Check(
                role, judge_request(role, item.instruction, reference, answer.text, *self._by(role))
            )
            for role, reference in self._references(item).items()
            if answer.text != reference
        ]

    def grade(self, item: AlpacaItem, answer: Completion, findings: Findings) -> Grade:
        """Preferences for the model from 0 (reference) to 1 (model), by judge's role.

        A recorded preference is taken as it is (0 is an old way to write a draw); what a judge said
        is read and its order undone.
        """
        preferences: dict[str, float | None] = {}
        references = self._references(item)
        for role, reference in references.items():
            finding = findings.get(role)
            # Equal answers were never judged; only a recording's own preference goes before that.
            if answer.text == reference and (finding is None or finding.preference is None):
                preferences[role] = DRAW
            elif finding is not None:
                preferences[role] = preference_for_model(
                    role, item.instruction, finding, *self._by(role)
                )
        unparsable = [role for role, preference in preferences.items() if preference is None]
        absent = [role for role in references if role not in preferences]
        everything_absent = len(absent) == len(references)
        return Grade(
            item.id,
            item.group,
            {
                # Judges go from 1 to 2, scores from 0 to 1.
                role: preference - 1
                for role, preference in preferences.items()
                if preference is not None
            },
            extracted=dict(preferences),
            unparsed=bool(unparsable),
            missing=(
                ("no alpaca_eval judge" if everything_absent else f"no {absent[0]} judge")
                if absent
                else None
            ),
            details={
                "unparsable": list(unparsable),
                "n_chars": len(answer.text),
                "n_chars_reference": {
                    role: len(reference) for role, reference in references.items()
                },
            },
        )

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Win rates over the annotations that could be read, their unreadable shares, and the
        length-controlled rate.
        """
        weighted = _win_rate(grades, "alpaca_eval_2")
        return {
            "alpaca_eval_1": _win_rate(grades, "alpaca_eval_1"),
            "alpaca_eval_1_unparsable": _unparsable_share(grades, "alpaca_eval_1"),
            "alpaca_eval_2_lc": self._length_controlled(grades, weighted),
            "alpaca_eval_2_win_rate": weighted,
            "alpaca_eval_2_unparsable": _unparsable_share(grades, "alpaca_eval_2"),
        }

    def replicates(self, grades: Sequence[Grade]) -> Mapping[str, Sequence[float]]:
        """The length-controlled rate's; none without the hub's df_gamed.csv."""
        judged = [length_control.Judged.of(grade, "alpaca_eval_2") for grade in grades]
        return (
            {"alpaca_eval_2_lc": length_control.replicates(judged, self.gamed)}
            if self.gamed
            else {}
        )

    def _length_controlled(self, grades: Sequence[Grade], weighted: Metric) -> Metric:
        if weighted.value is None and weighted.n_items > 0:
            return weighted
        if not self.gamed:
            return stats.unfinished(
                weighted.n, weighted.n_items, "length control needs the hub's df_gamed.csv"
            )
        if weighted.value is None:
            return weighted
        judged = [length_control.Judged.of(grade, "alpaca_eval_2") for grade in grades]
        return length_control.win_rate(judged, self.gamed)


def _item(first: Row, second: Row, index: int) -> AlpacaItem:
    if any(first[name] != second[name] for name in ("instruction", "dataset")):
        raise InputError(
            f"alpaca_eval/{index}: the two reference files hold different instructions in row"
            f" {index}. Replace both."
        )
    references = dict(zip(ANNOTATORS, (first["output"], second["output"]), strict=True))
    return AlpacaItem(
        ItemId(f"alpaca_eval/{index}"), first["dataset"], first["instruction"], references
    )


def _annotated(grades: Sequence[Grade], role: str) -> tuple[list[float], int]:
    """The scores of a role and how many of its annotations could not be read."""
    scores = [grade.scores[role] for grade in grades if role in grade.scores]
    return scores, sum(role in _unparsable(grade) for grade in grades)


def _unparsable(grade: Grade) -> Sequence[Any]:
    roles = grade.details.get("unparsable", [])
    return roles if isinstance(roles, list) else []


def _win_rate(grades: Sequence[Grade], role: str) -> Metric:
    """Mean preference; unreadable annotations leave the denominator, as in the original, absent
    ones withhold the value.
    """
    scores, n_unparsable = _annotated(grades, role)
    if not scores and not n_unparsable:
        return stats.unfinished(0, len(grades), f"no {role} judge")
    if len(scores) + n_unparsable < len(grades):
        return stats.unfinished(len(scores), len(grades))
    if not scores:
        return stats.unfinished(0, 0, "no annotation could be read")
    return stats.mean(scores, len(scores))


def _unparsable_share(grades: Sequence[Grade], role: str) -> Metric:
    scores, n_unparsable = _annotated(grades, role)
    return stats.proportion([0.0] * len(scores) + [1.0] * n_unparsable, len(grades))
