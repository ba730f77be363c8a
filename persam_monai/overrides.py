# SPDX-License-Identifier: Apache-2.0
"""Overrides on the command line that no key of the configs answers to."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pydoc import locate
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from persam_monai.errors import UserError, did_you_mean

# Keys that MONAI adds; they need not stand in a config.
FOREIGN_KEYS = frozenset({"bundle_root", "workflow_type", "properties_path"})
# The config file of each head, in bundle/configs/heads.
HEAD_FILES = {
    "PersAMHead": "persam",
    "TransformerHead": "transformer",
    "LateFusionHead": "late_fusion",
    "GatedAttentionMILHead": "gated_attention",
    "ClinicalHead": "clinical",
}


def check_overrides(config_files: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Refuse overrides that do not stand in the configs."""
    config = ConfigParser.load_config_files(list(config_files)) if config_files else {}
    for override in overrides:
        name = override.lstrip("+").replace("::", "#")
        if name.split("#")[0] not in FOREIGN_KEYS and not name.startswith("_meta_"):
            _check_override(name, config)


def check_head(config: Mapping[str, Any]) -> None:
    """Refuse a block ``head`` with arguments that its class does not take: another head's, or those of an overlay."""
    block = config.get("head")
    if not isinstance(block, Mapping) or "_target_" not in block:
        return
    parameters = _parameters(dict(block))
    foreign = [name for name in block if not name.startswith("_") and name not in parameters]
    if not parameters or not foreign or _takes_any_name(block):
        return
    name = str(block["_target_"]).rpartition(".")[2]
    file = f"'bundle/configs/heads/{HEAD_FILES[name]}.json'" if name in HEAD_FILES else "a file with your block head"
    raise UserError(
        f"head: {name} takes no {', '.join(foreign)}. A head is not chosen by --head#_target_ but by its config file, "
        f"which goes behind the files that change another head's sizes, such as recipe.json: "
        f"--config_file \"['bundle/configs/train.json',{file}]\"."
    )


def _check_override(name: str, config: Any) -> None:
    """Follow one id through the nested config."""
    block = config
    parts = name.split("#")
    for depth, part in enumerate(parts):
        known = _keys(block)
        if part not in known and not _takes_any_name(block):
            path = "#".join(parts[:depth])
            where = f" in {path}" if path else ""
            suggestion = did_you_mean(part, known) or _deeper(part, config)
            raise UserError(
                f"--{name}: there is no key {part!r}{where} in the config, so it would have no effect.{suggestion}"
            )
        block = block[int(part)] if isinstance(block, list) else block.get(part)


def _keys(block: Any) -> list[str]:
    """What may be set in a block: its keys, and what its component takes as arguments."""
    if isinstance(block, list):
        return [str(i) for i in range(len(block))]
    if not isinstance(block, dict):
        return []
    return [str(key) for key in block] + (_arguments(block) if "_target_" in block else [])


def _arguments(block: dict[str, Any]) -> list[str]:
    """Arguments of the component that a block describes, and MONAI's own keys of such a block."""
    return ["_disabled_", "_requires_", "_desc_", "_mode_", *_parameters(block)]


def _takes_any_name(block: Any) -> bool:
    """Whether a block's component takes ``**kwargs``; it then complains itself about what it does not know."""
    described = isinstance(block, dict) and "_target_" in block
    return described and any(parameter.kind is parameter.VAR_KEYWORD for parameter in _parameters(block).values())


def _parameters(block: dict[str, Any]) -> Mapping[str, inspect.Parameter]:
    target = ConfigComponent(config=block).resolve_module_name()
    component = locate(target) if isinstance(target, str) else target
    return inspect.signature(component).parameters if callable(component) else {}


def _deeper(word: str, block: Any, path: str = "") -> str:
    """A suggestion of a nested id that ends in ``word``."""
    found = list(_ids_ending_in(word, block, path))
    return f' Did you mean "{found[0]}"?' if found else ""


def _ids_ending_in(word: str, block: Any, path: str) -> Iterator[str]:
    if isinstance(block, dict):
        for key, value in block.items():
            if key == word and path:
                yield f"{path}#{key}"
            yield from _ids_ending_in(word, value, f"{path}#{key}" if path else str(key))
