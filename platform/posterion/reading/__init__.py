"""Reading comprehension beyond the model: decoding answers, how far to trust them, baselines.

Scores of windows go :func:`decode_spans` -> :func:`merge_answers` -> :class:`AnswerTrust`.
"""

from posterion.reading._answer_trust import AnswerTrust, TrustedAnswer
from posterion.reading._baselines import (
    LexicalReader,
    distance_scores,
    lexical_features,
    sliding_window_scores,
    window_and_distance_scores,
)
from posterion.reading._features import (
    ANSWER_FEATURES,
    EventCalibration,
    NullThreshold,
    answer_features,
    best_null_threshold,
)
from posterion.reading._spans import (
    SpanCandidate,
    SpanDecoding,
    WindowScores,
    decode_spans,
    merge_answers,
)

__all__ = [
    "ANSWER_FEATURES",
    "AnswerTrust",
    "EventCalibration",
    "LexicalReader",
    "NullThreshold",
    "SpanCandidate",
    "SpanDecoding",
    "TrustedAnswer",
    "WindowScores",
    "answer_features",
    "best_null_threshold",
    "decode_spans",
    "distance_scores",
    "lexical_features",
    "merge_answers",
    "sliding_window_scores",
    "window_and_distance_scores",
]
