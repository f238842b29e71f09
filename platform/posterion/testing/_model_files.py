"""Checks of what a model writes and reads, in both directions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from posterion.testing._model_family import ModelFamily, reference_class


def check_round_trip(family: ModelFamily, directory: Path) -> None:
    """What one side saves the other loads, bit for bit, in every format of weights."""
    for model_class in family.models:
        name = model_class.__name__
        ours, reference = family.build(model_class), family.reference(model_class)
        ours.save_pretrained(directory / name / "ours")
        loader = _auto_class(reference_class(model_class), ours.config)
        theirs, info = loader.from_pretrained(directory / name / "ours", output_loading_info=True)
        assert type(theirs) is reference_class(model_class), f"{loader} gave {type(theirs)}"
        _assert_complete(info, f"transformers reading {name}")
        _assert_equal_weights(theirs, ours, f"{name} as transformers reads it")
        folder = directory / name / "theirs"
        reference.save_pretrained(folder)
        again, info = model_class.from_pretrained(folder, output_loading_info=True)
        assert type(again) is model_class, f"from_pretrained gave {type(again)}"
        _assert_complete(info, f"{name} reading transformers")
        _assert_equal_weights(again, reference, f"{name} as it reads transformers")
        assert not again.training, "a loaded model must be in evaluation mode"
    for kind in ("sharded", "bin"):
        for model_class in (family.encoder, family.heads[0]):
            reference = family.reference(model_class)
            folder = directory / kind / model_class.__name__
            _save(reference, folder, kind)
            again = model_class.from_pretrained(folder)
            _assert_equal_weights(again, reference, f"{kind} weights of {model_class.__name__}")
    ours = family.build(family.encoder)
    ours.save_pretrained(directory / "shards", max_shard_size="4KB")
    assert len(list((directory / "shards").glob("*.safetensors"))) > 1, "no shards were written"
    theirs = reference_class(family.encoder).from_pretrained(directory / "shards")
    _assert_equal_weights(theirs, ours, "our shards as transformers reads them")


def check_loading(family: ModelFamily, directory: Path) -> None:
    """Weights that are absent or of another shape are an error that names them, or accepted."""
    from posterion import ModelSourceError

    head_class = family.head("ForSequenceClassification")
    base, head = family.reference(family.encoder), family.reference(head_class)
    prefix = head.base_model_prefix
    of_head = {name for name in head.state_dict() if not name.startswith(f"{prefix}.")}
    modules = sorted({name.split(".")[0] for name in of_head})
    base.save_pretrained(directory / "base")
    error = _refusal(head_class, directory / "base")
    for name in of_head:
        assert name in error, f"the error does not name {name}: {error}"
    model = head_class.from_pretrained(directory / "base", new_weights=modules)
    _assert_equal_weights(model.base_model, base, "an encoder under a new head")

    head.save_pretrained(directory / "head")
    damaged = next(
        name for name, value in base.state_dict().items() if value.dim() == 1 and "layer" in name
    )
    _change_file(directory / "head", directory / "missing", remove=f"{prefix}.{damaged}")
    error = _refusal(head_class, directory / "missing")
    assert f"{prefix}.{damaged}" in error, f"the error does not name {damaged}: {error}"
    _change_file(directory / "head", directory / "extra", add="surplus.weight")
    _, info = head_class.from_pretrained(directory / "extra", output_loading_info=True)
    assert "surplus.weight" in info["unexpected_keys"], "a surplus weight is not reported"

    error = _refusal(head_class, directory / "head", num_labels=head.config.num_labels + 2)
    outputs = [name for name in of_head if head.state_dict()[name].shape[0] == 3]
    assert outputs, "no weight of the head depends on the number of labels"
    for name in outputs:
        assert name in error, f"the error does not name {name}, which has another shape: {error}"
    model = head_class.from_pretrained(directory / "head", num_labels=5, new_weights=modules)
    assert model.config.num_labels == 5, "from_pretrained ignores num_labels"
    _assert_equal_weights(model.base_model, head.base_model, "an encoder under a resized head")
    try:
        head_class.from_pretrained(directory / "nowhere")
    except (ModelSourceError, OSError):
        return
    raise AssertionError("a folder that does not exist must be refused")


def _refusal(model_class: Any, folder: Path, **options: Any) -> str:
    from posterion import ModelSourceError

    try:
        model_class.from_pretrained(folder, **options)
    except ModelSourceError as error:
        return str(error)
    raise AssertionError(f"{model_class.__name__} accepted {folder.name}, which is incomplete")


def _auto_class(model_class: Any, config: Any) -> Any:
    """The ``AutoModel...`` that loads this class, or the class itself where there is none."""
    import transformers

    for name in sorted(dir(transformers)):
        if not name.startswith("AutoModel"):
            continue
        auto = getattr(transformers, name)
        mapping = getattr(auto, "_model_mapping", {})
        if type(config) in mapping and mapping[type(config)] is model_class:
            return auto
    return model_class


def _save(model: Any, folder: Path, kind: str) -> None:
    model.save_pretrained(folder, **({"max_shard_size": "4KB"} if kind == "sharded" else {}))
    if kind == "sharded":
        assert len(list(folder.glob("*.safetensors"))) > 1, "one shard is no test"
        return
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _change_file(source: Path, target: Path, *, remove: str = "", add: str = "") -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    if remove:
        del weights[remove]
    if add:
        weights[add] = torch.zeros(2)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    json.loads((target / "config.json").read_text())


def _assert_complete(info: dict[str, Any], what: str) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{what}: {kind} {info[kind]}"


def _assert_equal_weights(model: Any, expected: Any, what: str) -> None:
    weights = model.state_dict()
    for name, value in expected.state_dict().items():
        if name not in weights and name.startswith("pooler."):
            continue  # A head without a pooler drops the base model's.
        assert torch.equal(weights[name], value), f"{what}: {name} differs"
