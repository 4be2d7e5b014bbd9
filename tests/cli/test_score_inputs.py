"""Tests of the inputs and comparisons of `charlm score`: columns, pairs, contexts, several models, quantiles."""

import csv
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.cli import main
from charlm.engine.checkpoint import save_checkpoint
from charlm.engine.continuations import continuation
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, score_text
from charlm.text.lines import LONG_LINE
from tests.cli.test_score_tables import TOKENIZERS, network_of
from tests.conftest import VERSE, Charlm, make_checkpoint

LINES = VERSE.splitlines()


@pytest.fixture
def network(model_file: Path) -> RecurrentNetwork:
    return RecurrentNetwork.load(model_file)


def run(*arguments: str | Path | float, stdin: str = "", code: int = 0) -> click.testing.Result:
    """Run `charlm score` in this process."""
    done = click.testing.CliRunner().invoke(main, ["score", *map(str, arguments)], input=stdin)
    assert done.exit_code == code, done.output
    return done


def nats(network: RecurrentNetwork, text: str) -> float:
    return score_text(network, text).nll_nats


@pytest.fixture
def others(network: RecurrentNetwork) -> Iterator[dict[str, RecurrentNetwork]]:
    """Three models, as runs."""
    networks = {"tiny": network}
    for name in ("one", "two"):
        checkpoint = make_checkpoint(hidden_size=5)[1]
        save_checkpoint(Path("checkpoints") / name / "model.safetensors", checkpoint)
        networks[name] = RecurrentNetwork(checkpoint)
    return networks


def test_a_column_is_scored_and_all_columns_are_kept(network: RecurrentNetwork) -> None:
    rows = [(index, f'{line}\n"quoted", {index}', "x\ty") for index, line in enumerate(LINES)]
    frame = pandas.DataFrame(rows, columns=["id", "text", "other"])
    for name, separator in (("t.csv", ","), ("t.tsv", "\t")):
        frame.to_csv(name, sep=separator, index=False)
        done = run("-q", name, "--field", "text", "--format", "nats,bits-per-char")
        scored = pandas.read_csv(io.StringIO(done.stdout), sep=separator)
        pandas.testing.assert_frame_equal(scored[["id", "text", "other"]], frame)
        expected = [nats(network, text.replace("\n", " ") + "\n") for _, text, _ in rows]
        assert scored.nats.tolist() == pytest.approx(expected, abs=1e-3)
        assert done.stdout.startswith(Path(name).read_text(encoding="utf-8").split("\n")[0] + separator + "nats")


def test_json_lines_are_scored_and_all_fields_are_kept(network: RecurrentNetwork) -> None:
    Path("t.jsonl").write_text("".join(json.dumps({"n": i, "t": t}) + "\n" for i, t in enumerate(LINES)))
    objects = [json.loads(row) for row in run("-q", "t.jsonl", "--field", "t").stdout.splitlines()]
    expected = [score_text(network, line + "\n").bits_per_char for line in LINES]
    assert [row.pop("bits_per_char") for row in objects] == pytest.approx(expected, rel=1e-5)
    assert objects == [{"n": i, "t": t} for i, t in enumerate(LINES)]


def test_filters_apply_to_records(network: RecurrentNetwork) -> None:
    table = "".join(f"{index}\t{line}\n" for index, line in enumerate(LINES))
    middle = sorted(score_text(network, line + "\n").bits_per_char for line in LINES)[4] + 1e-6
    kept = run("-q", "--field", "2", "--below", middle, stdin=table).stdout
    best = run("-q", "--field", "2", "--quantile", 5 / len(LINES), stdin=table).stdout
    assert best == kept
    assert kept.count("\n") == 5


def test_words_and_totals_of_a_column(network: RecurrentNetwork) -> None:
    Path("t.csv").write_text('id,text\n1,"To be, or"\n2,not\n')
    table = pandas.read_csv(io.StringIO(run("-q", "t.csv", "--field", "text", "--per-word").stdout), sep="\t")
    assert table.word.tolist() == ["To", "be,", "or", r"\n", "not", r"\n"]
    assert table.line.tolist() == [2] * 4 + [3] * 2
    total = json.loads(run("-q", "t.csv", "--field", "text", "--total", "--json").stdout)
    assert total["nats_per_char"] * total["characters"] == pytest.approx(nats(network, "To be, or\nnot\n"), rel=1e-5)


def test_tables_with_different_headers_are_an_error(network: RecurrentNetwork) -> None:
    Path("a.csv").write_text("id,text\n1,a\n")
    Path("b.csv").write_text("no,text\n1,a\n")
    assert run("a.csv", "a.csv", "--field", "text").stdout.count("id,text") == 1
    assert "b.csv: header or format differs" in run("a.csv", "b.csv", "--field", "text", code=1).stderr
    Path("c.csv").write_text("id,text\n")
    assert run("c.csv", "--field", "text").stdout == "id,text,bits_per_char\n"


def test_a_long_field_is_scored_as_a_whole(network: RecurrentNetwork) -> None:
    long = "To be, or not. " * (LONG_LINE // 14)  # 15 characters
    done = run("-q", "--field", "2", "--format", "nats,chars", stdin=f"a\t{long}\nb\tTo\n").stdout
    first, second = (row.split("\t") for row in done.splitlines())
    assert first[:2] == ["a", long]
    assert float(first[2]) == pytest.approx(nats(network, long + "\n"), rel=1e-5)
    assert (first[3], second[:2]) == (str(len(long) + 1), ["b", "To"])


def test_records_of_a_pipe_are_scored_as_they_arrive(model_file: Path) -> None:
    command = [sys.executable, "-m", "charlm", "score", "--field", "text"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, output in (
            ("id\ttext\n", "id\ttext\tbits_per_char\n"),
            ("1\tone\n", "1\tone\t"),
            ("2\ttwo\n", "2\ttwo\t"),
        ):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().startswith(output)
        process.stdin.close()


def test_pairs_are_compared(charlm: Charlm, network: RecurrentNetwork) -> None:
    pairs = list(zip(LINES[::2], LINES[1::2], strict=False))
    done = charlm("score", "--pairs", stdin="".join(f"{one}\t{two}\n" for one, two in pairs))
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    expected = [(nats(network, one + "\n"), nats(network, two + "\n")) for one, two in pairs]
    assert [(row[3], row[4]) for row in rows] == pairs
    for row, (one, two) in zip(rows, expected, strict=True):
        assert [float(number) for number in row[:3]] == pytest.approx([two - one, one, two], abs=1e-3)
    wins = sum(one < two for one, two in expected)
    assert done.stderr == (
        f"Note: the first text is more probable in {wins} of {len(pairs)} pairs ({wins / len(pairs):.1%})\n"
    )
    objects = "".join(json.dumps({"id": 1, "good": one, "bad": two}) + "\n" for one, two in pairs)
    fields = ["--field", "good", "--field", "bad", "--table", "jsonl"]
    scored = [json.loads(row) for row in run("--pairs", *fields, stdin=objects).stdout.splitlines()]
    assert [row["difference"] for row in scored] == pytest.approx([two - one for one, two in expected], abs=1e-3)
    assert "line 1: not two texts separated by a tab" in run("--pairs", stdin="only one\n", code=1).stderr
    assert (
        "line 2: not two texts separated by a tab; for a table, name two columns with --field"
        in run("--pairs", stdin="a\tb\na\tb\tc\n", code=1).stderr
    )


def test_the_cost_of_a_continuation_is_a_difference_of_scores(network: RecurrentNetwork) -> None:
    context = "HAMLET:\nTo be"
    done = run("-q", "--context", r"HAMLET:\nTo be", "--format", "nats,chars,text", stdin=", or\n not\n\nx").stdout
    rows = [row.split("\t") for row in done.splitlines()]
    assert [row[1:] for row in rows] == [["5", ", or"], ["5", " not"], ["1", ""], ["1", "x"]]
    expected = [nats(network, context + line) - nats(network, context) for line in (", or\n", " not\n", "\n", "x")]
    assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-3)
    fields = ["--field", "2", "--context-field", "1", "--separator", " "]
    done = run("-q", *fields, "--format", "nats", stdin="To be\tor not\n").stdout
    expected = [nats(network, "To be or not\n") - nats(network, "To be ")]
    assert [float(row.split("\t")[2]) for row in done.splitlines()] == pytest.approx(expected, abs=1e-3)
    for pair, whole, context in (
        ("To be\tor", "To be or\n", "To be "),
        ("To be \tor", "To be or\n", "To be "),
        ("To be\t or", "To be or\n", "To be"),
        ("To be\t, or", "To be, or\n", "To be"),
        ("\tor", "or\n", ""),
        ("To be\t", "To be\n", "To be"),
        ("To be\t\u541b", "To be\u541b\n", "To be"),
    ):
        done = run("-q", *fields[:4], "--table", "plain", "--format", "nats", stdin=pair + "\n").stdout
        expected = nats(network, whole) - (nats(network, context) if context else 0.0)
        assert float(done.split("\t")[2]) == pytest.approx(expected, abs=1e-3), pair
    words = run("-q", "--context", "To be", "--per-word", stdin=" or\n").stdout
    assert [row.split("\t")[3] for row in words.splitlines()] == ["word", "or", r"\n"]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(context=st.lists(st.sampled_from(["To", "be,", "zebra", "(to"]), max_size=4).map(" ".join))
@settings(max_examples=15)
def test_the_tokens_of_context_and_continuation_are_those_of_the_whole(name: str, context: str) -> None:
    network = network_of(name)
    whole = ModelScorer(network).start_stream().feed(context + ", or not\n")
    rest = continuation(network.tokenizer, whole, len(context))
    num_tokens = len(network.tokenizer.encode(context))
    if name == "whitespace" and context:  # the comma belongs to the last word of the context
        num_tokens -= 1
    assert rest.text == ", or not\n"
    assert rest.nats.tolist() == whole.nats[num_tokens:].tolist()
    assert rest.ids.tolist() == whole.ids[num_tokens:].tolist()
    assert len(rest.unknown_words) == (rest.ids == 0).sum()


def test_several_models_rank_each_line(others: dict[str, RecurrentNetwork]) -> None:
    models = [part for name in others for part in ("-m", name)]
    rows = [row.split("\t") for row in run(*models, stdin=VERSE).stdout.splitlines()]
    assert [row[3] for row in rows] == LINES
    for row, line in zip(rows, LINES, strict=True):
        costs = {name: nats(network, line + "\n") for name, network in others.items()}
        best, second, _ = sorted(costs, key=costs.__getitem__)
        assert row[0] == best
        assert float(row[1]) == pytest.approx(costs[second] - costs[best], abs=2e-3)
        posterior = math.exp(-costs[best]) / sum(math.exp(-cost) for cost in costs.values())
        assert float(row[2]) == pytest.approx(posterior, abs=1e-3)
    (first, *_) = (json.loads(row) for row in run(*models, "--json", stdin=VERSE).stdout.splitlines())
    assert list(first)[:3] == ["best", "margin", "posterior"]
    table = "id\ttext\n" + "".join(f"{index}\t{line}\n" for index, line in enumerate(LINES))
    scored = pandas.read_csv(io.StringIO(run(*models, "--field", "text", stdin=table).stdout), sep="\t")
    assert scored.best.tolist() == [row[0] for row in rows]


def test_columns_of_lines(network: RecurrentNetwork) -> None:
    Path("a.txt").write_text("To be\n\nor%\n")
    Path("b.txt").write_text("not")
    columns = "file,line,nats-no-newline,perplexity-of-known"
    done = run("-q", "a.txt", "b.txt", "--format", columns).stdout
    rows = [row.split("\t") for row in done.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [("a.txt", "1"), ("a.txt", "2"), ("a.txt", "3"), ("b.txt", "1")]
    texts = ["To be", "", "or%", "not"]
    expected = [nats(network, text) if text else 0 for text in texts]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=1e-3)
    of_known = score_text(network, "or%\n").perplexity_of_known
    assert float(rows[2][3]) == pytest.approx(of_known, rel=1e-4)


def test_total_by_line_sums_independent_lines(network: RecurrentNetwork) -> None:
    total = json.loads(run("-q", "--total", "--by-line", "--json", stdin=VERSE + "%").stdout)
    lines = [*(line + "\n" for line in LINES), "%"]
    assert total["characters"] == len(VERSE) + 1
    assert total["unknown_tokens"] == 1
    assert total["nats_per_char"] * total["characters"] == pytest.approx(
        sum(nats(network, line) for line in lines), rel=1e-5
    )
    assert "nothing to score" in run("--total", "--by-line", code=1).stderr


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 1])
def test_quantile_keeps_the_best_lines_in_their_order(network: RecurrentNetwork, share: float) -> None:
    costs = [score_text(network, line + "\n").bits_per_char for line in LINES]
    best = sorted(range(len(LINES)), key=costs.__getitem__)[: math.ceil(share * len(LINES))]
    done = run("-q", "--quantile", share, "--format", "text", stdin=VERSE)
    assert done.stdout.splitlines() == [LINES[index] for index in sorted(best)]


def test_quantile_keeps_the_highest_numbers_where_they_are_better(others: dict[str, RecurrentNetwork]) -> None:
    ratios = [nats(others["one"], line + "\n") - nats(others["tiny"], line + "\n") for line in LINES]
    done = run("-q", "-m", "tiny", "--vs", "one", "--quantile", 1 / len(LINES), stdin=VERSE)
    assert done.stdout.split("\t")[1] == LINES[ratios.index(max(ratios))] + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "--total"], "--total and --pairs cannot be combined"),
        (["-m", "a", "-m", "b", "--vs", "c"], "several --model and --vs cannot be combined"),
        (["-m", "a", "-m", "b", "--per-word"], "--per-word and several --model cannot be combined"),
        (["--context", "a", "--context-field", "b"], "--context and --context-field cannot be combined"),
        (["--context", "a", "--total"], "--context and --total need --by-line"),
        (["--context-field", "b"], "--context-field needs --field"),
        (["--table", "csv"], "--table needs --field"),
        (["--separator", " "], "--separator needs --context-field"),
        (["--by-line"], "--by-line needs --total"),
        (["--field", "a", "--field", "b"], "--field names 2 columns; give one column"),
        (["--field", "a", "--pairs"], "--field names 1 columns; give two columns"),
        (["--field", "a", "--json"], "--field and --json cannot be combined"),
        (["--field", "a", "--format", "text"], "--format text: text is a column of the input already"),
        (["--quantile", "0"], "0.0 is not in the range"),
        (["--total", "--quantile", "0.5"], "--total and --quantile"),
        (["--format", "best"], "--format best: best compares several models; set --model more than once"),
        (["--format", "difference"], "--format difference: difference compares two texts; set --pairs"),
        (["--context", r"a\q"], "--context"),
    ],
)
def test_options_that_contradict_each_other(model_file: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, code=2)
    assert message in done.stderr


@pytest.mark.slow
def test_a_table_takes_hardly_longer_than_lines(model_file: Path) -> None:
    """Columns are read and written in less than 5 % of the time of scoring."""
    lines = (VERSE * 400).splitlines()
    Path("lines.txt").write_text("\n".join(lines) + "\n")
    with open("table.tsv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, "excel-tab", lineterminator="\n").writerows(
            [("id", "text", "url"), *((index, line, "http://x") for index, line in enumerate(lines))]
        )
    seconds = {"lines.txt": math.inf, "table.tsv": math.inf}
    for _ in range(3):
        for name in seconds:
            begin = time.process_time()
            run("-q", "--threads", "1", name, *(["--field", "text"] if name == "table.tsv" else []))
            seconds[name] = min(seconds[name], time.process_time() - begin)
    assert (
        seconds["table.tsv"] < 1.15 * seconds["lines.txt"]
    )  # a tiny model, which scores 50 times as fast as a real one
