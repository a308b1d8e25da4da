"""The front end's own unit tests (vitest)."""

from __future__ import annotations

import pytest

from local_stack import pages


@pytest.mark.timeout(600)
def test_the_front_end_s_own_tests_pass() -> None:
    assert pages.run_script("test")
