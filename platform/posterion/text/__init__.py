"""Text: tokenizers and normalisation."""

from posterion.text._normalize import normalized_key
from posterion.text._tokenizer import Tokenizer

__all__ = ["Tokenizer", "normalized_key"]
