import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm.classifier_config import ClassifierConfig, ClassifierTrainConfig
from charlm.cli import main
from charlm.cli.classify import AUTOMATIC
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.classifier_file import load_classifier, save_classifier
from charlm.engine.tensorfile import TensorFile
from charlm.training import classifier_planner, classifier_setup
from charlm.training.classifier_setup import ClassifierRequest, prepare_classifier
from charlm.training.request import Hardware
from tests.test_layers import assert_never_imported

TINY = ("--hidden", "4", "--embed", "4", "--threads", "1", "--batch-size", "8")

GOOD, BAD = ("fine", "lovely", "charming", "great"), ("dull", "awful", "boring", "weak")
OTHER = ("film", "story", "plot", "actor", "the", "a", "is", "was", ",", ".")


def make_samples(count: int = 60, seed: int = 0) -> str:
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        label, words = rng.choice([("pos", GOOD), ("neg", BAD)])
        text = [*rng.choices(OTHER, k=6), rng.choice(words)]
        rng.shuffle(text)
        lines.append(f"{label}\t{' '.join(text)}\n")
    return "".join(lines)


def invoke(*args: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["classify", *map(str, args)], input=stdin, catch_exceptions=False)


@pytest.fixture
def samples() -> Path:
    path = Path("reviews.tsv")
    path.write_text(make_samples(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small classifier."""
    folder = tmp_path_factory.mktemp("classifier")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("reviews.tsv").write_text(make_samples(), encoding="utf-8")
        done = invoke("train", "reviews.tsv", "--epochs", "3", *TINY, "--name", "tiny")
    finally:
        os.chdir(before)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "checkpoints/tiny/classifier.safetensors\n"
    assert "reviews.tsv: read as lines of a label, a tab and a text" in done.stderr
    return folder / "checkpoints/tiny/classifier.safetensors"


def test_a_classifier_learns_and_tells_its_quality(trained: Path) -> None:
    Path("new.tsv").write_text(make_samples(40, seed=1), encoding="utf-8")
    figures = json.loads(invoke("test", "-m", trained, "new.tsv", "--json").stdout)
    assert figures["accuracy"] > 0.9
    assert figures["texts"] == 40
    assert figures["confusion"]["labels"] == ["neg", "pos"]
    shown = invoke("test", "-m", trained, "new.tsv").stdout
    assert f"accuracy\t{figures['accuracy']:.4f}\n" in shown
    assert "true \\ predicted\tneg\tpos\n" in shown
    assert invoke("test", "-m", trained, "new.tsv", "--plot", "c.png").exit_code == 0
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_each_line_gets_its_label(trained: Path) -> None:
    done = invoke("predict", "-m", trained, stdin="the film was awful\r\n\nthe plot is charming")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], row[2]) for row in rows[::2]] == [("neg", "the film was awful"), ("pos", "the plot is charming")]
    assert float(rows[0][1]) > 0.5
    assert "1 empty text(s), predicted from the shares of the classes" in done.stderr
    prior = np.exp(load_classifier(trained).prior)
    assert float(rows[1][1]) == pytest.approx(prior.max(), abs=1e-4)


def test_predictions_in_other_forms(trained: Path) -> None:
    text = "the film was awful\nthe plot is charming\n"
    everything = [
        json.loads(line) for line in invoke("predict", "-m", trained, "--all", "--json", stdin=text).stdout.splitlines()
    ]
    for row in everything:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probabilities"][row["label"]] == row["probability"] == max(row["probabilities"].values())
    header, *rows = invoke("predict", "-m", trained, "--all", stdin=text).stdout.splitlines()
    assert header == "label\tprobability\tneg\tpos\ttext"
    assert rows[0].split("\t")[2] == f"{everything[0]['probabilities']['neg']:.4f}"
    columns = invoke("predict", "-m", trained, "--format", "line,label,file", stdin=text).stdout
    assert columns == "1\tneg\t-\n2\tpos\t-\n"
    assert (
        invoke("predict", "-m", trained, "--label", "pos", "--format", "text", stdin=text).stdout
        == "the plot is charming\n"
    )
    nothing = invoke("predict", "-m", trained, "--above", "1", stdin=text)
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert invoke("predict", "-m", trained, "--above", "0", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.csv",
            'id,body\n1,"awful,\nawful"\n2,charming\n',
            ["id,body,label,probability", '1,"awful,', 'awful",neg,', "2,charming,pos,"],
        ),
        ("a.jsonl", '{"body": "awful"}\n', ['{"body": "awful", "label": "neg", "probability": ']),
        ("a.csv", "label,body\npos,awful\n", ["label,body,predicted_label,probability", "pos,awful,neg,"]),
        (
            "a.jsonl",
            '{"body": "awful", "label": "pos"}\n',
            ['{"body": "awful", "label": "pos", "predicted_label": "neg", "probability": '],
        ),
    ],
)
def test_columns_of_a_table_are_kept(trained: Path, name: str, content: str, expected: list[str]) -> None:
    Path(name).write_text(content, encoding="utf-8")
    lines = invoke("predict", "-m", trained, "--field", "body", name).stdout.splitlines()
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


def test_names_of_classes_replace_no_column(trained: Path) -> None:
    checkpoint = replace(load_classifier(trained), labels=("label", "bo\tdy\n"))
    save_classifier(Path("named.safetensors"), checkpoint)
    options = ("predict", "-m", "named.safetensors", "--field", "body", "--all")
    Path("a.jsonl").write_text('{"body": "awful"}\n', encoding="utf-8")
    record = json.loads(invoke(*options, "a.jsonl").stdout)
    assert (record["body"], record["label"]) == ("awful", "label")
    assert record["probabilities"].keys() == {"label", "bo\tdy\n"}
    Path("a.tsv").write_text("body\nawful\n", encoding="utf-8")
    header, row = invoke(*options, "a.tsv").stdout.splitlines()
    assert header == "body\tlabel\tprobability\tlabel\tbo dy"
    assert len(row.split("\t")) == 5


def test_long_lines_and_pipes_are_read_as_they_arrive(trained: Path) -> None:
    line = "awful film " * 20_000
    assert (
        invoke("predict", "-m", trained, "--format", "label,line", stdin=f"{line}\n{line}").stdout == "neg\t1\nneg\t2\n"
    )
    command = [sys.executable, "-m", "charlm", "classify", "predict", "-m", str(trained), "--format", "label"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("the plot is charming\n")
        process.stdin.flush()
        assert process.stdout.readline() == "pos\n"


@pytest.mark.parametrize("arguments", [["predict"], ["test", "new.tsv"]], ids=" ".join)
def test_using_a_classifier_imports_no_torch(trained: Path, arguments: list[str]) -> None:
    Path("new.tsv").write_text(make_samples(5), encoding="utf-8")
    assert_never_imported("torch", ["classify", arguments[0], "-m", str(trained), *arguments[1:]])


def test_a_classifier_is_no_language_model_and_the_reverse(trained: Path, model_file: Path) -> None:
    for command in (
        ["sample"],
        ["score"],
        ["next"],
        ["info"],
        ["info", "--card"],
        ["novelty", "--corpus", "x"],
        ["vectors", "export"],
    ):
        for name in (trained, trained.parent):
            done = CliRunner().invoke(main, [*command, "-m", str(name)], input="a", catch_exceptions=False)
            if command != ["info"]:
                assert done.exit_code == 1
                assert "a text classifier, not a language model" in done.stderr
                assert done.stderr.count("\n") == 1
    for name in (model_file, "tiny"):
        done = invoke("predict", "-m", name, stdin="a\n")
        assert done.exit_code == 1
        assert "a language model, not a classifier" in done.stderr
    assert "a language model, not a classifier" in invoke("predict", "-m", "shakespeare", stdin="a\n").stderr
    assert "no classifier found; train one" in invoke("predict", stdin="a\n").stderr
    assert "no classifier found" in invoke("predict", "-m", "missing", stdin="a\n").stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pos\tgood\npos\tfine\n", "all samples have the label 'pos'; a classifier needs two classes"),
        ("pos\tgood\nneg\tbad\n", "each class has only one sample"),
        ("pos\tgood\nneg\n", "line 2: no tab"),
        ("pos\n", "line 1: no tab"),
    ],
)
def test_samples_that_cannot_be_learnt_from(content: str, message: str) -> None:
    Path("a.tsv").write_text(content, encoding="utf-8")
    done = invoke("train", "a.tsv", "--epochs", "1", *TINY)
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_class_is_an_error_with_its_place(trained: Path, samples: Path) -> None:
    Path("new.tsv").write_text("pos\tfine\nmixed\tfine and dull\n", encoding="utf-8")
    done = invoke("test", "-m", trained, "new.tsv")
    assert "new.tsv: line 2: the class 'mixed' is unknown to the classifier, which has neg, pos" in done.stderr
    done = invoke("train", samples, "--validation", "new.tsv", "--epochs", "1", *TINY)
    assert "new.tsv: line 2: the class 'mixed' is unknown" in done.stderr


def test_labels_may_be_numbers() -> None:
    lines = make_samples().replace("pos\t", "10\t").replace("neg\t", "9\t")
    Path("a.tsv").write_text(lines, encoding="utf-8")
    assert invoke("train", "a.tsv", "--epochs", "1", *TINY, "--name", "n").exit_code == 0
    assert load_classifier(Path("checkpoints/n/classifier.safetensors")).labels == ("9", "10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze-embeddings"], "--freeze-embeddings keeps the vectors of --glove or --from unchanged"),
        (["--minutes", "1", "--epochs", "2"], "--minutes and --epochs contradict each other"),
        (["--validation", "reviews.tsv", "--val-fraction", "0.2"], "--validation and --val-fraction contradict"),
        (["--label-field", "1"], "--label-field needs --text-field"),
        (["--hidden", "0"], "--hidden 0: must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other(samples: Path, options: list[str], message: str) -> None:
    done = invoke("train", samples, *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_the_plan_names_each_setting_and_trains_nothing(samples: Path) -> None:
    done = invoke("train", samples, "--plan", "--minutes", "1", "--hidden", "8")
    assert done.exit_code == 0, done.stderr
    assert "--hidden\t8\tgiven\n" in done.stdout
    assert "training samples\t44\n" in done.stdout
    assert not Path("checkpoints").exists()
    assert "--minutes 0.0001: too short" in invoke("train", samples, "--minutes", "0.0001").stderr


def test_words_of_vectors_are_used_and_frozen(samples: Path) -> None:
    Path("v.txt").write_text("film 1 2 3 4\nawful -1 0 0 0\n", encoding="utf-8")
    done = invoke("train", samples, "--glove", "v.txt", "--freeze-embeddings", "--epochs", "1", *TINY, "--name", "g")
    assert done.exit_code == 0, done.stderr
    found = load_classifier(Path("checkpoints/g/classifier.safetensors"))
    row = found.tensors["embedding.weight"][found.tokenizer.tokens.index("film")]
    np.testing.assert_array_equal(row / row[0], [1, 2, 3, 4])
    clash = invoke("train", samples, "--glove", "v.txt", "--embed", "5", "--plan")
    assert "--embed 5 contradicts 4, the value of v.txt" in clash.stderr
    plan = invoke("train", samples, "--glove", "v.txt", "--plan").stdout
    assert "--embed\t4\n" in plan
    assert "given" not in plan


def tensors_of(path: Path) -> dict[str, bytes]:
    with path.open("rb") as stream:
        file = TensorFile(stream, path)
        return {name: file.read(name).tobytes() for name in file.names}


def test_the_help_states_the_planned_defaults() -> None:
    planner, setup = classifier_planner, classifier_setup
    assert AUTOMATIC["epochs"].startswith(f"{planner.MIN_EPOCHS} to {planner.MAX_EPOCHS},")
    assert AUTOMATIC["max_tokens"] == f"{ClassifierConfig.max_tokens}; {planner.MAX_CHAR_TOKENS} for characters"
    rates = ClassifierTrainConfig.learning_rate, planner.FINE_TUNING_RATE
    assert AUTOMATIC["learning_rate"] == f"{rates[0]:g}; {rates[1]:g} with --from"
    shares = [setup._val_fraction(count) for count in (10**6, 400, 399, 2)]
    assert [shares[0], shares[1], shares[3]] == [0.1, 0.1, 0.25]
    assert shares[2] > 0.1
    assert AUTOMATIC["val_fraction"] == "0.1; up to 0.25 for less than 400 samples"


def stop_after_nine_updates(samples: Path) -> ClassifierRequest:
    """Train the run `cut` until it is stopped. Return the request."""
    request = ClassifierRequest(
        samples=[str(samples)],
        settings={"epochs": 5, "hidden_size": 4, "embedding_dim": 4, "batch_size": 8, "save_every": 0.001},
        hardware=Hardware(threads=1),
        name="cut",
    )
    steps: list[int] = []
    with prepare_classifier(request) as training:
        training.train(lambda progress: steps.append(progress.step), lambda: len(steps) >= 9)
    return request


def test_a_resumed_training_equals_an_uninterrupted_one(samples: Path) -> None:
    request = stop_after_nine_updates(samples)
    assert load_classifier(Path("checkpoints/cut/classifier.safetensors")).metadata["metrics"]["step"] == 9
    assert "--hidden 5 contradicts 4" in invoke("train", "--resume", "cut", "--hidden", "5").stderr
    done = invoke("train", "--resume", "cut", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    assert "30 updates of 8 texts (about 5 epochs)" in done.stderr
    with prepare_classifier(replace(request, name="whole")) as training:
        training.train()
    cut, whole = (Path("checkpoints", name, "classifier.safetensors") for name in ("cut", "whole"))
    assert tensors_of(cut) == tensors_of(whole)
    assert load_classifier(cut).weights == load_classifier(whole).weights
    assert "this training is complete" in invoke("train", "--resume", "cut").stderr


def test_a_damaged_save_is_refused_or_replaced_by_the_one_before(samples: Path) -> None:
    stop_after_nine_updates(samples)
    last = Path("checkpoints/cut/classifier-last.safetensors")
    intact = last.read_bytes()
    saved = load_classifier(last, with_resume=True)
    negative = {**saved.metadata, "resume": {**saved.metadata["resume"], "step": -3}}
    save_classifier(last, replace(saved, metadata=negative))
    message = "Error: checkpoints/cut: damaged save: a counter to resume from is negative\n"
    assert message in invoke("train", "--resume", "cut").stderr
    last.write_bytes(intact[:100])
    done = invoke("train", "--resume", "cut", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    assert "using the previous save" in done.stderr


def test_a_signal_saves_and_stops(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.cli.signals.StopSignals.__enter__", lambda self: setattr(self, "number", 2) or self)
    monkeypatch.setattr("charlm.cli.signals.StopSignals.__exit__", lambda *_: None)
    done = invoke("train", samples, "--epochs", "2", *TINY, "--name", "a")
    assert done.exit_code == 1
    assert "stopped before the first update; continue with --resume a" in done.stderr


def test_changed_samples_cannot_be_resumed(samples: Path) -> None:
    invoke("train", samples, "--epochs", "1", *TINY, "--name", "a")
    last = Path("checkpoints/a/classifier-last.safetensors")
    data = last.read_bytes()
    last.write_bytes(data.replace(b'\\"finished\\": true', b'\\"finished\\":false'))
    samples.write_text(make_samples(seed=5), encoding="utf-8")
    assert "differs from the samples with which" in invoke("train", "--resume", "a").stderr


def test_a_language_model_gives_encoder_and_vocabulary(samples: Path, model_file: Path) -> None:
    options = ["--from", model_file, "--batch-size", "16"]
    done = invoke("train", samples, *options, "--tune-encoder", "--epochs", "1", "--name", "f")
    assert done.exit_code == 0, done.stderr
    found, base = load_classifier(Path("checkpoints/f/classifier.safetensors")), load_checkpoint(model_file)
    assert found.tokenizer.tokens == base.tokenizer.tokens
    assert not found.config.bidirectional
    assert found.metadata["from"]["model"] == str(model_file)
    change = np.abs(found.tensors["core.layers.0.weight_hh_l0"] - base.tensors["core.layers.0.weight_hh_l0"]).max()
    assert 0 < change < 0.05
    clash = invoke("train", samples, "--from", model_file, "--hidden", "5")
    assert "--hidden 5 contradicts 12" in clash.stderr


def test_few_samples_leave_the_encoder_as_it_is(samples: Path, model_file: Path) -> None:
    done = invoke("train", samples, "--from", model_file, "--name", "f")
    assert done.exit_code == 0, done.stderr
    assert "few samples: only the output layer is trained" in done.stderr
    assert "cross-validation" in done.stderr
    found, base = load_classifier(Path("checkpoints/f/classifier.safetensors")), load_checkpoint(model_file)
    for name in ("embedding.weight", "core.layers.0.weight_hh_l0"):
        np.testing.assert_array_equal(found.tensors[name], base.tensors[name])
    figures = json.loads(invoke("test", "-m", "f", samples, "--json").stdout)
    assert figures["accuracy"] > 0.9
    assert "--freeze-encoder needs --from" in invoke("train", samples, "--freeze-encoder").stderr


def test_info_shows_a_classifier(trained: Path) -> None:
    done = CliRunner().invoke(main, ["info", str(trained)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "classes\tlabels\tneg, pos\n" in done.stdout
    assert "samples\treading\tencoding utf-8, errors strict\n" in done.stdout
    facts = json.loads(CliRunner().invoke(main, ["info", str(trained), "--json"], catch_exceptions=False).stdout)
    assert facts["parameters"] > 0
    assert facts["classes"]["labels"] == ["neg", "pos"]
