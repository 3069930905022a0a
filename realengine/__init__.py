"""The real engine: the lane programs on real threads, locks and CUDA streams. Needs torch."""
