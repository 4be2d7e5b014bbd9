import doctest
from pathlib import Path

import pytest

import charlm
from charlm import classifier_api

SAMPLES = [("good", "a fine film"), ("bad", "a dull film"), ("good", "fine , very fine"), ("bad", "dull story")] * 5


def test_a_classifier_is_trained_loaded_and_used() -> None:
    steps: list[int] = []
    trained = charlm.train_classifier(
        SAMPLES, name="films", epochs=2, threads=1, hidden_size=4, report=lambda progress: steps.append(progress.step)
    )
    assert steps[-1] == 2
    loaded = charlm.load_classifier("films")
    assert (loaded.path, loaded.labels) == (trained.path, ("bad", "good"))
    first, empty = loaded.predict(iter(["a very dull film", ""]))
    assert first.label == "bad"
    assert first.probability == first.probabilities["bad"] > 0.5
    assert empty.probabilities == pytest.approx({"bad": 0.5, "good": 0.5})
    assert loaded.probabilities(["dull", "fine"]).argmax(axis=1).tolist() == [0, 1]
    assert loaded.metadata["metrics"]["step"] == 2


def test_files_are_samples_too() -> None:
    Path("a.csv").write_text("stars,body\n" + "5,fine\n1,dull\n" * 5, encoding="utf-8")
    found = charlm.train_classifier("a.csv", label_field="stars", text_field="body", epochs=1, threads=1, hidden_size=4)
    assert found.labels == ("1", "5")
    assert found.path.parent.name == "a"


def test_mistakes_are_errors() -> None:
    with pytest.raises(TypeError, match="no setting 'units'"):
        charlm.train_classifier(SAMPLES, units=3)
    with pytest.raises(charlm.CharlmError, match="two classes"):
        charlm.train_classifier(SAMPLES[:1], epochs=1)
    with pytest.raises(charlm.CharlmError, match="no classifier found"):
        charlm.load_classifier()
    with pytest.raises(TypeError, match="sample 2 is no pair of a label and a text, both strings: 'reviews"):
        charlm.train_classifier([SAMPLES[0], "reviews.tsv"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="sample 1 is no pair"):
        charlm.train_classifier([(1, "good")])  # type: ignore[list-item]
    for nothing in ([], [("good", " ")]):
        with pytest.raises(charlm.CharlmError, match="samples: no labelled text"):
            charlm.train_classifier(nothing)
    with pytest.raises(charlm.CharlmError, match="line 1: a text without a label"):
        charlm.train_classifier([("", "good")])
    classifier = charlm.train_classifier(SAMPLES, epochs=1, threads=1, hidden_size=4)
    with pytest.raises(TypeError, match="list of texts"):
        classifier.predict("a single text")


def test_examples_in_docstrings_run() -> None:
    failed, tried = doctest.testmod(classifier_api)
    assert tried > 10
    assert not failed
