"""Firefox, which shows a client certificate whose key is in the token."""

import json
from pathlib import Path

import pytest

from tests.daemon.conftest import module_config
from tests.p11.conftest import KINDS, StartFace, make_holder
from tests.p11.servers import OpenSslServer
from tests.parts.agent.pkcs11 import FREELY
from tests.parts.token.softhsm import PIN
from tests.thunderbird.conftest import furnish, start

SERVED = "s_server"  # of the page on which it tells of the connection


@pytest.mark.parametrize("kind", KINDS)
def test_it_logs_in_with_a_certificate(start_face: StartFace, tmp_path: Path, kind: str) -> None:
    holder = make_holder(tmp_path / "holder", {kind: "alice@example.org"})
    face = start_face(FREELY + module_config(holder.token))
    face.agent.unlock(PIN)
    profile = tmp_path / "profile"
    profile.mkdir()
    furnish(profile, face, holder)
    for firefox in start("firefox-esr", profile, face):
        with OpenSslServer(holder, versions=("-tls1_3",)) as server:
            firefox.marionette.open(f"https://localhost:{server.port}/")
            page = firefox.marionette.text()
            assert SERVED in page
            assert "TLSv1.3" in page
            assert server.saw(f"CN = Alice {kind}", f"CN=Alice {kind}")
    used = json.loads(face.agent.hsmagent("log", "--json").stdout)
    assert "firefox" in json.dumps(used)
