"""Export of a model as one web page, which runs the model in a browser without a server or a network.

The page consists of the files of the folder `page`, the description of the model as JSON, and its numbers in base64.
Weights are stored in half precision. The content security policy of the page allows its own script and style, which it
names by their hashes, and nothing else.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.config import CELLS
from charlm.engine.checkpoint import NGRAM_PREFIX, SPELLING_PREFIX, Checkpoint, num_parameters, tensor_shapes
from charlm.engine.item_sampler import separator_of_model
from charlm.errors import CharlmError

PAGE_FOLDER = Path(__file__).parent / "page"
"""Folder of the files of which a page consists."""

SCRIPTS = ("text.js", "engine.js", "generation.js", "view.js", "page.js")
"""Files of the script, in order."""

ALIGNMENT = 4
"""Number of bytes to which the position of each tensor is aligned; JavaScript requires the size of one number."""

LINE_CHARS = 4096
"""Length of the lines of base64. Text editors are slow with longer ones."""

NUMBER_FORMATS = {"f": ("F16", np.float16), "u1": ("U8", np.uint8), "i4": ("I32", np.int32)}
"""Number formats of the page, by kind or by kind and size of NumPy's types."""

UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""Characters of JSON that are escaped: those that could end the script element, and those that UTF-8 does not have."""

Tensors = Mapping[str, npt.NDArray[Any]]


def page_bytes(checkpoint: Checkpoint, name: str) -> bytes:
    """Return a web page that runs a model.

    Args:
        checkpoint: The model.
        name: Name of the model, which is the title of the page.

    Raises:
        CharlmError: If a weight is too large for half precision.
    """
    style, script = _read("page.css"), "".join(map(_read, SCRIPTS))
    header, numbers = describe_model(checkpoint, name)
    parts = {
        "POLICY": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'",
        "STYLE": style,
        "MODEL": _safe_json(header),
        "NUMBERS": _lines(base64.b64encode(numbers).decode("ascii")),
        "SCRIPT": script,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))
    return page.encode("utf-8")


def describe_model(checkpoint: Checkpoint, name: str) -> tuple[dict[str, Any], bytes]:
    """Return the description of a model that the script reads, and the numbers of its tensors.

    Args:
        checkpoint: The model.
        name: Name of the model.

    Raises:
        CharlmError: If a weight is too large for half precision.
    """
    entries, numbers = _packed(_tensors(checkpoint))
    counts, spelling = checkpoint.counts, checkpoint.spelling
    header = {
        "name": name,
        "facts": _facts(checkpoint),
        "config": asdict(checkpoint.config),
        "tokenizer": checkpoint.tokenizer.to_dict(),
        "separator": separator_of_model(checkpoint.metadata),
        "spelling": None if spelling is None else {"chars": spelling.chars},
        "ngram": None if counts is None else counts.weights_to_dict(),
        "tensors": entries,
    }
    return header, numbers


def _read(file: str) -> str:
    return (PAGE_FOLDER / file).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of a content security policy for an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _lines(text: str) -> str:
    return "\n".join(text[begin : begin + LINE_CHARS] for begin in range(0, len(text), LINE_CHARS))


def _safe_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return JSON that can be the content of a script element, whatever its texts contain."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _tensors(checkpoint: Checkpoint) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of a model by the names that they have in a model file."""
    tensors = {name: checkpoint.tensors[name] for name in tensor_shapes(checkpoint.config)}
    if checkpoint.counts is not None:
        tensors |= {NGRAM_PREFIX + name: array for name, array in checkpoint.counts.ngram.to_tensors().items()}
    if checkpoint.spelling is not None:
        tensors |= {SPELLING_PREFIX + name: array for name, array in checkpoint.spelling.to_tensors().items()}
    return tensors


def _packed(tensors: Tensors) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Return the number format, shape and position of each tensor, and the bytes of all tensors.

    Raises:
        CharlmError: If a weight is too large for half precision.
    """
    entries, numbers = {}, bytearray()
    for name, array in tensors.items():
        kind = array.dtype.kind
        label, dtype = NUMBER_FORMATS[kind if kind == "f" else f"{kind}{array.dtype.itemsize}"]
        with np.errstate(over="ignore"):
            packed = np.ascontiguousarray(array, dtype=dtype)
        if kind == "f" and not np.isfinite(packed).all():
            raise CharlmError(f"{name}: a weight is too large for half precision; train with a higher weight decay")
        numbers.extend(bytes(-len(numbers) % ALIGNMENT))
        entries[name] = {"dtype": label, "shape": list(array.shape), "offset": len(numbers)}
        numbers.extend(packed.tobytes())
    return entries, bytes(numbers)


def _facts(checkpoint: Checkpoint) -> list[str]:
    """Return what the page says about a model."""
    config, metadata = checkpoint.config, checkpoint.metadata
    unit = "characters" if checkpoint.tokenizer.kind == "char" else "words"
    facts = []
    if config.cell in CELLS:
        facts += [
            f"{config.cell.upper()}, {config.num_layers} \u00d7 {config.hidden_size}",
            f"{num_parameters(config):,} parameters",
        ]
    if checkpoint.counts is not None:
        facts.append(f"{checkpoint.counts.ngram.num_ngrams:,} n-grams up to order {checkpoint.counts.ngram.order}")
    facts.append(f"{config.vocab_size:,} {unit}")
    match metadata:
        case {"corpus": {"name": str(corpus)}}:
            facts.append(f"trained on {corpus}")
    match metadata:
        case {"metrics": {"val_bits_per_char": float(bits)}}:
            facts.append(f"validation loss {bits:.3f} bits per character")
        case {"metrics": {"val_perplexity": float(perplexity)}}:
            facts.append(f"validation perplexity {perplexity:.1f}")
    return facts
