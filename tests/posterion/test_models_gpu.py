"""On a GPU every architecture computes what it computes on a CPU."""

import copy

import pytest
import torch
import transformers

from posterion import models
from posterion.testing import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ARCHITECTURES = ("albert", "bert", "distilbert", "roberta", "xlnet")
LENGTHS = (23, 4, 17, 9)


@pytest.fixture(params=ARCHITECTURES)
def encoder(request, tmp_path):
    folder = tiny_model(tmp_path, request.param, hidden_size=32)
    return models.load_encoder(folder, dropout=0.1)[0]


def batch(device):
    longest = max(LENGTHS)
    mask = torch.arange(longest)[None] < torch.tensor(LENGTHS)[:, None]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30, mask.shape, generator=generator)
    return ids.to(device), mask.to(device)


def states(encoder, device):
    ids, mask = batch(device)
    inputs = encoder.text_inputs(ids, mask.long())
    return encoder(**inputs).last_hidden_state[mask]


def test_states_and_gradients(encoder):
    torch.backends.cuda.matmul.allow_tf32 = False
    found = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(encoder).to(device)
        output = states(model, device)
        output.square().mean().backward()
        gradients = {
            name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None
        }
        found.append((output.detach().cpu(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-4)
    assert found[0][1].keys() == found[1][1].keys()
    largest = max(float(each.abs().max()) for each in found[0][1].values())
    for name, gradient in found[0][1].items():
        difference = float((gradient - found[1][1][name]).abs().max())
        assert difference <= 1e-4 * largest, name


def test_bfloat16_with_dropout_learns(encoder):
    exact = states(encoder, "cpu").detach()
    model = copy.deepcopy(encoder).to("cuda", torch.bfloat16)
    rounded = states(model, "cuda").detach().float().cpu()
    assert float((rounded - exact).abs().mean()) < 0.03 * float(exact.abs().mean())
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = states(model, "cuda").float().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_equals_transformers_in_bfloat16(encoder):
    reference = getattr(transformers, type(encoder).__name__)(encoder.config)
    reference.load_state_dict(encoder.state_dict(), strict=False)
    ids, mask = batch("cuda")
    inputs = encoder.text_inputs(ids, mask.long())
    pair = [
        model.to("cuda", torch.bfloat16).eval()(**inputs).last_hidden_state[mask].float()
        for model in (copy.deepcopy(encoder), reference)
    ]
    assert float((pair[0] - pair[1]).abs().mean()) < 0.03 * float(pair[1].abs().mean())
