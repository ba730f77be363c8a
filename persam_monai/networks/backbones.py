# SPDX-License-Identifier: Apache-2.0
"""Backbones from elsewhere: a TorchScript or ONNX file, used as it is, and the networks of the timm library."""

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
from persam_monai.networks.weights import FILE_HASH, load_extractor_weights

logger = logging.getLogger(__name__)

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
        if path is None or not Path(path).is_file():
            raise UserError(
                f"The extractor's {self.kind} file is {path}, which is no file. Name it with --extractor#path "
                f"{self.example}."
            )
        self.path = Path(path)
        self.extractor_name = f"{self.kind}:{name or self.path.stem}"
        self.weights_sha256 = self._sha256()
        digest = torch.tensor(list(bytes.fromhex(self.weights_sha256)), dtype=torch.uint8)
        self.register_buffer(FILE_HASH, digest)

    def _sha256(self) -> str:
        return sha256(self.path)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuses what was made with another file."""
        wanted = state_dict.get(prefix + FILE_HASH)
        if wanted is not None and bytes(wanted.tolist()).hex() != self.weights_sha256:
            raise UserError(
                f"The model was trained with another extractor file than {self.path}: its SHA-256 is "
                f"{self.weights_sha256}, expected {bytes(wanted.tolist()).hex()}. Name the file of the training with "
                "--extractor#path."
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
        self._device = torch.device("cpu")
        self._loaded = [self._load(self._device)]  # a list: its weights are no part of the state dict

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
        self._device = torch.device("cpu")
        self._session = self._open(self._device)
        self._input, self._type, self._batch, self.input_size = self._checked_input()
        outputs = {candidate.name: candidate.shape for candidate in self._session.get_outputs()}
        rows = [name for name, shape in outputs.items() if len(shape) == 2]
        self._output: str = output or [*rows, *outputs][0]
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


class TimmBackbone(nn.Module):
    """A network of timm without its classifier; pixel statistics and input size are those of timm's data config.

    Args:
        name: of the network, as ``timm.create_model`` takes it: ``"vit_small_patch16_224"``, ``"hf-hub:…"``.
        weights: path of a file with its state dict (``.safetensors`` or what ``torch.save`` wrote), or ``None``.
        pretrained: fetch the weights that timm names, where ``weights`` is ``None``.
        options: more arguments of ``timm.create_model``, such as ``init_values=1e-5`` or ``dynamic_img_size=True``.

    Raises:
        UserError: if timm cannot be imported, has no such network, cannot fetch its weights, or ``weights`` does not
            fit.
    """

    def __init__(
        self, name: str | None, weights: str | PathLike[str] | None = None, pretrained: bool = False, **options: Any
    ) -> None:
        super().__init__()
        if name is None:
            raise UserError(
                "No network of timm is named. Name it with --extractor#name, such as vit_small_patch16_224; "
                "timm.list_models() lists them."
            )
        timm, own = _timm(), weights is not None
        try:
            self.model: nn.Module = timm.create_model(
                name, pretrained=pretrained and not own, **{"num_classes": 0, **options}
            )
        except Exception as error:  # of timm, of the network, of the hub's client: each has its own
            raise UserError(
                f"timm {timm.__version__} cannot make {name!r}: {_first_line(error)}"
                f"{did_you_mean(name, timm.list_models())} Arguments are those of the block extractor. Where weights "
                "cannot be fetched (no network, or a licence to accept first), fetch them elsewhere and give the file "
                "with --extractor#weights."
            ) from error
        config = timm.data.resolve_model_data_config(self.model)
        self.extractor_name = f"timm:{name}"
        self.pixel_mean, self.pixel_std = tuple(config["mean"]), tuple(config["std"])
        self.input_size = int(config["input_size"][-1])
        self.feature_dim = int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)
        classifier = getattr(self.model, "pretrained_cfg", {}).get("classifier") or ()
        self.weights_prefix = "model."  # load_extractor_weights: what the names of a file lack
        self.weights_dropped = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        self.brings_weights = own or pretrained
        if own:
            load_extractor_weights(self, weights)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to ``[n, D]``."""
        features: Tensor = self.model(pixels)
        return features


def _timm() -> Any:
    try:
        import timm
        import timm.data
    except (ImportError, RuntimeError, AttributeError) as error:  # torchvision built for another torch raises each
        raise UserError(
            f"Networks of timm need timm and torchvision, which cannot be imported: {error}. Install them by "
            "pip install '.[timm]' in the repository, or pip install timm torchvision. torchvision must be built for "
            f"the PyTorch that is here ({torch.__version__}); for a CPU build that is pip install torchvision "
            "--index-url https://download.pytorch.org/whl/cpu. Or export the network as TorchScript or ONNX elsewhere."
        ) from error
    return timm


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
