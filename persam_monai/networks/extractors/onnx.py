# SPDX-License-Identifier: Apache-2.0
"""Backbones in the exchange format ONNX, run by ONNX Runtime."""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persam_monai.errors import UserError, did_you_mean
from persam_monai.networks.extractors.file import FileBackbone
from persam_monai.networks.extractors.onnx_file import onnx_sha256
from persam_monai.settings import or_none

logger = logging.getLogger(__name__)

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxBackbone(FileBackbone):
    """An ONNX file as a backbone, without gradients.

    It has one input, float32 or float16 ``[n, 3, s, s]``. A fixed n is met by parts of that size, the last one filled
    up with copies of its last patch. Of several outputs the first that is ``[n, D]`` (or ``[n, D, 1, 1]``, which is
    flattened) is taken. On CUDA it runs where ONNX Runtime has CUDA, else on the CPU, and says so.

    Args:
        path: the file; weights that it keeps in files beside it are found there.
        name: what feature files call it; ``None`` takes the file's name without its suffix.
        output: name of the output to take; ``None`` takes the first that is ``[n, D]``.

    Raises:
        UserError: if ONNX Runtime is not installed, the file is missing or no ONNX, or its input or outputs are others.
    """

    kind = "onnx"
    example = "model.onnx"

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None, output: str | None = None) -> None:
        super().__init__(path, name)
        self._session = self._open(torch.device("cpu"))
        self._device = torch.device("cpu")
        self._input, self._type, self._batch, self._side = self._checked_input()
        self._output = self._chosen_output(or_none(output))
        self.input_size = self._side

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to ``[n, D]``, on the pixels' device."""
        size = list(pixels.shape[2:])
        if self._side is not None and size != [self._side, self._side]:
            raise UserError(
                f"{self.path} takes patches of {self._side} × {self._side} pixels alone and got {size[0]} × {size[1]}. "
                f"Set input_size of the PatchExtractor to {self._side}, or leave it out."
            )
        if pixels.device != self._device:
            self._session, self._device = self._open(pixels.device), pixels.device
        given = pixels.detach().to(torch.from_numpy(np.empty(0, self._type)).dtype).contiguous()
        parts = given.split(self._batch or max(len(given), 1))
        features = torch.cat([self._run(part) for part in parts])  # [n, D]
        return features.to(pixels.device)

    def _run(self, part: Tensor) -> Tensor:
        """Features of so many patches as the file takes at once, or fewer, on the CPU."""
        count = len(part)
        if self._batch and count < self._batch:
            part = torch.cat([part, part[-1:].expand(self._batch - count, -1, -1, -1)])
        if part.device.type == "cuda" and "CUDAExecutionProvider" in self._session.get_providers():
            found = self._run_where_it_lies(part)
        else:
            found = self._session.run([self._output], {self._input: part.cpu().numpy()})[0]
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            found = found[:, :, 0, 0]
        if found.ndim != 2 or len(found) != len(part):
            raise UserError(f"{self.path}: {_no_rows(f'output {self._output} gave {list(found.shape)}', len(part))}")
        return torch.from_numpy(np.ascontiguousarray(found[:count]))

    def _run_where_it_lies(self, part: Tensor) -> np.ndarray:
        """Pixels stay on their CUDA device; the features, which are small, come back."""
        torch.cuda.current_stream(part.device).synchronize()  # ONNX Runtime has a stream of its own
        binding = self._session.io_binding()
        binding.bind_input(self._input, "cuda", part.device.index or 0, self._type, tuple(part.shape), part.data_ptr())
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)
        found: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return found

    def _sha256(self) -> str:
        return onnx_sha256(self.path)

    def _open(self, device: torch.device) -> Any:
        """A session on a device."""
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; each also arrives as an exception
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            if "CUDAExecutionProvider" in runtime.get_available_providers():
                providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
            else:
                logger.warning(
                    "The ONNX extractor runs on the CPU, for this ONNX Runtime has no CUDA; pip install "
                    "onnxruntime-gpu in place of onnxruntime has it."
                )
        try:
            return runtime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's own, one class for each kind of failure
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{self.path} cannot be opened by ONNX Runtime {runtime.__version__}: {reason}") from error

    def _checked_input(self) -> tuple[str, type, int | None, int | None]:
        """Name, type, fixed batch and fixed side of the input."""
        inputs = self._session.get_inputs()
        described = "; ".join(f"{given.name}: {given.type} {given.shape}" for given in inputs)
        shape = inputs[0].shape if len(inputs) == 1 else []
        fits = len(shape) == 4 and not (isinstance(shape[1], int) and shape[1] != 3)
        if fits and isinstance(shape[2], int) and isinstance(shape[3], int):
            fits = shape[2] == shape[3]
        if not fits or inputs[0].type not in _TYPES:
            raise UserError(
                f"{self.path} has the input {described}; expected one, float32 or float16 [n, 3, s, s] (patches, then "
                "red, green and blue, then rows and columns). Export the network so."
            )
        batch, side = (size if isinstance(size, int) else None for size in (shape[0], shape[2]))
        if side is None and isinstance(shape[3], int):
            side = shape[3]
        return inputs[0].name, _TYPES[inputs[0].type], batch, side

    def _chosen_output(self, wanted: str | None) -> str:
        """Name of the output that holds the features."""
        outputs = {found.name: found for found in self._session.get_outputs()}
        if wanted is not None and wanted not in outputs:
            raise UserError(
                f"{self.path} has no output {wanted!r}; it has {', '.join(outputs)}.{did_you_mean(wanted, outputs)}"
            )
        candidates = list(outputs) if wanted is None else [wanted]
        for form in (_is_rows, _is_rows_of_one_place, _is_unknown):
            for name in candidates:
                if form(outputs[name].shape):
                    if form is _is_rows_of_one_place:
                        logger.info("The extractor's output %s is [n, D, 1, 1]; it is flattened to [n, D].", name)
                    return name
        described = "outputs " + "; ".join(f"{name} {outputs[name].shape}" for name in candidates)
        raise UserError(f"{self.path}: {_no_rows(described, 'n')}")


def _is_rows(shape: list[Any]) -> bool:
    return len(shape) == 2


def _is_rows_of_one_place(shape: list[Any]) -> bool:
    return len(shape) == 4 and shape[2:] == [1, 1]


def _is_unknown(shape: list[Any]) -> bool:
    """Whether only running the file tells the shape."""
    return len(shape) == 0 or (len(shape) == 4 and not any(isinstance(size, int) and size > 1 for size in shape[2:]))


def _no_rows(found: str, count: int | str) -> str:
    return (
        f"{found}; expected [{count}, D], one row of features for each patch. Tokens [n, T, D] and maps [n, D, h, w] "
        "must become one row in the export: take the class token, or the mean over T or h and w. Where another output "
        "is [n, D], name it with --extractor#output."
    )


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise UserError(f"ONNX Runtime is installed and cannot be imported: {error}. Install it anew.") from error
        raise UserError(
            "ONNX files need ONNX Runtime, which is not installed: pip install '.[onnx]' in the repository, or "
            "pip install onnxruntime (onnxruntime-gpu for CUDA)."
        ) from error
    except ImportError as error:  # a shared library that is missing or of another machine
        raise UserError(f"ONNX Runtime is installed and cannot be imported: {error}. Install it anew.") from error
    return onnxruntime
