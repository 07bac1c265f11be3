"""The words of a command: each wrong one is met in the order in which a user can be wrong."""

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.plan.make import make_plan
from evals.plan.named import settings_by_name
from evals.plan.settings import RunSettings, check_settings, go_offline

ALL_WRONG = RunSettings(
    "no-such-model",
    suite="smok",
    limit=0,
    tasks=("gsm9k",),
    judges=("xstst=strmatch",),
    engine=EngineSettings(tensor_parallel_size=0, gpu_memory_utilization=2.0),
)
IN_ORDER: list[tuple[str, dict[str, Any]]] = [
    ("Unknown suite 'smok'", {"suite": "smoke"}),
    ("--limit 0", {"limit": 1}),
    ("--tensor-parallel-size 0", {"engine": EngineSettings(gpu_memory_utilization=2.0)}),
    ("--gpu-memory-utilization 2.0", {"engine": EngineSettings()}),
    ("Unknown task 'gsm9k'", {"tasks": ("gsm8k",)}),
    ("unknown role 'xstst'", {"judges": ()}),
    ("Unknown model 'no-such-model'", {}),
]


def test_what_is_wrong_is_told_from_the_first_word_to_the_last_each_mended_in_turn() -> None:
    settings = ALL_WRONG
    for says, mended in IN_ORDER:
        with pytest.raises(InputError) as refused:
            make_plan(settings)
        assert says in str(refused.value)
        settings = replace(settings, **mended)


def test_model_and_data_and_judge_are_told_together() -> None:
    asked = RunSettings("no-such-model", tasks=("truthfulqa",), judges=("truth=no-such-judge",))
    with pytest.raises(InputError) as refused:
        make_plan(replace(asked, data=None, suite="smoke"))
    model, judge = str(refused.value).splitlines()
    assert model.startswith("Unknown model 'no-such-model'")
    assert judge.startswith("Judge of truth: Unknown model 'no-such-judge'")


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (EngineSettings(distributed_executor_backend="rai"), "rai: known are mp, uni, ray"),
        (EngineSettings(2, distributed_executor_backend="uni"), "which splits no weights"),
        (EngineSettings(1, distributed_executor_backend="uni"), None),
    ],
)
def test_how_an_engines_processes_are_started_is_held_to_what_there_is(
    engine: EngineSettings, says: str | None
) -> None:
    if says is None:
        check_settings(RunSettings("m", engine=engine))
        return
    with pytest.raises(InputError, match=says):
        check_settings(RunSettings("m", engine=engine))


@pytest.mark.parametrize(
    "given", [{"watermark": 0.1, "block-size": 32}, '{"block_size": 32, "watermark": 0.1}']
)
def test_a_program_gives_vllms_own_arguments_as_a_mapping_or_as_text(given: object) -> None:
    engine = settings_by_name("m", {"engine_args": given}).engine
    assert engine.engine_args == '{"block_size": 32, "watermark": 0.1}'
    assert engine.arguments()["block_size"] == 32


@pytest.mark.parametrize(
    "name", ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs"]
)
def test_a_count_below_one_is_named_as_the_user_wrote_it(name: str) -> None:
    engine = EngineSettings(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} 0: give 1 or more"):
        check_settings(RunSettings("m", engine=engine))
    check_settings(RunSettings("m", engine=EngineSettings(**{name: 1})))  # type: ignore[arg-type]


def test_offline_is_heeded_by_a_library_that_was_imported_before() -> None:
    """As a trainer's process has it, whose callback runs an evaluation."""
    go_offline()
    with pytest.raises(OfflineModeIsEnabled):
        HfApi().model_info("nobody/nothing")
