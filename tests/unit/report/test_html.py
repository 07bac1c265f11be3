"""The report's page without a browser: same runs, same bytes; nothing from outside; what is wrong
with a run is said.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.commands.app import app
from evals.errors import InputError
from evals.report.html import write_report
from evals.storage.run_folder import RunFolder
from tests.browser.runs import NAME, small_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_runs(tmp_path_factory.mktemp("runs"))


def page(runs: tuple[Path, Path], folder: Path) -> str:
    write_report(folder / "page.html", [runs[0]], runs[1], folder)
    return (folder / "page.html").read_text("utf-8")


def test_equal_runs_give_equal_bytes(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first = page(runs, tmp_path)
    assert page(runs, tmp_path) == first
    assert len(first) > 50_000


class Addresses(HTMLParser):
    """Every attribute that could load something, and the tags met."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data", "xlink:href")
        ]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_the_page_names_no_address_but_its_own_parts(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    text = page(runs, tmp_path)
    parsed = Addresses(text)
    assert len(parsed.found) > 100
    assert {address[:1] for address in parsed.found} == {"#"}
    assert not {"img", "iframe", "link", "object", "embed", "base"} & parsed.tags
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert NAME not in text


def test_a_folder_that_is_no_run_and_one_with_lost_samples_are_refused(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is not a finished run"):
        write_report(tmp_path / "page.html", [tmp_path])
    ours, _ = small_runs(tmp_path)
    RunFolder(ours).samples_path("gsm8k").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        write_report(tmp_path / "page.html", [ours])
    RunFolder(ours).write_samples("gsm8k", [{"id": "gsm8k/0"}])
    with pytest.raises(InputError, match="lacks what this program writes there"):
        write_report(tmp_path / "page.html", [ours])
    assert not (tmp_path / "page.html").exists()


def test_the_command_puts_what_differs_from_the_other_run_into_the_page(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    said = CliRunner().invoke(
        app, ["report", str(runs[0]), "--html", str(file), "--against", str(runs[1]),
              "--data", str(tmp_path)],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    text = file.read_text("utf-8")
    (part,) = re.findall(r'<section id="differences">(.*?)</section>', text, re.S)
    assert '<td style="text-align:right">33.3</td>' in part
    assert 'id="differences"' not in page(runs, tmp_path)
