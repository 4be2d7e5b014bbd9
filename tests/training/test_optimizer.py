import pytest
import torch

from charlm.config import ModelConfig, TrainConfig
from charlm.training.network import LanguageModel
from charlm.training.optimizer import BETAS, DECODER_RATE, make_optimizer


@pytest.mark.parametrize("tied", [False, True])
def test_updates_equal_those_of_pytorchs_adamw(tied: bool) -> None:
    config = TrainConfig(steps=1, weight_decay=0.3)
    shape = ModelConfig(vocab_size=7, hidden_size=5, embedding_dim=5, num_layers=2, tie_weights=tied)
    ours, theirs = LanguageModel(shape), LanguageModel(shape)
    theirs.load_state_dict(ours.state_dict())
    groups = []
    for name, weight in theirs.named_parameters():
        rate = DECODER_RATE if name == "decoder.weight" else 1.0
        groups.append({"params": [weight], "lr": 0.1 * rate, "weight_decay": 0.0 if "bias" in name else 0.3})
    reference, optimizer = torch.optim.AdamW(groups, betas=BETAS, fused=True), make_optimizer(ours, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["rate"]
    for _ in range(3):
        optimizer.zero_grad()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert one.grad is None
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
