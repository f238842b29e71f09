"""Exact match and F1 of extracted answers: SQuAD 1.1 and 2.0, CMRC 2018.

Scores are of one question, 0 to 1; average them over the questions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from posterion.metrics._segments import CMRC_PUNCTUATION, mixed_segments

SquadVersion = Literal["1.1", "2.0"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CMRC_MARKS = str.maketrans("", "", "".join(sorted(CMRC_PUNCTUATION)))


def squad_normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous whitespace."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_exact(prediction: str, answers: Sequence[str], version: SquadVersion = "2.0") -> float:
    """1 if the prediction equals one of the answers after :func:`squad_normalize`.

    Args:
        prediction: The reader's answer; empty for "there is none".
        answers: Right answers, none when the question has no answer.
        version: Whose rules. 2.0 leaves out answers that normalise to nothing, and takes the
            empty prediction for right when no answer is left; 1.1 knows neither.

    Raises:
        ValueError: No answers in version 1.1.

    Source: official evaluation scripts of Rajpurkar et al. 2016, 2018.
    """
    predicted = squad_normalize(prediction)
    return float(any(predicted == squad_normalize(a) for a in _answers(answers, version)))


def squad_f1(prediction: str, answers: Sequence[str], version: SquadVersion = "2.0") -> float:
    """Best F1 of the bags of words against one of the answers; arguments as :func:`squad_exact`.

    Where either bag is empty, 2.0 gives 1 if both are and 0 otherwise; 1.1 gives 0.
    """
    predicted = squad_normalize(prediction).split()
    return max(
        _bag_f1(predicted, squad_normalize(answer).split(), both_empty=float(version == "2.0"))
        for answer in _answers(answers, version)
    )


def squad_scores(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], version: SquadVersion = "2.0"
) -> dict[str, float]:
    """Means over questions, and in version 2.0 over those with and without an answer.

    Args:
        predictions: One of each question.
        answers: The right answers of each question.
        version: See :func:`squad_exact`.

    Returns:
        ``exact`` and ``f1`` (0 to 1, the official script's over 100) and ``total``; for 2.0 also
        ``has_answer_...`` and ``no_answer_...`` where there are such questions.

    Raises:
        ValueError: Not one prediction a question, or no question.
    """
    if len(predictions) != len(answers) or not len(answers):
        raise ValueError(
            f"{len(predictions)} predictions for {len(answers)} questions: give one a question, "
            "and one question at least"
        )
    pairs = list(zip(predictions, answers, strict=True))
    parts = {"": pairs}
    if version == "2.0":
        parts["has_answer_"] = [pair for pair in pairs if len(pair[1])]
        parts["no_answer_"] = [pair for pair in pairs if not len(pair[1])]
    scores: dict[str, float] = {}
    for prefix, part in parts.items():
        if part:
            scores[f"{prefix}exact"] = _mean(squad_exact, part, version)
            scores[f"{prefix}f1"] = _mean(squad_f1, part, version)
            scores[f"{prefix}total"] = float(len(part))
    return scores


def cmrc_exact(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals one of the answers but for case and CMRC 2018's punctuation.

    Source: official evaluation script of Cui et al. 2019.
    """
    predicted = _without_marks(prediction)
    return float(any(predicted == _without_marks(answer) for answer in _some(answers)))


def cmrc_f1(prediction: str, answers: Sequence[str]) -> float:
    """Best F1 of CMRC 2018 against one of the answers.

    The overlap is the longest run of :func:`mixed_segments` (without punctuation) that both
    have unbroken: the script's "longest common string", not a subsequence.

    Source: official evaluation script of Cui et al. 2019.
    """
    predicted = mixed_segments(prediction, punctuation=False)
    scores = []
    for answer in _some(answers):
        expected = mixed_segments(answer, punctuation=False)
        common = _longest_common_run(predicted, expected)
        scores.append(2.0 * common / (len(predicted) + len(expected)) if common else 0.0)
    return max(scores)


def _answers(answers: Sequence[str], version: SquadVersion) -> Sequence[str]:
    if version == "1.1":
        return _some(answers)
    return [answer for answer in answers if squad_normalize(answer)] or [""]


def _some(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str) or not len(answers):
        raise ValueError(f"a list with a right answer at least is needed, not {answers!r}")
    return answers


def _bag_f1(predicted: list[str], expected: list[str], both_empty: float) -> float:
    if not predicted or not expected:
        return both_empty if predicted == expected else 0.0
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2.0 * common / (len(predicted) + len(expected))


def _mean(
    score: Callable[[str, Sequence[str], SquadVersion], float],
    pairs: list[tuple[str, Sequence[str]]],
    version: SquadVersion,
) -> float:
    return sum(score(prediction, answers, version) for prediction, answers in pairs) / len(pairs)


def _without_marks(text: str) -> str:
    return text.lower().strip().translate(_CMRC_MARKS)


def _longest_common_run(a: list[str], b: list[str]) -> int:
    """Length of the longest list of tokens that stands in both unbroken."""
    best = 0
    ending = [0] * (len(b) + 1)
    for token in a:
        previous = ending
        ending = [0] * (len(b) + 1)
        for j, other in enumerate(b, start=1):
            if token == other:
                ending[j] = previous[j - 1] + 1
                best = max(best, ending[j])
    return best
