"""Stand-in for Detectron2's compiled module: every operator is named, none is there.

Only deformable convolution, rotated boxes and the fast COCO evaluator call these. Importing them must work,
because Detectron2's layers import this module at load; calling one says what is missing and how to get it.
"""

from typing import NoReturn

_REMEDY = (
    "This detectron2 was packaged without compiled operators. Faster, Mask and Keypoint R-CNN, RetinaNet and "
    "Panoptic FPN need none of them. For deformable convolution, rotated boxes or the fast COCO evaluator, build "
    "Detectron2 from source (needs a C++ compiler): python -m pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git'"
)


class NotCompiledError(RuntimeError):
    """A compiled-only operator was called in a build that has none."""


def get_compiler_version() -> str:
    """The compiler that `detectron2.utils.collect_env` prints."""
    return "not compiled"


def get_cuda_version() -> str:
    """The CUDA compiler that `detectron2.utils.collect_env` prints."""
    return "not compiled"


def has_cuda() -> bool:
    """No operator here runs on a GPU, or at all."""
    return False


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)

    def not_compiled(*_args: object, **_kwargs: object) -> NoReturn:
        msg = f"detectron2._C.{name} is not compiled. {_REMEDY}"
        raise NotCompiledError(msg)

    return not_compiled
