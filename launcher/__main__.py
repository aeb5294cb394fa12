"""Let ``python -m launcher`` be the command line."""

import gc
import sys

if __name__ == "__main__":
    gc.set_threshold(100_000)  # to look for garbage among modules takes a tenth of their import
    from launcher.cli import main

    sys.exit(main())
