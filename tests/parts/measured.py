"""What has `make coverage` measure a program that a test starts with an environment of its own."""

import os

MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
