"""`python -m actfocus` is the command `actfocus`."""

import sys

from actfocus.cli import main

if __name__ == "__main__":
    sys.exit(main())
