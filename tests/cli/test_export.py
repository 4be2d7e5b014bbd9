import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest

from charlm.engine.checkpoint import Checkpoint, save_checkpoint
from charlm.engine.page_export import PAGE_FOLDER, page_bytes
from charlm.errors import CharlmError
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE, Charlm, make_checkpoint, make_mixture, make_ngram_model

HOSTILE = "</script><script>alert(1)</script><!-- <b> \"'& {{STYLE}} \u2028\n"
"""Characters and a name that could end the elements of a page."""


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_a_page_is_written_and_its_path_is_printed(charlm: Charlm, model_file: Path) -> None:
    done = charlm("export", "-m", "tiny", "page.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "page.html\n", "")
    header = json.loads(Elements(Path("page.html").read_text(encoding="utf-8")).scripts[0])
    assert header["name"] == "tiny"
    assert "12" in header["facts"][0]


def test_an_existing_file_is_replaced(charlm: Charlm, model_file: Path) -> None:
    Path("page.HTML").write_text("old")
    assert charlm("export", "page.HTML").returncode == 0
    assert Path("page.HTML").read_bytes().startswith(b"<!doctype html>")
    assert not list(Path().glob(".page*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'FILE'"),
        ([""], "the name is empty"),
        (["page.txt"], "page.txt: the name must end in .html (a web page) or .onnx (an ONNX graph)"),
        (["page"], "page: the name must end in .html (a web page) or .onnx (an ONNX graph)"),
        (["nowhere/page.html"], "nowhere/page.html: there is no folder nowhere"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_usage_error(
    charlm: Charlm, model_file: Path, arguments: list[str], message: str
) -> None:
    done = charlm("export", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_folder_of_the_name_is_not_replaced(charlm: Charlm, model_file: Path) -> None:
    Path("page.html").mkdir()
    assert charlm("export", "page.html").returncode == 2


def test_a_missing_model_leaves_the_file_as_it_was(charlm: Charlm) -> None:
    Path("page.html").write_text("old")
    done = charlm("export", "-m", "nothing", "page.html")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert Path("page.html").read_text() == "old"


def test_a_graph_has_no_counts_and_a_note_says_so(charlm: Charlm) -> None:
    save_checkpoint(Path("mixture.safetensors"), make_mixture())
    done = charlm("export", "-m", "mixture.safetensors", "model.onnx")
    assert (done.returncode, done.stdout) == (0, "model.onnx\n")
    assert done.stderr == (
        "Note: the n-gram part of the model is left out: the loss is higher than that of the model file\n"
    )
    assert onnx.load("model.onnx").graph.name == "mixture"


def test_the_note_about_counts_gives_both_losses(charlm: Charlm) -> None:
    metrics = {"val_nats": 1.25, "val_nats_network": 1.5}
    save_checkpoint(Path("mixture.safetensors"), replace(make_mixture(), metadata={"metrics": metrics}))
    note = charlm("export", "-m", "mixture.safetensors", "model.onnx").stderr
    assert note.endswith("left out: the validation loss is 1.5000 instead of 1.2500 nats per token\n")


def test_counts_alone_have_no_graph(charlm: Charlm) -> None:
    save_checkpoint(Path("counts.safetensors"), make_ngram_model())
    done = charlm("export", "-m", "counts.safetensors", "model.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: a model of n-grams alone has no network")
    assert not Path("model.onnx").exists()


def test_the_page_is_small() -> None:
    checkpoint = make_mixture(hidden_size=128, num_layers=2)
    half = sum(2 * array.size for array in checkpoint.tensors.values())
    assert len(page_bytes(checkpoint, "small")) <= 1.4 * half + 100_000


def hostile_checkpoint() -> Checkpoint:
    """A model whose characters and whose corpus could end the elements of a page."""
    _, checkpoint = make_checkpoint(HOSTILE + VERSE)
    tokenizer = CharTokenizer([*checkpoint.tokenizer.tokens[1:-1], "\udc80"])  # a byte that is not valid in UTF-8
    return replace(checkpoint, tokenizer=tokenizer, metadata={"corpus": {"name": HOSTILE}})


def test_no_text_of_a_model_can_end_an_element() -> None:
    checkpoint = hostile_checkpoint()
    hostile = Elements(page_bytes(checkpoint, HOSTILE).decode("utf-8"))
    plain = Elements(page_bytes(make_checkpoint()[1], "plain").decode("utf-8"))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    header = json.loads(hostile.scripts[0])
    assert header["name"] == HOSTILE
    assert header["tokenizer"]["chars"] == "".join(checkpoint.tokenizer.tokens[1:])


def test_a_weight_beyond_half_precision_is_an_error() -> None:
    _, checkpoint = make_checkpoint()
    tensors = {name: np.asarray(array) for name, array in checkpoint.tensors.items()}
    tensors["decoder.bias"] = np.full_like(tensors["decoder.bias"], 1e6)
    with pytest.raises(CharlmError, match=r"decoder\.bias: a weight is too large for half precision"):
        page_bytes(replace(checkpoint, tensors=tensors), "large")


def test_the_script_cannot_end_its_element_and_makes_no_html_of_text() -> None:
    for path in PAGE_FOLDER.glob("*.js"):
        script = path.read_text(encoding="utf-8")
        assert not re.search(r"</script|<!--|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", script), path
        assert max(map(len, script.splitlines())) <= 120
