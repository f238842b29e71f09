"""One training worker as a process: ``python -m posterion.testing._worker``.

Arguments: the spec's JSON file, a file to meet at, the rank, the number of workers.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Train and write the result."""
    import torch
    import torch.distributed as dist

    from posterion import PosterionError
    from posterion.training import JsonLinesListener, NullListener, TorchGang, TrainingSpec, fit

    spec_path, meeting_point, rank, world_size = arguments
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    torch.set_num_threads(1)
    spec = TrainingSpec.from_json(Path(spec_path).read_text(encoding="utf-8"))
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point}",
        rank=int(rank),
        world_size=int(world_size),
    )
    events = spec.run_dir / "events.jsonl"
    listener = JsonLinesListener(events) if rank == "0" else NullListener()
    try:
        result = fit(spec, TorchGang(), listener)
    except PosterionError as error:
        logging.getLogger(__name__).error("%s", error)
        return error.exit_status
    (spec.run_dir / f"result-{rank}.json").write_text(json.dumps(result.to_dict()))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
