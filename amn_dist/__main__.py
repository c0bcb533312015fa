"""`python -m amn_dist` is `amn`."""

from amn_dist.cli import main

main()
