"""Workers that are spawned before anybody asks for them."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hsmagent.model import ModuleSpec
from hsmagent.worker import process
from tests.parts.token.softhsm import MODULE


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    process.end_unwanted()


def test_one_that_was_spawned_ahead_is_taken_once() -> None:
    spec = ModuleSpec(MODULE, workers=2)
    process.ahead([spec])
    ahead = {spawned.process.pid for _, spawned in process._ahead}
    taken = [process.spawn(process.token_worker(spec)) for _ in range(3)]
    try:
        pids = {spawned.process.pid for spawned in taken}
        assert len(ahead) == 2
        assert ahead < pids
        assert all(spawned.socket.recv(1) for spawned in taken), "each says that it has begun"
    finally:
        process._ahead.extend((process.token_worker(spec), spawned) for spawned in taken)


def test_one_for_something_else_is_not_taken() -> None:
    process.ahead([ModuleSpec(MODULE)])
    other = process.spawn(process.token_worker(ModuleSpec(MODULE, parameters="other")))
    assert len(process._ahead) == 1
    process._ahead.append((process.token_worker(ModuleSpec(MODULE)), other))


def test_what_is_not_wanted_is_ended() -> None:
    process.ahead([ModuleSpec(MODULE)])
    [(_, spawned)] = process._ahead
    process.end_unwanted()
    with pytest.raises(ProcessLookupError):
        os.kill(spawned.process.pid, 0)


def test_a_module_whose_environment_is_still_to_be_made_waits() -> None:
    process.ahead([ModuleSpec(MODULE, exclusive=True)])
    assert not process._ahead


def test_a_module_sees_nothing_that_is_meant_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "1")
    environment = process.worker_environment((("ADDED", "2"),))
    assert environment["KEPT"] == "1"
    assert environment["ADDED"] == "2"
    assert not [name for name in environment if name.startswith(("LD_", "LISTEN_", "NOTIFY"))]


def test_a_worker_imports_no_reader_of_certificates() -> None:
    program = (
        "import sys; import hsmagent.worker.main;"
        "print(sorted({'asn1crypto', 'cryptography', 'asyncio', 'pkcs11'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "['pkcs11']\n"
