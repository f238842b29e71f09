"""Text: tokenizers, the windows they cut and the places of tokens in text; training them."""

from posterion.text._tokenizer import Tokenizer
from posterion.text._training import text_lines, train_tokenizer
from posterion.text._windows import OffsetEncoding, PairWindow

__all__ = ["OffsetEncoding", "PairWindow", "Tokenizer", "text_lines", "train_tokenizer"]
