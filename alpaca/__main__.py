"""`python -m alpaca status|logs|cancel|retry|reap|sync|diff|reproduce|gc|index`."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while all is being imported, Ctrl-C ends this without a word

from alpaca.cli.commands import main

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
