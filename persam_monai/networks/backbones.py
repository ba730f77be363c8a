# SPDX-License-Identifier: Apache-2.0
"""Backbones whose network and weights are one file, which is used as it is: TorchScript and ONNX."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, did_you_mean
from persam_monai.files import sha256
from persam_monai.settings import is_null, or_none

logger = logging.getLogger(__name__)

FILE_HASH = "file_sha256"  # the one name in the state dict
_ONNX_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class FileBackbone(nn.Module):
    """A backbone that is a file: never trained, and never copied into a trained model.

    The state dict holds the file's SHA-256 in place of weights, so that ``model.pt`` passes nobody's weights on, and
    another file than the one of the training is refused when ``model.pt`` is loaded.

    Args:
        path: the file.
        name: what feature files call the extractor; ``None`` takes the file's name without its suffix.

    Raises:
        UserError: if there is no such file.
    """

    kind: str  # the first part of the name, such as "onnx"
    example: str  # a file's name, for messages

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None) -> None:
        super().__init__()
        if is_null(path):
            raise UserError(
                f"The extractor is to come from a file of the kind {self.kind}, and none is named. Name it with "
                f"--extractor#path {self.example}."
            )
        self.path = Path(str(path))
        if not self.path.is_file():
            raise UserError(
                f"The extractor's file {self.path} is not there. Name another {self.kind} file with --extractor#path."
            )
        self.extractor_name = f"{self.kind}:{or_none(name) or self.path.stem}"
        self.weights_sha256 = self._sha256()
        digest = torch.tensor(list(bytes.fromhex(self.weights_sha256)), dtype=torch.uint8)
        self.register_buffer(FILE_HASH, digest)

    def _sha256(self) -> str:
        return sha256(self.path)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuses what was made with another file."""
        wanted = state_dict.get(prefix + FILE_HASH)
        if isinstance(wanted, Tensor) and bytes(wanted.flatten().tolist()).hex() != self.weights_sha256:
            raise UserError(
                f"The model was trained with another extractor file than {self.path}: its SHA-256 is "
                f"{self.weights_sha256}, expected {bytes(wanted.flatten().tolist()).hex()}. Name the file of the "
                "training with --extractor#path."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class TorchScriptBackbone(FileBackbone):
    """A TorchScript file as a backbone, in eval mode and without gradients.

    A TorchScript file is a program: use only files from people you trust.

    Args:
        path: what ``torch.jit.save`` wrote, of a module that keeps to the contract of
            :class:`~persam_monai.networks.PatchExtractor`.
        name: what feature files call it; ``None`` takes the file's name without its suffix.

    Raises:
        UserError: if there is no such file, or it is no TorchScript.
    """

    kind = "torchscript"
    example = "model.ts"

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None) -> None:
        super().__init__(path, name)
        self._loaded = [self._load(torch.device("cpu"))]  # a list: its weights are no part of the state dict
        self._device = torch.device("cpu")

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to whatever the file gives."""
        if pixels.device != self._device:  # anew: what was folded into constants does not move with a module
            self._loaded, self._device = [self._load(pixels.device)], pixels.device
        with torch.no_grad():
            # A traced network may see a convolution's output as rows, which channels-last memory does not allow.
            features: Tensor = self._loaded[0](pixels.contiguous())
        return features

    def _load(self, device: torch.device) -> nn.Module:
        try:
            module: nn.Module = torch.jit.load(str(self.path), map_location=device)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.path} cannot be read as TorchScript: {_first_line(error)} Expected what "
                "torch.jit.save(module, path) writes. A state dict goes to --extractor_weights instead; an .onnx file "
                "to extractors/onnx.json."
            ) from error
        return module.eval()


class OnnxBackbone(FileBackbone):
    """An ONNX file as a backbone, run by ONNX Runtime without gradients.

    It has one input, float32 or float16 ``[n, 3, s, s]``. A fixed n is met by parts of that size, the last one filled
    up with copies of its last patch. Of several outputs the first of two dimensions is taken; ``[n, D, 1, 1]`` is
    flattened. On CUDA it runs where ONNX Runtime has CUDA, else on the CPU, and says so.

    Args:
        path: the file. Weights beside it count in its SHA-256 where they are in ``model.onnx.data`` or
            ``model.onnx_data``, as exporters name them.
        name: what feature files call it; ``None`` takes the file's name without its suffix.
        output: name of the output to take; ``None`` takes the first of two dimensions, or the first of all.

    Raises:
        UserError: if ONNX Runtime is not installed, the file is missing or no ONNX, its input is another, or it has no
            such output.
    """

    kind = "onnx"
    example = "model.onnx"

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None, output: str | None = None) -> None:
        super().__init__(path, name)
        self._session = self._open(torch.device("cpu"))
        self._device = torch.device("cpu")
        self._input, self._type, self._batch, self.input_size = self._checked_input()
        outputs = {candidate.name: candidate.shape for candidate in self._session.get_outputs()}
        rows = [name for name, shape in outputs.items() if len(shape) == 2]
        self._output: str = or_none(output) or next(iter([*rows, *outputs]))
        if self._output not in outputs:
            raise UserError(
                f"{self.path} has no output {output!r}; it has {', '.join(outputs)}."
                f"{did_you_mean(self._output, outputs)}"
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to ``[n, D]``, on the pixels' device."""
        if pixels.device != self._device:
            self._session, self._device = self._open(pixels.device), pixels.device
        given = pixels.detach().to(torch.from_numpy(np.empty(0, self._type)).dtype).contiguous()
        parts = given.split(self._batch or max(len(given), 1))
        return torch.cat([self._run(part) for part in parts]).to(pixels.device)  # [n, D]

    def _run(self, part: Tensor) -> Tensor:
        """Features of as many patches as the file takes at once, or fewer, on the CPU."""
        count = len(part)
        if self._batch and count < self._batch:
            part = torch.cat([part, part[-1:].expand(self._batch - count, -1, -1, -1)])
        if part.device.type == "cuda" and "CUDAExecutionProvider" in self._session.get_providers():
            features = self._run_on_cuda(part)
        else:
            features = self._session.run([self._output], {self._input: part.cpu().numpy()})[0]
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            features = features[:, :, 0, 0]
        if features.ndim != 2 or len(features) != len(part):
            raise UserError(
                f"{self.path}: output {self._output} gave {list(features.shape)}; expected [{len(part)}, D], one row "
                "of features for each patch. Tokens [n, T, D] and maps [n, D, h, w] must become one row in the export: "
                "take the class token, or the mean over T or h and w. Where another output is [n, D], name it with "
                f"--extractor#output ({', '.join(output.name for output in self._session.get_outputs())})."
            )
        return torch.from_numpy(np.ascontiguousarray(features[:count]))

    def _run_on_cuda(self, part: Tensor) -> np.ndarray:
        """Pixels stay on their CUDA device; the features, which are small, come back."""
        torch.cuda.current_stream(part.device).synchronize()  # ONNX Runtime has a stream of its own
        binding = self._session.io_binding()
        binding.bind_input(self._input, "cuda", part.device.index or 0, self._type, tuple(part.shape), part.data_ptr())
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)
        features: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return features

    def _sha256(self) -> str:
        """The file's own SHA-256; where weights are in files beside it, that of all files' SHA-256 as text."""
        name = self.path.name
        beside = sorted(
            file for file in self.path.parent.iterdir() if file.name.startswith((f"{name}.data", f"{name}_data"))
        )
        digests = [sha256(file) for file in (self.path, *beside)]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if beside else digests[0]

    def _open(self, device: torch.device) -> Any:
        """A session on a device."""
        try:
            import onnxruntime as runtime
        except ImportError as error:  # not installed, or a shared library that is missing or of another machine
            raise UserError(
                f"ONNX files need ONNX Runtime, which cannot be imported: {error}. pip install '.[onnx]' in the "
                "repository, or pip install onnxruntime (onnxruntime-gpu for CUDA)."
            ) from error
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
            raise UserError(
                f"{self.path} cannot be opened by ONNX Runtime {runtime.__version__}: {_first_line(error)} Where it "
                "keeps its weights in files beside it, copy them too, with the names of the export."
            ) from error

    def _checked_input(self) -> tuple[str, type, int | None, int | None]:
        """Name, type, fixed batch and fixed side of the input."""
        inputs = self._session.get_inputs()
        shape = [size if isinstance(size, int) else None for size in inputs[0].shape] if len(inputs) == 1 else []
        sides = {size for size in shape[2:] if size is not None}
        if len(shape) != 4 or shape[1] not in (3, None) or len(sides) > 1 or inputs[0].type not in _ONNX_TYPES:
            described = "; ".join(f"{given.name}: {given.type} {given.shape}" for given in inputs)
            raise UserError(
                f"{self.path} has the input {described}; expected one, float32 or float16 [n, 3, s, s] (patches, then "
                "red, green and blue, then rows and columns). Export the network so."
            )
        return inputs[0].name, _ONNX_TYPES[inputs[0].type], shape[0], next(iter(sides), None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
