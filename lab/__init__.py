"""The lab hosts on one machine, and the commands that use them.

Ctrl-C while a command's modules are still being read ends it without a word: nothing has been done yet. From `listen`
on it is a KeyboardInterrupt, and the command ends in order.
"""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # python -m lab.…
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def listen() -> None:
    """To be called by each command when it can end in order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
