"""In a checkout the version is that of the header; an installed package has a file with the number in place of this one."""
import re
from pathlib import Path

_HEADER = Path(__file__).resolve().parents[3] / "pipeline" / "api" / "byol.h"
__version__: str = re.search(r'#define BYOL_VERSION +"([0-9.]+)"', _HEADER.read_text()).group(1)  # type: ignore[union-attr]
