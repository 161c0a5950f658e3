"""`python -m nearfar`."""

from .cli import main

main()
