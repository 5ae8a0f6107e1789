"""The fresh process that proves an artefact."""

import pytest

from rankwise.errors import UserError
from rankwise.export import alone


def test_one_that_hangs_is_ended_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "LIMIT_S", 0.5)
    with pytest.raises(UserError, match=r"no answer in a fresh process within 0\.5 s; nothing was written"):
        alone.answers(tmp_path, ["a text"], load="import time; time.sleep(60)", unwanted=[])
