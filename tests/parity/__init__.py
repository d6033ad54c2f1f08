import pytest

pytest.register_assert_rewrite(f"{__name__}.wires", f"{__name__}.subscriber", f"{__name__}.model")
