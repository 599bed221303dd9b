"""`python -m alpaca status|logs|cancel|retry|reap`."""

from alpaca.cli import main

if __name__ == "__main__":
    main()
