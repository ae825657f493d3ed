"""To be imported before PyTorch, which takes seconds, where a program for users is run (measurements do without), not where
it is imported: Ctrl-C meanwhile ends it at once, without a traceback out of the midst of an import. `exit_on_user_error`
then takes over."""

import signal

# Not where it is ignored, as in the background of a script.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
