"""A configuration that others write names the modules that the daemon loads; the log's size."""

import json
from pathlib import Path

import pytest

from hsmagent.door.activity import Activity, Entry
from tests.door.doubles import request
from tests.parts.agent.daemon import AgentProcess

HALF_A_MEGABYTE = 512 << 10  # what docs/desktop.md says


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_the_daemon_reads_no_configuration_that_others_may_write(tmp_path: Path, mode: int) -> None:
    agent = AgentProcess(tmp_path / "h", "[cache]\n")
    agent.config.chmod(mode)
    with pytest.raises(RuntimeError, match="others may change"):
        agent.start()
    assert "others may change" in agent.hsmagent("doctor").stdout


def test_nor_one_in_a_folder_that_others_may_write(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "h", "[cache]\n")
    agent.config.parent.chmod(0o777)
    with pytest.raises(RuntimeError, match="others may change"):
        agent.start()


def test_the_log_is_as_large_as_the_docs_say(tmp_path: Path) -> None:
    """Names in other scripts take two to four bytes a character."""
    activity = Activity(tmp_path, lambda _seconds, _what: None)
    for number in range(3000):
        wish = request(summary=f"log in as {number} " + "長" * 180)
        activity.record(Entry(float(number), wish, "used"))
        activity.flush()
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert max(sizes.values()) <= HALF_A_MEGABYTE, sizes
    assert json.loads((tmp_path / "activity.jsonl").read_text().splitlines()[-1])["time"]
