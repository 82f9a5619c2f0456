"""`python -m service.compactor`: a compactor process with the settings of the environment."""

import sys

from service.compactor.process import main

sys.exit(main())
