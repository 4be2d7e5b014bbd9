import json
import os
from pathlib import Path

import pytest

from charlm.engine import runs
from charlm.engine.runs import DEFAULT_MODEL, INCLUDED_MODELS, Run, find_model
from charlm.errors import CharlmError, CheckpointError, RunError


def touch(*paths: str) -> None:
    """Create empty files in ./checkpoints, the newest first."""
    for age, name in enumerate(reversed(paths)):
        path = Path("checkpoints", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (10**9 - age, 10**9 - age))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "\x1b[2J"])
def test_invalid_folder_name_is_an_error(name: str) -> None:
    with pytest.raises(RunError, match=r"^name .*: not a valid folder name") as caught:
        Run.named(name)
    assert caught.value.fields == ("name",)


def test_first_free_name_is_used_if_none_is_given() -> None:
    touch("text/model.safetensors", "text-2/log.jsonl")
    with Run.create(None, "text") as run:
        assert run.name == "text-3"
        with Run.create(None, "text") as other:  # text-3 is locked, although it is still empty
            assert other.name == "text-4"


def test_existing_run_is_replaced_only_with_force() -> None:
    touch("old/model.safetensors", "old/last.safetensors", "old/previous.safetensors", "old/log.jsonl")
    with pytest.raises(RunError, match="exists") as caught, Run.create("old", ""):
        pass
    assert caught.value.fields == ("resume", "force", "name")
    assert Run.named("old").exists
    with Run.create("old", "", force=True) as run:
        assert not run.exists


def test_locking_deletes_only_temporary_files() -> None:
    touch("run/.last.safetensors.x1", "run/.model.safetensors.x2", "run/last.safetensors", "run/notes.txt")
    run = Run.named("run")
    with run.locked():
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", "last.safetensors", "notes.txt"]


def test_run_is_locked_by_one_process_at_a_time() -> None:
    run = Run.named("run")
    with run.locked():
        assert run.is_locked()
        with pytest.raises(RunError, match=f"process {os.getpid()} is training this run"), run.locked():
            pass
    assert not run.is_locked()
    with run.locked():
        pass


def test_newest_run_with_a_saved_state_is_resumed() -> None:
    touch("old/last.safetensors", "new/previous.safetensors", "other/model.safetensors")
    assert Run.find_resumable("").name == "new"
    assert Run.find_resumable("old").saves == [Path("checkpoints/old/last.safetensors")]
    assert Run.find_resumable("checkpoints/old").path == Path("checkpoints/old")
    with pytest.raises(RunError, match="nothing to resume"):
        Run.find_resumable("other")


def test_failed_append_leaves_the_log_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.named("run").locked():
        run = Run.named("run")
        run.append_log({"step": 1})
        length = run.log_bytes
        with monkeypatch.context() as patched:
            patched.setattr(
                "charlm.engine.runs.json.dumps", lambda entry: (_ for _ in ()).throw(OSError(28, "No space"))
            )
            with pytest.raises(RunError, match="No space"):
                run.append_log({"step": 2})
        run.append_log({"step": 3})
        run.truncate_log(length)
        assert [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()] == [{"step": 1}]


def test_model_is_found_by_file_folder_name_or_age() -> None:
    touch("old/model.safetensors", "new/model.safetensors")
    for spec in ("old", "checkpoints/old", "checkpoints/old/model.safetensors"):
        assert find_model(spec) == Path("checkpoints/old/model.safetensors")
    assert find_model(None) == Path("checkpoints/new/model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"^none: no model file or run found; runs in \./checkpoints: new, old; included model: shakespeare$",
    ):
        find_model("none")


def test_the_included_model_is_found_where_there_is_no_run_of_its_name() -> None:
    included = INCLUDED_MODELS / DEFAULT_MODEL / "model.safetensors"
    assert find_model(None) == find_model(DEFAULT_MODEL) == included
    touch("mine/model.safetensors")
    assert find_model(None) == Path("checkpoints/mine/model.safetensors")
    assert find_model(DEFAULT_MODEL) == included
    touch("shakespeare/model.safetensors")
    assert find_model(DEFAULT_MODEL) == Path("checkpoints/shakespeare/model.safetensors")
    with pytest.raises(CheckpointError, match="no model file or run found"):
        find_model("checkpoints/other/shakespeare")


def test_missing_model_is_an_error_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "INCLUDED_MODELS", Path("nowhere"))
    with pytest.raises(CheckpointError, match="no run found") as caught:
        find_model(None)
    assert caught.value.worded({"model": "--model"}).endswith("or set --model")


@pytest.mark.parametrize("spec", ["x" * 300, "loop"])
def test_a_name_that_the_system_rejects_is_an_error(spec: str) -> None:
    Path("loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="cannot be read"):
        find_model(spec)
    with pytest.raises(RunError, match="cannot be read"):
        Run.find(spec)
    with pytest.raises(RunError, match="cannot be read"):
        Run.find_resumable(spec)
    assert not Run.named(spec).exists
    with pytest.raises(CheckpointError, match="'': no model file or run found"):
        find_model("")


def test_a_run_that_cannot_be_read_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("model.safetensors", "last.safetensors", "log.jsonl")
    touch(*(f"{run}/{name}" for run in ("locked", "good") for name in files))
    Path("checkpoints/loop").symlink_to("loop")
    Path("checkpoints/lost").mkdir()
    Path("checkpoints/lost/model.safetensors").symlink_to("missing")
    stat = os.stat

    def refuse(path: object, **options: object) -> os.stat_result:
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(os, "stat", refuse)
    assert find_model(None).parent.name == Run.find(None).name == Run.find_resumable("").name == "good"
    with pytest.raises(CheckpointError, match=r"no model file or run found; runs in \./checkpoints: good; included"):
        find_model("none")
    assert not Run.named("locked").exists
    for find in (find_model, Run.find, Run.find_resumable):
        with pytest.raises(CharlmError, match=r"locked.*: cannot be read \(Permission denied\)$"):
            find("locked")
