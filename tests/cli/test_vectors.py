import json
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.text.glove import name_in_files
from charlm.text.vector_files import VectorFile
from tests.cli.test_words import run


def test_exported_vectors_are_the_embedding_of_the_model(model_file: Path) -> None:
    Path("v.txt").write_text(run("vectors", "export").stdout, encoding="utf-8")
    checkpoint = load_checkpoint(model_file)
    names = [name_in_files(token) for token in checkpoint.tokenizer.tokens]
    found = VectorFile(Path("v.txt")).read(names)
    assert list(found) == names
    np.testing.assert_array_equal(np.array(list(found.values())), checkpoint.tensors["embedding.weight"])


def test_nearest_words_are_the_same_in_a_model_and_in_its_export(model_file: Path) -> None:
    Path("v.txt").write_text(run("vectors", "export", "-m", "tiny").stdout, encoding="utf-8")
    in_model = run("vectors", "nearest", "e", "--top", "5").stdout
    assert in_model.count("\n") == 5
    cosines = [float(line.split("\t")[0]) for line in in_model.splitlines()]
    assert cosines == sorted(cosines, reverse=True)
    in_file = run("vectors", "nearest", "e", "--top", "5", "--file", "v.txt").stdout
    assert in_file.replace("</s>", r"\n") == in_model
    answer = json.loads(run("vectors", "nearest", "e", "--top", "5", "--json").stdout)
    assert [entry["cosine"] for entry in answer] == pytest.approx(cosines, abs=1e-4)


def test_unknown_words_and_contradictory_options_are_errors(model_file: Path) -> None:
    done = run("vectors", "nearest", "zyzzy", code=1)
    assert done.stderr == "Error: 'zyzzy': not in the vocabulary of checkpoints/tiny/model.safetensors\n"
    done = run("vectors", "nearest", "e", "--file", "none.txt", code=1)
    assert done.stderr.startswith("Error: none.txt: cannot be read")
    done = run("vectors", "nearest", "e", "--file", "none.txt", "-m", "tiny", code=2)
    assert "contradict" in done.stderr


def test_several_words_are_searched_at_once(model_file: Path) -> None:
    rows = [line.split("\t") for line in run("vectors", "nearest", "e", "a", r"\n", "--top", "3").stdout.splitlines()]
    assert [row[0] for row in rows] == ["e"] * 3 + ["a"] * 3 + [r"\n"] * 3
    for word in ("e", "a"):
        alone = run("vectors", "nearest", word, "--top", "3").stdout.splitlines()
        assert ["\t".join(row[1:]) for row in rows if row[0] == word] == alone


def test_similar_and_analogy_print_cosines(model_file: Path) -> None:
    nearest = [line.split("\t") for line in run("vectors", "nearest", "e", "--top", "2").stdout.splitlines()]
    rows = [
        line.split("\t") for line in run("vectors", "similar", "e", nearest[0][1], nearest[1][1]).stdout.splitlines()
    ]
    assert rows[0] == [nearest[0][0], "e", nearest[0][1]]
    assert rows[1] == [nearest[1][0], "e", nearest[1][1]]
    assert json.loads(run("vectors", "similar", "e", "a", "--json").stdout)[0]["second"] == "a"
    assert "two or more" in run("vectors", "similar", "e", code=2).stderr
    lines = run("vectors", "analogy", "a", "e", "o", "--top", "3").stdout.splitlines()
    assert len(lines) == 3
    assert not {line.split("\t")[1] for line in lines} & set("aeo")
    assert len(json.loads(run("vectors", "analogy", "a", "e", "o", "--json").stdout)) == 10


def test_vectors_are_read_from_a_pipe(model_file: Path) -> None:
    exported = run("vectors", "export", "--header").stdout
    assert exported.splitlines()[0] == f"{exported.count(chr(10)) - 1} {len(exported.splitlines()[1].split()) - 1}"
    from_pipe = run("vectors", "nearest", "e", "--file", "-", stdin=exported).stdout
    Path("v.txt").write_text(exported, encoding="utf-8")
    assert from_pipe == run("vectors", "nearest", "e", "--file", "v.txt").stdout
