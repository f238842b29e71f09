import subprocess
import sys

COUNT = """
import resource
import torch
from posterion.training._memory import keep_freed_memory

if {keep}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    blocks = [torch.ones(3_000_000) for _ in range(6)]
step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def page_faults(*, keep: bool) -> int:
    command = [sys.executable, "-c", COUNT.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_used_again():
    assert page_faults(keep=True) < 0.2 * page_faults(keep=False)
