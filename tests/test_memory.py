import resource

import pytest
import torch

from charlm.cli.failures import describe_failure
from charlm.config import ModelConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.memory import GIB, MemoryLimit, memory_limit
from charlm.training import memory_check
from charlm.training.memory_check import check_memory, minimum_bytes

CPU = torch.device("cpu")


def test_the_lowest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (GIB, resource.RLIM_INFINITY))
    limit = memory_limit()
    assert limit is not None
    assert str(limit) == "the limit of this process (ulimit -v) is 1.0 GiB"


@pytest.mark.parametrize(
    ("hidden_size", "seq_len", "message"),
    [
        (
            5000,
            64,
            "training with a model of .* parameters needs at least .* GiB of memory, and this machine has 1.0 GiB",
        ),
        (500, 65536, "updates of 512 x 65,536 tokens .* reduce batch_size or seq_len"),
    ],
)
def test_a_training_beyond_memory_is_refused(
    hidden_size: int, seq_len: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "memory_limit", lambda: MemoryLimit(GIB, "this machine has"))
    model = ModelConfig(vocab_size=65, hidden_size=hidden_size)
    with pytest.raises(ConfigError, match=message):
        check_memory(model, TrainConfig(batch_size=512, seq_len=seq_len), CPU)
    check_memory(ModelConfig(vocab_size=65, hidden_size=64), TrainConfig(), CPU)


def test_memory_of_the_model_is_five_numbers_per_parameter() -> None:
    for_model, for_tokens = minimum_bytes(ModelConfig(vocab_size=3, hidden_size=2, embedding_dim=1), TrainConfig())
    weights = 3 * 1 + (4 * 2) * (1 + 2 + 1 + 1) + 3 * 2 + 3
    assert for_model == 20 * weights
    assert for_tokens == 16 * 64 * (1 + (4 + 2) * 2 + 3) * 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory: this machine has 1.0 GiB; use smaller settings or a shorter text"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes. Error 12"
            ),
            "not enough memory (PyTorch tried to allocate 2.0 GiB): this machine has 1.0 GiB; use smaller",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
            "not enough memory (PyTorch tried to allocate 20.00 GiB): ",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "not enough memory (a library cannot be loaded: libtorch_cpu.so: failed to map segment from shared object)",
        ),
        (
            SystemError("<function _find_and_load> returned NULL without setting an exception"),
            "not enough memory (a library cannot be loaded): this machine has 1.0 GiB; training needs 1 GiB",
        ),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), "the package rich is missing: pip install rich"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "training and lessons need PyTorch, which is no",
        ),
        (OSError(5, "Input/output error", "file.txt"), "file.txt: input/output error"),
        (OSError(24, "Too many open files"), "too many open files"),
    ],
    ids=repr,
)
def test_failures_of_the_system_are_one_line(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.cli.failures.memory_limit", lambda: MemoryLimit(GIB, "this machine has"))
    assert (describe_failure(error) or "").startswith(message)


@pytest.mark.parametrize(
    "error", [RuntimeError("a defect"), ModuleNotFoundError("No module named 'charlm.x'", name="charlm.x")], ids=repr
)
def test_a_defect_of_the_program_is_no_failure_of_the_system(error: Exception) -> None:
    assert describe_failure(error) is None
