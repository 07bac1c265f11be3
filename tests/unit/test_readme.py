"""README says what the program says."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.commands.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("file", "n_tables"), [("README.md", 1), ("results/README.md", 2)])
def test_every_table_is_what_its_command_prints(file: str, n_tables: int) -> None:
    """To renew them: scripts/readme-table."""
    found = re.findall(
        r"<!-- table: evals (.*?) -->\n(.*?)<!-- /table -->",
        (ROOT / file).read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(found) == n_tables
    for command, table in found:
        arguments = [
            str(ROOT / word) if word.startswith("results/") else word
            for word in shlex.split(command)
        ]
        printed = CliRunner().invoke(app, arguments)
        assert printed.exit_code == 0, printed.output
        assert table == printed.stdout


def test_every_evals_command_and_option_it_names_exists() -> None:
    helps: dict[str, str] = {}
    for line in re.findall(r"^(?:evals) (.*?)(?:\s{2,}#.*)?$", README, re.MULTILINE):
        words = shlex.split(line)
        command = words[:2] if words[0] in ("data", "judge") else words[:1]
        shown = helps.setdefault(
            " ".join(command),
            CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).output,
        )
        assert "Usage:" in shown
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, f"evals {line}: {option} is not in its help"
