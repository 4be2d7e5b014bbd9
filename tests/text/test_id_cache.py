import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from charlm.cli import main
from charlm.errors import CorpusError
from charlm.text import corpus as corpus_module
from charlm.text import id_cache
from charlm.text.corpus import CorpusReader
from charlm.text.id_cache import HEADER_BYTES, cache_folder, encode_texts, prune
from charlm.text.ids import BLOCK_IDS, in_blocks
from charlm.text.tokenizer import CharTokenizer, Ids
from tests.conftest import VERSE, Charlm

CACHE = Path("cache")


def encode(text: str = VERSE, tokenizer: CharTokenizer | None = None) -> tuple[Ids, Path | None]:
    if not Path("text.txt").exists() or Path("text.txt").read_text(encoding="utf-8") != text:
        Path("text.txt").write_text(text, encoding="utf-8")
    with CorpusReader(["text.txt"]) as texts:
        own = CharTokenizer.from_pieces(texts.pieces())
        return encode_texts(texts, tokenizer or own, CACHE)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat `VERSE` as a text that is too long for memory."""
    monkeypatch.setattr(corpus_module, "MAX_CHARS_IN_MEMORY", 100)
    monkeypatch.setattr(corpus_module, "MAX_PIECE_CHARS", 50)


def test_ids_of_a_short_text_are_not_written_to_the_cache() -> None:
    ids, path = encode()
    assert path is None
    assert not CACHE.exists()
    np.testing.assert_array_equal(ids, CharTokenizer.from_text(VERSE).encode(VERSE))


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("extra", "dtype"), [("", "u1"), ("".join(map(chr, range(0x4E00, 0x4F00))), "u2")])
def test_ids_of_a_long_text_are_in_a_file_in_the_smallest_type(extra: str, dtype: str) -> None:
    text = VERSE + extra
    ids, path = encode(text)
    assert path is not None
    assert ids.dtype == np.dtype(dtype)
    assert path.stat().st_size == HEADER_BYTES + len(text) * ids.itemsize
    np.testing.assert_array_equal(ids, CharTokenizer.from_text(text).encode(text))
    assert list(CACHE.iterdir()) == [path]


@pytest.mark.usefixtures("long")
def test_a_file_is_reused_only_for_the_same_text_and_tokenizer() -> None:
    _, path = encode()
    assert path is not None
    written = path.stat().st_ino
    assert encode()[1] == path
    assert path.stat().st_ino == written
    assert encode(VERSE + "more")[1] != path
    assert encode(VERSE, CharTokenizer("abc"))[1] != path


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("place", [0, 20, HEADER_BYTES, HEADER_BYTES + 100, -1])
def test_a_damaged_file_is_replaced(place: int) -> None:
    found, path = encode()
    assert path is not None
    good = np.array(found)
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[place] ^= 0x40
    for data in (bytes(broken), whole[:place] if place else b"", whole + b"\0"):
        path.write_bytes(data)
        ids, again = encode()
        assert again == path
        np.testing.assert_array_equal(ids, good)
        assert path.read_bytes() == whole


@pytest.mark.usefixtures("long")
def test_several_processes_may_write_the_same_file() -> None:
    Path("text.txt").write_text(VERSE, encoding="utf-8")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=encode) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(CACHE.iterdir())) == 1
    np.testing.assert_array_equal(encode()[0], CharTokenizer.from_text(VERSE).encode(VERSE))


@pytest.mark.usefixtures("long")
def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        CorpusError, match=r"cannot write .* \(No space left on device\): set cache .* cache$"
    ) as caught:
        encode()
    assert caught.value.fields == ("cache",)
    assert list(CACHE.iterdir()) == []


def cache_entry(name: str, size: int, hours_ago: float) -> Path:
    path = CACHE / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - 3600 * hours_ago,) * 2)
    return path


def test_pruning_removes_only_the_least_recently_used_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_cache, "MAX_CACHE_BYTES", 250)
    oldest, old, new = (cache_entry(f"{hours:032x}.ids", 100, hours) for hours in (30, 20, 10))
    temporary = cache_entry(".abcdefgh.ids", 100, 0)
    abandoned = cache_entry(".stuvwxyz.ids", 10, 2)
    foreign = [cache_entry(name, 1000, 99) for name in ("thesis.ids", ".hidden", f"{1:032x}.idx", f"{1:032x}.ids.gz")]
    (note,) = prune(CACHE, [oldest])
    assert note == "removed 3 file(s) from the cache cache (0.0 GB), least recently used first: its limit is 0 GB"
    assert sorted(CACHE.iterdir()) == sorted([oldest, temporary, *foreign])
    assert not any(path.exists() for path in (old, new, abandoned))
    assert prune(CACHE, [oldest]) == []


def test_pruning_starts_at_a_share_of_a_small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = cache_entry(f"{1:032x}.ids", 100, 2), cache_entry(f"{2:032x}.ids", 100, 1)
    assert prune(CACHE, []) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1000))
    assert len(prune(CACHE, [])) == 1
    assert new.exists()
    assert not old.exists()


def test_a_file_that_cannot_be_removed_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def held(path: Path) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(id_cache, "MAX_CACHE_BYTES", 0)
    monkeypatch.setattr(Path, "unlink", held)
    path = cache_entry(f"{1:032x}.ids", 100, 2)
    assert prune(CACHE, []) == []
    assert path.exists()


@pytest.mark.usefixtures("long")
def test_using_a_file_updates_its_modification_time() -> None:
    _, path = encode()
    assert path is not None
    os.utime(path, (0, 0))
    encode()
    assert time.time() - path.stat().st_mtime < 60


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove mapped files")
@pytest.mark.usefixtures("long")
def test_mapped_ids_can_be_read_after_their_file_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, path = encode()
    monkeypatch.setattr(id_cache, "MAX_CACHE_BYTES", 0)
    assert prune(CACHE, [])
    assert path is not None
    assert not path.exists()
    np.testing.assert_array_equal(ids, CharTokenizer.from_text(VERSE).encode(VERSE))


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "charlm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "charlm"


SMALL_TRAINING = ("train", "-", "--hidden", "4", "--embed", "4", "--steps", "2", "--cache", str(CACHE))


def assert_trained_from_the_cache(text: str, messages: str) -> None:
    (path,) = CACHE.iterdir()
    assert f"ids are kept in {path}" in messages
    assert path.stat().st_size == HEADER_BYTES + len(text)


@pytest.mark.usefixtures("long")
def test_a_long_text_from_standard_input_trains_from_the_cache() -> None:
    done = CliRunner().invoke(main, SMALL_TRAINING, input=VERSE, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert_trained_from_the_cache(VERSE, done.stderr)


@pytest.mark.slow
def test_a_text_too_long_for_memory_trains_from_a_pipe(charlm: Charlm) -> None:
    text = VERSE * (corpus_module.MAX_CHARS_IN_MEMORY // len(VERSE) + 1)
    done = charlm(*SMALL_TRAINING, stdin=text)
    assert done.returncode == 0, done.stderr
    assert_trained_from_the_cache(text, done.stderr)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not report resident memory")
def test_reading_mapped_ids_in_blocks_frees_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with Path("ids").open("wb") as file:
        file.truncate(6 * BLOCK_IDS + 5)
    mapped: Ids = np.asarray(np.memmap("ids", dtype=np.uint8, mode="r"))[3:]
    before = resident()
    assert sum(int(np.count_nonzero(block == 0)) for block in in_blocks(mapped)) == len(mapped)
    assert resident() - before < 3 * BLOCK_IDS


def test_cache_of_a_user_without_a_home_is_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == Path(".cache/charlm")
