"""What ``posterion doctor`` looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from posterion._exceptions import PosterionError
from posterion.cli._platform import ask_all, port_settings
from posterion.cli.processes import port_holder, require_free_port
from posterion.cli.services import Check, Service, load_service, read_settings, service_entries
from posterion.config import Home

_PYTHON = (3, 11)
_MEMORY_GIB = 4.0
_DISK_GIB = 5.0
_ASK_TIMEOUT_S = 60


def examine() -> list[Check]:
    """All findings: machine, installation, ports, then what each service adds."""
    services, faults = _services()
    checks = [_python(), _compiler(), _ninja(), _libaio(), _torch(), _cores(), _memory(), _disk()]
    checks += _settings(services)
    checks += faults
    for service in services:
        checks += service.checks()
    return checks


def _python() -> Check:
    return Check(
        name="Python",
        ok=sys.version_info >= _PYTHON,
        detail=f"{sys.version.split()[0]} at {sys.executable}",
        remedy="Install Python 3.11 or newer and repeat `make setup`.",
    )


def _compiler() -> Check:
    """DeepSpeed compiles parts of itself on first use, with ``$CXX`` or g++."""
    program = os.environ.get("CXX", "g++")
    remedy = "Install a C++ compiler, e.g. `apt-get install g++`; DeepSpeed builds with it."
    path = shutil.which(program)
    if path is None:
        return Check(name="C++ compiler", ok=False, detail=f"no {program}", remedy=remedy)
    ok, text = _ask([path, "--version"])
    return Check(name="C++ compiler", ok=ok, detail=text or path, remedy=remedy)


def _ninja() -> Check:
    # The package puts the program beside Python, which need not be on PATH.
    beside = Path(sys.executable).with_name("ninja")
    path = shutil.which("ninja") or (str(beside) if beside.exists() else None)
    remedy = "Repeat `make setup`; the package `ninja` brings the program."
    if path is None:
        return Check(name="ninja", ok=False, detail="not found", remedy=remedy)
    ok, text = _ask([path, "--version"])
    return Check(name="ninja", ok=ok, detail=text, remedy=remedy)


def _libaio() -> Check:
    """Only ``engine.offload`` to nvme needs it, so that its absence is no fault."""
    program = os.environ.get("CXX", "g++")
    source = "#include <libaio.h>\nint main() { io_context_t c = 0; return io_setup(1, &c); }"
    command = [program, "-x", "c++", "-", "-o", os.devnull, "-laio"]
    ok, _ = _ask(command, source)
    missing = "not found; engine.offload to nvme needs it: `apt-get install libaio-dev`"
    detail = "found; engine.offload can use nvme" if ok else missing
    return Check(name="libaio", ok=True, detail=detail)


def _torch() -> Check:
    """Imported in a process of its own: a broken installation may end the process."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        installed = ""
    code = (
        "import torch; n = torch.cuda.device_count(); "
        "print(torch.__version__, f'with {n} GPU(s)' if n else 'on CPU')"
    )
    ok, text = _ask([sys.executable, "-c", code]) if installed else (False, "not installed")
    return Check(
        name="torch",
        ok=ok,
        detail=text,
        remedy="Repeat `make setup`; it installs the version that is tested.",
    )


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    return Check(
        name="cores",
        ok=cores >= 2,
        detail=f"{cores} usable",
        remedy="Two workers need two cores; with one, use --set engine.workers=0.",
    )


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    available = memory.available / 2**30
    return Check(
        name="memory",
        ok=available >= _MEMORY_GIB,
        detail=f"{available:.1f} GiB available of {memory.total / 2**30:.1f} GiB",
        remedy=f"Less than {_MEMORY_GIB:.0f} GiB is available; end other programs.",
    )


def _disk() -> Check:
    home = Home.current().path
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    writable = os.access(existing, os.W_OK)
    return Check(
        name="disk",
        ok=free >= _DISK_GIB and writable,
        detail=f"{free:.1f} GiB free for {home}" + ("" if writable else ", which is read-only"),
        remedy="Set POSTERION_HOME to a writable folder on a disk with more room.",
    )


def _settings(services: list[Service]) -> list[Check]:
    """One finding per port; a port held by the platform itself is as it should be."""
    home = Home.current()
    try:
        settings = read_settings(home)
    except PosterionError as error:
        remedy = f"Correct {home.settings_path}."
        return [Check(name="settings", ok=False, detail=str(error), remedy=remedy)]
    running = {h.name for h in ask_all(services, home, settings) if h.state != "down"}
    checks = []
    for setting, port in port_settings(settings).items():
        owner = setting.partition(".")[0]
        remedy = ""
        detail = f"{port} is free"
        try:
            require_free_port(port, owner, setting=setting)
        except PosterionError as error:
            mine = owner in running
            detail = f"{port} is in use by {'the platform' if mine else port_holder(port)}"
            remedy = "" if mine else str(error)
        checks.append(Check(name=f"port {setting}", ok=not remedy, detail=detail, remedy=remedy))
    return checks


def _services() -> tuple[list[Service], list[Check]]:
    """The services that can be loaded, and a fault for each that cannot."""
    services, faults = [], []
    for entry in service_entries():
        try:
            services.append(load_service(entry))
        except PosterionError as error:
            faults.append(
                Check(
                    name=f"service {entry.name}",
                    ok=False,
                    detail="cannot be loaded",
                    remedy=str(error),
                )
            )
    return sorted(services, key=lambda service: service.order), faults


def _ask(command: list[str], text: str = "") -> tuple[bool, str]:
    """Run a program; whether it succeeded, and the first line it wrote or its last error."""
    try:
        result = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    if result.returncode == 0:
        return True, result.stdout.strip().partition("\n")[0]
    return False, result.stderr.strip().rpartition("\n")[2]
