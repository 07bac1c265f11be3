"""README says what the program says."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from evals.cli import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_what_its_command_prints() -> None:
    """To renew it: scripts/readme-table."""
    found = re.search(r"<!-- table: evals (.*?) -->\n(.*?)<!-- /table -->", README, re.DOTALL)
    assert found is not None
    arguments = [str(ROOT / word) if word.startswith("results/") else word for word in shlex.split(found[1])]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert found[2] == printed.stdout


def test_every_evals_command_and_option_it_names_exists() -> None:
    helps: dict[str, str] = {}
    for line in re.findall(r"^(?:evals) (.*?)(?:\s{2,}#.*)?$", README, re.MULTILINE):
        words = shlex.split(line)
        command = words[:2] if words[0] in ("data", "judge") else words[:1]
        shown = helps.setdefault(" ".join(command), CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).output)
        assert "Usage:" in shown
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, f"evals {line}: {option} is not in its help"
