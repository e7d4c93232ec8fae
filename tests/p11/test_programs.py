"""Programs of other makes, as they are installed: each finds the keys by p11-kit, and uses them.

They come as an ordinary user has them: OpenSC's tools and ssh load p11-kit-client.so, GnuTLS's read
`~/.config/pkcs11/modules`, OpenSSL and what is made with it use an engine or a provider.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.p11.conftest import KINDS, Holder
from tests.p11.servers import Engine, OpenSslServer, apache, system_openssl
from tests.parts.agent.pkcs11 import FaceProcess
from tests.parts.agent.sshd import Sshd

TOKEN = "pkcs11:token=work"
ADDRESSES = {kind: f"{TOKEN};id=%{number}" for kind, number in KINDS.items()}
MAIL = b"Content-Type: text/plain\r\n\r\nHello from a program\r\n"


@pytest.fixture
def module(face: FaceProcess) -> FaceProcess:
    """Name the socket where GnuTLS and all others that ask p11-kit look: one line."""
    folder = face.agent.home / "config" / "pkcs11" / "modules"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hsmagent.module").write_text(f"remote: unix:path={face.socket}\n")
    return face


# -- OpenSC's pkcs11-tool --------------------------------------------------------------------


def opensc(face: FaceProcess, *arguments: str) -> str:
    return face.must("pkcs11-tool", "--module", face.module, *arguments)


def test_pkcs11_tool_lists(face: FaceProcess) -> None:
    printed = opensc(face, "--list-objects")
    assert len(re.findall(r"^Private Key Object", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"^Certificate Object", printed, re.MULTILINE)) == 3
    assert "never extractable" in printed
    assert "login required" not in opensc(face, "--list-token-slots")


def test_pkcs11_tool_tests_until_it_wants_raw_rsa(face: FaceProcess) -> None:
    """--test signs bytes that are no DigestInfo, which nobody gets signed here."""
    done = face.run(["pkcs11-tool", "--module", face.module, "--test"])
    printed = (done.stdout + done.stderr).decode()
    assert "C_GenerateRandom():" in printed
    assert "testing key 0" in printed
    assert "C_SignFinal failed: rv = CKR_DATA_INVALID" in printed


@pytest.mark.parametrize("kind", KINDS)
def test_pkcs11_tool_signs(face: FaceProcess, holder: Holder, kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 32)
    mechanism = "SHA256-RSA-PKCS" if kind == "rsa" else "ECDSA"
    face.must(
        *("pkcs11-tool", "--module", face.module, "--sign", "--mechanism", mechanism),
        *("--id", KINDS[kind], "--input-file", str(data), "--output-file", str(tmp_path / "out")),
    )
    signature = (tmp_path / "out").read_bytes()
    public = holder.people[kind].private.public_key()
    if kind == "rsa":
        public.verify(signature, b"x" * 32, padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
        public.verify(encode_dss_signature(r, s), b"x" * 32, ec.ECDSA(Prehashed(hashes.SHA256())))


def test_pkcs11_tool_decrypts(face: FaceProcess, holder: Holder, tmp_path: Path) -> None:
    public = holder.people["rsa"].private.public_key()
    (tmp_path / "sent").write_bytes(public.encrypt(b"content key", padding.PKCS1v15()))
    opensc(
        face,
        *("--decrypt", "--mechanism", "RSA-PKCS", "--id", "01"),
        *("--input-file", str(tmp_path / "sent"), "--output-file", str(tmp_path / "plain")),
    )
    assert (tmp_path / "plain").read_bytes() == b"content key"


# -- GnuTLS ----------------------------------------------------------------------------------


def test_p11tool_lists_by_the_one_line(module: FaceProcess) -> None:
    printed = module.must("p11tool", "--list-all", TOKEN)
    assert printed.count("type=private") == 2
    assert printed.count("type=cert") == 3


def test_p11tool_sees_a_token_once_by_the_line_that_doctor_tells(
    module: FaceProcess, holder: Holder
) -> None:
    """SoftHSM's package registers its module for everybody."""
    folder = module.agent.home / "config" / "pkcs11" / "modules"

    def seen() -> int:
        own = dict(holder.token.env)
        return module.must("p11tool", "--list-tokens", more=own).count("token=work\n")

    def found() -> list[dict[str, str]]:
        every = json.loads(module.agent.hsmagent("doctor", "--json").stdout)
        return [each for each in every if "twice" in each["sentence"]]

    assert seen() == 2
    [finding] = found()
    assert str(folder) in finding["remedy"]
    [line] = re.findall("`(.*?)`", finding["remedy"])
    written = [folder / name for name in re.findall(r"[\w-]+\.module", finding["sentence"])]
    try:
        for file in written:
            file.write_text(line + "\n")
        assert seen() == 1
        assert found() == []
    finally:
        for file in written:
            file.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_p11tool_signs(module: FaceProcess, kind: str) -> None:
    printed = module.must("p11tool", "--test-sign", f"{ADDRESSES[kind]};type=private")
    assert "ok" in printed.lower()


@pytest.mark.parametrize("version", ["VERS-TLS1.2", "VERS-TLS1.3"])
@pytest.mark.parametrize("kind", KINDS)
def test_gnutls_shows_a_client_certificate(
    module: FaceProcess, holder: Holder, kind: str, version: str
) -> None:
    with OpenSslServer(holder) as server:
        module.must(
            *("gnutls-cli", "--x509cafile", holder.ca, "--port", str(server.port), "localhost"),
            *("--x509certfile", f"{ADDRESSES[kind]};type=cert"),
            *("--x509keyfile", f"{ADDRESSES[kind]};type=private"),
            *("--priority", f"NORMAL:-VERS-ALL:+{version}"),
            data=b"GET / HTTP/1.0\r\n\r\n",
        )
        assert server.saw(f"CN = Alice {kind}", f"CN=Alice {kind}")


# -- OpenSSL, by its engine (Debian 12) or a provider (Debian 13) ------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_signs_mail(face: FaceProcess, holder: Holder, kind: str, tmp_path: Path) -> None:
    openssl = system_openssl(face)
    signed = tmp_path / "signed"
    openssl.must(
        *("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-out", str(signed)),
        *("-signer", holder.certificate(kind), *openssl.key("-inkey", ADDRESSES[kind])),
        data=MAIL,
    )
    plain = subprocess.run(
        [
            *("openssl", "cms", "-verify", "-inform", "DER", "-in", str(signed)),
            *("-CAfile", holder.ca, "-binary"),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert plain == MAIL


@pytest.mark.parametrize("options", [(), ("-keyopt", "rsa_padding_mode:oaep")])
def test_openssl_decrypts_mail(
    face: FaceProcess, holder: Holder, options: tuple[str, ...], tmp_path: Path
) -> None:
    openssl = system_openssl(face)
    sent, plain = tmp_path / "sent", tmp_path / "plain"
    subprocess.run(
        [
            *("openssl", "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER"),
            *("-out", str(sent), "-recip", holder.certificate("rsa"), *options),
        ],
        input=MAIL,
        check=True,
        timeout=60,
    )
    openssl.must(
        *("cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(sent), "-out", str(plain)),
        *("-recip", holder.certificate("rsa"), *openssl.key("-inkey", ADDRESSES["rsa"])),
    )
    assert plain.read_bytes() == MAIL


def test_openssl_decrypts_mail_to_an_ec_key(
    face: FaceProcess, holder: Holder, tmp_path: Path
) -> None:
    """A provider can; Debian 12's p11-kit does not let an ECDH through."""
    openssl = system_openssl(face)
    sent, plain = tmp_path / "sent", tmp_path / "plain"
    subprocess.run(
        [
            *("openssl", "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER"),
            *("-out", str(sent), holder.certificate("p256")),
        ],
        input=MAIL,
        check=True,
        timeout=60,
    )
    command = (
        *("cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(sent), "-out", str(plain)),
        *("-recip", holder.certificate("p256"), *openssl.key("-inkey", ADDRESSES["p256"])),
    )
    if isinstance(openssl, Engine):
        assert face.run(["openssl", *command]).returncode != 0
    else:
        openssl.must(*command)
        assert plain.read_bytes() == MAIL


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_serves_and_asks(face: FaceProcess, holder: Holder, kind: str) -> None:
    """Both ends of one TLS connection have their keys in the token."""
    openssl = system_openssl(face)
    with OpenSslServer(holder, openssl, kind, ADDRESSES[kind]) as server:
        printed = openssl.must(
            *("s_client", "-connect", f"localhost:{server.port}", "-CAfile", holder.ca),
            *("-verify_return_error", "-cert", holder.certificate(kind)),
            *openssl.key("-key", ADDRESSES[kind]),
            data=b"Q\n",
        )
        assert "Verify return code: 0 (ok)" in printed
        assert server.saw(f"CN = Alice {kind}", f"CN=Alice {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_curl_shows_a_client_certificate(face: FaceProcess, holder: Holder, kind: str) -> None:
    openssl = system_openssl(face)
    with OpenSslServer(holder) as server:
        printed = openssl.curl(
            *("--silent", "--show-error", "--cacert", holder.ca),
            address=ADDRESSES[kind],
            url=f"https://localhost:{server.port}/",
        )
        assert "s_server" in printed
        assert server.saw(f"CN = Alice {kind}", f"CN=Alice {kind}")


def test_apache_serves_with_two_processes(
    face: FaceProcess, holder: Holder, tmp_path: Path
) -> None:
    openssl = system_openssl(face)
    with apache(holder, tmp_path, openssl, ADDRESSES["p256"]) as port:
        for _ in range(20):
            page = subprocess.run(
                ["curl", "--silent", "--show-error", "--cacert", holder.ca,
                 f"https://localhost:{port}/page"],
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout  # fmt: skip
            assert page == b"served\n"


def test_git_clones_with_a_client_certificate(
    module: FaceProcess, holder: Holder, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    for command in (
        ("git", "init", "--quiet", str(work)),
        ("git", "-C", str(work), "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet",
         "--allow-empty", "--message", "made"),
        ("git", "clone", "--quiet", "--bare", str(work), str(tmp_path / "repository.git")),
        ("git", "-C", str(tmp_path / "repository.git"), "update-server-info"),
    ):  # fmt: skip
        module.must(*command)
    with apache(holder, tmp_path) as port:
        url = f"https://localhost:{port}/repository.git"
        server = ("-c", f"http.sslCAInfo={holder.ca}")
        assert module.run(["git", *server, "clone", url, str(tmp_path / "none")]).returncode
        certificate = ("-c", f"http.sslCert={ADDRESSES['rsa']};type=cert")
        key = ("-c", f"http.sslKey={ADDRESSES['rsa']};type=private")
        module.must("git", *server, *certificate, *key, "clone", url, str(tmp_path / "cloned"))
        assert "made" in module.must("git", "-C", str(tmp_path / "cloned"), "log")


# -- NSS -------------------------------------------------------------------------------------


@pytest.fixture
def nss(face: FaceProcess, holder: Holder, tmp_path: Path) -> Path:
    """Make a database that knows our module, as Thunderbird's profile does."""
    folder = tmp_path / "nss"
    folder.mkdir()
    database = f"sql:{folder}"
    face.must("certutil", "-N", "-d", database, "--empty-password")
    face.must(
        *("modutil", "-force", "-dbdir", database, "-add", "hsmagent", "-libfile", face.module)
    )
    face.must("certutil", "-A", "-d", database, "-n", "CA", "-t", "CT,C,C", "-i", holder.ca)
    return folder


def test_nss_lists(face: FaceProcess, nss: Path) -> None:
    printed = face.must("certutil", "-L", "-d", f"sql:{nss}", "-h", "work")
    for kind in KINDS:
        assert re.search(rf"^work:{kind}\s+u,u,u$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("kind", KINDS)
def test_nss_signs_mail(face: FaceProcess, holder: Holder, nss: Path, kind: str) -> None:
    (nss / "mail").write_bytes(MAIL)
    signed = nss / "signed"
    face.must(
        *("cmsutil", "-S", "-d", f"sql:{nss}", "-N", f"work:{kind}", "-H", "SHA256", "-G", "-P"),
        *("-i", str(nss / "mail"), "-o", str(signed)),
    )
    plain = subprocess.run(
        ["openssl", "cms", "-verify", "-inform", "DER", "-in", str(signed), "-CAfile", holder.ca],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert plain == MAIL


def test_nss_decrypts_mail(face: FaceProcess, holder: Holder, nss: Path) -> None:
    sent, plain = nss / "sent", nss / "plain"
    subprocess.run(
        [
            *("openssl", "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER"),
            *("-out", str(sent), holder.certificate("rsa")),
        ],
        input=MAIL,
        check=True,
        timeout=60,
    )
    face.must("cmsutil", "-D", "-d", f"sql:{nss}", "-i", str(sent), "-o", str(plain))
    assert plain.read_bytes() == MAIL


# -- ssh -------------------------------------------------------------------------------------


def ssh_line(holder: Holder, kind: str) -> str:
    public = holder.people[kind].private.public_key()
    line: bytes = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return line.decode()


def test_ssh_keygen_tells_the_keys(face: FaceProcess, holder: Holder) -> None:
    printed = face.must("ssh-keygen", "-D", face.module)
    assert all(ssh_line(holder, kind) in printed for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_logs_in_through_p11_kit(
    face: FaceProcess, holder: Holder, kind: str, tmp_path: Path
) -> None:
    server = Sshd(tmp_path, [ssh_line(holder, kind)])
    server.start()
    try:
        options = [*server.ssh_options, "-o", "IdentityAgent=none", "-I", face.module]
        assert "let in" in face.must("ssh", *options, "127.0.0.1", "echo let in")
    finally:
        server.stop()
