"""A software TPM with a tpm2-pkcs11 store: one token, "tpm", with a P-256 and an RSA-2048 key.

There is no resource manager in between: one program at a time, and no third key loaded at once.
A second program waits until the first has closed its connection.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.token.pkcs11_tool import pkcs11_tool, run_tool
from tests.parts.token.provider import Provider, find_module
from tests.parts.until import until

PIN = "123456"
SO_PIN = "12345678"
TOKEN = "tpm"

P256, RSA = 1, 2  # CKA_ID, as one byte


@contextmanager
def blank_tpm() -> Iterator[Provider]:
    """Start a TPM without a token."""
    with tempfile.TemporaryDirectory(prefix="swtpm-") as name, _process(Path(name)) as socket:
        environment = {"TPM2_PKCS11_TCTI": f"swtpm:path={socket}", "TPM2_PKCS11_STORE": name}
        environment["TPM2TOOLS_TCTI"] = environment["TPM2_PKCS11_TCTI"]
        yield Provider(find_module("libtpm2_pkcs11.so.1"), PIN, environment)


@contextmanager
def tpm() -> Iterator[Provider]:
    """Start a TPM, make its token and keys; labels "ssh" and "mail"."""
    with blank_tpm() as provider:
        token = ["--token-label", TOKEN]
        so = ["--so-pin", SO_PIN]
        pkcs11_tool(provider, "--init-token", "--slot-index", "0", "--label", TOKEN, *so)
        pkcs11_tool(provider, "--init-pin", "--login", "--pin", PIN, *so, *token)
        for number, kind, label in ((P256, "EC:prime256v1", "ssh"), (RSA, "rsa:2048", "mail")):
            key = ["--key-type", kind, "--id", f"{number:02x}", "--label", label]
            pkcs11_tool(provider, "--keypairgen", *key, *token, pin=PIN)
        # What the tool left loaded would keep one of the TPM's three places.
        run_tool(provider, "tpm2_flushcontext", "--transient-object")
        yield provider


@contextmanager
def _process(folder: Path) -> Iterator[Path]:
    socket = folder / "tpm"
    state = folder / "state"
    state.mkdir()
    listen = ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM", "--"),
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", *listen),
                *("--flags", "startup-clear,not-need-init"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(socket.exists)
        yield socket
    finally:
        process.terminate()
        process.wait()
