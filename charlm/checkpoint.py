"""The only reader and writer of model files.

A model file is one safetensors file: the weights, and in its header everything else as JSON texts: `config`
(the shape), `tokenizer` (the vocabulary) and `story` (where the model came from and how good it is). Reading
one never runs code. A file is written whole beside its place, flushed to disk, and renamed.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charlm.config import ModelConfig
from charlm.errors import CharlmError, CheckpointError
from charlm.tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = "charlm"
FORMAT_VERSION = 1
RESUME_PREFIX = "resume/"
"""Tensors under this name are for going on with the training; the model itself does not need them."""

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
"""Blocks of `hidden_size` rows in a cell's matrices, in PyTorch's order: i f g o; r z n; h."""

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        config: The model's shape.
        tokenizer: Its vocabulary.
        tensors: Its weights by name, and under `RESUME_PREFIX` the trainer's state, if it was read.
        story: Where it came from: corpus, command, versions, training settings, metrics.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Tensors
    story: dict[str, Any] = field(default_factory=dict)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a model: V tokens, E embedding width, H units.

    The names and the order of the gates are PyTorch's, layer by layer.
    """
    vocab, hidden = config.vocab_size, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab, config.embedding_dim)}
    for layer in range(config.num_layers):
        inputs = hidden if layer else config.embedding_dim
        rows = GATES[config.cell] * hidden
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


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a model file: whole or not at all.

    Raises:
        CheckpointError: If it cannot be written; what was there before is untouched.
    """
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(asdict(checkpoint.config)),
        "tokenizer": json.dumps(checkpoint.tokenizer.to_dict()),
        "story": json.dumps(checkpoint.story),
    }
    data = save({name: np.ascontiguousarray(array) for name, array in checkpoint.tensors.items()}, header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)  # a temporary file is private, a model need not be
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
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: a safetensors file, but not charlm's; train one with charlm train")
            if int(header["format_version"]) > FORMAT_VERSION:
                raise CheckpointError(f"{path}: from a newer charlm (format {header['format_version']}); upgrade")
            config = ModelConfig(**json.loads(header["config"]))
            tokenizer = tokenizer_from_dict(json.loads(header["tokenizer"]))
            names = [name for name in file.keys() if with_resume or not name.startswith(RESUME_PREFIX)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
            story = dict(json.loads(header["story"]))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a model file, or a damaged one ({error})") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CharlmError as error:
        raise (error if isinstance(error, CheckpointError) else CheckpointError(f"{path}: damaged ({error})")) from None
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged header ({error!r})") from None
    _check(path, config, tokenizer, tensors)
    return Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors, story=story)


def _check(path: Path, config: ModelConfig, tokenizer: Tokenizer, tensors: Tensors) -> None:
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(f"{path}: damaged ({tokenizer.vocab_size} tokens for {config.vocab_size} ids)")
    for name, shape in tensor_shapes(config).items():
        if name not in tensors:
            raise CheckpointError(f"{path}: damaged (no tensor {name})")
        if tensors[name].shape != shape or not np.issubdtype(tensors[name].dtype, np.floating):
            found = f"{tensors[name].dtype} {tensors[name].shape}"
            raise CheckpointError(f"{path}: damaged ({name} is {found}, not floats of {shape})")


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
