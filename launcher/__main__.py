"""Let ``python -m launcher`` be the command line."""

import gc
import sys

if __name__ == "__main__":
    gc.set_threshold(100_000)  # to look for garbage among modules takes a tenth of their import
    try:
        from launcher.cli import main
    except KeyboardInterrupt:  # later ones are main's
        print("launcher: interrupted", file=sys.stderr)
        sys.exit(130)  # 128 + SIGINT

    sys.exit(main())
