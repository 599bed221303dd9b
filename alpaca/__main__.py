"""`python -m alpaca status|logs|cancel|retry|reap|sync|diff|reproduce|gc|index`."""

from alpaca.cli.commands import main

if __name__ == "__main__":
    main()
