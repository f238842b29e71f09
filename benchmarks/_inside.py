"""The predictor alone in a process: a line with texts in, a line with milliseconds out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from posterion.inference import Predictor


def main(version_dir: str, threads: int) -> None:
    predictor = Predictor.load(Path(version_dir), threads=threads)
    predictor.warm_up()
    for line in sys.stdin:
        times = []
        for text in json.loads(line):
            begun = time.perf_counter()
            predictor.predict([{"text": text}])
            times.append((time.perf_counter() - begun) * 1e3)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
