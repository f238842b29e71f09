"""Building corpora and vocabularies, for the jobs of that name and for those that need one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posterion import Interrupted
from posterion_jobs._events import Emitter
from posterion_jobs._runs import RunFolder
from posterion_jobs._stages import Stopped

if TYPE_CHECKING:
    from posterion.config import CorpusSection, VocabularySection
    from posterion.data.corpus import BuildProgress, TokenShards
    from posterion.text import Tokenizer

_KINDS = {"byte_bpe": "bpe", "wordpiece": "wordpiece", "unigram": "unigram"}


@dataclass(frozen=True)
class Builder:
    """Builds for one run, tells of progress and stops when the run is asked to."""

    folder: RunFolder
    emit: Emitter

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
            DataError: A source is wrong, or gives too little text.
        """
        from posterion.data.corpus import corpus_texts
        from posterion.tasks import replaced_directory
        from posterion.text import train_tokenizer

        tokenizer = train_tokenizer(
            _KINDS[section.kind],  # type: ignore[arg-type]
            corpus_texts(corpus, most_megabytes=section.sample_megabytes),
            section.size,
            style=section.style,
            min_frequency=section.min_frequency,
            lower_case=section.lower_case,
            special_tokens=section.special_tokens,
        )
        with replaced_directory(directory) as new_dir:
            tokenizer.save(new_dir)
        return tokenizer

    def _watch(self, progress: BuildProgress) -> None:
        self.emit(
            "corpus",
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            megabytes_per_second=progress.megabytes_per_second,
            documents_per_second=progress.documents_per_second,
            eta_seconds=progress.eta_seconds,
        )
