"""Which sandboxes the doctor says reach our sockets."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from hsmagent.doctor import sandboxes
from hsmagent.doctor.finding import Finding, State, Surroundings

FOLDERS = ("SYSTEM_FLATPAK", "SYSTEM_FIREJAIL")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """Return a home without sandboxes, on a system without any."""
    for name in FOLDERS:
        monkeypatch.setattr(sandboxes, name, str(tmp_path / "none"))
    monkeypatch.setattr(sandboxes, "SNAPS", [])
    run = tmp_path / "run"
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(run)}
    return Surroundings(run / "hsmagent", tmp_path / "config.toml", env=env)


def of_files(where: Surroundings) -> list[Finding]:
    """Return what files say: other tests run sandboxes at the same time."""
    return [each for each in sandboxes.all_of(where) if "these run" not in each.sentence]


def test_flatpaks_that_reach_our_sockets(
    tmp_path: Path, where: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = tmp_path / "system", tmp_path / ".local/share/flatpak"
    monkeypatch.setattr(sandboxes, "SYSTEM_FLATPAK", str(system))

    def grant(file: Path, filesystems: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[Context]\nshared=network;\nfilesystems={filesystems}\n")

    assert of_files(where) == []
    metadata = "current/active/metadata"
    grant(system / "app/org.wide.App" / metadata, f"home;xdg-run/hsmagent:ro;{tmp_path}/x;")
    grant(system / "app/org.refused.App" / metadata, "xdg-run/hsmagent")
    grant(own / "overrides/org.refused.App", "!xdg-run/hsmagent;")
    grant(own / "app/org.mozilla.Thunderbird" / metadata, "xdg-run/p11-kit")
    grant(own / "overrides/org.mozilla.Thunderbird", "xdg-run/hsmagent/pkcs11:ro;")
    grant(own / "overrides/org.absolute.App", f"{tmp_path}/run/hsmagent/")
    (own / "overrides/odd").write_bytes(b"[Context\n\xff")
    narrow, wide = sorted(of_files(where), key=lambda each: each.state)
    assert narrow.sentence.endswith("for PKCS#11 programs: org.mozilla.Thunderbird")
    assert (narrow.state, wide.state) == (State.OK, State.WARN)
    assert wide.sentence.endswith("every socket of the agent: org.absolute.App, org.wide.App")
    assert "--nofilesystem" in wide.remedy
    grant(own / "overrides/global", "!xdg-run/hsmagent")
    [wide] = [each for each in of_files(where) if each.state is State.WARN]
    assert wide.sentence.endswith(": org.absolute.App")


def test_snaps_and_firejails_that_reach_our_sockets(
    tmp_path: Path, where: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = where.runtime_dir
    monkeypatch.setattr(sandboxes, "SNAPS", [str(tmp_path / "snap")])
    monkeypatch.setattr(sandboxes, "SYSTEM_FIREJAIL", str(tmp_path / "etc"))
    for name, content in {
        "snap/mailer/current/meta/snap.yaml": f'read: [ "{ours}/pkcs11" ]\n',
        "snap/wide/current/meta/snap.yaml": f"write:\n    - {ours}\n",
        "snap/none/current/meta/snap.yaml": "write:\n    - $HOME/.config\n",
        "etc/firefox.profile": "whitelist ${RUNUSER}/bus\nnoblacklist ${RUNUSER}/hsmagent\n",
        "etc/wide.local": "  whitelist ${RUNUSER}/hsmagent\n",
        ".config/firejail/thunderbird.local": "whitelist ${RUNUSER}/hsmagent/pkcs11\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    found = of_files(where)
    [narrow] = [each for each in found if each.state is State.OK]
    assert narrow.sentence.endswith("for PKCS#11 programs: mailer, thunderbird.local")
    assert narrow.remedy == ""
    wide = {each.sentence.rpartition(": ")[2]: each for each in found if each.state is State.WARN}
    assert set(wide) == {"wide", "wide.local"}
    assert "snap disconnect wide:PLUG" in wide["wide"].remedy


@pytest.mark.parametrize("granted", ["hsmagent", "hsmagent/pkcs11", "other"])
def test_what_runs_in_a_sandbox_and_reaches_our_sockets(
    tmp_path: Path, where: Surroundings, monkeypatch: pytest.MonkeyPatch, granted: str
) -> None:
    run = tmp_path / "run"
    for name in ("hsmagent/pkcs11", "other"):
        (run / name).mkdir(parents=True)
    for name in ("ssh.sock", "pkcs11/pkcs11.sock"):
        (where.runtime_dir / name).touch()
    own = f"{granted.replace('/', '-')}-{os.getpid()}"  # other tests have sandboxes, too

    def found() -> list[Finding]:
        return [each for each in sandboxes.all_of(where) if own in each.sentence]

    monkeypatch.setattr(sandboxes, "MOST_NAMED", 1000)
    program = tmp_path / own
    script = (
        f"cp $(command -v sleep) {program}; {program} 600 &"
        f" until [ $(readlink /proc/$!/exe) = {program} ]; do :; done; echo here; wait"
    )
    command = [
        *("bwrap", "--dev-bind", "/", "/", "--proc", "/proc"),
        *("--unshare-pid", "--die-with-parent"),
        *("--tmpfs", str(run), "--bind", str(run / granted), str(run / granted)),
        *("sh", "-c", script),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"here\n"
            if granted == "other":
                assert found() == []
                return
            [finding] = found()
            monkeypatch.setattr(sandboxes, "MOST_NAMED", 0)
            [cut, *_] = [each.sentence for each in sandboxes.all_of(where)]
        finally:
            process.kill()
    assert finding.state is State.OK
    assert f"{own} (sandboxed: " in finding.sentence
    assert ("every socket of the agent" in finding.sentence) is (granted == "hsmagent")
    assert re.search(r"and \d+ more$", cut)
