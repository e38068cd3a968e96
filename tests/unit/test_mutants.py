"""The table with which `make mutants` ends."""

from tests.bench.mutants import lines


def test_each_package_has_a_line_of_what_was_tried() -> None:
    found = {
        "vedette_server.contract.avif.x_check__mutmut_1": "killed",
        "vedette_server.contract.raw.x_check__mutmut_1": "survived",
        "vedette_server.contract.raw.x_check__mutmut_2": "no tests",
        "vedette_server.contract.raw.x_check__mutmut_3": "timeout",
        "vedette_server.baseline.statistics.x_ks__mutmut_1": "killed",
        "vedette_server.engine.scheduler.x_a__mutmut_1": "not checked",
    }
    assert [line.split() for line in lines(found)] == [
        ["package", "noticed", "/", "all", "unclear"],
        ["baseline", "1", "/", "1", "0"],
        ["contract", "1", "/", "4", "1"],
    ]
