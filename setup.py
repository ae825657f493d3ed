"""Build hook: install the folders of the project as one package, so that names such as `models` and `util` stay free.

The build copies models/ to cut_translation/models/ and so on, and adapts the imports: `from models.networks import G`
becomes `from cut_translation.models.networks import G`. All other settings are in pyproject.toml.
"""

import re
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "cut_translation"
FOLDERS = ("data", "models", "options", "scripts", "util")
PROGRAMS = ("train", "test")  # modules of the project's root
IMPORT = re.compile(rf"^(\s*)from ({'|'.join(FOLDERS)})(?=[. ])", re.MULTILINE)
PATH_OF_PROJECT = re.compile(r"^sys\.path\.insert\(0, .*\n", re.MULTILINE)


class BuildPackage(build_py):
    """Copy modules with adapted imports."""

    def find_package_modules(self, package: str, package_dir: Any) -> list[Any]:
        """Return (package, module, file) of the modules in a folder."""
        modules = super().find_package_modules(package, package_dir)
        return modules + [(package, name, f"{name}.py") for name in PROGRAMS if package == PACKAGE]

    def build_module(self, module: Any, module_file: Any, package: Any) -> Any:
        """Copy a module. Return its path in the build folder, and whether it was copied."""
        target, is_copied = super().build_module(module, module_file, package)
        path = Path(target)
        text = PATH_OF_PROJECT.sub("", path.read_text(encoding="utf-8"))
        path.write_text(IMPORT.sub(rf"\1from {PACKAGE}.\2", text), encoding="utf-8")
        return target, is_copied


packages = [*find_packages(include=[f"{folder}*" for folder in FOLDERS]), "scripts"]
setup(
    packages=[PACKAGE, *(f"{PACKAGE}.{name}" for name in packages)],
    package_dir={f"{PACKAGE}.{folder}": folder for folder in FOLDERS},
    package_data={"": ["*.css", "*.html", "*.js"]},
    cmdclass={"build_py": BuildPackage},
)
