"""Bare predictors in processes of their own, to measure a server against: `python -m tests.bench.bare THREADS`.

Reads seconds from its input, line by line; for each, infers the same picture over and over for so long, and prints how
many it did.
"""

import sys
import time

from vedette_server.contract.image import EncodedImage, SentImage
from vedette_server.contract.options import defaults
from vedette_server.predictor.predictor import load
from vedette_server.repository import repository
from vedette_server.settings import BUNDLED_REPOSITORY

from tests.bench.load import picture


def main() -> None:
    (version,) = repository.read(BUNDLED_REPOSITORY)
    predictor = load(version.folder, version.contract, "cpu", int(sys.argv[1]))
    options, data = defaults(version.contract), picture()
    predictor.predict(SentImage(EncodedImage(), data), options)
    print("ready", flush=True)
    for line in sys.stdin:
        until, count = time.monotonic() + float(line), 0
        while time.monotonic() < until:
            predictor.predict(SentImage(EncodedImage(), data), options)
            count += 1
        print(count, flush=True)


if __name__ == "__main__":
    main()
