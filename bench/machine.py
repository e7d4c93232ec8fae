"""On what and with what it was measured; nothing that names the machine."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import hsmagent
from bench.runs import ROOT

_LIBRARIES = ("cryptography", "asn1crypto", "python-pkcs11", "pyhanko-certvalidator")
_PROGRAMS = {
    "OpenSSH": ("ssh", "-V"),
    "OpenSSL": ("openssl", "version"),
    "GnuPG": ("gpgsm", "--version"),
    "SoftHSM": ("softhsm2-util", "--version"),
    "git": ("git", "--version"),
}
_VERSION = re.compile(r"\d+\.\d+[\w.]*")


def described() -> list[tuple[str, str]]:
    """Return what there is to say of machine and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("hsmagent", f"{hsmagent.__version__}{_commit()}"),
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} of it used"),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{_system()}, Linux {platform.release().partition('-')[0]}"),
        ("Python", platform.python_version()),
        *((name, _version(command)) for name, command in _PROGRAMS.items()),
        *((name, metadata.version(name)) for name in _LIBRARIES),
    ]


def load_average() -> float:
    """Return how many programs wanted a processor in the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _commit() -> str:
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    done = subprocess.run(
        [*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    found = _VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "unknown"
