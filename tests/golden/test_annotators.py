"""AlpacaEval's annotators by name: asked and read as the package itself does it, row by row."""

import math
from pathlib import Path
from typing import Any

import pytest

from evals.records import Finding
from tasks.alpaca_judges import PREFIX, annotator, judge_request, preference_for_model

SAID: dict[str, list[Any]] = {
    "improved_lmsys_gpt4": ["7 3\nwhy", "3, 7", "5 5", "8", "no 1", ""],
    "gpt4_turbo": ["Output (a)", "\nOutput (b)", "Neither", "Output (a)\nOutput (b)"],
    "alpaca_eval_gpt4_0314": [
        "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]",
        "[{'model': 'model_1', 'rank': 2}]",
        "neither",
    ],
}
LOGPROBS = [
    {"m": -0.1, "M": -2.5},
    {"M": -0.01},
    {"m": -0.7, "M": -0.7},
    {"x": -0.1},
]


@pytest.fixture(scope="module")
def package() -> Any:
    return pytest.importorskip("alpaca_eval")


def parsed(name: str, completion: Any) -> float | None:
    """What the package's own parser makes of a judge's words; None where it makes nothing."""
    import yaml
    from alpaca_eval import completion_parsers, constants

    folder = Path(constants.EVALUATORS_CONFIG_DIR) / name
    config = yaml.safe_load((folder / "configs.yaml").read_text("utf-8"))[name]
    parser = getattr(completion_parsers, config.get("fn_completion_parser", "regex_parser"))
    try:
        found = parser(completion, **config.get("completion_parser_kwargs", {}))
    except ValueError:
        return None
    if len(found) != 1 or math.isnan(found[0]):
        return None
    return float(found[0]) or 1.5  # 0 is its draw


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in SAID.items() for text in texts]
)
def test_words_are_read_as_the_package_reads_them(package: Any, name: str, text: str) -> None:
    assert annotator(PREFIX + name).read(Finding("j", text=text)) == parsed(name, text)


@pytest.mark.parametrize("top", LOGPROBS, ids=str)
@pytest.mark.parametrize(
    "name", ["alpaca_eval_clf_gpt4_turbo", "weighted_alpaca_eval_gpt-4o-mini-2024-07-18"]
)
def test_log_probabilities_are_read_as_the_package_reads_them(
    package: Any, name: str, top: dict[str, float]
) -> None:
    shown = [{"token": token, "logprob": value} for token, value in top.items()]
    completion = {"logprobs": {"content": [{"token": "m", "top_logprobs": shown}]}}
    expected = parsed(name, completion)
    found = annotator(PREFIX + name).read(Finding("j", text="m", top_logprobs=top))
    assert found == (expected if expected is None else pytest.approx(expected))


def test_an_annotator_that_draws_no_order_shows_the_reference_first() -> None:
    for instruction in map(str, range(8)):
        asked = judge_request("alpaca_eval_1", instruction, "REF", "OWN", f"{PREFIX}lmsys_gpt4")
        text = asked.messages[-1].content
        assert text.index("REF") < text.index("OWN")
        finding = Finding("j", text="3 7")
        prompt = f"{PREFIX}lmsys_gpt4"
        assert preference_for_model("alpaca_eval_1", instruction, finding, prompt) == 2
