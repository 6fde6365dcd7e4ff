"""`python -m nestfold`: the same as the command `nestfold`."""

from .cli import main

raise SystemExit(main())
