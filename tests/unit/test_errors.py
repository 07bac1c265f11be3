"""What an error says of names."""

import pytest

from evals.errors import nearest


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (["gsm8k", "mmlu"], "Did you mean gsm8k?"),
        (["bbh", "mmlu", "bbh"], "Known: bbh, mmlu."),
        ([], "There is none."),
        ([f"mmlu/{n}" for n in range(14_042)], "mmlu/28, mmlu/29 and 14,012 more."),
    ],
)
def test_a_hint_names_what_is_near_or_what_there_is_but_never_thousands(
    known: list[str], says: str
) -> None:
    assert nearest("gsm", known).endswith(says)
