"""The only reader and writer of model files.

A model file is one safetensors file: the weights, and in its header everything else as JSON texts: `config`
(the shape), `tokenizer` (the vocabulary) and `story` (where the model came from and how good it is). Reading
one never runs code, and nothing in it is believed before it is checked. A file is written whole beside its place,
flushed to disk, and renamed. docs/checkpoint-format.md describes every byte and key.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from charlm.config import CELLS, ModelConfig, from_dict
from charlm.engine.runs import temporary_prefix
from charlm.engine.tensorfile import TensorFile, parse_json
from charlm.errors import CharlmError, CheckpointError
from charlm.text.tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = "charlm"
FORMAT_VERSION = 1
RESUME_PREFIX = "resume/"
"""Tensors under this name are for going on with the training; the model itself does not need them."""

MAX_WEIGHT = 1e9
"""No weight of a trained model comes near it; beyond, or if it is no number, arithmetic ends in infinities."""

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        config: The model's shape.
        tokenizer: Its vocabulary.
        tensors: Its weights by name, and under `RESUME_PREFIX` the trainer's state, if it was read.
        metadata: Where it came from: corpus, command, versions, training settings, metrics.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Tensors
    metadata: dict[str, Any] = field(default_factory=dict)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a model: V tokens, E embedding width, H units.

    The names and the order of the gates are PyTorch's, layer by layer.
    """
    vocab, hidden = config.vocab_size, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab, config.embedding_dim)}
    for layer in range(config.num_layers):
        inputs = hidden if layer else config.embedding_dim
        rows = len(CELLS[config.cell].gates) * hidden
        shapes |= {
            f"core.layers.{layer}.weight_ih_l0": (rows, inputs),
            f"core.layers.{layer}.weight_hh_l0": (rows, hidden),
            f"core.layers.{layer}.bias_ih_l0": (rows,),
            f"core.layers.{layer}.bias_hh_l0": (rows,),
        }
    if not config.tie_weights:
        shapes["decoder.weight"] = (vocab, hidden)
    shapes["decoder.bias"] = (vocab,)
    return shapes


def num_parameters(config: ModelConfig) -> int:
    """Return the number of weights of a model."""
    return sum(math.prod(shape) for shape in tensor_shapes(config).values())


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write a model file: whole or not at all.

    Args:
        path: Where to.
        checkpoint: What to write.
        keep: What was at `path` before goes here, if anything was.

    Raises:
        CheckpointError: If it cannot be written; what was there before is untouched.
    """
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(asdict(checkpoint.config)),
        "tokenizer": json.dumps(checkpoint.tokenizer.to_dict()),
        "story": json.dumps(checkpoint.metadata),
    }
    data = save({name: np.asarray(array, order="C") for name, array in checkpoint.tensors.items()}, header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=temporary_prefix(path), delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)  # a temporary file is private, a model need not be
                if keep is not None and path.exists():
                    os.replace(path, keep)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None


def load_checkpoint(path: Path, *, with_resume: bool = False) -> Checkpoint:
    """Read a model file and check that it is what it says.

    Args:
        path: The file.
        with_resume: Read the trainer's state too.

    Raises:
        CheckpointError: If it is missing, no model file, damaged, or from a newer format.
    """
    try:
        with path.open("rb") as stream:
            file = TensorFile(stream, path)
            config, tokenizer, metadata = _read_header(file.metadata, path)
            _check_places(path, config, tokenizer, file)
            names = [name for name in file.names if with_resume or not name.startswith(RESUME_PREFIX)]
            tensors = {name: file.read(name) for name in names}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    for name in tensor_shapes(config):
        if not max(float(tensors[name].max()), -float(tensors[name].min())) <= MAX_WEIGHT:
            raise CheckpointError(f"{path}: damaged ({name} has weights that are no numbers, or beyond {MAX_WEIGHT:g})")
    return Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors, metadata=metadata)


def _read_header(metadata: Mapping[str, str], path: Path) -> tuple[ModelConfig, Tokenizer, dict[str, Any]]:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not charlm's; train one with charlm train")
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise CheckpointError(f"{path}: damaged header (no format version)")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(f"{path}: from a newer charlm (format {version}); upgrade")
    parts: dict[str, dict[str, Any]] = {}
    for name in ("config", "tokenizer", "story"):
        parts[name] = parse_json(metadata.get(name, "null"), path)
        if not isinstance(parts[name], dict):
            raise CheckpointError(f"{path}: damaged header (no {name})")
    try:
        config = from_dict(ModelConfig, parts["config"])
        tokenizer = tokenizer_from_dict(parts["tokenizer"])
        "".join(tokenizer.tokens).encode("utf-8", "surrogateescape")  # as every output has it
    except (CharlmError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged header ({str(error)[:200]})") from None
    return config, tokenizer, parts["story"]


def _check_places(path: Path, config: ModelConfig, tokenizer: Tokenizer, file: TensorFile) -> None:
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(f"{path}: damaged ({tokenizer.vocab_size} tokens for {config.vocab_size} ids)")
    shapes = tensor_shapes(config)
    for name, shape in shapes.items():
        if name not in file.names:
            raise CheckpointError(f"{path}: damaged (no tensor {name})")
        if file.shape(name) != shape or file.dtype(name).kind != "f":
            raise CheckpointError(
                f"{path}: damaged ({name} is {file.dtype(name)} {file.shape(name)}, not floats of {shape})"
            )
    for name in file.names:
        if name not in shapes and not name.startswith(RESUME_PREFIX):
            raise CheckpointError(f"{path}: damaged, or from a newer charlm (a tensor {name[:80]!r})")


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
