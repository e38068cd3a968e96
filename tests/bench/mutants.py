"""Print how many mutants of each package the tests noticed, once mutmut has run."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

NOTICED, UNTRIED, MISSED = ("killed",), ("not checked",), ("survived", "no tests")


def verdicts() -> dict[str, str]:
    """Return mutmut's verdict on each mutant, by the mutant's name."""
    found: dict[str, str] = {}
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        found |= {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}
    return found


def lines(found: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each package of which mutants were tried; the unclear ones ran out of time or crashed."""
    packages: dict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in found.items():
        if verdict not in UNTRIED:
            packages[name.split(".")[1]][verdict] += 1
    yield f"{'package':<12}{'noticed / all':>16}{'unclear':>10}"
    for package, counts in sorted(packages.items()):
        noticed, missed = (sum(counts[verdict] for verdict in kind) for kind in (NOTICED, MISSED))
        yield f"{package:<12}{f'{noticed} / {counts.total()}':>16}{counts.total() - noticed - missed:>10}"


if __name__ == "__main__":
    print("\n".join(lines(verdicts())))
