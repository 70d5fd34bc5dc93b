"""The one error that a user's mistake raises; everything else is a defect of ours."""


class InputError(ValueError):
    """What the user gave cannot be used.

    Its message is one sentence that names the file or setting and says what to do. The command line
    prints it and exits with 2; no traceback is shown.
    """
