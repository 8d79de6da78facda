"""`python -m symcere` is the command `symcere`."""

from symcere.cli import main

main()
