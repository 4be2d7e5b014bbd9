"""Word vectors from the plays, by telling true words from noise.

Words that stand among the same words are alike. So give each word a vector, and let it predict the words within two
places of it. A softmax would need a sum over all ten thousand words each time. Noise-contrastive estimation asks
something easier: is this word the true one, or was it drawn by frequency alone? With K noise words for each true one,
a word v drawn with the probability q(v), and a score s(v),

    P(true) = sigmoid(s(v) - ln(K q(v)))

and the loss is that of this yes or no. Its gradient, averaged over the draws, is that of a sum over all words; and the
more noise, the nearer that is to the gradient of the softmax. On a toy vocabulary both can be worked out in full.
"""

import re
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.engine.runs import RUNS
from charlm.lessons import LessonOptions, Say
from charlm.text.glove import nearest, write_vectors
from charlm.text.sources import read_named
from charlm.training.loss import log_uniform_probs, nce_loss

TOY, TOY_NOISE = 20, 5
VOCABULARY, WIDTH, REACH, NOISE, BATCH, STEPS = 10_000, 50, 2, 64, 2048, 6000
FREQUENT = 1e-3
"""Words more frequent than this are left out at random now and then: 'the' says little about its neighbours."""
SHOWN = ("king", "father", "night", "love", "sweet")


def run(say: Say, options: LessonOptions) -> dict[str, Any]:
    """Check the loss on a toy, learn vectors of the plays, show neighbours, write the vectors to a file."""
    torch.manual_seed(options.seed)
    path = RUNS / "skipgram" / "vectors.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    toy = check_on_toy(say, 1000 if options.quick else 10_000)
    size, steps = (1000, 1500) if options.quick else (VOCABULARY, STEPS)
    speeches = re.sub(r"^[^a-z\n]+:$", "", read_named("shakespeare"), flags=re.MULTILINE)  # without the speakers
    text = re.findall(r"[a-z]+(?:'[a-z]+)*", speeches.lower())
    words = [word for word, _ in Counter(text).most_common(size)]
    say(f"\nThe plays: {len(text):,} words; the {size:,} most frequent get {WIDTH} numbers each.")
    vectors = learn_vectors(say, text, words, steps)

    say("\nThe nearest words, by the angle between the vectors:")
    centred = (vectors - vectors.mean(dim=0)).numpy()
    known = partial(nearest, words[:3000], centred[:3000], top=7)  # rare words have had little to learn from
    pairs = {word: known(vector=centred[words.index(word)], leave_out=word) for word in SHOWN}
    neighbours = {word: [other for other, _ in found] for word, found in pairs.items()}
    say("\n".join(f"  {word:8} {', '.join(near)}" for word, near in neighbours.items()))
    with path.open("w", encoding="utf-8") as file:
        write_vectors(file, words, vectors.numpy())
    say("\nLook at 'father': nobody told the model what a family is. The vectors are in")
    say(f"{path}, as GloVe's files are: --glove reads them.")
    return {"toy": toy, "words": len(text), "neighbours": neighbours, "file": str(path)}


def check_on_toy(say: Say, most_draws: int) -> dict[str, Any]:
    """Compare the gradients of the drawn loss, of the full sum and of the softmax."""
    inputs, target, weights = torch.randn(1, 4), torch.tensor([2]), torch.randn(TOY, 4, requires_grad=True)
    bias = -(inputs @ weights.T).logsumexp(dim=-1).detach().expand(TOY)  # probabilities sum to 1, as learnt ones do
    gradient = partial(torch.autograd.grad, inputs=weights)
    (full,) = gradient(full_nce(inputs, target, weights, bias, TOY_NOISE))
    (softmax,) = gradient(F.cross_entropy(inputs @ weights.T + bias, target))
    say(f"A toy of {TOY} words, {TOY_NOISE} noise words drawn, or all of them by their chance.")
    say("How far from the full sum's gradient is the mean of so many draws?")
    total, from_full, from_softmax = torch.zeros_like(full), {}, {}
    for draw in range(1, most_draws + 1):
        total += gradient(nce_loss(inputs, target, weights, bias, num_sampled=TOY_NOISE))[0]
        if draw in (1, 100, most_draws):
            from_full[draw] = float((total / draw - full).norm() / full.norm())
            say(f"  {draw:6,}  {from_full[draw]:7.2%}")
    say("And the full sum's gradient, with so many noise words, from the softmax's?")
    for noise in (TOY_NOISE, 100, 10_000):
        miss = gradient(full_nce(inputs, target, weights, bias, noise))[0] - softmax
        from_softmax[noise] = float(miss.norm() / softmax.norm())
        say(f"  {noise:6,}  {from_softmax[noise]:7.2%}")
    return {"draws_from_full": from_full, "full_from_softmax": from_softmax}


def full_nce(inputs: Tensor, targets: Tensor, weights: Tensor, bias: Tensor, noise: int) -> Tensor:
    """What `nce_loss` is on average: every word as noise, by how often it would be drawn, K q(v)."""
    expected = noise * log_uniform_probs(len(weights)).to(inputs)
    logits = inputs @ weights.T + bias - expected.log()
    true = F.softplus(-logits.gather(1, targets[:, None]))[:, 0]
    return (true + F.softplus(logits) @ expected).mean()


def learn_vectors(say: Say, text: list[str], words: list[str], steps: int) -> Tensor:
    """Predict neighbours from words; returns the words' vectors, (V, E)."""
    numbers = {word: number for number, word in enumerate(words)}
    ids = torch.tensor([numbers[word] for word in text if word in numbers])
    share = torch.bincount(ids) / len(ids)
    ids = ids[torch.rand(len(ids)) < (FREQUENT / share[ids]).sqrt()]
    vectors, outputs = (nn.Parameter(0.1 * torch.randn(len(words), WIDTH)) for _ in range(2))
    bias = nn.Parameter(log_uniform_probs(len(words)).log().float())  # begins with each word's frequency, by Zipf
    optimizer = torch.optim.Adam([vectors, outputs, bias], lr=3e-3)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    offsets = torch.tensor([*range(-REACH, 0), *range(1, REACH + 1)])
    say("   step   loss (nats)")
    total = 0.0
    for step in range(1, steps + 1):
        places = torch.randint(REACH, len(ids) - REACH, (BATCH,))
        targets = ids[places + offsets[torch.randint(len(offsets), (BATCH,))]]
        loss = nce_loss(F.embedding(ids[places], vectors), targets, outputs, bias, num_sampled=NOISE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        fall.step()
        total += float(loss.detach())
        if step % (steps // 5) == 0:
            say(f"  {step:5,}   {total / (steps // 5):.3f}")
            total = 0
    return vectors.detach()
