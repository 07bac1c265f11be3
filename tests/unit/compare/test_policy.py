"""The gate's policy file: points in, fractions out, and one sentence for whatever is
wrong in it.
"""

from pathlib import Path

import pytest

from evals.cards.published import shipped
from evals.compare.policy import Policy, read_policy
from evals.errors import InputError


def policy(tmp_path: Path, text: str) -> Policy:
    file = tmp_path / "gate.toml"
    file.write_text(text, encoding="utf-8")
    return read_policy(file)


def test_without_a_policy_every_column_may_drop_one_point() -> None:
    assert [Policy().allowed(key) for key in shipped().keys] == [0.01] * len(shipped().keys)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert policy(tmp_path, "") == Policy()


def test_a_columns_own_drop_stands_before_the_one_for_all(tmp_path: Path) -> None:
    read = policy(tmp_path, "drop = 2\n[columns]\ngsm8k = 3.5\naverage = 0\n")
    assert (read.allowed("gsm8k"), read.allowed("average"), read.allowed("mmlu")) == (
        0.035,
        0.0,
        0.02,
    )


def test_every_column_of_the_card_can_be_named(tmp_path: Path) -> None:
    read = policy(tmp_path, "[columns]\n" + "".join(f"{key} = 5\n" for key in shipped().keys))
    assert dict(read.columns) == dict.fromkeys(shipped().keys, 0.05)


WRONG = {
    "no TOML": ("drop: 1.0", "cannot be read"),
    "twice": ("drop = 1\ndrop = 2", "cannot be read"),
    "key": ("dorp = 1", "unknown key 'dorp'. Did you mean drop?"),
    "column": ("[columns]\ngsm = 1", "unknown column 'gsm'. Did you mean gsm8k?"),
    "table": ("columns = 3", "columns is no table"),
    "text": ('drop = "1"', "drop is '1'. Give the allowed drop in points, a number from 0 to 100."),
    "negative": ("[columns]\nbbh = -1", "columns.bbh is -1"),
    "too much": ("drop = 100.5", "drop is 100.5"),
    "not a number": ("drop = nan", "drop is nan"),
    "infinite": ("drop = inf", "drop is inf"),
    "true": ("drop = true", "drop is True"),
    "nested": ("[columns.mmlu]\ndrop = 1", "columns.mmlu is {'drop': 1}"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_is_said_with_the_files_name(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InputError) as error:
        policy(tmp_path, text)
    assert says in str(error.value)
    assert "gate.toml" in str(error.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.toml cannot be read \(FileNotFoundError"):
        read_policy(tmp_path / "nowhere.toml")
    (tmp_path / "gate.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path / "gate.toml")
