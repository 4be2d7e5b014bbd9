import json
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.text.glove import VectorFile, read_vectors
from tests.cli.test_words import run


def test_exported_vectors_are_the_embedding_of_the_model(model_file: Path) -> None:
    Path("v.txt").write_text(run("vectors", "export").stdout, encoding="utf-8")
    checkpoint = load_checkpoint(model_file)
    names = ["</s>" if token == "\n" else token for token in checkpoint.tokenizer.tokens]
    found = read_vectors(VectorFile(Path("v.txt")), names)
    assert list(found) == names
    np.testing.assert_array_equal(np.array(list(found.values())), checkpoint.tensors["embedding.weight"])


def test_nearest_words_are_the_same_in_a_model_and_in_its_export(model_file: Path) -> None:
    Path("v.txt").write_text(run("vectors", "export", "-m", "tiny").stdout, encoding="utf-8")
    in_model = run("vectors", "nearest", "e", "--top", "5").stdout
    assert in_model.count("\n") == 5
    cosines = [float(line.split("\t")[0]) for line in in_model.splitlines()]
    assert cosines == sorted(cosines, reverse=True)
    in_file = run("vectors", "nearest", "e", "--top", "5", "--file", "v.txt").stdout
    assert in_file.replace("</s>", "\\n") == in_model
    answer = json.loads(run("vectors", "nearest", "e", "--top", "5", "--json").stdout)
    assert [entry["cosine"] for entry in answer] == pytest.approx(cosines, abs=1e-4)


def test_unknown_words_and_contradictory_options_are_errors(model_file: Path) -> None:
    done = run("vectors", "nearest", "zyzzy", code=1)
    assert done.stderr == "Error: 'zyzzy': not in the vocabulary of checkpoints/tiny/model.safetensors\n"
    done = run("vectors", "nearest", "e", "--file", "none.txt", code=1)
    assert done.stderr.startswith("Error: none.txt: cannot be read")
    done = run("vectors", "nearest", "e", "--file", "none.txt", "-m", "tiny", code=2)
    assert "contradict" in done.stderr
