"""Ensembles: members that differ, combined strictly out of fold.

:class:`OutOfFold` holds what the members say of rows they were not trained on; a
:class:`Combiner` is fitted on it and predicts; :func:`cross_fit` and :func:`nested_cross_fit` say
honestly how good that is.
"""

from posterion.ensembles._arrow import (
    out_of_fold_from_table,
    out_of_fold_to_table,
    read_out_of_fold,
    write_out_of_fold,
)
from posterion.ensembles._averaging import (
    average_weights,
    ema_update,
    ends_cycle,
    snapshot_rate,
    swa_update,
)
from posterion.ensembles._blend import Blend, ClassBlend
from posterion.ensembles._combiner import Combiner, WeightedCombiner, combiner_kinds
from posterion.ensembles._cross_fit import (
    CrossFit,
    Fit,
    Member,
    collect_out_of_fold,
    cross_fit,
    nested_cross_fit,
)
from posterion.ensembles._diversity import (
    AmbiguityDecomposition,
    ClassDiversity,
    RegressionDiversity,
    diversity_report,
)
from posterion.ensembles._gain import Gain, best_member, member_contributions, paired_gain
from posterion.ensembles._gaussian_process import GaussianProcessStack
from posterion.ensembles._greedy import GreedySelection
from posterion.ensembles._linear_stack import BayesianRidgeStack, LogisticStack, RidgeStack
from posterion.ensembles._mixture import ClassMixture, RegressionMixture
from posterion.ensembles._pseudo_labels import PseudoLabels, Teacher, select_pseudo_labels
from posterion.ensembles._sampling import Bag, BoostingRound, bags, boost_classes, boost_regression
from posterion.ensembles._simple import Mean, Median, RankMean, Vote, WeightedMean, weighted_median
from posterion.ensembles._table import MemberPredictions, OutOfFold

__all__ = [
    "AmbiguityDecomposition",
    "Bag",
    "BayesianRidgeStack",
    "Blend",
    "BoostingRound",
    "ClassBlend",
    "ClassDiversity",
    "ClassMixture",
    "Combiner",
    "CrossFit",
    "Fit",
    "Gain",
    "GaussianProcessStack",
    "GreedySelection",
    "LogisticStack",
    "Mean",
    "Median",
    "Member",
    "MemberPredictions",
    "OutOfFold",
    "PseudoLabels",
    "RankMean",
    "RegressionDiversity",
    "RegressionMixture",
    "RidgeStack",
    "Teacher",
    "Vote",
    "WeightedCombiner",
    "WeightedMean",
    "average_weights",
    "bags",
    "best_member",
    "boost_classes",
    "boost_regression",
    "collect_out_of_fold",
    "combiner_kinds",
    "cross_fit",
    "diversity_report",
    "ema_update",
    "ends_cycle",
    "member_contributions",
    "nested_cross_fit",
    "out_of_fold_from_table",
    "out_of_fold_to_table",
    "paired_gain",
    "read_out_of_fold",
    "select_pseudo_labels",
    "snapshot_rate",
    "swa_update",
    "weighted_median",
    "write_out_of_fold",
]
