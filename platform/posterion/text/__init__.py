"""Text: tokenizers."""

from posterion.text._tokenizer import Tokenizer

__all__ = ["Tokenizer"]
