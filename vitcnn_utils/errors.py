"""The one kind of error that users cause and can mend."""


class VitcnnError(ValueError):
    """Something the caller gave cannot be used; the message says what is wrong and what to do.

    The `vitcnn` command prints the message as one line and exits with status 1.
    """
