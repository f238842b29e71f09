"""Bradley-Terry: other optimizers find the same maximum, known abilities come back, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import PosterionError
from posterion.metrics import fit_bradley_terry

DataError = PosterionError


def judged(ability, judgements, seed, tie=None):
    """Judgements drawn from Davidson's model, or Bradley and Terry's without ``tie``."""
    generator = np.random.default_rng(seed)
    i = generator.integers(0, len(ability), judgements)
    j = (i + generator.integers(1, len(ability), judgements)) % len(ability)
    half = (ability[i] - ability[j]) / 2
    logits = np.stack([half, np.full(judgements, -np.inf if tie is None else tie), -half], axis=1)
    odds = np.exp(logits)
    drawn = (generator.random(judgements)[:, None] > np.cumsum(odds, 1) / odds.sum(1)[:, None]).sum(
        1
    )
    names = [f"item{number:02d}" for number in range(len(ability))]
    return [names[x] for x in i], [names[x] for x in j], [(1, 0.5, 0)[x] for x in drawn]


def codes(first, second):
    items = sorted({*first, *second})
    return items, [items.index(x) for x in first], [items.index(x) for x in second]


def mm(first, second, outcome, rounds=20_000):
    """Hunter 2004, equation 3, on strengths; ties as halves."""
    items, i, j = codes(first, second)
    strength, wins = np.ones(len(items)), np.zeros(len(items))
    np.add.at(wins, i, outcome)
    np.add.at(wins, j, 1 - np.asarray(outcome))
    for _ in range(rounds):
        share = 1 / (strength[i] + strength[j])
        below = np.zeros(len(items))
        np.add.at(below, i, share)
        np.add.at(below, j, share)
        new = wins / below
        new /= np.exp(np.log(new).mean())
        if np.abs(np.log(new / strength)).max() < 1e-13:
            break
        strength = new
    return np.log(strength)


def negative_davidson(parameters, first, second, outcome):
    """Davidson 1970, equation 2.1, written with strengths, one judgement at a time."""
    items, i, j = codes(first, second)
    strength = np.exp(np.concatenate([[0.0], parameters[: len(items) - 1]]))
    one, other = strength[i], strength[j]
    tied = np.exp(parameters[-1]) * np.sqrt(one * other)
    outcome = np.asarray(outcome)
    chosen = np.where(outcome == 1, one, np.where(outcome == 0, other, tied))
    return -np.log(chosen / (one + other + tied)).sum()


def test_two_items_have_a_closed_form():
    """30 of 40: the log-odds are ln 3, their error sqrt(1/30 + 1/10)."""
    fitted = fit_bradley_terry(["a"] * 40, ["b"] * 40, [1] * 30 + [0] * 10, anchor="b")
    assert fitted.items == ("a", "b")
    np.testing.assert_allclose(fitted.ability, [np.log(3), 0], atol=1e-9)
    np.testing.assert_allclose(fitted.standard_error, [np.sqrt(1 / 30 + 1 / 10), 0], atol=1e-8)
    assert fitted.probability("a", "b") == pytest.approx(0.75)
    assert fitted.log_likelihood == pytest.approx(30 * np.log(0.75) + 10 * np.log(0.25))


@pytest.mark.parametrize("seed", range(5))
def test_mm_finds_the_same_maximum(seed):
    data = judged(np.linspace(-1.5, 1.5, 8), 200, seed, tie=-0.5)
    np.testing.assert_allclose(fit_bradley_terry(*data).ability, mm(*data), atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_davidson_agrees_with_scipy_and_its_hessian(seed):
    data = judged(np.linspace(-1, 1, 5), 300, seed, tie=0.3)
    fitted = fit_bradley_terry(*data, anchor="item00", ties="davidson")
    found = scipy.optimize.minimize(negative_davidson, np.zeros(5), args=data, tol=1e-9)
    np.testing.assert_allclose(fitted.ability[1:], found.x[:-1], atol=2e-4)
    assert fitted.tie == pytest.approx(found.x[-1], abs=2e-4)
    assert fitted.log_likelihood == pytest.approx(-found.fun, abs=1e-6)
    step = 1e-3 * np.eye(5)
    best = np.append(fitted.ability[1:], fitted.tie)

    def at(change):
        return negative_davidson(best + change, *data)

    hessian = np.array(
        [[(at(a + b) - at(a - b) - at(b - a) + at(-a - b)) / 4e-6 for b in step] for a in step]
    )
    covariance = np.linalg.inv(hessian)[:4, :4]
    np.testing.assert_allclose(fitted.covariance[1:, 1:], covariance, rtol=1e-3, atol=1e-5)


def test_prior_gives_the_posterior_mode():
    data = (["a", "a", "b"], ["b", "b", "c"], [1, 1, 1])
    fitted = fit_bradley_terry(*data, prior_strength=0.5)

    def negative(x):
        x = x - x.mean()
        return 2 * np.log1p(np.exp(x[1] - x[0])) + np.log1p(np.exp(x[2] - x[1])) + 0.25 * x @ x

    found = scipy.optimize.minimize(negative, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(fitted.ability, found - found.mean(), atol=1e-5)


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_standard_errors_cover_known_abilities(ties):
    """Over seeds, 90 % intervals hold the truth in about 90 of 100, and z-scores have spread 1."""
    truth = np.linspace(-1.2, 1.2, 10)
    scores = []
    for seed in range(150):
        data = judged(truth, 1000, seed, tie=-0.3 if ties == "davidson" else None)
        fitted = fit_bradley_terry(*data, anchor="item03", ties=ties)
        keep = np.arange(10) != 3
        error = fitted.ability - (truth - truth[3])
        assert error[3] == 0.0
        scores.append(error[keep] / fitted.standard_error[keep])
    covered = (np.abs(scores) < 1.6449).mean()
    assert 0.87 < covered < 0.93
    assert np.std(scores) == pytest.approx(1.0, abs=0.06)
    assert abs(np.mean(scores)) < 0.1


def test_errors_grow_with_distance_from_the_anchor():
    names = [f"text{n}" for n in range(6)]
    first = [a for a in names[:-1] for _ in range(20)]
    second = [b for b in names[1:] for _ in range(20)]
    outcome = [k % 2 for _ in range(5) for k in range(20)]
    fitted = fit_bradley_terry(first, second, outcome, anchor="text0")
    # A chain of five independent comparisons, each with information 20 / 4.
    np.testing.assert_allclose(fitted.standard_error**2, np.arange(6) / 5, atol=1e-8)
    assert fitted.gap("text5", "text4")[1] == pytest.approx(np.sqrt(1 / 5))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from(["half", "davidson"]), st.data())
def test_order_sides_and_anchor_change_nothing(seed, ties, draw):
    first, second, outcome = judged(np.linspace(-1, 1, 5), 120, seed, tie=-1.0)
    fitted = fit_bradley_terry(first, second, outcome, ties=ties)
    order = draw.draw(st.permutations(range(120)))
    turned = fit_bradley_terry(
        [second[k] for k in order],
        [first[k] for k in order],
        [1 - outcome[k] for k in order],
        ties=ties,
        anchor="item02",
    )
    assert turned.items == fitted.items
    assert abs(fitted.ability.mean()) < 1e-9
    np.testing.assert_allclose(turned.ability, fitted.ability - fitted.ability[2], atol=1e-6)
    assert turned.gap("item00", "item04") == pytest.approx(fitted.gap("item00", "item04"), abs=1e-6)


def test_without_ties_davidson_is_bradley_terry():
    data = judged(np.array([0.0, 0.5, 1.0]), 100, 1)
    plain, davidson = fit_bradley_terry(*data), fit_bradley_terry(*data, ties="davidson")
    assert davidson.tie is None
    np.testing.assert_array_equal(plain.ability, davidson.ability)


def test_disconnected_parts_are_named():
    with pytest.raises(DataError, match=r"2 parts .*\[x, y\]; \[a, b, c\]") as caught:
        fit_bradley_terry("aabcxy", "bbcayx", [1, 0, 1, 0, 1, 0], prior_strength=1.0)
    assert caught.value.exit_status == 2


def test_separated_data_name_the_item_and_the_remedy():
    data = ("aabcc", "bbcab", [1, 0, 0, 1, 1])
    with pytest.raises(DataError, match=r"separated.*\[c\]; \[a, b\].*prior_strength"):
        fit_bradley_terry(*data)
    fitted = fit_bradley_terry(*data, prior_strength=0.1)
    assert np.isfinite(fitted.standard_error).all()
    assert fitted.items[int(fitted.ability.argmax())] == "c"


def test_ties_that_do_not_hold_davidson_are_refused():
    """One preference and one tie: both chances can go to a half, the third to nothing."""
    with pytest.raises(DataError, match="no maximum"):
        fit_bradley_terry("aa", "bb", [1, 0.5], ties="davidson")
    assert fit_bradley_terry("aa", "bb", [1, 0.5]).ability[0] == pytest.approx(np.log(3) / 2)
    strong = fit_bradley_terry("aa", "bb", [1, 0.5], ties="davidson", prior_strength=0.5)
    assert np.isfinite(strong.ability).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("ab", "b", [1, 0]), {}, "2 first items, 1 second items, 2 outcomes"),
        (("", "", []), {}, "there are none"),
        (("ab", "bb", [1, 0]), {}, "row 1: 'b' is compared with itself"),
        (("a", "b", [2]), {}, "row 0: outcome 2"),
        (("a", "b", [float("nan")]), {}, "row 0: outcome nan"),
        (([1], [2], [1]), {}, "row 0: 1, 2: items are named by text"),
        (("ab", "ba", [1, 1]), {"anchor": "c"}, "'c' is in none of the judgements"),
        (("ab", "ba", [1, 1]), {"prior_strength": -1.0}, "prior_strength: -1.0"),
        (("ab", "ba", [1, 1]), {"ties": "drop"}, "ties: 'drop'"),
        (("ab", "ba", [0.5, 0.5]), {"ties": "davidson"}, "every judgement is a tie"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(PosterionError, match=message):
        fit_bradley_terry(*arguments, **options)


def test_items_may_have_names_of_other_scripts():
    fitted = fit_bradley_terry(["文本", "текст"], ["текст", "文本"], [1, 1], anchor="文本")
    np.testing.assert_allclose(fitted.ability, 0.0, atol=1e-12)
