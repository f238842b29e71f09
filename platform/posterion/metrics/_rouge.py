"""ROUGE-L of generated answers (Lin 2004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def rouge_l(
    prediction: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    beta: float = 1.0,
    references_by: Literal["f", "parts"] = "f",
) -> float:
    r"""ROUGE-L of one answer, 0 to 1; average over the questions.

    With :math:`\ell` the length of the longest common subsequence, :math:`P = \ell / |p|`,
    :math:`R = \ell / |r|`: :math:`F = (1 + \beta^2) P R / (R + \beta^2 P)` (Lin 2004, equations
    2 to 4).

    Args:
        prediction: Tokens, e.g. by :func:`rouge_words` or, of Chinese, :func:`characters`.
        references: Tokens of each right answer.
        beta: Weight of the recall. 1 in the ``rouge-score`` package, 1.2 in MS MARCO and DuReader.
        references_by: Of several references, ``f`` takes the one with the largest F; ``parts`` puts
            the largest P and the largest R together, as MS MARCO and DuReader do.

    Raises:
        ValueError: Texts instead of tokens, no reference, or ``beta`` not positive.
    """
    check_tokens(prediction, references)
    if not beta > 0:
        raise ValueError(f"beta is {beta}; the weight of the recall must be more than 0")
    parts = [_parts(prediction, reference) for reference in references]
    if references_by == "parts":
        parts = [(max(p for p, _ in parts), max(r for _, r in parts))]
    return max(_f(precision, recall, beta) for precision, recall in parts)


def check_tokens(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse texts where tokens are needed: their characters would count as words.

    Raises:
        ValueError: See above; or no reference.
    """
    for tokens in (prediction, references, *references):
        if isinstance(tokens, str):
            raise ValueError(
                f"tokens are needed, not the text {tokens[:40]!r}; part it first, e.g. by "
                "rouge_words"
            )
    if not len(references):
        raise ValueError("at least one reference is needed")


def _parts(prediction: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    """Precision and recall of the longest common subsequence."""
    if not len(prediction) or not len(reference):
        return 0.0, 0.0
    common = longest_common_subsequence(prediction, reference)
    return common / len(prediction), common / len(reference)


def _f(precision: float, recall: float, beta: float) -> float:
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest list of tokens that both have in this order.

    Bit-parallel: one addition on integers of ``len(b)`` bits for each token of ``a`` (Hyyrö 2004,
    figure 1), which is some hundred times faster than the table of Wagner and Fischer.
    """
    places: dict[str, int] = {}
    for j, token in enumerate(b):
        places[token] = places.get(token, 0) | 1 << j
    every = (1 << len(b)) - 1
    # A zero at bit j: the common subsequence with b[:j+1] is one longer than with b[:j].
    rest = every
    for token in a:
        matched = rest & places.get(token, 0)
        rest = ((rest + matched) | (rest - matched)) & every
    return len(b) - rest.bit_count()
