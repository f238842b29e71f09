"""Random models of a few thousand parameters, on disk in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posterion.testing._tiny_tokenizers import write_tokenizer

_WORDS = """
the a an and or not is was are be it this that of to in on for with as by at from
very really so too good great best nice happy fine love like wonderful fun bad worst
awful sad poor hate boring terrible film movie book story food place plot actor music
we you he she they i me my your his her our one two three four five six seven
"""
TINY_WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""Words of the default vocabulary that are one token each; all else falls into characters."""

_NUM_HEADS = 4


def tiny_model(
    directory: Path | str,
    architecture: str = "bert",
    *,
    vocabulary: Sequence[str] | None = None,
    hidden_size: int = 32,
    layers: int = 2,
    max_positions: int = 64,
    dropout: float = 0.1,
    seed: int = 0,
) -> Path:
    """Write a random checkpoint of an encoder with its kind of tokenizer.

    Args:
        directory: Folder to create: ``config.json``, ``model.safetensors`` (names of the bare
            encoder), ``tokenizer.json``, ``tokenizer_config.json`` and the vocabulary in its own
            format: ``vocab.txt`` of WordPiece, ``vocab.json`` and ``merges.txt`` of byte-level BPE.
        architecture: One of :data:`TINY_ARCHITECTURES`.
        vocabulary: Words that become one token each; :data:`TINY_WORDS` when absent. Lower-case
            ASCII text never needs the unknown token.
        hidden_size: Width, a multiple of 4 (four attention heads).
        layers: Encoder layers.
        max_positions: Longest input in tokens; XLNet takes any length.
        dropout: Dropout of hidden states and attention, as written in ``config.json``.
        seed: Seed of the random weights; the global generator is left as it was.

    Returns:
        The folder.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    words = TINY_WORDS if vocabulary is None else vocabulary
    tokenizer = write_tokenizer(directory, architecture, words, max_positions)
    sizes = {"hidden_size": hidden_size, "layers": layers, "positions": max_positions}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=tokenizer.get_vocab_size(),
        **_CONFIGS[architecture](sizes, dropout),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # The architectures' own 0.02 leaves so small a model nearly constant; a test that
                # compares outputs needs outputs that differ.
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.2)
                elif name.endswith("bias"):
                    parameter.normal_(0.0, 0.05)
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def _bert(sizes: Mapping[str, int], dropout: float) -> dict[str, Any]:
    return {
        "hidden_size": sizes["hidden_size"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": _NUM_HEADS,
        "intermediate_size": 2 * sizes["hidden_size"],
        "max_position_embeddings": sizes["positions"],
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _roberta(sizes: Mapping[str, int], dropout: float) -> dict[str, Any]:
    # Positions count from the padding token's id, 1, and padding itself has one.
    positions = sizes["positions"] + 2
    return {
        **_bert({**sizes, "positions": positions}, dropout),
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def _distilbert(sizes: Mapping[str, int], dropout: float) -> dict[str, Any]:
    return {
        "dim": sizes["hidden_size"],
        "n_layers": sizes["layers"],
        "n_heads": _NUM_HEADS,
        "hidden_dim": 2 * sizes["hidden_size"],
        "max_position_embeddings": sizes["positions"],
        "dropout": dropout,
        "attention_dropout": dropout,
    }


def _albert(sizes: Mapping[str, int], dropout: float) -> dict[str, Any]:
    return {
        **_bert(sizes, dropout),
        "embedding_size": sizes["hidden_size"] // 2,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }


def _xlnet(sizes: Mapping[str, int], dropout: float) -> dict[str, Any]:
    return {
        "d_model": sizes["hidden_size"],
        "n_layer": sizes["layers"],
        "n_head": _NUM_HEADS,
        "d_inner": 2 * sizes["hidden_size"],
        "dropout": dropout,
    }


_CONFIGS: dict[str, Callable[[Mapping[str, int], float], dict[str, Any]]] = {
    "albert": _albert,
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "xlnet": _xlnet,
}
TINY_ARCHITECTURES: tuple[str, ...] = tuple(_CONFIGS)
"""What :func:`tiny_model` can make."""
