"""The contract refuses what breaks it: the skeleton of a benchmark keeps every rule, and changed in
a single place it breaks the one that it must.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.registry import Variant, benchmark_class
from evals.runs.contract import RULES, broken, write_skeleton
from tests.unit.conftest import Call

PLAIN = 'return Generate((Message("user", item.question),), sampling)'
CHOICE = 'candidates = tuple((letter, f" {letter}") for letter in letters)'
SCORE = "score = float(read.text == item.answer)"
SUM = 'return {"accuracy": stats.share("accuracy", grades)}'
BROKEN = {
    # what: rule, class, old text, new text, what is said
    "no words": ("says_what_is_read", "Written", '"share of questions whose last number is right"',
                 '""', "the metric accuracy has no words"),
    "default": ("says_what_is_read", "Written", "setting(256", "setting(0", "max_tokens = 0"),
    "heavy": ("imports_nothing_heavy", "Written", "from evals import stats",
              "import scipy\nfrom evals import stats", "it imports scipy"),
    "one id": ("has_stable_ids", "Written", 'f"{name}/{number}"', 'f"{name}/0"', "have the id"),
    "bare id": ("has_stable_ids", "Chosen", 'f"{name}/{number}"', 'f"{number}"', "id is '0'"),
    "new ids": ("has_stable_ids", "Written", 'f"{name}/{number}"', 'f"{name}/{id(row)}{number}"',
                "change from one reading"),
    "style": ("has_stable_ids", "Written", 'return questions(source, "NAME")',
              'return questions(source, "NAME" + "/a" * self.chat)', "with the style"),
    "chance": ("asks_the_same_whenever", "Written", PLAIN,
               f"import random\n            item = random.choice([item] * 9 + [None]) or item\n"
               f"            sampling = Sampling(random.randint(1, 99))\n            {PLAIN}",
               "differs from one time"),
    "no room": ("asks_the_same_whenever", "Written", PLAIN,
                PLAIN.replace("sampling", "Sampling(0)"), "max_tokens"),
    "greedy twice": ("asks_the_same_whenever", "Written", PLAIN,
                     PLAIN.replace("sampling", "Sampling(9, n=2)"), "one and the same"),
    "role": ("asks_the_same_whenever", "Written", PLAIN, PLAIN.replace('"user"', '"judge"'),
             "a role"),
    "one choice": ("asks_the_same_whenever", "Chosen", CHOICE, CHOICE + "[:1]", "two candidates"),
    "text": ("asks_the_same_whenever", "Written", PLAIN, "return item.question", "a str, neither"),
    "no judge": ("checks_what_it_declares", "Written", "    Settings = Settings",
                 '    judge_roles = ("mine",)\n    Settings = Settings', "not its judge_roles"),
    "programs": ("checks_what_it_declares", "Written", "    Settings = Settings",
                 "    runs_programs = True\n    Settings = Settings", "two things of programs"),
    "dice": ("grades_purely", "Written", SCORE, "import random\n        score = random.random()",
             "differently"),
    "points": ("grades_purely", "Written", SCORE, "score = 100.0", "not in 0 to 1"),
    "another": ("grades_purely", "Chosen", "return Grade(item.id, item.group, {\"chosen\"",
                "return Grade(ItemId(\"x\"), item.group, {\"chosen\"", "of another"),
    "trusting": ("grades_anything", "Written", SCORE, "score = float(int(answer.text[:1]) > 9)",
                 "ValueError"),
    "no metric": ("measures_what_it_says", "Written", 'return {"accuracy"', 'return {"acc"',
                  "gives no metric accuracy"),
    "percent": ("measures_what_it_says", "Written", SUM,
                'return {"accuracy": Metric(50.0, 3, 3)}', "not in 0 to 1"),
    "no reason": ("measures_what_it_says", "Written", SUM,
                  'return {"accuracy": Metric(None, 3, 3)}', "neither value nor reason"),
    "outside": ("measures_what_it_says", "Written", SUM,
                'return {"accuracy": Metric(0.5, 3, 3, 0.1, (0.6, 0.7))}', "outside its interval"),
    "first": ("measures_in_any_order", "Written", SUM,
              'return {"accuracy": Metric(float(grades[0].id[-1]) / 9, 3, 3)}', "another order"),
    "identity": ("comes_back_from_disk", "Written", "    options: tuple[str, ...]",
                 "    def __eq__(self, other): return self is other\n    options: tuple[str, ...]",
                 "come back as others"),
    "partial": ("withholds_what_is_not_whole", "Written", SUM,
                SUM.replace("grades)", "[one for one in grades if one.scores])"), "have values"),
}  # fmt: skip


@pytest.fixture
def variant_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Variant]]:
    """A class of the skeleton, changed; what was imported is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = f"of_{re.sub(r'[^a-z0-9]', '_', tmp_path.name.lower())}"

    def make(cls: str, old: str = "", new: str = "") -> Variant:
        write_skeleton(name, tmp_path)
        module = tmp_path / f"{name}.py"
        text, old = module.read_text("utf-8"), old.replace("NAME", name)
        assert old in text
        module.write_text(text.replace(old, new.replace("NAME", name), 1), "utf-8")
        found = benchmark_class(f"{name}:{cls}")
        return Variant(found.name, found, found.Settings(), found.own_columns())

    yield make
    sys.modules.pop(name, None)


@pytest.mark.parametrize("cls", ["Written", "Chosen"])
def test_the_skeleton_keeps_every_rule(cls: str, variant_of: Callable[..., Variant]) -> None:
    variant = variant_of(cls)
    assert {rule.__name__: broken(rule, variant) for rule in RULES} == {
        rule.__name__: [] for rule in RULES
    }


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_a_rule_is_refused(case: str, variant_of: Callable[..., Variant]) -> None:
    name, cls, old, new, words = BROKEN[case]
    variant = variant_of(cls, old, new)
    (rule,) = (one for one in RULES if one.__name__ == name)
    said = " ".join(broken(rule, variant))
    assert words.replace("NAME", variant.cls.__module__) in said


def test_every_rule_has_something_that_breaks_it() -> None:
    assert {case[0] for case in BROKEN.values()} == {rule.__name__ for rule in RULES}


UNUSABLE = {
    "abstract": ("def grade(", "def grading(", "it has no grade"),
    "name": ('    name = "NAME"', '    name = "No Name"', "its name is 'No Name'"),
    "long": ('    name = "NAME"', f'    name = "{"a" * 61}"', "60 small letters"),
    "ours": ('    name = "NAME"', '    name = "gsm8k"', "which is one of ours"),
    "metrics": ('metrics = (Measure("accuracy"', 'metrics = [Measure("accuracy"', "no tuple"),
    "headline": ("    Settings = Settings", '    headline = ("acc",)', "headline has acc"),
    "dataset": ('dataset = data_of("NAME")', "dataset = None", "no Dataset"),
    "settings": ("    Settings = Settings", "    Settings = dict", "no dataclass of setting"),
    "leaves": ("from evals import stats", "raise SystemExit(3)", "SystemExit: 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_class_that_cannot_be_used_is_one_sentence(
    case: str, variant_of: Callable[..., Variant]
) -> None:
    old, new, words = UNUSABLE[case]
    if case == "metrics":
        old, new = f"    {old.split(' = ')[0]} = (M", f"    {old.split(' = ')[0]} = list, (M"
    with pytest.raises(InputError) as caught:
        variant_of("Written", old, new)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_tries_them_and_says_which_are_broken(
    variant_of: Callable[..., Variant], evals: Call
) -> None:
    kept = variant_of("Written", SCORE, "score = 100.0")
    code, out, err = evals("tasks", f"{kept.cls.__module__}:Chosen", "--check")
    assert (code, out.count("ok: "), err) == (0, len(RULES), "")
    code, out, err = evals("tasks", f"{kept.cls.__module__}:Written", "--check")
    assert code == 1
    assert re.search(r"^NOT: A grade hangs on .*\n     \S+: a score is not in 0 to 1", out, re.M)
    assert re.search(r"breaks \d of the rules", err)
    code, out, err = evals("tasks", "--check")
    assert (code, "TASK" in err) == (2, True)


RAISING = {
    # what: old text, new text, what is said of where and why
    "items": ('return questions(source, "NAME")', "return 1 / 0",
              "Written.items (ZeroDivisionError"),
    "yielded": ('yield Question(item_id, "",', 'yield 1 / 0 if number else Question(item_id, "",',
                "Written.items (ZeroDivisionError"),
    "leaves": ('return questions(source, "NAME")', "raise SystemExit(0)",
               "Written.items (SystemExit: 0, line"),
    "no items": ('return questions(source, "NAME")', "return [1]", "a int where a Item belongs"),
    "request": (PLAIN, "return item.no_such_field", "Written.request of NAME/0 (AttributeError"),
    "a text": (PLAIN, "return item.question",
               "Written.request of NAME/0 (TypeError: a str, neither Generate nor Choose"),
    "grade": (SCORE, "score = float('a half')", "Written.grade of NAME/0 (ValueError"),
    "none": (SCORE, "return None", "Written.grade of NAME/0 (TypeError: a NoneType, neither Grade"),
    "another": ("return Grade(item.id,", 'return Grade(ItemId("NAME/1"),',
                "the id or group of another item: NAME/1"),
    "no JSON": ("unparsed=not read.found)", "unparsed=not read.found, details={'a': {1}})",
                "set is not JSON serializable"),
    "summarize": (SUM, "return {}[0]", "Written.summarize (KeyError: 0, line"),
    "no metrics": (SUM, 'return {"accuracy": 0.5}', "a float where a Metric belongs"),
}  # fmt: skip


@pytest.mark.parametrize("case", RAISING)
def test_what_a_method_raises_in_a_run_is_one_sentence_with_class_method_and_item(
    case: str, variant_of: Callable[..., Variant], evals: Call
) -> None:
    old, new, words = RAISING[case]
    # Not what its class's check refuses: a run of it may have begun before it was broken so.
    name = variant_of("Written", old, new).cls.name
    Path("said.jsonl").write_text(
        "".join(f'{{"id": "{name}/{n}", "outputs": ["{n}"]}}\n' for n in range(3))
    )
    asked = ("run", "replay:said.jsonl", "--card", f"{name}.toml", "--suite", "smoke")
    code, out, err = evals(*asked, "--out", "run")
    assert (code, out, "Traceback" in err) == (2, "", False), err
    (said,) = [line for line in err.splitlines() if line.startswith("evals: ")]
    assert f"The benchmark {name} goes wrong in " in said
    assert words.replace("NAME", name) in said


def test_another_s_rule_is_watched_too(variant_of: Callable[..., Variant]) -> None:
    rules = '    rules = {"sure": lambda text: text[9]}\n    Settings = Settings'
    variant = variant_of("Written", "    Settings = Settings", rules)
    rule = variant.make(chat=True).rules["sure"]
    assert rule("0123456789") == "9"
    with pytest.raises(InputError, match=r"Written.rule sure \(IndexError"):
        rule("")
