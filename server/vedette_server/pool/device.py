"""Detection of a failed GPU: after such an error, no computation of this process on it will succeed."""

EXIT_STATUS = 76  # of a worker that exits because its GPU failed
_SAID = "CUDA error: "  # start of torch's exceptions, in any version


def failed(error: BaseException) -> bool:
    """Return whether an exception reports a failed GPU."""
    return _SAID in str(error)
