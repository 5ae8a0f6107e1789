"""What `rankwise doctor` says of this machine."""

import json

import pytest

from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.machine.precision import DTYPES, is_here, precision_of


def test_an_arithmetic_that_a_run_is_refused_is_not_said_to_be_taken(capsys):
    assert main(["doctor", "--json"]) == 0
    engine = json.loads(capsys.readouterr().out)["backends"]
    assert list(engine) == list(DTYPES)
    for name, choice in engine.items():
        assert (choice["takes"] == "nothing") is not is_here(name), name
        if choice["takes"] == "nothing":
            with pytest.raises(UserError) as refused:
                precision_of(name, "fast")
            assert choice["reason"] == str(refused.value)
