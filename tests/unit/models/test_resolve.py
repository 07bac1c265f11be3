"""What a model argument means: every kind of it, every bad one, and what a fingerprint follows."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from evals.errors import EnvironmentFault
from evals.models.embedded import embedded_folder
from evals.models.resolve import Model, require_weights, resolve
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.storage.run_folder import RunFolder
from tests.toydata import failure

SHIPPED = Path(__file__).resolve().parents[3] / "results" / "smollm2-135m-instruct-card"
SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

WEIGHTS = save({"w": np.arange(3, dtype=np.float32)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder: the embedded one's config and tokenizer, and a few bytes for weights."""
    made = tmp_path / "step_2000"
    made.mkdir()
    for name in SMALL:
        shutil.copy(embedded_folder() / name, made)
    (made / "model.safetensors").write_bytes(WEIGHTS)
    return made


def refused(argument: str | Path, **settings: object) -> str:
    def attempt() -> None:
        require_weights(resolve(str(argument), **settings))  # type: ignore[arg-type]

    message = failure(attempt)
    assert "\n" not in message
    return message


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_its_weights_and_is_named_after_itself(folder: Path) -> None:
    model = resolve(str(folder))
    assert (model.kind, model.name, model.source, model.files, model.revision) == (
        "weights",
        "step_2000",
        str(folder),
        folder,
        None,
    )
    require_weights(model)


def test_the_embedded_model_is_the_same_one_however_it_was_prepared(tmp_path: Path) -> None:
    """The tokenizer's file says whether the hub was to be asked; the shipped run was made by a
    program that might have.
    """
    asked = "from evals.models.resolve import resolve; print(resolve('smollm2').fingerprint())"
    home = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=home, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert (
        done.stdout.strip() == RunFolder(SHIPPED).read_json("summary.json")["model"]["fingerprint"]
    )


def test_a_folder_may_be_named_from_where_one_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert resolve(".").name == "step_2000"
    monkeypatch.chdir(folder.parent)
    assert resolve("step_2000/").name == "step_2000"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/step_2000").files == folder


def test_a_folder_named_like_a_hub_id_is_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert resolve(f"{folder.parent.name}/step_2000").kind == "weights"


def test_the_default_is_the_embedded_model() -> None:
    model = resolve("smollm2")
    assert model.name == "SmolLM2-135M-Instruct"
    assert model.files == embedded_folder()
    require_weights(model)


def test_an_unknown_name_gets_the_nearest() -> None:
    assert "Did you mean smollm2" in refused("smolm2")
    assert "Did you mean tulu-2-llama-3.1-8b-dpo" in refused("tulu2-llama-3.1-8b-dpo")
    assert "no such folder" in refused("./nowhere/at/all")
    assert "MODEL is empty" in refused("")
    assert "Unknown model '~nobody-of-this-name/x/y'" in refused("~nobody-of-this-name/x/y")
    assert "no such folder" in refused("x" * 300)
    assert "There is no file" in refused("replay:" + "x" * 300)
    assert "There is no file" in refused("replay:~nobody-of-this-name")


def test_a_file_is_no_model_but_may_be_a_recording(folder: Path) -> None:
    file = folder / "config.json"
    assert (
        refused(file)
        == f"{file} is a file; a model is a folder. For recorded outputs write replay:{file}."
    )


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    assert "holds no model: no config.json and no tokenizer" in refused(tmp_path)


QUANTIZED = {
    '{"quantization_config": {"quant_method": "awq", "bits": 4}}': "awq",
    '{"text_config": {"quantization_config": {"quant_method": "fp8"}}}': "fp8",
    '{"compression_config": {"format": "x"}}': "by a method that its config does not name",
    '{"quantization_config": null, "text_config": null}': None,
    '{"quantization_config": []}': None,
    "{}": None,
}


@pytest.mark.parametrize("config", QUANTIZED)
def test_a_checkpoints_own_quantization_is_known(config: str, folder: Path) -> None:
    (folder / "config.json").write_text(config)
    assert resolve(str(folder)).own_quantization == QUANTIZED[config]


@pytest.mark.parametrize("content", ['{"a":', "[]", "", "\xff"])
def test_a_damaged_config_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert "step_2000/config.json" in refused(folder)
    assert "damaged: copy it again" in refused(folder)


def test_a_config_that_is_a_device_is_not_read_to_its_end(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    assert "cannot be read as JSON (no ordinary file)" in refused(folder)


def test_a_tokenizer_without_weights_prints_prompts_and_runs_nothing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    settings = RunSettings(str(folder), suite="smoke", tasks=("ifeval",))
    assert make_plan(settings, need_weights=False).render("ifeval")
    assert "holds no weights (*.safetensors or *.bin)" in failure(lambda: make_plan(settings))


def test_weights_without_a_config_are_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "holds no config.json" in refused(folder)


def test_weights_without_a_tokenizer_are_refused(folder: Path) -> None:
    for name in SMALL[1:]:
        (folder / name).unlink()
    assert "No tokenizer could be read from" in failure(
        lambda: make_plan(RunSettings(str(folder), suite="smoke"))
    )


def test_a_copy_that_lacks_a_shard_is_refused_by_name(folder: Path) -> None:
    shards = {f"layer.{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    (folder / "model.safetensors").rename(folder / shards["layer.1"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "model-00002-of-00002.safetensors" in refused(folder)
    assert "model-00001" not in refused(folder)
    (folder / shards["layer.2"]).write_bytes(WEIGHTS)
    require_weights(resolve(str(folder)))


BROKEN = {
    "empty": (b"", "breaks off within its header"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    "a header cut off": (WEIGHTS[:20], "breaks off within its header"),
    "cut off": (WEIGHTS[:-1], f"its header says {len(WEIGHTS):,}"),
    "bytes too many": (WEIGHTS + b"\0", f"its header says {len(WEIGHTS):,}"),
    "another format": (b"\x05" + bytes(7) + b"[1,2]" + bytes(90), "has no header of the format"),
    "places without end": (
        b"\x24" + bytes(7) + b'{"w": {"data_offsets": [0, 1e999]}} ' + bytes(90),
        "has no header of the format",
    ),
    "not JSON": (b"\x05" + bytes(7) + b"{{{{{" + bytes(90), "has no header of the format"),
}


@pytest.mark.parametrize(("raw", "says"), BROKEN.values(), ids=BROKEN)
def test_weights_that_are_not_whole_are_refused_before_anything_loads(
    folder: Path, raw: bytes, says: str
) -> None:
    (folder / "model.safetensors").write_bytes(raw)
    assert f"is damaged: model.safetensors {says}" in refused(folder).replace(
        f"has {len(raw):,} bytes, ", ""
    )


def test_an_archive_of_weights_that_breaks_off_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 99)
    whole = file.read_bytes()
    require_weights(resolve(str(folder)))
    file.write_bytes(b"\x80\x02 a bare pickle, of which nothing is known")
    require_weights(resolve(str(folder)))
    dry = RunSettings(str(folder), suite="smoke", offline=True)
    pointer = b"version https://git-lfs.github.com/spec/v1"
    for raw, says in ((whole[:-30], "breaks off ("), (b"", "breaks off ("), (pointer, "is a Git")):
        file.write_bytes(raw)
        assert f"is damaged: pytorch_model.bin {says}" in refused(folder)
        assert "is damaged" in failure(lambda: make_plan(dry, need_judges=False))


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
             "tokenizer_config.json", "model.safetensors.index.json"],
)  # fmt: skip
def test_json_nested_without_end_is_one_sentence_that_names_its_file(
    folder: Path, name: str
) -> None:
    (folder / name).write_text('{"a":' * 50_000)
    said = failure(lambda: make_plan(RunSettings(str(folder), suite="smoke", offline=True)))
    assert name in said
    assert "\n" not in said


def test_the_index_of_a_format_that_was_not_downloaded_is_no_gap(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-1.safetensors"}}'
    )
    (folder / "pytorch_model.bin.index.json").write_text(
        '{"weight_map": {"a": "pytorch_model-1.bin"}}'
    )
    require_weights(resolve(str(folder)))


def test_a_revision_goes_with_a_hub_id_only(folder: Path) -> None:
    for argument in (str(folder), "smollm2", "openai:m@http://h/v1"):
        assert "--revision v1 goes with a hub id" in refused(argument, revision="v1")


# --- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "source", "name", "urls"),
    [
        ("openai:m@http://h:8000/v1", "m", "m", ("http://h:8000/v1",)),
        ("openai:out/my-8b@http://h/v1/", "out/my-8b", "my-8b", ("http://h/v1",)),
        ("openai:m@http://a/v1,https://b/v1", "m", "m", ("http://a/v1", "https://b/v1")),
        ("openai:gpt-4-0613", "gpt-4-0613", "gpt-4-0613", ("https://api.openai.com/v1",)),
    ],
)
def test_a_server_is_a_name_and_its_urls(
    argument: str, source: str, name: str, urls: tuple[str, ...]
) -> None:
    model = resolve(argument)
    assert (model.kind, model.source, model.name, model.urls, model.files) == (
        "server",
        source,
        name,
        urls,
        None,
    )


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("openai:", "names no model"),
        ("openai:@http://h/v1", "names no model"),
        ("openai:m@", "is no URL"),
        ("openai:m@,", "is no URL"),
        ("openai:m@localhost:8000", "is no URL"),
        ("openai:m@http://", "is no URL"),
        ("openai:m@http://a b/v1", "is no URL"),
        ("openai:m@http://h/v1,ftp://h", "is no URL"),
    ],
)
def test_a_bad_server_is_named(argument: str, says: str) -> None:
    assert says in refused(argument)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("openai:m@https://me:secret@h/v1", "must hold no password"),
        ("openai:m@https://h/v1?key=secret", "must hold no password, and no ? or #"),
        ("openai:m@https://h/v1#secret", "must hold no password, and no ? or #"),
        ("openai:m@https://h/v1,http://h?secret", "must hold no password, and no ? or #"),
        ("openai:https://me:secret@h/v1", "'h/v1' is no URL"),
        ("https://me:secret@h/v1", "Write openai:NAME@URL"),
    ],
)
def test_a_key_or_password_in_a_url_is_refused_and_not_repeated(argument: str, says: str) -> None:
    message = refused(argument)
    assert says in message
    assert "secret" not in message


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert "needs a key: set OPENAI_API_KEY" in refused("openai:gpt-4-0613")
    require_weights(resolve("openai:m@http://h/v1"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    require_weights(resolve("openai:gpt-4-0613"))


@pytest.mark.parametrize(
    "url", ["http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8/v1", "http://127.8.9.1"]
)
def test_offline_allows_this_machine(url: str) -> None:
    assert resolve(f"openai:m@{url}", offline=True).urls == (url,)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "https://localhost.example.com/v1",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
    ],
)
def test_offline_forbids_every_other(url: str) -> None:
    assert f"--offline forbids the server {url}" in refused(f"openai:m@{url}", offline=True)
    assert "--offline forbids the server https://api.openai.com/v1" in refused(
        "openai:m", offline=True
    )


# --- recordings -----------------------------------------------------------------------------------


def test_a_recording_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my-8b.jsonl.gz"
    file.write_bytes(b"x")
    model = resolve(f"replay:{file}")
    assert (model.kind, model.name, model.source) == ("replay", "my-8b", str(file))
    assert "There is no file" in refused(f"replay:{tmp_path / 'other.jsonl'}")


def test_a_recordings_fingerprint_is_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    one.write_text("x")
    two.write_text("x")
    assert resolve(f"replay:{one}").fingerprint() == resolve(f"replay:{two}").fingerprint("float32")
    two.write_text("y")
    assert resolve(f"replay:{one}").fingerprint() != resolve(f"replay:{two}").fingerprint()


# --- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_follows_the_weights_and_the_precision(folder: Path) -> None:
    first = resolve(str(folder)).fingerprint()
    assert resolve(str(folder)).fingerprint("auto", None) == first
    others = {
        resolve(str(folder)).fingerprint("float32"),
        resolve(str(folder)).fingerprint("auto", "fp8"),
    }
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"z")
    others.add(resolve(str(folder)).fingerprint())
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    assert resolve(str(folder)).fingerprint() == first
    (folder / "chat_template.jinja").write_text("{{ bos_token }}")
    others.add(resolve(str(folder)).fingerprint())
    assert len(others | {first}) == 5


def test_a_fingerprint_does_not_follow_the_path_or_other_files(folder: Path) -> None:
    first = resolve(str(folder)).fingerprint()
    (folder / "README.md").write_text("hello")
    moved = folder.rename(folder.parent / "elsewhere")
    assert resolve(str(moved)).fingerprint() == first


def test_a_lost_or_damaged_memory_of_hashes_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = resolve(str(folder)).fingerprint()
    memory = tmp_path / "cache" / "evals" / "hashes.json"
    assert memory.is_file()
    for content in ("", "[1]", '{"a": 1}'):
        memory.write_text(content)
        assert resolve(str(folder)).fingerprint() == first
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert resolve(str(folder)).fingerprint() == first


def test_a_servers_fingerprint_is_its_models_name_and_a_hubs_its_commit(tmp_path: Path) -> None:
    here, there = resolve("openai:m@http://a/v1"), resolve("openai:m@http://b/v1")
    assert here.fingerprint() == there.fingerprint()
    assert resolve("openai:n@http://a/v1").fingerprint() != here.fingerprint()
    commits = [
        Model("a/b", "b", "weights", "a/b", tmp_path, revision=commit) for commit in ("c1", "c2")
    ]
    assert commits[0].fingerprint() != commits[1].fingerprint()


def test_memory_settings_are_no_part_of_a_plans_fingerprint(folder: Path) -> None:
    from evals.generators import EngineSettings

    def fingerprint(engine: EngineSettings) -> str:
        return make_plan(
            RunSettings(str(folder), suite="smoke", tasks=("ifeval",), engine=engine)
        ).fingerprint

    base = fingerprint(EngineSettings())
    assert (
        fingerprint(
            EngineSettings(
                tensor_parallel_size=3,
                gpu_memory_utilization=0.5,
                max_num_seqs=4,
                enforce_eager=True,
            )
        )
        == base
    )
    assert fingerprint(EngineSettings(dtype="float32")) != base


@pytest.mark.parametrize("name", ["torch", "gguf", "accelerate"])
def test_the_embedded_model_without_what_converts_it_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, name, None)  # what is not installed is not found either
    with pytest.raises(EnvironmentFault, match=f"converted with {name}.*pip install {name}$"):
        embedded_folder()
