import numpy as np
import pyarrow as pa
import pytest
import torch

from posterion import DataError
from posterion.config import TrustSection
from posterion.objectives import soft_clamp
from posterion.tasks import combine_windows, create_task
from posterion.tasks.regression import LOG_VARIANCE_BOUNDS
from posterion.trust import RegressionDistribution, Uncalibrated


def fitted(target=(1.0, 2.0, 3.0, 6.0), **options):
    task = create_task({"kind": "regression", **options})
    columns = {"text": ["x"] * len(target), "target": pa.array(target, pa.float64())}
    if "standard_error" in options:
        columns[options["standard_error"]] = [0.5] * len(target)
    table = pa.table(columns)
    task.fit(table)
    return task, table


def test_distribution_is_in_the_targets_own_units():
    task, _ = fitted()
    std = np.std([1, 2, 3, 6])
    samples = np.array([[[0.0, 0.0], [1.0, -2.0]], [[2.0, 0.0], [1.0, -2.0]]])
    distribution = task.distribution(samples)
    np.testing.assert_allclose(distribution.mean, [3.0 + std, 3.0 + std])
    np.testing.assert_allclose(distribution.epistemic, [std**2, 0.0], atol=1e-12)
    np.testing.assert_allclose(distribution.aleatoric, std**2 * np.exp([0.0, -2.0]), rtol=0.02)


def test_arrays_and_tensors_bound_the_variance_alike():
    task, _ = fitted()
    raw = np.linspace(-30, 30, 61)
    logits = np.stack([np.zeros_like(raw), raw], axis=1)[None]
    bound = soft_clamp(torch.from_numpy(raw), *LOG_VARIANCE_BOUNDS).numpy()
    expected = np.exp(bound) * task.state["std"] ** 2
    np.testing.assert_allclose(task.distribution(logits).aleatoric, expected, rtol=1e-9)


def test_loss_is_least_at_the_truth_and_its_spread():
    task, table = fitted()
    labels = task.label_tensors(pa.table({"target": table["target"]}))
    truth = labels["target"][:, None]
    sure = torch.cat([truth, torch.full_like(truth, -4.0)], dim=1)
    unsure = torch.cat([truth, torch.zeros_like(truth)], dim=1)
    wrong = torch.cat([truth + 2.0, torch.full_like(truth, -4.0)], dim=1)
    assert task.loss(sure, labels).mean() < task.loss(unsure, labels).mean()
    assert task.loss(unsure, labels).mean() < task.loss(wrong, labels).mean()


def test_standard_error_enters_in_the_same_units():
    task, table = fitted(standard_error="spread")
    labels = task.label_tensors(pa.table(task.label_columns(table)))
    np.testing.assert_allclose(labels["standard_error"], 0.5 / task.state["std"], rtol=1e-6)
    noiseless, _ = fitted()
    logits = torch.tensor([[0.0, -6.0]] * 4)
    alone = {"target": labels["target"]}
    # Far off with tiny predicted variance: known rater noise makes the error less surprising.
    assert task.loss(logits, labels).mean() < noiseless.loss(logits, alone).mean()


@pytest.mark.parametrize("target", [[2.0] * 5, [0.1] * 1000, []])
def test_constant_or_no_target_is_refused(target):
    with pytest.raises(DataError, match="same value in all"):
        fitted(target)


def test_nan_target_names_its_rows():
    with pytest.raises(DataError, match=r"'target' is missing, NaN or infinite in 2 rows \(2, 4\)"):
        fitted([1.0, float("nan"), 2.0, None])


def test_few_calibration_rows_give_an_honest_reason_and_no_interval():
    task, table = fitted()
    distribution = task.distribution(np.zeros((1, 4, 2)))
    calibration = task.fit_calibration(distribution, table, TrustSection())
    assert isinstance(calibration, Uncalibrated)
    assert "has 4 examples" in calibration.reason
    assert "at least 9" in calibration.reason
    for prediction in task.predictions(distribution, calibration):
        assert prediction.interval is None
        assert not prediction.to_dict()["calibrated"]


def test_no_calibration_on_request():
    task, table = fitted([float(i) for i in range(50)])
    distribution = task.distribution(np.zeros((1, 50, 2)))
    calibration = task.fit_calibration(distribution, table, TrustSection(calibration="none"))
    assert not calibration.calibrated


def test_squared_error_learns_its_variance_from_the_calibration_part():
    target = np.random.default_rng(0).normal(0, 3.0, 500)
    error = np.random.default_rng(1).normal(0, 0.7, 500)
    task, table = fitted(target, likelihood="squared_error")
    standardised = (target + error - task.state["mean"]) / task.state["std"]
    distribution = task.distribution(standardised[None, :, None])
    calibration = task.fit_calibration(distribution, table, TrustSection(tolerance=0.7))
    prediction = task.predictions(distribution, calibration)[0]
    root_mean_square = np.sqrt(np.mean(error**2))
    assert prediction.uncertainty["aleatoric"] == pytest.approx(root_mean_square)
    assert prediction.confidence == pytest.approx(np.mean(np.abs(error) <= 0.7), abs=0.003)
    low, high = prediction.interval
    assert (high - low) / 2 == pytest.approx(np.quantile(np.abs(error), 0.9), abs=0.02)


def test_tolerance_is_half_a_standard_deviation_unless_given():
    task, table = fitted([float(i) for i in range(50)])
    distribution = task.distribution(np.zeros((1, 50, 2)))
    usual = task.fit_calibration(distribution, table, TrustSection())
    assert usual.tolerance == pytest.approx(0.5 * task.state["std"])
    wide = task.fit_calibration(distribution, table, TrustSection(tolerance=9.0))
    assert wide.tolerance == 9.0
    assert (wide.confidence(distribution) > usual.confidence(distribution)).all()


def test_abstention_marks_answers_below_the_threshold():
    task, _ = fitted()
    calm = RegressionDistribution(np.zeros(2), np.array([0.01, 100.0]), np.zeros(2))
    calibration = task.uncalibrated("test")
    abstained = [p.abstained for p in task.predictions(calm, calibration, abstain_below=0.5)]
    assert abstained == [False, True]


def test_windows_are_averaged_whatever_their_order():
    logits = np.array([[[1.0], [10.0], [3.0], [5.0]]])
    combined = combine_windows(logits, np.array([0, 1, 0, 2]), 3)
    np.testing.assert_allclose(combined[0, :, 0], [2.0, 10.0, 5.0])
    with pytest.raises(ValueError, match="1 of 4 examples have no window"):
        combine_windows(logits, np.array([0, 1, 0, 2]), 4)
    assert combine_windows(np.zeros((2, 0, 3)), np.array([], dtype=int), 0).shape == (2, 0, 3)


def test_request_model_takes_exactly_the_text_column():
    model = create_task({"kind": "regression", "text": "body text"}).request_model()
    assert model.model_validate({"body text": "hi"}).model_dump(by_alias=True) == {
        "body text": "hi"
    }
    for wrong in ({}, {"body text": ""}, {"body text": 3}, {"text": "hi"}):
        with pytest.raises(ValueError, match="validation error"):
            model.model_validate(wrong)


def test_unfitted_task_says_so():
    with pytest.raises(RuntimeError, match="call fit first"):
        create_task({"kind": "regression"}).distribution(np.zeros((1, 1, 2)))
