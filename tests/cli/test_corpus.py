import json

from click.testing import CliRunner

from charlm.cli import main
from charlm.text.named_corpora import NAMED_CORPORA


def test_the_list_has_every_named_corpus() -> None:
    lines = CliRunner().invoke(main, ["corpus"]).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(NAMED_CORPORA)
    assert json.loads(CliRunner().invoke(main, ["corpus", "--json"]).stdout).keys() == NAMED_CORPORA.keys()


def test_a_corpus_is_printed_unchanged() -> None:
    assert CliRunner().invoke(main, ["corpus", "hello"]).stdout == "hihello"
