"""Scores of generated images against real ones, each with the protocol it was measured under."""

from diffnca.evaluation.scores import Evaluation, Protocol, Score, evaluate, score
from diffnca.evaluation.selections import Picture, Pictures, Selection, count_crops, crops, halves, whole

__all__ = [
    "Evaluation",
    "Picture",
    "Pictures",
    "Protocol",
    "Score",
    "Selection",
    "count_crops",
    "crops",
    "evaluate",
    "halves",
    "score",
    "whole",
]
