"""`python -m sparsediag`."""

import sys

from sparsediag.cli import main

sys.exit(main())
