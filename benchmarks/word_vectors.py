"""Word vectors: ours against gensim's, same corpus, epochs, options and number of threads.

Each round trains both sides one after another in this process, on the same sentences. The rate is
words of the corpus, before subsampling, per second of processor time of all threads, without
reading and counting on either side; wall time is kept too. Spearman's correlation is over pairs
that both know: the vocabulary is the same. GloVe, which gensim does not train, stands beside them.

    python benchmarks/word_vectors.py --seeds 0 1

Data: $POSTERION_DATA/{gutenberg,wikitext2,wordsim,word_analogy}: ten novels and a part of
Wikipedia, 1.4 M words. `pip install gensim` for this benchmark only.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gensim.models import Word2Vec

from posterion import vectors as ours

HERE = Path(__file__).resolve().parent
SETS = {"SimLex-999": "EN-SIMLEX-999.txt", "MEN": "EN-MEN-TR-3k.txt", "WS-353": "EN-WS-353-ALL.txt"}
KINDS = (
    ("skip_gram", "negative_sampling"),
    ("skip_gram", "hierarchical_softmax"),
    ("cbow", "negative_sampling"),
    ("cbow", "hierarchical_softmax"),
)
Measured = dict[str, Any]


def timed(train: Callable[[], ours.WordVectors], words: int) -> tuple[ours.WordVectors, Measured]:
    """Train, with words per second."""
    wall, processor = time.perf_counter(), time.process_time()
    result = train()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return result, {"words_per_processor_second": words / processor, "seconds": wall}


def with_gensim(
    sentences: list[list[str]], kind: tuple[str, str], arguments: argparse.Namespace, seed: int
) -> tuple[ours.WordVectors, Measured]:
    """One training by gensim, its vocabulary made before the clock runs."""
    hierarchical = kind[1] == "hierarchical_softmax"
    model = Word2Vec(
        vector_size=arguments.size,
        window=arguments.window,
        min_count=5,
        workers=arguments.threads,
        sg=int(kind[0] == "skip_gram"),
        hs=int(hierarchical),
        negative=0 if hierarchical else 5,
        sample=1e-3,
        alpha=0.025,
        min_alpha=1e-4,
        epochs=arguments.epochs,
        seed=seed + 1,
    )
    model.build_vocab(sentences)

    def train() -> ours.WordVectors:
        model.train(sentences, total_examples=len(sentences), epochs=arguments.epochs)
        return ours.WordVectors(model.wv.index_to_key, model.wv.vectors)

    words = model.corpus_total_words * arguments.epochs
    return timed(train, words)


def with_ours(
    corpus: ours.EncodedCorpus,
    words: int,
    kind: tuple[str, str],
    arguments: argparse.Namespace,
    seed: int,
    shared: bool,
) -> tuple[ours.WordVectors, Measured]:
    """One training by ours."""
    options = ours.Word2VecOptions(
        architecture=kind[0],
        objective=kind[1],
        size=arguments.size,
        window=arguments.window,
        epochs=arguments.epochs,
        threads=arguments.threads,
        share_negatives=shared,
        seed=seed,
    )
    return timed(lambda: ours.train_word2vec(corpus, options), words * arguments.epochs)


def with_glove(
    corpus: ours.EncodedCorpus, words: int, arguments: argparse.Namespace, seed: int
) -> tuple[ours.WordVectors, Measured]:
    """Counting and training."""
    options = ours.GloveOptions(
        size=arguments.size, x_max=10, epochs=15, threads=arguments.threads, seed=seed
    )
    return timed(
        lambda: ours.train_glove(ours.count_cooccurrences(corpus), corpus.vocabulary, options),
        words,
    )


def worth(vectors: ours.WordVectors, data: Path) -> Measured:
    """Agreement with people, and analogies."""
    scores: Measured = {}
    for name, file in SETS.items():
        result = ours.evaluate_similarity(vectors, ours.read_similarity(data / "wordsim" / file))
        scores[name] = round(result.spearman, 4)
        scores[f"{name} pairs"] = result.num_known
    questions = ours.read_analogies(data / "word_analogy" / "questions-words.txt")
    analogies = ours.evaluate_analogies(vectors, questions)
    return {**scores, "analogies": round(analogies.accuracy, 4)}


def rounds_of(arguments: argparse.Namespace, data: Path) -> list[Measured]:
    """All trainings, a row each."""
    paths = [*sorted((data / "gutenberg").glob("*.txt")), data / "wikitext2" / "valid.txt"]
    files = ours.CorpusFiles(paths, unit="paragraph")
    sentences = list(files)
    words = sum(map(len, sentences))
    corpus = ours.EncodedCorpus.encode(sentences, ours.Vocabulary.count(sentences))
    print(f"{words} words, {corpus.num_words} known, {len(corpus.vocabulary)} distinct")
    for kind in KINDS:  # compile
        first = argparse.Namespace(**{**vars(arguments), "epochs": 1, "size": 4})
        with_ours(corpus, words, kind, first, 0, True)
    rows = []
    for seed in arguments.seeds:
        for kind in KINDS if seed == arguments.seeds[0] else (KINDS[0], KINDS[2]):
            sides = {
                "gensim": lambda k=kind, s=seed: with_gensim(sentences, k, arguments, s),
                "posterion": lambda k=kind, s=seed: with_ours(corpus, words, k, arguments, s, True),
            }
            if kind == KINDS[0] and seed == arguments.seeds[0]:
                sides["posterion, noise for every pair"] = lambda k=kind, s=seed: with_ours(
                    corpus, words, k, arguments, s, False
                )
            for side, train in sides.items():
                vectors, measured = train()
                rows.append({"side": side, "kind": " ".join(kind), "seed": seed, **measured})
                rows[-1].update(worth(vectors, data))
                print(rows[-1], flush=True)
    vectors, measured = with_glove(corpus, words, arguments, arguments.seeds[0])
    rows.append({"side": "posterion", "kind": "glove", "seed": arguments.seeds[0], **measured})
    rows[-1].update(worth(vectors, data))
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    data = Path(os.environ.get("POSTERION_DATA", str(HERE.parent.parent / "shared" / "data")))
    rows = rounds_of(arguments, data)
    ratios = {}
    for kind in (" ".join(kind) for kind in KINDS):
        rates = {
            side: statistics.median(
                row["words_per_processor_second"]
                for row in rows
                if (row["side"], row["kind"]) == (side, kind)
            )
            for side in ("gensim", "posterion")
        }
        ratios[kind] = round(rates["posterion"] / rates["gensim"], 3)
    report = {
        "arguments": vars(arguments),
        "gensim": importlib.metadata.version("gensim"),
        "rate, ours / gensim": ratios,
        "rows": rows,
    }
    path = HERE / "results" / "word_vectors.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(ratios, indent=2))


if __name__ == "__main__":
    main()
