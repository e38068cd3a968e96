"""Whether a GPU has failed a process: nothing that this process computes there will succeed from then on."""

EXIT_STATUS = 76  # of a worker that ends by itself because its GPU has failed it
_SAID = "CUDA error: "  # what torch's exceptions of any version begin with


def failed(error: BaseException) -> bool:
    """Whether an exception says so."""
    return _SAID in str(error)
