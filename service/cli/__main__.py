"""`python -m service.cli`: how the supervisor starts the very same commands as children."""

import sys

from service.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
