"""Students that begin as layers of a larger model, of every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from posterion import ModelSourceError
from posterion.models import (
    alternate_layers,
    load_encoder,
    resolve_model,
    save_encoder,
    student_encoder,
)
from posterion.testing import TINY_ARCHITECTURES, tiny_model

IDS = torch.tensor([[2, 9, 8, 7, 11, 3], [2, 5, 6, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def states(encoder: torch.nn.Module) -> list[torch.Tensor]:
    output = encoder(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    return [each[MASK.bool()] for each in output.hidden_states]


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_the_first_layers_compute_what_they_did(tmp_path: Path, architecture: str):
    larger, _ = load_encoder(tiny_model(tmp_path / "larger", architecture, layers=4))
    student = student_encoder(larger, [0, 1])
    assert student.config.num_hidden_layers == 2
    assert larger.config.num_hidden_layers == 4
    expected = states(larger)[:3]
    for mine, other in zip(states(student), expected, strict=True):
        torch.testing.assert_close(mine, other)
    save_encoder(student, tmp_path / "student")
    read = transformers.AutoModel.from_pretrained(tmp_path / "student").eval()
    torch.testing.assert_close(states(read)[-1], expected[-1], rtol=1e-4, atol=1e-5)


def test_chosen_layers_stand_in_the_given_order(tmp_path: Path):
    larger, _ = load_encoder(tiny_model(tmp_path / "larger", layers=4))
    student = student_encoder(larger, [3, 1])
    given, own = larger.state_dict(), student.state_dict()
    for place, layer in enumerate((3, 1)):
        name = "intermediate.dense.weight"
        mine = own[f"encoder.layer.{place}.{name}"]
        assert torch.equal(mine, given[f"encoder.layer.{layer}.{name}"])
    own["embeddings.word_embeddings.weight"].zero_()
    assert given["embeddings.word_embeddings.weight"].any(), "the student has weights of its own"


def test_a_distilbert_of_a_roberta(tmp_path: Path):
    larger, _ = load_encoder(tiny_model(tmp_path / "larger", "roberta", layers=4))
    student = student_encoder(larger, [1, 3], architecture="distilbert")
    assert student.config.model_type == "distilbert"
    assert student.config.n_layers == 2


@pytest.mark.parametrize(
    ("num_layers", "expected"), [(1, (0,)), (2, (1,)), (6, (1, 3, 5)), (5, (0, 2, 4))]
)
def test_alternate_layers_hold_the_last(num_layers: int, expected: tuple[int, ...]):
    assert alternate_layers(num_layers) == expected


@pytest.mark.parametrize(
    ("layers", "architecture", "message"),
    [
        ([4], None, r"model.layers is \[4\], but the bert to take them from has the layers 0 to 3"),
        ([], None, "Name one of these at least"),
        ([0], "roberta", "A roberta cannot begin as layers of a bert"),
    ],
)
def test_what_there_is_not_is_refused(
    tmp_path: Path, layers: list[int], architecture: str | None, message: str
):
    larger, _ = load_encoder(tiny_model(tmp_path, layers=4))
    with pytest.raises(ModelSourceError, match=message):
        student_encoder(larger, layers, architecture=architecture)


def test_the_folder_of_a_version_means_the_model_in_it(tmp_path: Path):
    tiny_model(tmp_path / "version" / "model")
    with pytest.raises(ModelSourceError, match=r"holds no config\.json"):
        resolve_model(f"path:{tmp_path}/version")
    (tmp_path / "version" / "manifest.json").write_text("{}")
    found = resolve_model("models:/a/1", registry=lambda _: tmp_path / "version")
    assert found == tmp_path / "version" / "model"
