"""Building corpora and vocabularies, for the jobs of that name and for those that need one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import Interrupted
from posterion_jobs._events import Emitter
from posterion_jobs._forward import Tracker
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stopped

if TYPE_CHECKING:
    from posterion.config import CorpusSection, EngineSection, VocabularySection
    from posterion.data.corpus import BuildProgress, Runner, TokenShards
    from posterion.text import Tokenizer

TOLD_EVERY_S = 1.0
"""How often progress is told at most."""
_KINDS = {"byte_bpe": "bpe", "wordpiece": "wordpiece", "unigram": "unigram"}


@dataclass
class Builder:
    """Builds for one run, tells of progress and stops when the run is asked to."""

    folder: RunFolder
    emit: Emitter
    tracker: Tracker
    engine: EngineSection | None = None
    """Its ``workers`` do the tasks of a corpus side by side on Ray; without any, this process."""
    _told: float = field(default=-TOLD_EVERY_S, init=False)

    def corpus(self, section: CorpusSection, tokenizer: Tokenizer, directory: Path) -> TokenShards:
        """Build a corpus, or find it built.

        Raises:
            Stopped: The run was asked to stop; what is finished is kept.
            DataError: A source is wrong, or nothing is left of it.
        """
        from posterion.data.corpus import build_corpus

        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            return build_corpus(
                section,
                tokenizer,
                directory,
                run=self._runner(),
                watch=self._watch,
                should_stop=self.folder.stop_path.exists,
            )
        except Interrupted as error:
            raise Stopped from error

    def vocabulary(
        self, corpus: CorpusSection, section: VocabularySection, directory: Path
    ) -> Tokenizer:
        """Train a tokenizer on a corpus's text and write it, whole or not at all.

        Raises:
            Stopped: The run was asked to stop while text was read.
            DataError: A source is wrong, or gives too little text.
        """
        from posterion.data.corpus import corpus_texts
        from posterion.tasks import replaced_directory
        from posterion.text import train_tokenizer

        texts = corpus_texts(corpus, most_megabytes=section.sample_megabytes)
        tokenizer = train_tokenizer(
            _KINDS[section.kind],  # type: ignore[arg-type]
            self._watched(texts, section.sample_megabytes),
            section.size,
            style=section.style,
            min_frequency=section.min_frequency,
            lower_case=section.lower_case,
            special_tokens=section.special_tokens,
        )
        with replaced_directory(directory) as new_dir:
            tokenizer.save(new_dir)
        return tokenizer

    def _runner(self) -> Runner:
        from posterion.data.corpus import run_here
        from posterion_jobs._corpus_tasks import RayRunner

        if self.engine is None or not self.engine.max_workers:
            return run_here
        return RayRunner(self.engine)

    def _watch(self, progress: BuildProgress) -> None:
        self._tell(progress.done == progress.total, **asdict(progress))
        rates = {
            "megabytes_per_second": progress.megabytes_per_second,
            "documents_per_second": progress.documents_per_second,
        }
        figures = {f"corpus.{progress.stage}.{name}": value for name, value in rates.items()}
        self.tracker.log_metrics(figures, step=progress.done)

    def _watched(self, texts: Iterator[str], most_megabytes: int) -> Iterator[str]:
        """Texts as they are, told of; stops between two of them."""
        start, size = time.monotonic(), 0
        for number, text in enumerate(texts, start=1):
            if self.folder.stop_path.exists():
                raise Stopped
            yield text
            size += len(text)
            seconds = max(time.monotonic() - start, 1e-9)
            self._tell(
                False,
                stage="vocabulary",
                done=size // 1_000_000,
                total=most_megabytes,
                megabytes=size / 1e6,
                documents=number,
                megabytes_per_second=size / 1e6 / seconds,
                documents_per_second=number / seconds,
                eta_seconds=max(most_megabytes * 1e6 - size, 0) * seconds / size,
            )

    def _tell(self, is_last: bool, **fields: Any) -> None:
        """Emit progress, but not more often than anybody can read."""
        now = time.monotonic()
        if is_last or now - self._told >= TOLD_EVERY_S:
            self._told = now
            self.emit("corpus", **fields)
