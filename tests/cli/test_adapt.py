"""Option `--adapt` of the commands that use a model, and the argument `adapt` of the Python interface."""

import json
from pathlib import Path

import pytest

from charlm import api
from charlm.engine.checkpoint import load_checkpoint, save_checkpoint
from charlm.errors import ConfigError
from tests.conftest import VERSE, Charlm

LINES = "To be, or not to be\nTo be, or not to be\n"


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.fixture
def model(model_file: Path) -> api.Model:
    return api.load(model_file)


def test_a_line_costs_less_after_the_same_line(charlm: Charlm, model_file: Path) -> None:
    first, second = (float(row[0]) for row in rows(charlm("score", "--adapt", stdin=LINES).stdout))
    static = [float(row[0]) for row in rows(charlm("score", stdin=LINES).stdout)]
    assert static[0] == static[1]
    assert second < first - 0.3


def test_each_file_is_a_document_of_its_own(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(LINES)
        (tmp_path / f"{name}.tsv").write_text("text\n" + LINES)
    both = charlm("score", "--adapt", "one.txt", "two.txt").stdout
    assert both == 2 * charlm("score", "--adapt", "one.txt").stdout
    header, *records = charlm("score", "--adapt", "--field", "text", "one.txt.tsv", "two.txt.tsv").stdout.splitlines()
    assert header == "text\tadaptive_bits_per_char"
    assert records[:2] == records[2:]
    joined = json.loads(charlm("score", "--adapt", "--total", "--json", "one.txt", "two.txt").stdout)
    one = json.loads(charlm("score", "--adapt", "--total", "--json", "one.txt").stdout)
    assert joined["adaptive_nats_per_char"] < one["adaptive_nats_per_char"]


def test_adaptive_figures_have_names_of_their_own(charlm: Charlm, model_file: Path) -> None:
    static = json.loads(charlm("score", "--total", "--json", stdin=LINES).stdout)
    for options in (["--total"], ["--total", "--by-line"]):
        adaptive = json.loads(charlm("score", *options, "--adapt", "--json", stdin=LINES).stdout)
        assert {"tokens", "characters", "adaptive_bits_per_char", "adaptive_perplexity"} <= adaptive.keys()
        assert {name.removeprefix("adaptive_") for name in adaptive} == static.keys()
        assert not {"bits_per_char", "perplexity", "nats_per_token"} & adaptive.keys()
    assert "adaptive_bits" in charlm("score", "--adapt", "--per-token", "--no-header", "--json", stdin="a\n").stdout
    assert "adaptive_nats" in charlm("score", "--adapt", "--per-word", "--unit", "nats", stdin="a\n").stdout
    assert "adaptive_nats_no_newline" in charlm("score", "--adapt", "--json", stdin="a\n").stdout
    sample = json.loads(charlm("sample", "--adapt", "--json", "-n", 5).stdout)
    assert "adaptive_log_probability_per_token" in sample
    charlm("score", "--adapt", "--html", "map.html", stdin=LINES)
    assert "scored adaptively by" in Path("map.html").read_text()


def test_tokens_sum_up_to_the_line(charlm: Charlm, model_file: Path) -> None:
    by_token = rows(charlm("score", "--adapt", "--per-token", "--unit", "nats", stdin=LINES).stdout)[1:]
    by_line = json.loads(charlm("score", "--adapt", "--json", stdin=LINES).stdout.splitlines()[1])
    assert sum(float(row[4]) for row in by_token if row[1] == "2") == pytest.approx(by_line["adaptive_nats"], abs=1e-3)


def test_mixtures_and_several_models_adapt(charlm: Charlm, model_file: Path) -> None:
    mixed = charlm("score", "--adapt", "--mix", "tiny:0.3", stdin=LINES).stdout
    assert mixed == charlm("score", "--adapt", stdin=LINES).stdout
    assert rows(charlm("score", "--adapt", "--vs", "tiny", stdin=LINES).stdout)[1][0] == "0.0000"
    assert rows(charlm("score", "--adapt", "-m", "tiny", "-m", "tiny", stdin=LINES).stdout)[1][1] == "0.0000"


@pytest.mark.parametrize("option", [["--pairs"], ["--context", "a"]])
def test_options_without_an_order_of_lines_cannot_adapt(charlm: Charlm, model_file: Path, option: list[str]) -> None:
    assert "--adapt and" in charlm("score", "--adapt", *option, stdin="a\tb\n").stderr


def test_a_prompt_teaches_a_name(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "scene.txt").write_text("Tosheber\n" * 20)
    options = ("--adapt", "--prime-file", "scene.txt", "--greedy", "-n", 18, "--no-prompt")
    assert "osheber" not in charlm("sample", "--prime-file", "scene.txt", "--greedy", "-n", 18).stdout[180:]
    assert "osheber\n" in charlm("sample", *options).stdout
    assert "osheber\n" in charlm("sample", *options, "--count", 3).stdout
    assert "osheber\n" in charlm("sample", *options[:3], "--beam", 3, "-n", 18, "--no-prompt").stdout


def test_next_tokens_adapt(charlm: Charlm, model_file: Path, model: api.Model) -> None:
    prompt = "hebr hebr hebr hebr heb"
    best = rows(charlm("next", "--adapt", "--prime", prompt, "--top", 1).stdout)[0]
    assert best[1] == "r"
    assert model.next_tokens(prompt, top=1, adapt=True)[0].probability == pytest.approx(float(best[0]), abs=1e-6)
    assert model.next_tokens(prompt, top=1)[0].probability < float(best[0])


def test_a_session_learns_from_its_prompts(charlm: Charlm, model_file: Path) -> None:
    learn = '"""\n' + "hebrhebr\n" * 30 + '"""\n:n 4\n:greedy\n'
    script = f"{learn}heb\n:forget\nheb\n"
    done = charlm("sample", "-i", "--adapt", "-n", 0, "--no-prompt", stdin=script)
    learned, forgotten = done.stdout.splitlines()[-2:]
    assert learned.startswith("r")
    assert not forgotten.startswith("r")
    assert "start the session with --adapt" in charlm("sample", "-i", stdin=":forget\n").stderr


def test_the_model_of_a_list_does_not_adapt_to_prompts(charlm: Charlm, model_file: Path) -> None:
    checkpoint = load_checkpoint(model_file)
    checkpoint.metadata["items"] = {"kind": "line", "separator": "\n", "longest": 9}
    save_checkpoint(model_file, checkpoint)
    model = api.load(model_file)
    assert "independent; omit --adapt" in charlm("sample", "--adapt").stderr
    with pytest.raises(ConfigError, match="the model was trained on a list"):
        model.generate(adapt=True)
    assert charlm("score", "--adapt", stdin=LINES).stdout


def test_python_scores_adapt(model: api.Model) -> None:
    text = VERSE[:100] * 2
    score = model.score(text, adapt=True)
    assert score.nll_nats < model.score(text).nll_nats - 20
    tokens = model.surprisals(text, adapt=True)
    assert tokens.bits.sum() == pytest.approx(score.nll_nats / 0.6931472, rel=1e-3)
    assert not any(value != value for value in tokens.entropy.tolist())
    words = model.surprisals(text, unit="word", adapt=True)
    assert words.bits.sum() == pytest.approx(tokens.bits.sum(), rel=1e-3)
    assert model.generate("hebr\n" * 20, adapt=True, length=4, temperature=0) == "hebr"
