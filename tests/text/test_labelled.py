import contextlib
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CharlmError, ConfigError, CorpusError
from charlm.text.labelled import Labelled, LabelledOptions, read_labelled


def read(name: str, content: str, **options: str) -> Labelled:
    Path(name).write_text(content, encoding="utf-8", newline="")
    return read_labelled([name], LabelledOptions(**options))


def pairs(found: Labelled) -> list[tuple[str, str]]:
    return [(sample.label, sample.text) for sample in found.samples]


EXPECTED = [("pos", 'a "fine" film'), ("neg", "bad , very bad")]


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("a.tsv", 'pos\ta "fine" film\nneg\tbad , very bad\n', "lines of a label"),
        ("a.txt", 'pos\ta "fine" film\r\nneg\tbad , very bad\r\n', "lines of a label"),
        ("a.tsv", 'Text\tid\tlabel\n"a ""fine"" film"\t1\tpos\nbad , very bad\t2\tneg\n', "separated by tabs"),
        ("a.csv", 'label,sentence\npos,"a ""fine"" film"\nneg,"bad , very bad"\n', "separated by commas"),
        ("a.jsonl", '{"text": "a \\"fine\\" film", "class": "pos"}\n{"class":"neg","text":"bad , very bad"}', "JSON"),
        ("a.txt", '{"text": "a \\"fine\\" film", "class": "pos"}\n{"class":"neg","text":"bad , very bad"}', "JSON"),
        ("a.txt", '__label__pos a "fine" film\n\n__label__neg bad , very bad', "fastText"),
    ],
)
def test_a_layout_is_detected(name: str, content: str, layout: str) -> None:
    found = read(name, content)
    assert pairs(found) == EXPECTED
    assert layout in found.layouts[name]
    assert any(layout in note for note in found.notes())


def test_columns_can_be_named_or_numbered() -> None:
    content = "mood,film\npos,a fine one\n"
    assert pairs(read("a.csv", content, label_field="mood", text_field="film")) == [("pos", "a fine one")]
    numbered = read("a.csv", content, label_field="1", text_field="2")
    assert pairs(numbered) == [("mood", "film"), ("pos", "a fine one")]


def test_a_text_keeps_its_tabs() -> None:
    assert pairs(read("a.tsv", "pos\ta film\n \nneg\tbad\tvery bad\n")) == [("pos", "a film"), ("neg", "bad\tvery bad")]


def test_numbers_are_labels_in_the_order_of_their_values() -> None:
    rows = [{"label": label, "text": "x"} for label in (10, 9, 2.5, True)]
    found = read("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert list(found.counts) == ["2.5", "9", "10", "true"]


def test_folders_of_classes_are_read_and_unlabelled_texts_ignored() -> None:
    for name in ("pos/0_9.txt", "pos/1_8.txt", "neg/0_1.txt", "unsup/0_0.txt"):
        path = Path("train", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("first line\nsecond line", encoding="utf-8")
    found = read_labelled(["train"])
    assert found.counts == {"neg": 1, "pos": 2}
    assert found.samples[0].text == "first line second line"
    assert "unsup is ignored" in found.layouts["train"]
    Path("aclImdb").mkdir()
    Path("train").rename("aclImdb/train")
    with pytest.raises(CorpusError, match=r"give aclImdb.train$"):
        read_labelled(["aclImdb"])


def test_files_of_classes_are_read_line_by_line() -> None:
    Path("polarity").mkdir()
    Path("polarity/pos.txt").write_text('"good\ttabs stay\n\nfine\n', encoding="utf-8")
    Path("polarity/neg.txt").write_text("bad", encoding="utf-8")
    assert pairs(read_labelled(["polarity"])) == [("neg", "bad"), ("pos", '"good\ttabs stay'), ("pos", "fine")]


def test_empty_texts_are_left_out_and_counted() -> None:
    found = read("a.tsv", "pos\tgood\npos\t \nneg\t\nneg\tbad\n")
    assert pairs(found) == [("pos", "good"), ("neg", "bad")]
    assert [(sample.label, sample.number) for sample in found.empty] == [("pos", 2), ("neg", 3)]
    assert "2 sample(s) left out because their text is empty; the first is in a.tsv, line 2" in found.notes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "pos\tgood\nneg\n", "a.tsv: line 2: no tab between a label and a text"),
        ("a.csv", 'text,label\n"a\nb",pos\nbad\n', "a.csv: line 4: 1 columns"),
        ("a.csv", 'text,label\n"a,pos\n', "a.csv: line 2: unexpected end of data"),
        ("a.tsv", "pos\tgood\n \tbad\n", "a.tsv: line 2: a text without a label"),
        ("a.txt", "only a text\n", "a.txt: line 1: no tab between a label and a text"),
        ("a.csv", "a,b\n1,2\n", "cannot tell which column is the label"),
        ("a.csv", "label,b\n1,2\n", "cannot tell which column is the text"),
        ("a.jsonl", '{"label": "x"}\n', "cannot tell which column is the text"),
        ("a.jsonl", '{"label": "x", "text": "y"}\n{"label": "x", "text": null}\n', "line 2: no field 'text'"),
        ("a.txt", "__label__pos good\nbad\n", "a.txt: line 2: no __label__"),
        ("a.txt", "__label__pos __label__neg good\n", "a.txt: line 1: several labels"),
        ("a.txt", "", "a.txt: no labelled text: the file is empty"),
        ("a.txt", " \n\n", "a.txt: no labelled text: the file is empty"),
        ("a.tsv", "x" * 1001 + "\tgood\n", "a.tsv: line 1: a label of 1,001 characters; the maximum is 1,000"),
        ("a.jsonl", '{"label": "\\ud800", "text": "good"}\n', r"line 1: the label '\ud800' is not valid Unicode"),
        ("a.txt", "pos\t\n", "no labelled text"),
    ],
)
def test_a_malformed_input_is_an_error_with_its_place(name: str, content: str, message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read(name, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_field_alone_is_an_error() -> None:
    with pytest.raises(ConfigError, match="label_field needs text_field"):
        LabelledOptions(label_field="x")


def test_a_folder_of_tables_is_no_folder_of_classes() -> None:
    Path("data").mkdir()
    Path("data/train.csv").write_text("label,text\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="give a file"):
        read_labelled(["data"])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(st.sampled_from(["a", "b c", "1", 'd"e']), texts), min_size=1, max_size=5))
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([("label", "text"), *rows])
    found = read("a.csv", buffer.getvalue())
    joined = [(label, text.replace("\n", " ")) for label, text in rows]
    assert pairs(found) == joined


@given(st.sampled_from(["a.tsv", "a.csv", "a.jsonl"]), st.text(alphabet='ab\t\n\r",{}:_l', max_size=40))
def test_any_text_is_read_or_refused(name: str, content: str) -> None:
    with contextlib.suppress(CharlmError):
        assert read(name, content).samples


def test_a_table_without_a_name_is_recognised_by_its_header() -> None:
    found = read("a.txt", 'text,label\n"a good, film",pos\n')
    assert pairs(found) == [("pos", "a good, film")]
    assert found.layouts == {"a.txt": "a table separated by commas, label 'label', text 'text'"}
