import pytest

pytest.register_assert_rewrite("tests.support")  # a helper's assertion shows its values, as a test's does
