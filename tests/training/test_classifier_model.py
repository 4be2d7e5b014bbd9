import itertools

import numpy as np
import pytest
import torch

from charlm.classifier_config import ClassifierConfig
from charlm.config import CELLS
from charlm.engine.classifier_network import ClassifierNetwork
from charlm.training.classifier_model import ClassifierModel


def make_model(**shape: object) -> ClassifierModel:
    config = ClassifierConfig.pick(
        {"vocab_size": 11, "num_classes": 3, "hidden_size": 5, "embedding_dim": 4, "num_layers": 2, **shape}
    )
    model = ClassifierModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return model


@pytest.mark.parametrize(
    ("cell", "bidirectional", "skip"), list(itertools.product(CELLS, (False, True), (False, True)))
)
@torch.no_grad()
def test_numpy_computes_what_torch_computes(
    cell: str, bidirectional: bool, skip: bool, rng: np.random.Generator
) -> None:
    model = make_model(cell=cell, bidirectional=bidirectional, skip_connections=skip, max_tokens=6)
    sequences = [rng.integers(11, size=length).astype(np.uint8) for length in (9, 6, 4, 1, 1)]
    found = ClassifierNetwork(model.config, model.to_tensors()).logits(sequences)
    for ids, row in zip(sequences, found, strict=True):
        kept = torch.from_numpy(ids[:6].astype(np.int64))[None]
        np.testing.assert_allclose(row, model(kept, torch.tensor([kept.shape[1]]))[0], atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model = make_model()
    alone = model(torch.tensor([[1, 2]]), torch.tensor([2]))
    padded = model(torch.tensor([[3, 4, 5, 6], [1, 2, 9, 9]]), torch.tensor([4, 2]))
    torch.testing.assert_close(alone[0], padded[1])


def test_batches_have_similar_lengths_and_all_texts() -> None:
    model = make_model()
    network = ClassifierNetwork(model.config, model.to_tensors())
    batches = network.batches([5000, 3, 9, 4000] + [10] * 200)
    assert sorted(index for batch in batches for index in batch) == list(range(204))
    assert batches[:2] == [[0], [3]]
    assert max(map(len, batches)) == 128


def test_groups_go_from_the_output_to_the_input() -> None:
    model = make_model()
    groups = model.layer_groups()
    assert len(groups) == 4
    assert groups[0][0] is model.head.weight
    assert groups[1][0] is model.core.layers[1].weight_ih_l0
    assert groups[-1] == [model.embedding.weight]
    assert sum(map(len, groups)) == len(list(model.parameters()))
