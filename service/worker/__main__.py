"""`python -m service.worker`: a worker process with the settings of the environment."""

import sys

from service.worker.process import main

sys.exit(main())
