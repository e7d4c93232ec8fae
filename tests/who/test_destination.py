import base64
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsmagent.model import Peer, Process, fingerprint
from hsmagent.who.destination import KnownHosts, asked_hosts

NOBODY = Peer(0, Process(0, "unknown"))


def ssh(*arguments: str) -> Peer:
    return Peer(1000, Process(2, "ssh", "/usr/bin/ssh", ("ssh", *arguments)))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the public half of a real host key: "type base64"."""
    return make_key(tmp_path_factory.mktemp("key"), "ed25519")


def make_key(folder: Path, kind: str) -> str:
    file = folder / f"host_{kind}"
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(file)]
    subprocess.run(command, check=True)
    return file.with_suffix(".pub").read_text().strip()


def blob(public: str) -> bytes:
    return base64.b64decode(public.split()[1])


def known_hosts(folder: Path, *lines: str) -> KnownHosts:
    file = folder / "known_hosts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return KnownHosts([file, folder / "missing"])


@pytest.mark.parametrize(
    ("names", "peer", "shown"),
    [
        ("git.example.org", NOBODY, "git.example.org"),
        ("192.0.2.7,git.example.org", NOBODY, "git.example.org"),
        ("192.0.2.7", NOBODY, "192.0.2.7"),
        ("a.example.org,b.example.org", ssh("alice@b.example.org", "ls"), "b.example.org"),
        ("[git.example.org]:2222", NOBODY, "git.example.org:2222"),
        ("[2001:db8::1]:2222", NOBODY, "[2001:db8::1]:2222"),
        ("*.example.org,!bad.example.org", NOBODY, "*.example.org"),
        ("*.example.org", ssh("x.example.org"), "x.example.org"),
        ("*.example.org,!x.example.org", ssh("x.example.org"), "*.example.org"),
        ("[*.example.org]:2222", ssh("-p2222", "x.example.org"), "x.example.org:2222"),
        ("evil\u202e\x1b", NOBODY, "evil\ufffd\ufffd"),
    ],
)
def test_names(tmp_path: Path, public: str, names: str, peer: Peer, shown: str) -> None:
    assert known_hosts(tmp_path, f"{names} {public}").describe(blob(public), peer) == shown


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_each_kind_of_key(tmp_path: Path, kind: str) -> None:
    public = make_key(tmp_path, kind)
    assert known_hosts(tmp_path, f"h {public}").describe(blob(public), NOBODY) == "h"


def test_a_key_that_is_not_there_has_a_fingerprint(tmp_path: Path, public: str) -> None:
    (tmp_path / "other").mkdir()
    other = make_key(tmp_path / "other", "ed25519")
    hosts = known_hosts(tmp_path, f"git.example.org {other}")
    shown = hosts.describe(blob(public), ssh("git.example.org"))
    (tmp_path / "pub").write_text(public)
    listed = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "pub"], check=True, capture_output=True, text=True
    )
    assert shown == listed.stdout.split()[1] == fingerprint(blob(public))


def test_lines_that_paramiko_chokes_on_do_no_harm(tmp_path: Path, public: str) -> None:
    key = public.split()[1]
    hosts = known_hosts(
        tmp_path,
        "# a comment",
        "",
        f"@cert-authority *.ca.example.org {public}",
        f"@revoked old.example.org {public}",
        f"short {key}",
        f"odd ssh-nonsense {key}",
        f"broken ssh-ed25519 A{key}",
        f"mismatch ssh-rsa {key}",
        f"good.example.org {public} a comment",
    )
    assert hosts.describe(blob(public), NOBODY) == "good.example.org"


def test_only_a_revoked_line_gives_no_name(tmp_path: Path, public: str) -> None:
    hosts = known_hosts(tmp_path, f"@revoked old.example.org {public}")
    assert hosts.describe(blob(public), NOBODY).startswith("SHA256:")


@pytest.mark.parametrize(
    ("written", "arguments", "shown"),
    [
        ("git.example.org", ["alice@git.example.org"], "git.example.org"),
        ("[git.example.org]:2222", ["-p", "2222", "git.example.org"], "git.example.org:2222"),
        ("git.example.org", ["other.example.org"], "SHA256:"),
        ("git.example.org", [], "SHA256:"),
    ],
)
def test_hashed_entries(
    tmp_path: Path, public: str, written: str, arguments: Sequence[str], shown: str
) -> None:
    hosts = known_hosts(tmp_path, f"{written} {public}")
    subprocess.run(["ssh-keygen", "-qHf", tmp_path / "known_hosts"], check=True)
    assert "|1|" in (tmp_path / "known_hosts").read_text()
    assert hosts.describe(blob(public), ssh(*arguments)).startswith(shown)


def test_a_changed_file_is_read_again(tmp_path: Path, public: str) -> None:
    hosts = known_hosts(tmp_path, f"old {public}")
    assert hosts.describe(blob(public), NOBODY) == "old"
    (tmp_path / "known_hosts").write_text(f"brand-new {public}\n")
    assert hosts.describe(blob(public), NOBODY) == "brand-new"
    (tmp_path / "known_hosts").unlink()
    assert hosts.describe(blob(public), NOBODY).startswith("SHA256:")


def test_a_huge_file_is_left_alone(tmp_path: Path, public: str) -> None:
    hosts = known_hosts(tmp_path, f"host {public}")
    with (tmp_path / "known_hosts").open("ab") as file:
        file.truncate(9 << 20)
    assert hosts.describe(blob(public), NOBODY).startswith("SHA256:")


@pytest.mark.parametrize(
    ("arguments", "hosts"),
    [
        (["host"], ["host"]),
        (["alice@host", "uptime", "-p", "3"], ["host"]),
        (["-l", "alice", "host"], ["host"]),
        (["-lalice", "-vAp2222", "host"], ["[host]:2222", "host"]),
        (["host", "-p", "22"], ["host"]),
        (["ssh://alice@host:2222/"], ["[host]:2222", "host"]),
        (["ssh://alice@[2001:db8::1]:2222"], ["[2001:db8::1]:2222", "2001:db8::1"]),
        (["-o", "HostName=real.example.org", "alias"], ["real.example.org", "alias"]),
        (["-oHostKeyAlias real", "-o", "Port 2222", "h"], ["[real]:2222", "[h]:2222", "real", "h"]),
        (["-v", "--", "host", "-p", "3"], ["host"]),
        (["-p"], []),
        ([], []),
    ],
)
def test_what_an_ssh_was_asked_for(arguments: list[str], hosts: list[str]) -> None:
    assert asked_hosts(ssh(*arguments)) == hosts


def test_only_an_ssh_is_believed() -> None:
    assert asked_hosts(Peer(1, Process(2, "scp", "", ("scp", "host")))) == []


def test_paramiko_is_imported_late() -> None:
    code = "import sys, hsmagent.who.destination; print('paramiko' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("host.example {key}", True),
        ("|1|salt=|hash= {key} a comment", True),
        ("@cert-authority * {key}", False),
        ("# host.example {key}", False),
        ("host.example {key}\n@revoked * {key}", False),
        ("host.example", False),
        ("", False),
    ],
)
def test_which_host_keys_are_known(tmp_path: Path, public: str, line: str, *, holds: bool) -> None:
    assert known_hosts(tmp_path, line.format(key=public)).holds(blob(public)) is holds


def test_an_authority_stands_for_the_hosts_that_it_certified(tmp_path: Path, public: str) -> None:
    authority = blob(public)
    marked = known_hosts(tmp_path, f"@cert-authority *.example {public}")
    assert marked.holds(b"a certificate", authority)
    assert not marked.holds(b"a certificate", b"another")
    assert not known_hosts(tmp_path, f"*.example {public}").holds(b"a certificate", authority)
    both = (f"@cert-authority * {public}", f"@revoked * {public}")
    assert not known_hosts(tmp_path, *both).holds(b"a certificate", authority)
