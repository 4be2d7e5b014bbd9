"""Tests of the reading of tables and JSON lines."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CorpusError
from charlm.text.lines import Lines, split_lines
from charlm.text.records import Records, Table, append_to_record

CELL = st.text(st.characters(exclude_characters="\r", exclude_categories=("Cs",)), max_size=8)


def blocks_of(text: str, size: int) -> list[Lines]:
    """Return the lines of a text that arrives in blocks of characters."""
    return list(split_lines(text[begin : begin + size] for begin in range(0, len(text), size)))


def read(table: Table, text: str, size: int = 1000, source: str = "t.tsv") -> list[Records]:
    return list(table.records(source, blocks_of(text, size)))


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=6), st.sampled_from(["tsv", "csv"]), st.integers(1, 50))
def test_records_are_those_of_the_csv_module_and_keep_their_text(
    rows: list[tuple[str, str, str]], table_format: str, size: int
) -> None:
    out = io.StringIO(newline="")
    delimiter = {"tsv": "\t", "csv": ","}[table_format]
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([("a", "b", "c"), *rows])
    found = read(Table(("c", "a"), table_format), out.getvalue(), size)
    records = [record for batch in found for record in batch]
    assert [record.texts for record in records] == [
        (third.replace("\n", " "), first.replace("\n", " ")) for first, _, third in rows
    ]
    assert {batch.header for batch in found} == {delimiter.join("abc")}
    lines = "".join(record.original + "\n" for record in records)
    assert f"{delimiter.join('abc')}\n{lines}" == out.getvalue()
    appended = io.StringIO(
        "".join(append_to_record(record.original, table_format, {"x": 'y"\t,', "z": "1"}) + "\n" for record in records)
    )
    assert list(csv.reader(appended, delimiter=delimiter)) == [[*row, 'y"\t,', "1"] for row in rows]


@given(st.lists(st.dictionaries(CELL, CELL | st.integers(), max_size=3), max_size=5), st.integers(1, 50))
def test_json_lines_keep_their_fields(objects: list[dict[str, object]], size: int) -> None:
    objects = [{**values, "text": f"line\n{index}"} for index, values in enumerate(objects)]
    text = "".join(json.dumps(values) + "\n" for values in objects)
    records = [record for batch in read(Table(("text",)), text, size, "x.jsonl") for record in batch]
    assert [record.texts for record in records] == [(f"line {index}",) for index in range(len(objects))]
    for record, values in zip(records, objects, strict=True):
        assert record.original == json.dumps(values)
        assert json.loads(append_to_record(record.original, "jsonl", {"n": 1.5})) == {**values, "n": 1.5}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a.tsv", "t\tx\nto be\t1\n"),
        ("a.txt", "t\tx\nto be\t1\n"),
        ("-", "t\tx\nto be\t1\n"),
        ("A.CSV", "t,x\nto be,1\n"),
        ("a.csv.gz", "t,x\nto be,1\n"),
        ("a.jsonl", '{"t": "to be"}\n'),
        ("a.ndjson", '\n{"t": "to be"}\n'),
    ],
)
def test_the_format_is_that_of_the_file_name(source: str, text: str) -> None:
    (batch,) = read(Table(("t",)), text, source=source)
    assert batch[0].texts == ("to be",)


def test_columns_are_numbered_from_1_and_then_there_is_no_header() -> None:
    (batch,) = read(Table(("2",)), "a\tb\n\nc\td")
    assert [record.texts for record in batch] == [("b",), ("d",)]  # an empty line is no record
    assert [record.number for record in batch] == [1, 3]
    assert batch.header is None
    (named,) = read(Table(("2", "a")), "a\tb\nc\td\n")
    assert (named.header, named[0].texts) == ("a\tb", ("d", "c"))


def test_quotation_marks_have_no_meaning_in_plain_tables() -> None:
    (batch,) = read(Table(("2",), "plain"), 'x\t"to be\ny\t5" disk\n')
    assert [record.texts for record in batch] == [('"to be',), ('5" disk',)]
    assert append_to_record('y\t5" disk', "plain", {"n": "1"}) == 'y\t5" disk\t1'


def test_a_long_line_that_arrives_in_parts_is_one_record() -> None:
    text = "a\t" + "to be " * 50_000 + "\nb\tc\n"
    blocks = blocks_of(text, 40_000)
    assert any(block.ends_mid_line for block in blocks)
    records = [record for batch in Table(("2",)).records("-", blocks) for record in batch]
    assert [record.texts[0] for record in records] == ["to be " * 50_000, "c"]


def test_each_record_is_returned_as_soon_as_its_line_has_arrived() -> None:
    def lines() -> "list[Lines]":
        for line in ("h\n", "one\n", '"two\n', 'three"\n'):
            yield Lines([line])
            arrived.append(line)

    arrived: list[str] = []
    batches = Table(("h",)).records("-", lines())
    assert (next(batches), len(arrived)) == ([], 0)  # the header
    assert (next(batches)[0].texts, len(arrived)) == (("one",), 1)
    assert (next(batches)[0].texts, len(arrived)) == (("two three",), 3)


@pytest.mark.parametrize(
    ("fields", "source", "text", "message"),
    [
        (("3",), "a.tsv", "a\tb\n", r"a.tsv: line 1: 2 columns, so that column 3 is missing"),
        (("0",), "a.tsv", "a\tb\n", r"a.tsv: no column '0' in the header; choose from 'a', 'b'"),
        (("c",), "a.csv", "a,b\n1,2\n", r"a.csv: no column 'c' in the header; choose from 'a', 'b'"),
        (("1",), "a.tsv", 'x\ny\n"to" be\n', r"a.tsv: line 3: .*; set table to plain"),
        (("1",), "a.tsv", 'x\n"to be\n', r"a.tsv: line 2: .*; set table to plain"),
        (("t",), "a.jsonl", '{"t": "a"}\n{"t": 1}\n', r"a.jsonl: line 2: no field 't' with a text"),
        (("t",), "a.jsonl", "[1]\n", r"a.jsonl: line 1: not a JSON object"),
        (("t",), "a.jsonl", "{\n", r"a.jsonl: line 1: not a JSON object \(.*\)"),
        (("t",), "a.jsonl", "[" * 100_000 + "\n", r"a.jsonl: line 1: not a JSON object"),
    ],
)
def test_malformed_records_are_named(fields: tuple[str, ...], source: str, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read(Table(fields), text, source=source)


def test_a_key_that_exists_is_replaced_in_json() -> None:
    assert json.loads(append_to_record('{"bits": 1, "é": 2}', "jsonl", {"bits": 3})) == {"bits": 3, "é": 2}
