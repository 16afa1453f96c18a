"""`python -m hubgate`."""

from hubgate.cli import main

main()
