"""What all tests share: one thread for each process of tests, and a profile on disk."""

from __future__ import annotations

import os
import signal

import pytest

# Several processes of tests run side by side. Said before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, and Python leaves it so; but here Ctrl-C is
# tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a whole profile with made-up numbers, of the eager executor."""
    return _saved(tmp_path_factory, "eager")


@pytest.fixture(scope="session")
def graph_profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of the graph executor."""
    return _saved(tmp_path_factory, "graph")


def _saved(factory: pytest.TempPathFactory, executor: str) -> str:
    from pdvsim.profile import save_profile
    from tests.fakes import profile_file

    path = factory.mktemp("profile") / "made-up.json"
    save_profile(profile_file(executor=executor), path)
    return str(path)
