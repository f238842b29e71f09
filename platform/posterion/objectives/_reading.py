"""Losses of readers. Shape legend: B examples, L words of a context, O candidates, T steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterion.objectives._classification import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def span_nll(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Negative log-likelihood of the answer's first and last word, in nats, in fp32.

    Source: Seo et al. 2017, equation 5 (without their mean over examples).

    Args:
        start_logits: Shape: (B, L).
        end_logits: Shape: (B, L).
        start: First words. Shape: (B,).
        end: Last words. Shape: (B,).

    Returns:
        Shape: (B,).
    """
    return cross_entropy(start_logits, start) + cross_entropy(end_logits, end)


def several_spans_nll(start_logits: Tensor, end_logits: Tensor, spans: Tensor) -> Tensor:
    """Negative log of the probability that any of several spans is meant, in nats, in fp32.

    Start and end are independent given the logits, so a span's probability is the product of both;
    equal spans count once for each time they are named. (Clark and Gardner 2018 sum so over
    starts and ends apart, in their section 3.)

    Args:
        start_logits: Shape: (B, L).
        end_logits: Shape: (B, L).
        spans: First and last words, -1 where an example has fewer spans. Shape: (B, S, 2).

    Returns:
        Shape: (B,); 0 for an example without a span.
    """
    import torch

    known = spans[..., 0] >= 0
    start, end = spans.clamp_min(0).unbind(dim=-1)
    joint = start_logits.float().log_softmax(dim=-1).gather(1, start)
    joint = joint + end_logits.float().log_softmax(dim=-1).gather(1, end)
    any_span = known.any(dim=1)
    # Rows without a span get a finite stand-in: the gradient of a sum of nothing is NaN.
    joint = joint.masked_fill(~known, torch.finfo(joint.dtype).min)
    return -torch.logsumexp(joint, dim=1).masked_fill(~any_span, 0.0)


def generation_nll(
    log_probabilities: Tensor, answer: Tensor, mask: Tensor, coverage: Tensor | None = None
) -> Tensor:
    """Mean over an answer's words of their negative log-likelihood, with the coverage's loss.

    Source: See, Liu and Manning 2017, equations 6, 7 and 13 with lambda 1.

    Args:
        log_probabilities: Shape: (B, T, X).
        answer: The words. Shape: (B, T).
        mask: True at words that count. Shape: (B, T).
        coverage: Summed over steps. Shape: (B,).

    Returns:
        Shape: (B,).
    """
    said = log_probabilities.float().gather(2, answer.unsqueeze(-1)).squeeze(-1)
    total = -(said * mask).sum(dim=1)
    if coverage is not None:
        total = total + coverage.float()
    return total / mask.sum(dim=1).clamp_min(1)
