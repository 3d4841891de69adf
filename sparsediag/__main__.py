"""`python -m sparsediag`."""

import sys

from sparsediag.cli.app import main

sys.exit(main())
