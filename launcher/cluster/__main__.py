"""Be one slot of the mpirun or srun that a launcher has started. Not for people."""

import os
import sys

from launcher.cluster.slots import lend
from launcher.errors import LauncherError
from launcher.slot import Slot, find_slot

if __name__ == "__main__":
    try:
        sys.exit(lend(find_slot(os.environ) or Slot(rank=0, size=1, source="the launcher")))
    except LauncherError as error:
        sys.exit(f"launcher: {error}")
