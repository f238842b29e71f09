"""word2vec: skip-gram and CBOW with negative sampling or hierarchical softmax.

Sources: Mikolov, Chen, Corrado and Dean 2013 (arXiv:1301.3781), Mikolov, Sutskever, Chen, Corrado
and Dean 2013 (arXiv:1310.4546), and the program they published, which decides where the papers
leave open.

Shape legend: V words, D dimensions.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from posterion._exceptions import DataError, WorkError
from posterion.vectors._corpus import EncodedCorpus
from posterion.vectors._word_vectors import WordVectors

if TYPE_CHECKING:
    from posterion.vectors._kernels import Draws, Targets, Weights

logger = logging.getLogger(__name__)

_CHUNK_WORDS = 20_000
"""Words between two calls into the compiled loops: 10 to 100 ms."""


@dataclass(frozen=True, kw_only=True)
class Word2VecOptions:
    """How word vectors are trained from a corpus; defaults are those of word2vec's program."""

    architecture: Literal["skip_gram", "cbow"] = "skip_gram"
    """Whether each word of the context predicts the word, or their mean does."""
    objective: Literal["negative_sampling", "hierarchical_softmax"] = "negative_sampling"
    """What stands for the softmax over all words."""
    size: int = 100
    """Dimensions of a vector, D."""
    window: int = 5
    """Widest context to either side; drawn from 1 to this for every word."""
    negatives: int = 5
    """Words of noise for each word, drawn with probability count ** ``noise_exponent``."""
    noise_exponent: float = 0.75
    """1 is the words' own frequency, 0 all alike."""
    share_negatives: bool = True
    """Skip-gram: the same noise for a word and its whole context (Ji et al. 2016)."""
    sample: float = 1e-3
    """Share of a corpus beyond which a word's occurrences are thinned; 0 for none."""
    learning_rate: float = 0.025
    """At the start; falls linearly with the words gone through."""
    final_learning_rate: float = 1e-4
    """At the end."""
    epochs: int = 5
    """Times to go through the corpus."""
    threads: int = 1
    """Threads; with more than one the result is not the same twice."""
    seed: int = 0
    """Of everything that is drawn."""

    def __post_init__(self) -> None:
        if self.architecture not in ("skip_gram", "cbow"):
            raise DataError(f"architecture: {self.architecture!r}; use skip_gram or cbow")
        if self.objective not in ("negative_sampling", "hierarchical_softmax"):
            raise DataError(
                f"objective: {self.objective!r}; use negative_sampling or hierarchical_softmax"
            )
        for name in ("size", "window", "negatives", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.sample < 1.0:
            raise DataError(f"sample: {self.sample} must be 0 or a share below 1, such as 1e-3")
        if not 0.0 <= self.final_learning_rate <= self.learning_rate:
            raise DataError(
                f"learning_rate, final_learning_rate: {self.learning_rate}, "
                f"{self.final_learning_rate}; the first must be the larger, none negative"
            )


def train_word2vec(corpus: EncodedCorpus, options: Word2VecOptions | None = None) -> WordVectors:
    """Train word vectors.

    With one thread the same corpus and options give the same vectors, bit for bit on one machine.

    Args:
        corpus: Ids of the words.
        options: How.

    Raises:
        WorkError: The vectors are no longer finite.
    """
    options = options or Word2VecOptions()
    draws, targets = _draws(corpus, options), _targets(corpus, options)
    size = len(corpus.vocabulary), options.size
    generator = np.random.default_rng(options.seed)
    # From -1 / D to 1 / D as gensim, twice as wide as word2vec's program: CBOW gains by it.
    inputs = (2 * generator.random(size, dtype=np.float32) - 1) / np.float32(options.size)
    outputs = np.zeros(size, dtype=np.float32)
    chunks = corpus.chunks(_CHUNK_WORDS)
    begun, kept = time.perf_counter(), 0

    def work(thread: int, epoch: int) -> int:
        weights, own = _for_thread(inputs, outputs, draws)
        numbers = range(thread, len(chunks), options.threads)
        return sum(
            _train_chunk(corpus, options, weights, own, targets, chunks[n], (epoch, n))
            for n in numbers
        )

    with ThreadPoolExecutor(options.threads) as pool:
        for epoch in range(options.epochs):
            kept += sum(pool.map(work, range(options.threads), [epoch] * options.threads))
            if not np.isfinite(inputs).all():
                raise WorkError(
                    f"word2vec: vectors are not finite after epoch {epoch + 1}; lower "
                    f"learning_rate {options.learning_rate}"
                )
    seconds = time.perf_counter() - begun
    logger.info("word2vec: %d words in %.1f s, %d trained on", corpus.num_words, seconds, kept)
    return WordVectors(corpus.vocabulary.words, inputs, corpus.vocabulary.counts.tolist())


def _draws(corpus: EncodedCorpus, options: Word2VecOptions) -> Draws:
    from posterion.vectors._kernels import Draws

    chance, other = corpus.vocabulary.alias_table(options.noise_exponent)
    return Draws(
        keep=corpus.vocabulary.keep_probabilities(options.sample),
        chance=chance,
        other=other,
        noise=np.zeros(options.negatives, dtype=np.int32),
        window=options.window,
        fresh=not options.share_negatives,
    )


def _targets(corpus: EncodedCorpus, options: Word2VecOptions) -> Targets:
    from posterion.vectors._kernels import Targets, sigmoid_table

    codes = corpus.vocabulary.huffman()
    return Targets(
        cbow=options.architecture == "cbow",
        hierarchical=options.objective == "hierarchical_softmax",
        starts=codes.starts,
        points=codes.points,
        bits=codes.bits,
        sigmoid=sigmoid_table(),
    )


def _for_thread(inputs: np.ndarray, outputs: np.ndarray, draws: Draws) -> tuple[Weights, Draws]:
    """Shared vectors, and room that is a thread's own."""
    from posterion.vectors._kernels import Weights

    hidden, error = np.zeros((2, inputs.shape[1]), dtype=np.float32)
    return Weights(inputs, outputs, hidden, error), draws._replace(noise=draws.noise.copy())


def _train_chunk(
    corpus: EncodedCorpus,
    options: Word2VecOptions,
    weights: Weights,
    draws: Draws,
    targets: Targets,
    chunk: tuple[int, int],
    place: tuple[int, int],
) -> int:
    """Train on a range of sentences; draws depend on its place (epoch, number) alone."""
    from posterion.vectors._kernels import train_range

    starts = corpus.starts[chunk[0] : chunk[1] + 1]
    done = np.array([starts[0], starts[-1]]) / corpus.num_words + place[0]
    fall = options.learning_rate - options.final_learning_rate
    first, last = options.learning_rate - fall * done / options.epochs
    ids = corpus.ids[starts[0] : starts[-1]]
    seed = np.random.SeedSequence([options.seed, *place]).generate_state(1, np.uint64)[0]
    return train_range(
        weights, draws, targets, ids, starts - starts[0], (first, last), seed | np.uint64(1)
    )
