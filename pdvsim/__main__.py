"""`python -m pdvsim`."""

from pdvsim.cli import main

if __name__ == "__main__":
    main()
