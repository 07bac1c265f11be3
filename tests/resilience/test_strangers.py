"""Files and words of strangers are data: nothing in them is run, no size fills the machine, no path
leads out, no markup takes effect.
"""

import ast
import base64
import gzip
import html
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.compare import gate_report as check_report
from evals.compare.flips import flips
from evals.compare.gate import check as check_runs
from evals.compare.policy import Policy
from evals.compare.runs import compare as compare_runs
from evals.compare.why import why
from evals.errors import EnvironmentFault, EvalsError, InputError
from evals.models.prompts import Rendered
from evals.records import Completion, Output
from evals.report.card import update
from evals.report.export import FORMATS, write_format, write_items
from evals.report.html import write_report
from evals.report.run_row import row_from_summary
from evals.report.show import describe_item
from evals.report.table import markdown
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.storage.files import MAX_LINE, one_line
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store
from tests.resilience.fake_runs import Engines, reply, results
from tests.resilience.fake_runs import settings as asked
from tests.run_files import HEADER

ROOT = Path(__file__).resolve().parents[2]
MARKUP = (
    "<script>alert(1)</script></script><img src=x onerror=alert(1)>\n| a | b"
    " |\n|---|---|\n[x](javascript:alert(1)) {{ 7*7 }} \x1b[2J"
)


def hostile(request: Rendered) -> Completion:
    """Every text is markup."""
    return reply(request) if request.labels else Completion((Output(f"{MARKUP} 7", "stop", (1,)),))


@pytest.fixture(scope="module")
def marked_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model, and whose name, are markup."""
    out = tmp_path_factory.mktemp("marked") / "run"
    assert run(
        asked(out, tasks=("gsm8k", "xstest"), name=f"<b>x</b>|{MARKUP}"),
        make_generator=Engines(hostile),
    ).is_complete
    return out


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without markup."""
    out = tmp_path_factory.mktemp("harmless") / "run"
    assert run(
        asked(out, tasks=("gsm8k", "xstest"), name="x"), make_generator=Engines()
    ).is_complete
    return out


def page(run_folder: Path, file: Path) -> str:
    write_report(file, [run_folder])
    return file.read_text("utf-8")


def opened_blocks(html: str) -> str:
    """What the page's compressed blocks hold."""
    blocks = re.findall(
        r'<script type="text/plain" id="[ib][-\d]+">([A-Za-z0-9+/=]+)</script>', html
    )
    return "".join(gzip.decompress(base64.b64decode(block)).decode() for block in blocks)


# --- words of a model -----------------------------------------------------------------------------


def test_markup_of_a_model_is_text_in_the_html_report(
    marked_up: Path, harmless: Path, tmp_path: Path
) -> None:
    html, plain = page(marked_up, tmp_path / "marked.html"), page(harmless, tmp_path / "plain.html")
    assert "alert(1)</script>" in opened_blocks(html)
    for tag in ("<script", "<img", "<b>", "</script"):
        assert html.count(tag) == plain.count(tag), tag
    assert "<script>alert" not in html
    assert "{{ 7*7 }}" in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", ["$\\frac$", "a\ud800b", "a\x0bb\x00", "<b>$x$</b>"])
def test_a_strangers_name_is_drawn_as_it_is_written(
    harmless: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(harmless, out)
    summary = json.loads((out / "summary.json").read_text())
    summary["model"]["name"] = name
    (out / "summary.json").write_text(json.dumps(summary))
    write_report(tmp_path / "page.html", [harmless, out])
    plots = re.findall(r"<svg.*?</svg>", (tmp_path / "page.html").read_text("utf-8"), re.DOTALL)
    drawn = "".join(html.unescape(plot) for plot in plots)
    assert one_line(name) in drawn


def test_markup_of_a_model_is_text_in_the_table(marked_up: Path, harmless: Path) -> None:
    tables = [
        markdown([row_from_summary(RunFolder(folder).read_json("summary.json"))])
        for folder in (marked_up, harmless)
    ]
    unescaped = [re.findall(r"(?<!\\)\|", table.splitlines()[2]) for table in tables]
    assert len(unescaped[0]) == len(unescaped[1])
    assert not re.search(r"<(script|img|b)\b", tables[0])


def test_what_a_model_says_cannot_steer_the_terminal(marked_up: Path) -> None:
    said = describe_item(marked_up, "gsm8k/0", None)
    assert "<script>alert(1)</script>" in said
    assert "\x1b" not in said
    assert "\\x1b[2J" in said


# --- paths ----------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path], Any]] = {
    "show": lambda out: describe_item(out, "gsm8k/0", None),
    "score": lambda out: rescore(out, None),
    "report": lambda out: write_report(out.parent / "page.html", [out]),
}


def sent(run_folder: Path, tmp_path: Path, **changes: Any) -> Path:
    """A run as a stranger may send it."""
    out = tmp_path / "sent"
    shutil.copytree(run_folder, out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | changes))
    return out


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_strangers_run_cannot_have_another_database_changed(
    harmless: Path, tmp_path: Path, reader: Callable[[Path], Any]
) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    with sqlite3.connect(place / "bookmarks.sqlite") as mine:
        mine.execute("CREATE TABLE bookmarks (url TEXT)")
    mine.close()
    (place / "note.txt").write_text("x")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    for name in ("bookmarks.sqlite", "note.txt", "nothing/here.sqlite"):
        out = sent(harmless, tmp_path, store=str(place / name))
        try:
            reader(out)
        except EvalsError as error:
            assert "\n" not in str(error)  # noqa: PT017  report goes on without the prompts
        shutil.rmtree(out)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "task", ["../../../etc/passwd", "..", "/etc/passwd", "gsm8k/../../x", "nothing"]
)
def test_a_strangers_task_name_is_no_path(
    harmless: Path, tmp_path: Path, reader: Callable[[Path], Any], task: str
) -> None:
    out = sent(harmless, tmp_path, tasks=[task])
    with pytest.raises(InputError):
        reader(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sent"]


@pytest.mark.parametrize("link", ["summary.json.part", "samples"])
def test_a_strangers_links_lead_nothing_that_is_written_out(
    harmless: Path, tmp_path: Path, link: str
) -> None:
    out, mine = sent(harmless, tmp_path), tmp_path / "mine"
    if link == "samples":
        shutil.move(out / link, mine)
    else:
        mine.mkdir()
        (mine / "note.txt").write_text("x")
    before = {path.name: path.stat().st_mtime_ns for path in mine.iterdir()}
    (out / link).symlink_to(mine if link == "samples" else mine / "note.txt")
    try:
        rescore(out, None)
    except EnvironmentFault as error:
        assert "is a link" in str(error)  # noqa: PT017  where it is in the way it is said
    assert {path.name: path.stat().st_mtime_ns for path in mine.iterdir()} == before


# --- sizes and forms ------------------------------------------------------------------------------


def test_a_file_larger_than_any_of_ours_is_refused_before_it_is_held_in_memory(
    harmless: Path, tmp_path: Path
) -> None:
    out = sent(harmless, tmp_path)
    for name in ("summary.json", "run.json"):
        with (out / name).open("ab") as opened:
            opened.truncate(MAX_LINE * 100)  # a hole: three gigabytes on no disk
        with pytest.raises(InputError, match="longer than 32 MB"):
            RunFolder(out).read_json(name)
    with gzip.open(out / "samples" / "gsm8k.jsonl.gz", "wb", compresslevel=1) as opened:
        for _ in range(9):
            opened.write(bytes(MAX_LINE // 8))
    with pytest.raises(InputError, match="longer than 32 MB"):
        list(RunFolder(out).samples("gsm8k"))


RECORDS: dict[str, dict[str, Any]] = {
    "no header": {"summary_header": {}},
    "a header of other kinds": {
        "summary_header": {"suite": 1, "chat_format": [], "limit": "x", "model": 2, "judges": 3}
    },
    "a judge that is none": {"summary_header": HEADER | {"judges": {"xstest": 1}}},
    "a store that is no path": {"store": 7},
    "tasks that are no names": {"tasks": [1, None]},
    "sessions that are none": {"sessions": [1]},
    "a run key that is none": {"run_key": {"$ne": 1}},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_record_of_another_form_is_damaged_and_no_traceback(
    harmless: Path, tmp_path: Path, reader: Callable[[Path], Any], changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        reader(sent(harmless, tmp_path, **changes))


GONE = object()
ANYTHING = st.just(GONE) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place, or, given GONE, without that place."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(at) > 1:
        copy[at[0]] = changed(copy[at[0]], at[1:], new)
    elif new is GONE:
        del copy[at[0]]
    else:
        copy[at[0]] = new
    return copy


def table(out: Path) -> None:
    lines = markdown([row_from_summary(RunFolder(out).read_json("summary.json"))]).splitlines()
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == len(re.findall(r"(?<!\\)\|", lines[0]))


def model_card(out: Path) -> None:
    (out.parent / "README.md").write_text("# x\n")
    update(out.parent / "README.md", [out])


AGAINST: dict[str, Callable[[Path, Path], Any]] = {
    "table": lambda out, _: table(out),
    "card": lambda out, _: model_card(out),
    "export": lambda out, _: write_items(out, out.parent / "items.csv"),
    **{
        f"export {layout}": lambda out, _, layout=layout: write_format(
            layout, out, out.parent / layout
        )
        for layout in FORMATS
    },
    "compare": lambda out, other: compare_runs(out, other),
    "flips": lambda out, other: list(flips(other, out, compare_runs(other, out))),
    "why": lambda out, other: why(out, other),
    "check": lambda out, other: check_report.markdown(check_runs(other, out, Policy())),
} | {name: lambda out, _, reader=reader: reader(out) for name, reader in READERS.items()}
"""Everything that reads a run, given that run and a sound one."""
FILES = ("summary.json", "run.json", "samples/gsm8k.jsonl.gz", "samples/xstest.jsonl.gz")


@pytest.mark.parametrize("reader", AGAINST.values(), ids=AGAINST)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(draw=st.data(), name=st.sampled_from(FILES), new=ANYTHING)
def test_a_run_changed_anywhere_is_read_or_refused_in_one_sentence(
    harmless: Path,
    tmp_path: Path,
    reader: Callable[[Path, Path], Any],
    draw: st.DataObject,
    name: str,
    new: Any,
) -> None:
    raw = (harmless / name).read_bytes()
    content = (
        json.loads(raw)
        if name.endswith(".json")
        else [json.loads(line) for line in gzip.decompress(raw).splitlines()]
    )
    strange = changed(content, draw.draw(st.sampled_from(places(content)[1:])), new)
    out = tmp_path / "strange"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(harmless, out)
    text = (
        json.dumps(strange)
        if name.endswith(".json")
        else "".join(json.dumps(row) + "\n" for row in strange)
    )
    (out / name).write_bytes(
        text.encode() if name.endswith(".json") else gzip.compress(text.encode())
    )
    try:
        reader(out, harmless)
    except EvalsError as error:
        assert "\n" not in str(error)  # noqa: PT017  a change may as well do no harm


# --- nothing is run -------------------------------------------------------------------------------

_RUNS_DATA = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}


def test_nothing_unpickles_evaluates_or_executes_what_it_read() -> None:
    """The sandbox's jail executes programs: that is what it is for. A spool unpickles what it wrote
    itself; see its own test.
    """
    for file in [*(ROOT / "evals").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]:
        if (
            file.is_relative_to(ROOT / "evals" / "sandbox" / "jail")
            or file == ROOT / "evals" / "storage" / "spool.py"
        ):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {
                    (getattr(node, "module", "") or "").split(".")[0]
                }
                assert not names & _RUNS_DATA, file
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), file
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
            ):
                called = f"{node.func.value.id}.{node.func.attr}"
                assert called not in (
                    "torch.load",
                    "np.load",
                    "numpy.load",
                    "os.system",
                    "pd.read_pickle",
                ), file


@pytest.mark.parametrize("module", ["stranger_1", "stranger_2.inner"])
@pytest.mark.parametrize("reader", ["show", "score", "report"])
def test_a_module_within_a_strangers_run_is_not_executed(
    harmless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, reader: str
) -> None:
    head = json.loads((harmless / "run.json").read_text())["summary_header"]
    card = head["card"]
    first = card["column"][0] | {"benchmark": f"{module}:A"}
    card = card | {"column": [first, *card["column"][1:]]}
    out = sent(harmless, tmp_path, summary_header=head | {"card": card})
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"card": card}))
    file = (out / module.replace(".", "/")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    for place in {file, file.parent / "__init__.py"}:
        place.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.chdir(out)
    try:
        READERS[reader](out)
    except InputError as error:
        assert "within a run's folder" in str(error)  # noqa: PT017  show does without
    assert not (tmp_path / "executed").exists()


def test_a_store_that_is_opened_for_reading_takes_nothing(harmless: Path, tmp_path: Path) -> None:
    out = sent(harmless, tmp_path)
    before = results(out)
    store = Store(out / "store.sqlite", read_only=True)
    assert store.count() > 0
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        store.put([("k", Completion((Output("x"),)))])
    store.close()
    assert results(out) == before
