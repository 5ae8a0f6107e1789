"""The targets by name: what each writes, needs and promises. A new one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.errors import UserError, missing_extra, nearest

if TYPE_CHECKING:
    from rankwise.export.subject import Floats, Subject


@dataclass(frozen=True)
class Written:
    """What a target has put into its folder, and how it is to be proven.

    load
        Python for the fresh process: it defines `logits`.
    unwanted
        Packages that the artefact must do without.
    expected
        The proof's logits where they are not the classifier's own: a lossy artefact is held to what was judged.
    """

    title: str
    use: str
    load: str
    unwanted: Sequence[str]
    facts: list[str] = field(default_factory=list)
    expected: Floats | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a caller may say."""

    accept_loss: bool = False
    say: Callable[[str], None] = lambda line: None


Write = Callable[["Subject", Path, Options], Written]


@dataclass(frozen=True)
class Target:
    """One form that a classifier is exported to; `module` has a function `write`, of the type `Write`."""

    summary: str
    module: str
    extra: str | None = None
    packages: Sequence[str] = ()

    def writer(self) -> Write:
        """The function that writes it.

        Raises: UserError when a package of its extra is not installed.
        """
        for package in self.packages:
            if find_spec(package) is None:
                assert self.extra is not None
                raise missing_extra(package, self.extra)
        write: Write = import_module(f"rankwise.export.{self.module}").write
        return write


_ONNX = ("onnx", "onnxscript", "onnxruntime")
TARGETS: Mapping[str, Target] = {
    "merged": Target("plain transformers, the adapter in the weights, fp32", "merged"),
    "onnx": Target("ONNX in fp32, for onnxruntime", "onnx_graph", "export", _ONNX),
    "onnx-int8": Target("ONNX in int8, judged on the validation rows", "onnx_int8", "export", _ONNX),
    "openvino": Target("OpenVINO in fp32", "openvino_ir", "export-openvino", (*_ONNX, "openvino")),
    "static": Target("word vectors distilled from it: numpy alone, tens of thousands of texts a second", "static"),
}


def target_of(name: str) -> Target:
    """The target of a name.

    Raises: UserError for one that is not there.
    """
    if name not in TARGETS:
        raise UserError(f"--to {name} is no target{nearest(name, TARGETS) or '; they are ' + ', '.join(TARGETS)}")
    return TARGETS[name]
