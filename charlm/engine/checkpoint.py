"""Reader and writer of model files.

A model file is one safetensors file. It holds the weights, and in its header everything else as JSON: `config` (the
shape of the model), `tokenizer` (the vocabulary), `ngram` (the weight of an n-gram model beside the network),
`spelling` (the characters of the spelling model of a word model) and `story` (the metadata: origin and quality of the
model). Reading a file never runs code, and everything is checked before it is used. New content is written to a
temporary file in the same folder, flushed to disk, and renamed.
docs/checkpoint-format.md specifies every byte and key.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from charlm.atomic import atomic_write
from charlm.config import CELLS, NGRAM_CELL, ModelConfig
from charlm.engine.adaptive import Adaptation
from charlm.engine.gate import MAX_COEFFICIENT, NUM_FEATURES, Gate
from charlm.engine.ngram import NGram
from charlm.engine.spelling import SpellingModel
from charlm.engine.tensorfile import TensorFile, parse_json
from charlm.errors import CharlmError, CheckpointError
from charlm.settings import from_dict
from charlm.text.tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = "charlm"
FORMAT_VERSION = 2

CLASSIFIER_FORMAT = "charlm-classifier"
"""Mark of the files of classifiers, which `charlm.engine.classifier_file` reads."""

METADATA_KEY = "story"
"""Header key of the metadata. It is part of the file format and does not change."""

RESUME_PREFIX = "resume/"
"""Prefix of the names of tensors that only a resumed training needs."""

SPELLING_KEY, SPELLING_PREFIX = "spelling", "spelling/"
"""Header key of the spelling model of a word model, and prefix of the names of its tensors."""

NGRAM_KEY, NGRAM_PREFIX = "ngram", "ngram/"
"""Header key of the n-gram model, and prefix of the names of its tensors."""

ADAPTATION_KEY, ADAPTATION_PREFIX = "adapt", "adapt/"
"""Header key of the constants of the adaptive part, and prefix of the name of its tensor, `gains`."""

MAX_WEIGHT = 1e9
"""Maximum magnitude of a weight. Trained weights are far smaller. Larger weights could make results infinite."""

Tensors = Mapping[str, npt.NDArray[Any]]
"""Tensors by name."""


class _HasVocabulary(Protocol):
    """Configuration of a model."""

    @property
    def vocab_size(self) -> int: ...


Config = TypeVar("Config", bound=_HasVocabulary)


@dataclass(frozen=True, kw_only=True)
class NGramPart:
    """N-gram model of a model file, which is interpolated with the network.

    Attributes:
        ngram: The n-gram model. Its vocabulary is that of the tokenizer.
        weight: Weight of its probabilities, from 0 to 1; that of the network is 1 - `weight`. 1 if there is no network.
            With a gate, its mean on the validation text, to which the geometric mean adds half of its weight.
        gate: Weights that depend on the predictions; None for the constant `weight`.
    """

    ngram: NGram
    weight: float
    gate: Gate | None = None

    def weights_to_dict(self) -> dict[str, Any]:
        """Return the weight and, if there is a gate, its coefficients, as a model file stores them."""
        gate = {} if self.gate is None else {"gate": self.gate.coefficients.tolist()}
        return {"weight": self.weight, **gate}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Content of a model file.

    Attributes:
        config: Shape of the model. A model without a network has the cell `NGRAM_CELL`, and no other shape.
        tokenizer: Tokenizer with its vocabulary.
        tensors: Weights by name. The trainer's state, if it was read, has names that start with `RESUME_PREFIX`.
        counts: N-gram model; None if the network is alone.
        adaptation: Constants of the adaptive part; None if they were not fitted.
        spelling: Model of the spelling of unknown words; None for models of characters, and for word models from files
            of version 1.
        metadata: Origin of the model: corpus, command, versions, training settings, metrics.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Tensors
    counts: NGramPart | None = None
    adaptation: Adaptation | None = None
    spelling: SpellingModel | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every weight of a network; none for a model without a network.

    Names and order of the gates are those of PyTorch's layers.
    """
    if config.cell == NGRAM_CELL:
        return {}
    vocab, hidden = config.vocab_size, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab, config.embedding_dim), **core_shapes(config)}
    if not config.tie_weights:
        shapes["decoder.weight"] = (vocab, hidden)
    shapes["decoder.bias"] = (vocab,)
    return shapes


def core_shapes(config: ModelConfig, directions: int = 1) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every weight of the recurrent layers.

    Args:
        config: Shape of the model.
        directions: 2 if each layer also reads every sequence backward.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(config.num_layers):
        inputs = directions * config.hidden_size if layer else config.embedding_dim
        rows = len(CELLS[config.cell].gates) * config.hidden_size
        for suffix in ("", "_reverse")[:directions]:
            shapes |= {
                f"core.layers.{layer}.weight_ih_l0{suffix}": (rows, inputs),
                f"core.layers.{layer}.weight_hh_l0{suffix}": (rows, config.hidden_size),
                f"core.layers.{layer}.bias_ih_l0{suffix}": (rows,),
                f"core.layers.{layer}.bias_hh_l0{suffix}": (rows,),
            }
    return shapes


def num_parameters(config: ModelConfig) -> int:
    """Return the number of weights of a network; 0 for a model without a network."""
    return sum(math.prod(shape) for shape in tensor_shapes(config).values())


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write a model file. If writing fails, the file that was there before stays as it was.

    Args:
        path: The file to write.
        checkpoint: The content.
        keep: New name for the file that was at `path` before; None to replace that file.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(asdict(checkpoint.config)),
        "tokenizer": json.dumps(checkpoint.tokenizer.to_dict()),
        METADATA_KEY: json.dumps(checkpoint.metadata),
    }
    tensors = dict(checkpoint.tensors)
    if checkpoint.counts is not None:
        header[NGRAM_KEY] = json.dumps(checkpoint.counts.weights_to_dict())
        tensors |= {NGRAM_PREFIX + name: array for name, array in checkpoint.counts.ngram.to_tensors().items()}
    if checkpoint.adaptation is not None:
        header[ADAPTATION_KEY] = json.dumps({"context_lengths": checkpoint.adaptation.context_lengths})
        tensors[f"{ADAPTATION_PREFIX}gains"] = checkpoint.adaptation.gains
    if checkpoint.spelling is not None:
        header[SPELLING_KEY] = json.dumps({"chars": checkpoint.spelling.chars})
        tensors |= {SPELLING_PREFIX + name: array for name, array in checkpoint.spelling.to_tensors().items()}
    write_model_file(path, header, tensors, keep=keep)


def write_model_file(path: Path, header: dict[str, str], tensors: Tensors, *, keep: Path | None = None) -> None:
    """Write a safetensors file with these header entries and tensors; see `save_checkpoint`.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, keep=keep) as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None


def load_checkpoint(path: Path, *, with_resume: bool = False) -> Checkpoint:
    """Read and check a model file.

    Args:
        path: The file.
        with_resume: Whether to read the trainer's state too.

    Raises:
        CheckpointError: If the file is missing, damaged, not a model file, or written by a newer version of the format.
    """
    with open_model_file(path) as file:
        config, tokenizer, metadata = _parse_header(file.metadata, path)
        _check_tensors(path, config, file)
        spelling = _read_spelling(path, tokenizer, file)
        counts = _read_counts(path, config, file)
        adaptation = _read_adaptation(path, file)
        parts = (SPELLING_PREFIX, NGRAM_PREFIX, ADAPTATION_PREFIX)
        skipped = parts if with_resume else (*parts, RESUME_PREFIX)
        tensors = {name: file.read(name) for name in file.names if not name.startswith(skipped)}
    check_weights(path, tensors, tensor_shapes(config))
    return Checkpoint(
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        counts=counts,
        adaptation=adaptation,
        spelling=spelling,
        metadata=metadata,
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a language model or of a classifier without reading its weights.

    Raises:
        CheckpointError: If the file is missing, damaged, not a model, or of a newer version of the format.
    """
    with open_model_file(path) as file:
        file_format = CLASSIFIER_FORMAT if file.metadata.get("format") == CLASSIFIER_FORMAT else FORMAT
        return parse_parts(file.metadata, path, (METADATA_KEY,), file_format=file_format)[METADATA_KEY]


@contextmanager
def open_model_file(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file. It may be of any kind.

    Raises:
        CheckpointError: If it is missing, cannot be read, or is no safetensors file.
    """
    try:
        with path.open("rb") as stream:
            yield TensorFile(stream, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def _parse_header(header: Mapping[str, str], path: Path) -> tuple[ModelConfig, Tokenizer, dict[str, Any]]:
    """Return configuration, tokenizer and metadata from the strings of a header."""
    if header.get("format") == CLASSIFIER_FORMAT:
        raise CheckpointError(f"{path}: a text classifier, not a language model; use it with charlm classify predict")
    parts = parse_parts(header, path, ("config", "tokenizer", METADATA_KEY))
    return *parse_model(parts, path, ModelConfig), parts[METADATA_KEY]


def parse_model(parts: Mapping[str, dict[str, Any]], path: Path, kind: type[Config]) -> tuple[Config, Tokenizer]:
    """Return the configuration of a model and its tokenizer from the JSON objects of a header.

    Args:
        parts: The objects `config` and `tokenizer`.
        path: The file, for messages.
        kind: Class of the configuration.

    Raises:
        CheckpointError: If they are damaged or do not fit each other.
    """
    try:
        config = from_dict(kind, parts["config"])
        tokenizer = tokenizer_from_dict(parts["tokenizer"])
        "".join(tokenizer.tokens).encode("utf-8", "surrogateescape")  # fails if a token could not be written as text
    except (CharlmError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged header ({str(error)[:200]})") from None
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{path}: damaged header (a vocabulary of {tokenizer.vocab_size} tokens for {config.vocab_size} ids)"
        )
    return config, tokenizer


def parse_parts(
    header: Mapping[str, str],
    path: Path,
    names: Sequence[str],
    *,
    file_format: str = FORMAT,
    newest: int = FORMAT_VERSION,
) -> dict[str, dict[str, Any]]:
    """Return the JSON objects of a header by name, after checking the format and its version.

    Args:
        header: Strings of the header.
        path: The file, for messages.
        names: Names of the objects.
        file_format: Mark of the format.
        newest: Newest version of the format.

    Raises:
        CheckpointError: If the file has another format or a newer version, or an object is missing.
    """
    if header.get("format") != file_format:
        raise CheckpointError(f"{path}: a safetensors file, but not a charlm model; train a model with charlm train")
    version = header.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise CheckpointError(f"{path}: damaged header (no format version)")
    if int(version) > newest:
        raise CheckpointError(f"{path}: written by a newer charlm (format {version}); upgrade charlm")
    parts: dict[str, dict[str, Any]] = {}
    for name in names:
        parts[name] = parse_json(header.get(name, "null"), path)
        if not isinstance(parts[name], dict):
            raise CheckpointError(f"{path}: damaged header (no {name})")
    return parts


def _check_tensors(path: Path, config: ModelConfig, file: TensorFile) -> None:
    """Check that names, shapes and number formats of the tensors fit the configuration."""
    optional = {SPELLING_KEY: SPELLING_PREFIX, NGRAM_KEY: NGRAM_PREFIX, ADAPTATION_KEY: ADAPTATION_PREFIX}
    others = (RESUME_PREFIX, *(prefix for key, prefix in optional.items() if key in file.metadata))
    check_shapes(path, tensor_shapes(config), file, others)


def check_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], file: TensorFile, other_prefixes: tuple[str, ...]
) -> None:
    """Check names, shapes and number formats of the tensors of a file.

    Args:
        path: The file, for messages.
        shapes: Shapes of the tensors that it must have, by name.
        file: The file.
        other_prefixes: Prefixes of the names of other tensors that it may have.

    Raises:
        CheckpointError: If a tensor is missing, unknown, or has another shape.
    """
    for name, shape in shapes.items():
        if name not in file.names:
            raise CheckpointError(f"{path}: damaged (no tensor {name})")
        if file.shape(name) != shape or file.dtype(name).kind != "f":
            raise CheckpointError(
                f"{path}: damaged ({name} is {file.dtype(name)} {file.shape(name)} instead of floats of shape {shape})"
            )
    for name in file.names:
        if name not in shapes and not name.startswith(other_prefixes):
            raise CheckpointError(f"{path}: damaged, or written by a newer charlm (unknown tensor {name[:80]!r})")


def check_weights(path: Path, tensors: Tensors, names: Iterable[str]) -> None:
    """Check that weights are finite and not above `MAX_WEIGHT`.

    Args:
        path: The file, for messages.
        tensors: The weights by name.
        names: Names of the weights to check.

    Raises:
        CheckpointError: If they are not.
    """
    for name in names:
        # NaN fails every comparison, therefore the condition is negated.
        if not max(float(tensors[name].max()), -float(tensors[name].min())) <= MAX_WEIGHT:
            raise CheckpointError(f"{path}: damaged ({name} has a weight that is not finite or above {MAX_WEIGHT:g})")


def _read_spelling(path: Path, tokenizer: Tokenizer, file: TensorFile) -> SpellingModel | None:
    """Return the spelling model of a file, or None if it has none."""
    if SPELLING_KEY not in file.metadata:
        return None
    try:
        match parse_json(file.metadata[SPELLING_KEY], path):
            case {"chars": str(chars)} if tokenizer.kind == "word":
                chars.encode("utf-8", "surrogateescape")
                return SpellingModel.from_tensors(chars, _read_prefixed(file, SPELLING_PREFIX))
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged spelling model ({str(error)[:200]})") from None
    raise CheckpointError(f"{path}: damaged header (no characters of the spelling model, or no words)")


def _read_counts(path: Path, config: ModelConfig, file: TensorFile) -> NGramPart | None:
    """Return the n-gram model of a file, or None if it has none."""
    if NGRAM_KEY not in file.metadata:
        if config.cell == NGRAM_CELL:
            raise CheckpointError(f"{path}: damaged header (neither a network nor an n-gram model)")
        return None
    match parse_json(file.metadata[NGRAM_KEY], path):
        case {"weight": float() | int() as weight, **rest} if rest.keys() <= {"gate"} and type(weight) is not bool:
            pass
        case _:
            raise CheckpointError(f"{path}: damaged header ({NGRAM_KEY}), or written by a newer charlm")
    if config.cell == NGRAM_CELL and rest:
        raise CheckpointError(f"{path}: damaged header (a gate without a network)")
    if not 0 <= weight <= 1 or (config.cell == NGRAM_CELL and weight != 1):  # also if it is not a number
        allowed = "1 without a network" if config.cell == NGRAM_CELL else "from 0 to 1"
        found = str(weight)[:80]  # an integer may have thousands of digits
        raise CheckpointError(f"{path}: damaged header (the weight of the n-gram model is {found}, not {allowed})")
    try:
        ngram = NGram.from_tensors(_read_prefixed(file, NGRAM_PREFIX))
        gate = _parse_gate(rest["gate"]) if rest else None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged n-gram model ({str(error)[:200]})") from None
    if ngram.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{path}: damaged n-gram model ({ngram.vocab_size:,} tokens for a vocabulary of {config.vocab_size:,})"
        )
    return NGramPart(ngram=ngram, weight=float(weight), gate=gate)


def _parse_gate(rows: Any) -> Gate:  # noqa: ANN401 - JSON
    """Return a gate from untrusted JSON.

    Raises:
        ValueError: If it is anything else.
    """
    match rows:
        case [[*first], [*second]] if len(first) == len(second) == NUM_FEATURES:
            numbers = first + second
            if all(type(number) in (int, float) and abs(number) <= MAX_COEFFICIENT for number in numbers):
                return Gate([first, second])
    raise ValueError(f"a gate that is not two lists of {NUM_FEATURES} numbers up to {MAX_COEFFICIENT:g}")


def _read_adaptation(path: Path, file: TensorFile) -> Adaptation | None:
    """Return the constants of the adaptive part of a file, or None if it has none."""
    if ADAPTATION_KEY not in file.metadata:
        return None
    match parse_json(file.metadata[ADAPTATION_KEY], path):
        case {"context_lengths": list() as lengths, **rest} if not rest and all(type(n) is int for n in lengths):
            pass
        case _:
            raise CheckpointError(f"{path}: damaged header ({ADAPTATION_KEY}), or written by a newer charlm")
    try:
        return Adaptation.from_tensors(lengths, _read_prefixed(file, ADAPTATION_PREFIX))
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged adaptive part ({str(error)[:200]})") from None


def _read_prefixed(file: TensorFile, prefix: str) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors whose names start with a prefix, which is removed."""
    return {name.removeprefix(prefix): file.read(name) for name in file.names if name.startswith(prefix)}
