"""TLS servers and clients whose keys may be in the token, by what this Debian has for that."""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self

from cryptography import x509

from tests.p11.conftest import PURPOSES, Holder
from tests.p11.uri_file import uri_file
from tests.parts.agent.pkcs11 import FaceProcess
from tests.parts.mail.people import root
from tests.parts.until import until

ENGINES_LAST = 12  # the Debian release


def release() -> int:
    """Return the number of this Debian release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VERSION_ID=")).split('"')[1])


class OpenSsl(Protocol):
    """OpenSSL as this Debian reaches tokens with it."""

    environment: dict[str, str]

    def must(self, *arguments: str, data: bytes = b"") -> str:
        """Run openssl, which has to succeed; return what it printed."""
        ...

    def key(self, option: str, address: str) -> Sequence[str]:
        """Return the arguments that name a key in a token."""
        ...

    def curl(self, *arguments: str, address: str, url: str) -> str:
        """Get a page, with a client certificate from a token."""
        ...

    def apache(self, address: str, folder: Path) -> str:
        """Return what names the key in Apache's configuration."""
        ...


class Engine:
    """Debian 12: libengine-pkcs11-openssl."""

    def __init__(self, face: FaceProcess) -> None:
        self._face = face
        self.environment = face.environment

    def must(self, *arguments: str, data: bytes = b"") -> str:
        """Run openssl."""
        return self._face.must("openssl", *arguments, data=data)

    def key(self, option: str, address: str) -> Sequence[str]:
        """Name the key by its URI."""
        return (
            "-engine",
            "pkcs11",
            f"{option.replace('inkey', 'key')}form",
            "engine",
            option,
            address,
        )

    def curl(self, *arguments: str, address: str, url: str) -> str:
        """Name key and certificate by their URI; curl loads the engine for that."""
        return self._face.must("curl", *arguments, "--cert", address, "--key", address, url)

    def apache(self, address: str, folder: Path) -> str:
        """Name the key by its URI; mod_ssl loads the engine."""
        del folder
        return f"{address};type=private"


class Provider:
    """Debian 13: pkcs11-provider."""

    def __init__(self, face: FaceProcess) -> None:
        self._face = face
        configuration = face.agent.home / "openssl.cnf"
        configuration.write_text(
            "openssl_conf = openssl_init\n"
            "[openssl_init]\nproviders = providers\n"
            "[providers]\ndefault = default_sect\npkcs11 = pkcs11_sect\n"
            "[default_sect]\nactivate = 1\n"
            f"[pkcs11_sect]\nmodule = {_ossl_module()}\n"
            f"pkcs11-module-path = {face.module}\nactivate = 1\n"
        )
        self._more = {"OPENSSL_CONF": str(configuration)}
        self.environment = face.environment | self._more

    def must(self, *arguments: str, data: bytes = b"") -> str:
        """Run openssl."""
        return self._face.must("openssl", *arguments, data=data, more=self._more)

    def key(self, option: str, address: str) -> Sequence[str]:
        """Name the key by its URI, which the provider reads."""
        return option, f"{address};type=private"

    def curl(self, *arguments: str, address: str, url: str) -> str:
        """Say that a provider reads key and certificate, and by which module.

        curl 8.14 gives OpenSSL a context of its own, for which it does not read OPENSSL_CONF.
        """
        how = ("--cert-type", "PROV", "--cert", f"{address};type=cert")
        key = ("--key-type", "PROV", "--key", f"{address};type=private")
        module = {"PKCS11_PROVIDER_MODULE": self._face.module}
        return self._face.must("curl", *arguments, *how, *key, url, more=module)

    def apache(self, address: str, folder: Path) -> str:
        """Put the key's URI into a file that reads as a key."""
        path = folder / "key.pem"
        path.write_text(uri_file(f"{address};type=private"))
        return str(path)


def _ossl_module() -> str:
    return str(next(Path("/usr/lib").glob("*/ossl-modules/pkcs11.so")))


def system_openssl(face: FaceProcess) -> OpenSsl:
    """Return what this Debian release has; a release without one of both fails the tests."""
    if release() <= ENGINES_LAST:
        return Engine(face)
    return Provider(face)


def _reserve() -> socket.socket:
    """Return a bound socket; a server that sets SO_REUSEADDR can listen at its port."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class OpenSslServer:
    """`openssl s_server` that wants a client certificate. Its own key is in a file or the token."""

    def __init__(
        self,
        holder: Holder,
        openssl: OpenSsl | None = None,
        kind: str = "",
        address: str = "",
        *,
        versions: Sequence[str] = (),
    ) -> None:
        self._log = holder.folder / f"s_server.{os.urandom(4).hex()}"
        self._reserved = _reserve()
        self.port = self._reserved.getsockname()[1]
        if openssl is None:
            hosts = [x509.DNSName("localhost"), x509.DNSName("example.org")]
            names = x509.SubjectAlternativeName(hosts)
            server = root().issue("p256", "server", purposes=PURPOSES, more=[names])
            certificate, file = server.write(holder.folder, self._log.name)
            key: Sequence[str] = ("-key", file)
        else:
            certificate, key = holder.certificate(kind), openssl.key("-key", address)
        self._command = [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-www"),
            *("-CAfile", holder.ca, "-Verify", "1", "-verify_return_error"),
            *("-cert", certificate, *key, *versions),
        ]
        self._environment = openssl.environment if openssl else dict(os.environ)

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment,
            )  # fmt: skip
        until(self._is_ready)
        return self

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "ACCEPT" in self._log.read_text(errors="replace")

    def saw(self, *any_of: str) -> bool:
        """Whether it saw one of these, as soon as it did."""
        until(lambda: any(each in self._log.read_text(errors="replace") for each in any_of))
        return True

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reserved.close()


@contextmanager
def apache(
    holder: Holder, folder: Path, openssl: OpenSsl | None = None, address: str = ""
) -> Iterator[int]:
    """Run Apache with two processes and the P-256 key; gives its port.

    With an address the key is in the token. Without one, in a file, it wants client certificates.
    """
    if openssl is None:
        key = f"{holder.folder}/p256.key\nSSLVerifyClient require\nSSLCACertificateFile {holder.ca}"
        environment = dict(os.environ)
    else:
        key, environment = openssl.apache(address, folder), openssl.environment
    reserved = _reserve()
    port = reserved.getsockname()[1]
    (folder / "page").write_text("served\n")
    modules = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "ssl")
    )
    (folder / "apache.conf").write_text(
        f"{modules}ServerName localhost\nListen 127.0.0.1:{port}\nDefaultRuntimeDir {folder}\n"
        f"PidFile {folder}/pid\nErrorLog {folder}/log\nDocumentRoot {folder}\n"
        "StartServers 2\nServerLimit 2\nSSLEngine on\n"
        f"SSLCertificateFile {holder.certificate('p256')}\n"
        f"SSLCertificateKeyFile {key}\n"
    )
    process = subprocess.Popen(
        ["/usr/sbin/apache2", "-f", f"{folder}/apache.conf", "-DFOREGROUND"],
        env=environment,
    )
    try:
        until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait()
        reserved.close()
