"""The ``README.md`` beside a shared network: what it is, its arguments, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from basicsr_plugins import __version__

__all__ = ["model_card"]

_CARD = """---
{licence}
library_name: basicsr_plugins
tags:
- image-restoration
- pytorch
- safetensors
---

# {name}

`{name}` of basicsr_plugins {version}, {parameters:,} parameters.

Not yet written: what it was trained on, what it is for, how well it does.

## Loading

```python
from {module} import {name}

network = {name}.from_pretrained("PLACE")  # this folder, or user/repository
```

`basicsr_plugins.checkpoints.load(FOLDER)` does the same without naming the class.
{restore}
## Arguments

```json
{arguments}
```
"""
_RESTORE = """
```bash
basicsr-plugins restore photo.jpg --model FOLDER    # or hf://user/repository
```
"""


def model_card(
    network_opt: Mapping[str, Any], module: str, parameters: int, restores: bool, licence: Optional[str] = None
) -> str:
    """Return the text.

    Args:
        network_opt: The type and the arguments.
        module: The module that the class is imported from.
        parameters: Their number.
        restores: Whether the network maps images to images.
        licence: By the Hub's names ("apache-2.0"). None leaves a remark in its place: whoever shares has to say it.
    """
    line = f"license: {json.dumps(licence)}" if licence else "# license: say here which, for example apache-2.0"
    return _CARD.format(
        licence=line,
        name=network_opt["type"],
        version=__version__,
        parameters=parameters,
        module=module,
        restore=_RESTORE if restores else "",
        arguments=json.dumps({key: value for key, value in network_opt.items() if key != "type"}, indent=2),
    )
