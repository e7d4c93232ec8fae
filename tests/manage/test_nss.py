"""NSS's database, Firefox's and Thunderbird's, from a key to a certificate; and what it cannot."""

from pathlib import Path

from tests.parts.token.managed import Managed
from tests.parts.token.nss import PIN, TOKEN, database

NEW_PIN = "271828"
ADDRESS = "alice@example.org"


def _makes_ed25519(nss: Managed) -> bool:
    """Whether this NSS does: newer ones do."""
    info = nss.does("token", "info", TOKEN)
    assert "p256" in info
    return "ed25519" in info


def test_what_can_be_done_with_a_database(tmp_path: Path) -> None:
    """Its other token, to which nothing can be written, is not meant where none is named."""
    with database() as provider:
        nss = Managed(provider, tmp_path)
        for kind in ("p256", "rsa2048", *(("ed25519",) if _makes_ed25519(nss) else ())):
            nss.does("key", "new", kind, "--label", "new", "--for", "ssh,mail", secrets=(PIN,))
            assert "failed" not in nss.does("key", "test", "new", secrets=(PIN,))
            nss.does("key", "rename", "new", "newer", secrets=(PIN,))
            words = ("cert", "self-sign", "newer", "--email", ADDRESS)
            pem = nss.does(*words, secrets=(PIN,))
            assert nss.does("cert", "export", "newer") == pem
            assert ADDRESS in nss.does("cert", "list")
            nss.does("cert", "delete", "newer", "--yes", secrets=(PIN,))
            nss.does("key", "delete", "newer", "--yes", secrets=(PIN,))
            assert "no key is named" in nss.fails("key", "test", "newer", secrets=("-",), status=2)
        assert "the PIN is wrong" in nss.fails("token", "pin", secrets=("999999", NEW_PIN))
        nss.does("token", "pin", secrets=(PIN, NEW_PIN))
        assert "failed" not in nss.does("key", "test", "ssh", secrets=(NEW_PIN,))


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path) -> None:
    """Before anything is asked for: NSS would erase for any SO-PIN, and keep its name."""
    (tmp_path / "note").write_text("x")
    with database() as provider:
        nss = Managed(provider, tmp_path)
        for words in (
            ("token", "init", TOKEN, "--yes", "--label", "x"),
            ("token", "unblock"),
            ("token", "so-pin"),
        ):
            said = nss.fails(*words, secrets=("31415926", NEW_PIN), status=2)
            assert "has no SO-PIN: `certutil -N` makes a database anew" in said
        assert "failed" not in nss.does("key", "test", "ssh", secrets=(PIN,))
        said = nss.fails("data", "write", "note", "note", "--private", secrets=(PIN,))
        assert f"“{TOKEN}” does not keep this data (" in said
        if not _makes_ed25519(nss):
            said = nss.fails("key", "new", "ed25519", "--label", "x", status=2)
            assert "does not make ed25519 keys" in said
        assert "no SmartCard-HSM" in nss.fails("key", "backup", "ssh", ".", status=2)
