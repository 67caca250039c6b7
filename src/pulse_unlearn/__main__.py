"""`python -m pulse_unlearn` is the `pulse` command, for an environment whose bin is not on PATH."""

from pulse_unlearn.cli import main

if __name__ == "__main__":
    main()
