"""The simulated world: virtual host threads, GIL, locks, queues, CUDA streams and GPU."""

from pdvsim.des.costs import StageCosts
from pdvsim.des.host import HostCosts
from pdvsim.des.world import simulate

__all__ = ["HostCosts", "StageCosts", "simulate"]
