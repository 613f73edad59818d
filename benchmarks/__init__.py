"""What is measured for results/; see `make bench`."""

import os

# Before torch is loaded: threads that wait for work then sleep. Spinning, each call takes many times as long beside
# anything else that runs. Commands do the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
