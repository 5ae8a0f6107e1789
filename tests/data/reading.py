"""Small tables and what is read of them."""

import csv
import io

import pytest

from rankwise import config
from rankwise.data import sources
from rankwise.errors import UserError

ROWS = [
    ("the soup was warm", "good"),
    ("cold soup, and a rude waiter", "bad"),
    ("fresh bread", "good"),
    ("we waited; an hour", "bad"),
]


def keys(**given):
    return config.from_dict({"data": given}).data


def read(path, **given):
    return sources.read(str(path), keys(**given), "train")


def pairs(source):
    return [(text, label) for text, (label,) in zip(source.texts, source.labels, strict=True)]


def complaint(path, **given):
    with pytest.raises(UserError) as caught:
        read(path, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(rows=ROWS, delimiter=",", header=("text", "label"), quoting=csv.QUOTE_MINIMAL, end="\r\n"):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows] if header else rows)
    return text.getvalue()
