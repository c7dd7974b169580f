"""Writes one page a module, docs/api/<module>.rst, from the files of the package.

Nothing is imported and nothing is listed by hand: a module that moves takes its page
with it. A package's page has a table of what its `__init__` exports and a list of its
modules; a module's page is its docstring and its public members with their types.
"""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "jaxrl_reason"
# Where the modules lie in a checkout, under which names they are imported.
FOLDERS = {
    PACKAGE: PACKAGE,
    f"{PACKAGE}.losses": "losses",
    f"{PACKAGE}.sharding": "sharding",
}


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
      name: how it is imported.
      file: where it lies.
    """

    name: str
    file: Path

    @cached_property
    def tree(self) -> ast.Module:
        """Its code, parsed."""
        return ast.parse(self.file.read_text(encoding="utf-8"))

    @property
    def is_public(self) -> bool:
        """Whether it has a page: no part of its name begins with an underscore."""
        return "._" not in self.name

    @property
    def is_package(self) -> bool:
        """Whether it may hold other modules."""
        return self.file.name == "__init__.py"

    @cached_property
    def definitions(self) -> dict[str, str]:
        """Its public functions and classes, each with its docstring's first line."""
        kinds = ast.FunctionDef | ast.ClassDef
        found = [node for node in self.tree.body if isinstance(node, kinds)]
        return {
            node.name: first_line(node)
            for node in found
            if not node.name.startswith("_") and ast.get_docstring(node)
        }

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Name here -> module and name there, of what it imports from the package."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith(PACKAGE)
            for alias in node.names
        }


MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")


def escape_markup(text: str) -> str:
    """Keeps `*`, `|` and a final `_` of a formula from being read as markup."""
    parts = re.split("(`+[^`]*`+)", text)  # every second part is code
    parts[::2] = [MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def first_line(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def package_modules(root: Path) -> dict[str, Module]:
    """All modules, by name."""
    modules = {}
    for prefix, folder in FOLDERS.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = [prefix, *file.relative_to(root / folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            name = ".".join(parts)
            modules[name] = Module(name, file)
    return modules


def variable_names(root: Path) -> set[str]:
    """Names of arguments and fields: in backticks, these mean no function elsewhere."""
    nodes = [
        node
        for module in package_modules(root).values()
        for node in ast.walk(module.tree)
    ]
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    fields = [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    return arguments | {field.id for field in fields if isinstance(field, ast.Name)}


def definition(name: str, module: Module, modules: dict[str, Module]) -> str | None:
    """The full name under which what a package exports has its entry, if it has one."""
    seen = set()
    while module.name not in seen:
        seen.add(module.name)
        if name in module.definitions:
            return f"{module.name}.{name}"
        if name not in module.imports:
            break
        source, name = module.imports[name]
        if source not in modules:
            break
        module = modules[source]
    return None


def exports(package: Module, modules: dict[str, Module]) -> dict[str, tuple[str, str]]:
    """What a package's `__init__` imports for others.

    Args:
      package: whose.
      modules: all of them.

    Returns:
      Its name -> the full name of its entry and its first line. What a private module
      defines has its entry on the package's own page.
    """
    found = {}
    for name in sorted(package.imports, key=str.lower):
        full = definition(name, package, modules)
        if full is not None:
            home, _, own = full.rpartition(".")
            entry = full if modules[home].is_public else f"{package.name}.{name}"
            found[name] = (entry, modules[home].definitions[own])
    return found


def table(title: str, first: str, rows: list[tuple[str, str]]) -> list[str]:
    """A section with a table of two columns; nothing if there are no rows."""
    if not rows:
        return []
    lines = [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", ""]
    for left, right in [(first, "what it is"), *rows]:
        lines += [f"   * - {left}", f"     - {escape_markup(right)}"]
    return [*lines, ""]


def page(module: Module, modules: dict[str, Module]) -> str:
    """The text of a module's page."""
    lines = [module.name, "=" * len(module.name), "", f".. automodule:: {module.name}"]
    if module.definitions:
        members = ", ".join(module.definitions)
        lines += [
            f"   :members: {members}",
            "   :special-members: __call__",
            "   :exclude-members: replace, setup",  # what flax writes
        ]
    lines.append("")
    if module.is_package:
        found = exports(module, modules)
        links = [(f":py:obj:`{n} <{full}>`", line) for n, (full, line) in found.items()]
        lines += table("Exported here", "name", links)
        for name, (full, _) in found.items():
            if full == f"{module.name}.{name}" and name not in module.definitions:
                kind = "function" if name[0].islower() else "class"
                lines += [f".. auto{kind}:: {full}", ""]
    inside = [
        other
        for other in modules.values()
        if other.is_public and other.name.rpartition(".")[0] == module.name
    ]
    if inside:
        labels = {other.name: other.name.rpartition(".")[2] for other in inside}
        rows = [
            (f":doc:`{labels[other.name]} <{other.name}>`", first_line(other.tree))
            for other in inside
        ]
        lines += table("Modules", "module", rows)
        lines += [".. toctree::", "   :hidden:", ""]
        lines += [f"   {label} <{name}>" for name, label in labels.items()]
    return "\n".join(lines) + "\n"


def write_api_pages(root: Path, folder: Path) -> None:
    """Writes the pages of all modules below `root` into `folder`, and only those.

    A page that says the same already is left alone, so that it is not built again.
    """
    modules = package_modules(root)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        folder / f"{name}.rst": page(module, modules)
        for name, module in modules.items()
        if module.is_public
    }
    for stale in set(folder.iterdir()) - set(pages):
        stale.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
