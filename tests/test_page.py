"""The exported page in a browser."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import Checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.page_export import page_bytes
from charlm.engine.sampler import Sampler, next_tokens
from charlm.engine.scorer import ModelScorer
from charlm.sample_config import SampleConfig
from tests.chromium import CHROMIUM, Browser
from tests.cli.test_export import HOSTILE, hostile_checkpoint
from tests.conftest import make_mixture

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    running = Browser()
    yield running
    running.close()


def show(browser: Browser, checkpoint: Checkpoint, name: str = "small") -> Path:
    page = Path("page.html")
    page.write_bytes(page_bytes(checkpoint, name))
    browser.messages.clear()
    browser.requests.clear()
    browser.open(page)
    return page


def fill(browser: Browser, **values: str) -> None:
    """Type values into the fields with these ids."""
    for name, value in values.items():
        field = f"document.getElementById({name.replace('_', '-')!r})"
        browser.run(f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input'))")


def wait_for(browser: Browser, condition: str) -> None:
    end = time.monotonic() + 60
    while not browser.run(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def text_of(browser: Browser, name: str) -> str:
    return browser.run(f"document.getElementById({name!r}).textContent")


def test_the_page_writes_the_text_that_sample_writes(browser: Browser) -> None:
    checkpoint = make_mixture(num_layers=2, skip_connections=True)
    page = show(browser, checkpoint)
    fill(browser, prompt="HAM", temperature="1", top_p="0.9", seed="7", length="150")
    browser.run("document.getElementById('start').click()")
    wait_for(browser, "!document.getElementById('start').disabled")
    config = SampleConfig(temperature=1.0, top_p=0.9, seed=7, length=150)
    sampler = Sampler(predictor=open_predictor(checkpoint), config=config)
    (generation,) = sampler.start(["HAM"])
    written = "".join(piece for (piece,) in sampler.generate([generation]))
    assert text_of(browser, "text") == f"HAM{written}"
    assert text_of(browser, "status") == "Wrote 150 characters, seed 7."
    (likeliest, prob), *_ = next_tokens(sampler.predictor, f"HAM{written}")
    bar = browser.run("document.querySelector('#next button').textContent")
    shown = {" ": "\u2423", "\n": "\u21b5"}.get(likeliest, likeliest)
    assert bar == f"{shown} {100 * prob:.{1 if prob >= 0.1 else 2}f} %"
    assert browser.messages == []
    assert browser.requests == [page.resolve().as_uri()]


def test_the_page_stops_at_a_text_and_continues_after_it(browser: Browser) -> None:
    show(browser, make_mixture())
    fill(browser, temperature="1", seed="3", length="200")
    browser.run("document.getElementById('start').click()")
    wait_for(browser, "!document.getElementById('start').disabled")
    whole = text_of(browser, "text")
    stop = whole[40:42]
    fill(browser, stop_text=stop.replace("\n", "\\n"))
    browser.run("document.getElementById('start').click()")
    wait_for(browser, "!document.getElementById('start').disabled")
    assert text_of(browser, "text") == whole[: whole.index(stop)]
    fill(browser, stop_text="")
    browser.run("document.getElementById('resume').click()")
    wait_for(browser, "!document.getElementById('start').disabled")
    assert text_of(browser, "text").startswith(whole)
    assert browser.messages == []


def test_the_page_paints_the_surprisal_of_a_text(browser: Browser) -> None:
    checkpoint = make_mixture()
    show(browser, checkpoint)
    text = "To be, or ßo\nto be?\n"
    fill(browser, given=text)
    browser.run("document.querySelector('#paint button').click()")
    wait_for(browser, "document.getElementById('score').textContent.includes('bits')")
    scores = ModelScorer(open_predictor(checkpoint)).start_stream().feed(text)
    bits = scores.nats / math.log(2)
    levels = np.searchsorted([1, 2, 4, 6, 9], bits, side="right")
    spans = browser.run("[...document.querySelectorAll('#map span')].map((span) => [span.textContent, span.className])")
    assert spans == [[char.replace("\n", "↵\n"), f"s{level}"] for char, level in zip(text, levels, strict=True)]
    assert f"{bits.mean():.3f}" in text_of(browser, "score")
    assert "1 unknown" in text_of(browser, "score")
    browser.run("document.getElementById('map').focus()")
    key = "document.getElementById('map').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    browser.run(f"{key}; {key}; {key}")
    prob = math.exp(-scores.nats[3])
    assert text_of(browser, "detail").startswith(f"b: probability {100 * prob:.{1 if prob >= 0.1 else 2}f} %")
    assert f'word "be,": {bits[2:6].sum():.2f} bits' in text_of(browser, "detail")
    browser.run("document.getElementById('by-word').click()")
    (level,) = np.searchsorted([1, 2, 4, 6, 9], [bits[2:6].mean()], side="right")
    assert browser.run("document.querySelectorAll('#map span')[4].className") == f"s{level}"
    assert browser.messages == []


def test_hostile_texts_are_shown_as_text(browser: Browser) -> None:
    page = show(browser, hostile_checkpoint(), HOSTILE)
    assert text_of(browser, "name") == HOSTILE
    assert HOSTILE.strip() in text_of(browser, "facts")
    fill(browser, prompt=HOSTILE.strip(), given=HOSTILE.strip(), seed="1", length="20")
    browser.run("document.getElementById('start').click()")
    browser.run("document.querySelector('#paint button').click()")
    wait_for(browser, "!document.getElementById('start').disabled")
    wait_for(browser, "document.getElementById('score').textContent.includes('bits')")
    assert text_of(browser, "text").startswith(HOSTILE.strip())
    assert text_of(browser, "map") == HOSTILE.strip()
    assert browser.run("document.scripts.length") == 3 - 1  # the page removes the numbers after reading them
    assert browser.messages == []
    assert browser.requests == [page.resolve().as_uri()]


def test_the_policy_forbids_other_scripts_styles_and_requests(browser: Browser) -> None:
    show(browser, replace(make_mixture(), spelling=None))
    browser.run(
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1'; document.body.append(made)"
    )
    assert browser.run("window.ran === undefined")
    assert browser.run("fetch('data:,x').then(() => 'loaded', () => 'refused')") == "refused"
