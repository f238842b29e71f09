"""A random BERT of a few thousand parameters, on disk in the Hugging Face layout."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

_WORDS = """
the a an and or not is was are be it this that of to in on for with as by at from
very really so too good great best nice happy fine love like wonderful fun bad worst
awful sad poor hate boring terrible film movie book story food place plot actor music
we you he she they i me my your his her our one two three four five six seven
"""
TINY_WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""Words of the default vocabulary that are one token each; all else falls into characters."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_bert(
    directory: Path | str,
    *,
    vocabulary: Sequence[str] | None = None,
    hidden_size: int = 32,
    layers: int = 2,
    max_positions: int = 64,
    dropout: float = 0.1,
    seed: int = 0,
) -> Path:
    """Write a random BERT checkpoint with a WordPiece tokenizer.

    Args:
        directory: Folder to create: ``config.json``, ``model.safetensors`` (names
            ``embeddings.*``, ``encoder.*``, ``pooler.*``), ``tokenizer.json``,
            ``tokenizer_config.json``, ``vocab.txt``.
        vocabulary: Words that become one token each; :data:`TINY_WORDS` when absent. Single
            characters and their ``##`` continuations are always added, so that no lower-case
            ASCII text needs the unknown token.
        hidden_size: Width, a multiple of 4 (four attention heads).
        layers: Encoder layers.
        max_positions: Longest input in tokens.
        dropout: Dropout of hidden states and attention, as written in ``config.json``.
        seed: Seed of the random weights; the global generator is left as it was.

    Returns:
        The folder.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(
        directory, TINY_WORDS if vocabulary is None else vocabulary, max_positions
    )
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=max_positions,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # BERT's own 0.02 leaves so small a model nearly constant; a test that
                # compares outputs needs outputs that differ.
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.2)
                elif name.endswith("bias"):
                    parameter.normal_(0.0, 0.05)
    config.architectures = ["BertModel"]
    config.save_pretrained(directory)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def _write_tokenizer(directory: Path, vocabulary: Sequence[str], max_positions: int) -> list[str]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*characters, *(f"##{character}" for character in characters)]
    tokens = list(dict.fromkeys([*_SPECIAL, *pieces, *vocabulary]))
    tokenizer = Tokenizer(
        models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokens.index("[CLS]")), ("[SEP]", tokens.index("[SEP]"))],
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": max_positions,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return tokens
