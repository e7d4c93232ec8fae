"""The demo is documentation: it must go on being true."""

import subprocess
from pathlib import Path

DEMO = Path(__file__).parent.parent / "demo" / "run"


def test_the_demo_passes_and_leaves_nothing() -> None:
    before = set(Path("/tmp").glob("hsmagent-demo.*"))
    shown = subprocess.run([DEMO], capture_output=True, text=True, timeout=300, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "The demo passed" in shown.stdout
    assert "hello from behind the window" in shown.stdout
    assert set(Path("/tmp").glob("hsmagent-demo.*")) <= before
