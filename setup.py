"""What pyproject.toml cannot say: ``sse/`` and ``health/`` are installed as parts of the one package ``headwater``, so
that no top-level name clashes with an app's own; and the README's relative links, which lead nowhere on a package
index, become plain text."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def readme() -> str:
    text = (HERE / "README.md").read_text()
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)  # pictures
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


setup(
    package_dir={"headwater.sse": "sse", "headwater.health": "health"},
    packages=[
        *find_packages(str(HERE), include=["headwater", "headwater.command", "headwater.command.*"]),
        *(f"headwater.{name}" for name in find_packages(str(HERE), include=["sse", "sse.*", "health", "health.*"])),
    ],
    long_description=readme(),
    long_description_content_type="text/markdown",
)
