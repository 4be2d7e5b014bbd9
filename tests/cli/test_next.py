import json
from pathlib import Path

import pytest

from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.sampler import next_tokens
from tests.conftest import Charlm


def test_the_most_probable_tokens_come_first(charlm: Charlm, model_file: Path) -> None:
    rows = [row.split("\t") for row in charlm("next", "--prime", "To b", "--top", 5).stdout.splitlines()]
    expected = next_tokens(RecurrentNetwork.load(model_file), "To b")[:5]
    assert [float(row[0]) for row in rows] == pytest.approx([probability for _, probability in expected], abs=1e-5)
    assert [json.loads(f'"{row[1]}"') for row in rows] == [token for token, _ in expected]


def test_all_probabilities_sum_to_one(charlm: Charlm, model_file: Path) -> None:
    found = json.loads(charlm("next", "--json", "--top", 1000).stdout)
    assert sum(entry["probability"] for entry in found) == pytest.approx(1)


def test_unknown_characters_of_the_prompt_are_noted(charlm: Charlm, model_file: Path) -> None:
    assert "read as the unknown token: '語'" in charlm("next", "--prime", "語").stderr
