"""What every test may use: one hypothesis profile, and `--update-golden`."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("neurodeploy", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("neurodeploy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew."""
    return bool(request.config.getoption("--update-golden"))
