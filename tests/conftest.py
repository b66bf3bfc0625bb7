"""Fixtures shared by the tests."""

import os

import pytest


@pytest.fixture(scope="session")
def diffusers():
    """diffusers, the independent implementation: required in CI, elsewhere a skip that says how to get it."""
    if os.environ.get("CI") == "true":
        import diffusers

        return diffusers
    return pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
