"""READMEs as people have them: each is brought up to date with every byte that is not ours kept, or
refused in a sentence; nothing in it is said in options of a command line.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evals.cards.published import shipped
from evals.errors import InputError
from evals.plan.items import no_judge
from evals.registry import BENCHMARKS, benchmark_class
from evals.report.card import BEGIN, END, update
from evals.report.front_matter import FrontMatter
from evals.report.readers import for_readers
from evals.report.run_row import row_from_summary
from evals.report.table import TableCell, TableRow, markdown
from evals.storage.run_folder import RunFolder
from tests.readmes import check_card, is_ours
from tests.unit.report.test_card import run_folder

ROOT = Path(__file__).resolve().parents[3]
MIT = "license: mit\n"
BODY = "\n# M\n\nWords.\n\n## Evaluation\n\nMore.\n"
ENTRY = "{task: {type: t}, dataset: {type: a/b, name: B}, metrics: [{type: acc, value: 1.50}]}"
OTHERS = """model-index:
- name: My 8B   # the name
  results:
  # theirs first
  - task: {type: t}   # a task
    dataset: {type: HuggingFaceH4/ifeval, name: IFEval}
    metrics:
    - type: acc
      value: 55.40   # as printed
"""


def card(metadata: str, body: str = BODY) -> str:
    return f"---\n{metadata}---\n{body}"


def valued(value: str) -> str:
    return card(OTHERS.replace("55.40", value))


def model(results: str) -> str:
    return card(f"model-index:\n- name: My 8B\n  results:{results}\n")


KEPT = {
    "no line end after the dashes": "---\nlicense: mit\n---",
    "spaces after the dashes": "---\nlicense: mit\n---  ",
    "metadata ends in block text": card("license: mit\np: |\n  You agree to\n  the licence.\n"),
    "windows": card(MIT + OTHERS).replace("\n", "\r\n"),
    "windows, ends in block text": card("p: |\n  a\n").replace("\n", "\r\n"),
    "windows, no line end": "---\r\nlicense: mit\r\n---",
    "no line end, no metadata": "# M",
    "no line end in the body": card(MIT, "# M"),
    "windows in the body": card(MIT, BODY.replace("\n", "\r\n")),
    "windows in the metadata": card(MIT + OTHERS).replace("\n", "\r\n", 9),
    "byte order mark": "\ufeff" + card(OTHERS),
    "byte order mark, no metadata": "\ufeff# M\n",
    "an empty line between the dashes": "---\n\n---\n# M\n",
    "no line between the dashes": "---\n---\n# M\n",
    "only dashes": "---\n---",
    "comments only": card("# nothing yet\n"),
    "metadata only": card(MIT, ""),
    "comments in model-index": card(OTHERS + "  # the end\n# after all\ntags: [x]\n"),
    "1e-05": valued("1e-05"),
    "0x1F": valued("0x1F"),
    "1_000": valued("1_000"),
    "012": valued("012"),
    ".nan": valued(".nan"),
    "flow style": card(f"model-index: [{{name: My 8B, results: [{ENTRY}]}}] # all\n"),
    "flow results": model(f" [{ENTRY}]  # one"),
    "flow results in lines": model(f" [\n    {ENTRY}, # one\n    {ENTRY} # two, too\n  ]"),
    "flow results, a comma last": model(f" [\n    {ENTRY}, # one\n  ]"),
    "flow, no results": card("model-index: [{name: My 8B, results: []}]\n"),
    "flow, null results": card("model-index: [{name: My 8B, results: }]\n"),
    "comment in brackets": card("model-index: [\n  # - name: later\n]\nlicense: mit\n"),
    "model-index null": card("model-index:  # none\nlicense: mit\n"),
    "results null": model(""),
    "results null, a comment": model("  # none"),
    "the second of two models": card(
        OTHERS.replace("My 8B", "Another") + OTHERS.partition("\n")[2]
    ),
    "the first of two models": card(OTHERS + OTHERS.partition("\n")[2].replace("My 8B", "B")),
    "the model's hub id": card(OTHERS.replace("My 8B", "me/My-8b")),
    "another tool's entry for a dataset of ours": card(
        OTHERS.replace("HuggingFaceH4/ifeval", "openai/gsm8k")
    ),
    "entries set in": card(
        "model-index:\n    -   name: My 8B\n        results:\n            -   task:\n"
        "                    type: t\n                dataset: {type: a/b, name: B}\n"
        "                metrics:\n                    -   type: acc\n"
        "                        value: 1.50\n"
    ),
    "a dash on a line of its own": model(f"\n  -\n    {ENTRY}\n  - # c\n    {ENTRY}"),
    "block text two deep": card("license: mit\na:\n  b: |\n    text\n    more\n"),
    "block text in a list": card("license: mit\nw:\n- text: |\n    a\n\n    b\n"),
    "block text, the comment above": card("license: mit\n# on p\np: >\n  a\n  b\n"),
    "block text alone": card("p: |2-\n    a\n  b\n"),
    "|+ and blank lines": card("license: mit\na: |+\n  text\n\n\n"),
    "|-": card("license: mit\na: |-\n  text\n"),
    "> and blank lines": card("license: mit\na: >\n  text\n  more\n\n"),
    "block text ends model-index": card(OTHERS + "      name: >\n        strict\n        acc\n"),
    "|+ ends model-index": card(OTHERS + "      name: |+\n        strict\n\n"),
    "|+ ends model-index, a key after": card(
        OTHERS + "      name: |+\n        a\n\nlicense: mit\n"
    ),
    "block text after model-index": card(OTHERS + "p: |\n  a\n"),
    "folded and explicit keys": card("? license\n: mit\n? >-\n  a folded\n  key\n: x\n"),
    "anchors and aliases": card("base: &b [x, y]\ntags: *b\n" + OTHERS),
    "an alias within an entry": card(
        "e: &e {type: a/b, name: B}\n"
        + OTHERS.replace("{type: HuggingFaceH4/ifeval, name: IFEval}", "*e")
    ),
    "an alias for an entry": card(
        f"e: &e {ENTRY}\nmodel-index:\n- name: My 8B\n  results:\n  - *e\n"
    ),
    "a merge": card("b: &b {c: d}\nx:\n  <<: *b\n" + OTHERS),
    "dataset is text": model("\n  - {task: {type: t}, dataset: squad, metrics: []}"),
    "dashes in code": card(MIT, "# M\n\n```yaml\n---\na: 1\n---\n```\n"),
    "dashes in code, no metadata": "# M\n\n```yaml\n---\na: 1\n---\n```\n",
    "tabs in the body": card(MIT, "#\tM\n\n\t# Results\n\n## Evaluation\t\n\tx\n"),
    "other characters": card("name: Größe – 模型 🦙\n" + OTHERS, "# 模型\u2028\x0b\x85 🦙\n"),
    "very long": card(
        "".join(f"k{n}: v\n" for n in range(500)) + OTHERS, "# M\n\n" + "Words.\n\n" * 5000
    ),
    "yes and no": card("language: no\nflag: yes\nx: 012\ny: 1:30\nz: 2024-01-01\n" + OTHERS),
    "a key twice": card("license: mit\nlicense: apache-2.0\n"),
    "the document's end": card("license: mit\n...\n"),
    "all set in": card("  license: mit\n  tags: [x]\n"),
    "a comment last": card("license: mit\n# the end\n"),
    "a long line": card("summary: " + "word " * 400 + "\n" + OTHERS),
}
HOLES = {
    "model-index []": (card("model-index: []  # none yet\nlicense: mit\n"), " []"),
    "model-index null in words": (card("model-index: null\n"), " null"),
    "results []": (model(" []"), " []"),
    "results [], a comment": (model(" [ ]  # none"), " [ ]"),
    "results ~": (model(" ~"), " ~"),
}
NOT_HEADINGS = {
    "```": "```\n# Evaluation\n```\n",
    "````": "````md\n```\n# Evaluation\n```\n# Results\n````\n",
    "`````": "`````\n````\n# Evaluation\n`````\n",
    "~~~": "~~~\n```\n# Evaluation\n~~~\n",
    "~~~~": "~~~~\n~~~\n# Evaluation\n~~~~\n",
    "set in": "   ```\n# Results\n   ```\n",
    "closed by a longer one": "```\n# Results\n`````\n",
    "in a list": "- ```\n  a\n  ```\n\n```\n# Evaluation\n```\n",
    "in a quotation": "> ```\n> a\n\n```\n# Evaluation\n```\n",
    "a comment": "<!--\n# Evaluation\n-->\n",
    "a comment, blank lines": "<!--\n\n# Evaluation\n\n-->\n",
    "pre": "<pre>\n\n# Evaluation\n\n</pre>\n",
    "style": "<style>\n\n# Results\n\n</style>\n",
    "div": "<div>\n# Results\n</div>\n",
    "windows": "````\n```\n# Results\n````\n".replace("\n", "\r\n"),
}
REFUSED = {
    "results missing": (card("model-index:\n- name: My 8B\n"), "needs `name:` and `results:`"),
    "name null": (model(" []").replace("My 8B", ""), "needs `name:` and `results:`"),
    "two models of other names": (
        card(OTHERS.replace("My 8B", "A") + OTHERS.partition("\n")[2].replace("My 8B", "B")),
        "is about A and B, the run about My 8B. Give",
    ),
    "one model of another name": (
        card(OTHERS.replace("My 8B", "tulu")),
        "is about tulu, the run about My 8B. Give .* --name",
    ),
    "results twice": (card(OTHERS + "  results: []\n"), "has results twice. Remove one"),
    "model-index twice": (card(OTHERS + OTHERS), "has model-index twice. Remove one"),
    "results are an alias": (
        card("e: &e []\nmodel-index:\n- name: My 8B\n  results: *e\n"),
        "cannot be replaced alone. Write it out",
    ),
    "results are merged in": (
        card("e: &e {results: []}\nmodel-index:\n- name: My 8B\n  <<: *e\n"),
        "cannot be replaced alone. Write it out",
    ),
    "another key refers to the results": (
        card(OTHERS.replace("results:", "results: &r") + "x: *r\n"),
        "cannot be replaced alone",
    ),
    "a tab": (card("license: mit\ntags:\n\t- a\n"), "no valid YAML: .* line 3, column 1"),
    "a tag that does not fit": (card("a: !!timestamp x\n"), "no valid YAML: a value is not what"),
    "code never closed": (card(MIT, "# M\n\n```\n# Evaluation\n"), "not closed.* Close it"),
    "comment never closed": (card(MIT, "# M\n\n<!--\n# Evaluation\n"), "not closed.* Close it"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """One, one with other numbers, one of a part of the data."""
    home = tmp_path_factory.mktemp("runs")
    first, second, part = (
        run_folder(home / name, value=value)
        for name, value in (("first", 0.655), ("second", 0.7), ("part", 0.7))
    )
    summary = RunFolder(part).read_json("summary.json")
    RunFolder(part).write_json("summary.json", summary | {"suite": "smoke"})
    return first, second, part


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_a_card_keeps_what_is_not_ours(
    tmp_path: Path, runs: tuple[Path, Path, Path], text: str
) -> None:
    after = FrontMatter.of(check_card(tmp_path / "README.md", text, runs))
    results = [one for model in after.data["model-index"] for one in model["results"]]
    assert len(list(filter(is_ours, results))) == 8


@pytest.mark.parametrize(("text", "hole"), HOLES.values(), ids=HOLES)
def test_an_empty_list_is_filled_and_its_comment_stays(
    tmp_path: Path, runs: tuple[Path, Path, Path], text: str, hole: str
) -> None:
    after = check_card(tmp_path / "README.md", text, runs, hole)
    for comment in re.findall(r"  #.*", text):
        assert f":{comment}\n" in after


@pytest.mark.parametrize("code", NOT_HEADINGS.values(), ids=NOT_HEADINGS)
def test_only_a_heading_is_a_heading(
    tmp_path: Path, runs: tuple[Path, Path, Path], code: str
) -> None:
    after = check_card(tmp_path / "README.md", card(MIT, f"# M\n\n{code}\nend\n"), runs)
    assert re.search(r"\nend\s+## Evaluation\r?\n\r?\n<!-- evals: table -->", after)
    after = check_card(tmp_path / "README.md", card(MIT, f"{code}\n## Results\n\nend\n"), runs)
    assert re.search(r"\n## Results\r?\n\r?\n<!-- evals: table -->", after)


@pytest.mark.parametrize("around", ["```\n{}\n```\n", "Between `{}` and `{}`.\n", "x\n\n    {}\n"])
def test_markers_that_are_only_spoken_of_are_none(
    tmp_path: Path, runs: tuple[Path, Path, Path], around: str
) -> None:
    words = around.format(BEGIN, END)
    (tmp_path / "README.md").write_text(card(MIT, f"# M\n\n{words}"))
    update(tmp_path / "README.md", [runs[0]])
    after = (tmp_path / "README.md").read_text()
    assert f"{words}\n## Evaluation\n\n{BEGIN}\n| Model |" in after
    assert update(tmp_path / "README.md", [runs[0]]) == []


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_edited_safely_is_refused_and_left(
    tmp_path: Path, runs: tuple[Path, Path, Path], text: str, words: str
) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(text.encode())
    with pytest.raises(InputError, match=words) as refusal:
        update(file, [runs[0]])
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)
    assert file.read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", ["My 8B", "my-8b", "me/my-8b", "ME/My_8B"])
def test_a_models_own_name_is_known_in_any_spelling(
    tmp_path: Path, runs: tuple[Path, Path, Path], name: str
) -> None:
    check_card(tmp_path / "README.md", card(OTHERS.replace("My 8B", name)), runs)


def test_removed_results_leave_the_metadata_as_it_was(
    tmp_path: Path, runs: tuple[Path, Path, Path]
) -> None:
    text = card(MIT + OTHERS + "# end\np: |\n  a\n")
    file = tmp_path / "README.md"
    check_card(file, text, runs)
    assert FrontMatter.of(file.read_text()).text == FrontMatter.of(text).text


# --- words for readers ----------------------------------------------------------------------------

OPTION = re.compile(r"(?<![\w<!-])--\w")


def written(readme: Path) -> str:
    files = [readme, *sorted((readme.parent / ".eval_results").glob("*"))]
    return "\n".join(file.read_text("utf-8") for file in files)


@pytest.mark.parametrize(
    "summary",
    [path for path in ROOT.glob("results/**/summary.json")],
    ids=lambda path: path.parent.name,
)
def test_no_option_stands_in_the_card_of_a_stored_run(
    tmp_path: Path, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where a run asked tasks of one's own, their files lie beside it.
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(summary.parent / "tasks"))
    (tmp_path / "README.md").write_text("# M\n")
    update(tmp_path / "README.md", [summary.parent])
    assert not OPTION.search(written(tmp_path / "README.md"))


def every_reason() -> list[str]:
    """No judge, of every benchmark that has one, and others in the forms our sentences have."""
    judged = [benchmark_class(name) for name in BENCHMARKS]
    return [
        *(no_judge(one.judge_roles, one.rules) for one in judged if one.judge_roles),
        "3 of 5 items scored: no xstest judge",
        "context cut: use --max-model-len 8192; 3 of 5 items",
        "the server shows no log-probabilities. Use --tokenizer out/my-8b.",
        "reasoning taken out (--reasoning strip); not comparable with published rows",
        "--stop TEXT was given",
    ]


@pytest.mark.parametrize("text", every_reason())
@pytest.mark.parametrize("part", ["reason", "marks"])
def test_no_option_stands_in_a_card_whatever_a_cell_says(
    tmp_path: Path, part: str, text: str
) -> None:
    run = run_folder(tmp_path / "run")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    for key in shipped().keys:
        said = {"value": None, "reason": text} if part == "reason" else {"marks": [text]}
        summary["cells"][key] |= said
    RunFolder(run).write_json("summary.json", summary)
    (tmp_path / "README.md").write_text("# M\n")
    update(tmp_path / "README.md", [run])
    assert not OPTION.search(written(tmp_path / "README.md"))
    # The terminal's sentence stays as it is.
    assert (text.partition(";")[0] in markdown([row_from_summary(summary)])) or "(" in text


def test_plain_words_keep_what_is_stated() -> None:
    said = dict(enumerate(every_reason()))
    cells = {"gsm8k": TableCell("1.0", tuple(said.values()))}
    row = for_readers(TableRow("m", cells, notes={str(n): text for n, text in said.items()}))
    plain = list(row.notes.values())
    assert plain[-5:] == [
        "3 of 5 items scored: no xstest judge",
        "context cut; 3 of 5 items",
        "the server shows no log-probabilities",
        "reasoning taken out (reasoning strip); not comparable with published rows",
        "stop TEXT was given",
    ]
    assert set(plain[:-5]) == {"no judge was used"}
    # What becomes one sentence is said once.
    assert list(row.cells["gsm8k"].marks) == list(dict.fromkeys(plain))
