"""Linux, macOS and Windows: what one of them lacks is used only where it was asked for first."""

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog", "msvcrt", "winreg"}
# os.kill(pid, 0) asks whether a process lives, except on Windows, where it ends it.
NAMES = {
    "os": {
        "kill", "killpg", "fork", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getpgid", "setsid",
        "uname", "nice", "statvfs", "mkfifo", "chown", "getloadavg", "sysconf", "posix_fadvise", "O_NONBLOCK", "O_NOFOLLOW",
        "O_CLOEXEC", "O_DIRECT", "O_TMPFILE",
    },
    "signal": {"SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU", "SIGXFSZ", "alarm", "pause"},
}  # fmt: skip
FOLDERS = ("/proc", "/sys/", "/dev/", "/tmp")


def asked_for(test: ast.expr) -> bool:
    """Whether a condition asks which system this is, or what it has."""
    text = ast.unparse(test)
    return any(word in text for word in ("sys.platform", "os.name", "hasattr("))


def catches(handlers: list[ast.ExceptHandler], wanted: set[str]) -> bool:
    return any(
        h.type is not None and wanted & {n.id for n in ast.walk(h.type) if isinstance(n, ast.Name)} for h in handlers
    )


class Unguarded(ast.NodeVisitor):
    """What stands in a module that some system lacks, outside of a place that has asked or is ready for it."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.modules = False  # may be missing here
        self.names = False
        self.files = False

    def within(self, nodes: list[ast.AST], **ready: bool) -> None:
        before = self.modules, self.names, self.files
        for key, value in ready.items():
            setattr(self, key, value or getattr(self, key))
        for node in nodes:
            self.visit(node)
        self.modules, self.names, self.files = before

    def visit_Try(self, node: ast.Try) -> None:
        self.within(
            node.body,
            modules=catches(node.handlers, {"ImportError", "ModuleNotFoundError"}),
            names=catches(node.handlers, {"AttributeError"}),
            files=catches(node.handlers, {"OSError", "FileNotFoundError"}),
        )
        self.within([*node.handlers, *node.orelse, *node.finalbody])

    def visit_If(self, node: ast.If) -> None:
        self.branches(node.test, [*node.body, *node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.branches(node.test, [node.body, node.orelse])

    def branches(self, test: ast.expr, nodes: list[ast.AST]) -> None:
        ready = asked_for(test)
        self.visit(test)
        self.within(nodes, modules=ready, names=ready, files=ready)

    def visit_Import(self, node: ast.Import) -> None:
        self.imported({alias.name for alias in node.names})

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imported({node.module or ""})
        for alias in node.names:
            self.named(node.module or "", alias.name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            self.named(node.value.id, node.attr)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.startswith(FOLDERS) and not self.files:
            self.found.append(node.value)

    def imported(self, names: set[str]) -> None:
        if not self.modules:
            self.found += [f"import {name}" for name in names & MODULES]

    def named(self, module: str, name: str) -> None:
        if name in NAMES.get(module, ()) and not self.names:
            self.found.append(f"{module}.{name}")


def unguarded(source: str) -> list[str]:
    visitor = Unguarded()
    visitor.visit(ast.parse(source))
    return visitor.found


def test_nothing_is_used_that_a_system_lacks_unless_asked_for():
    found = {str(path.relative_to(SOURCES)): unguarded(path.read_text(encoding="utf-8")) for path in SOURCES.rglob("*.py")}
    assert len(found) > 100
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import resource", ["import resource"]),
        ("def f():\n    from fcntl import flock", ["import fcntl"]),
        ("try:\n    import resource\nexcept ImportError:\n    pass", []),
        ("try:\n    import resource\nexcept ValueError:\n    pass", ["import resource"]),
        ("try:\n    pass\nexcept ImportError:\n    import resource", ["import resource"]),
        ("os.kill(pid, 0)", ["os.kill"]),
        ("try:\n    os.kill(pid, 0)\nexcept ProcessLookupError:\n    pass", ["os.kill"]),
        ("n = len(os.sched_getaffinity(0))", ["os.sched_getaffinity"]),
        ("n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", []),
        ("if sys.platform == 'linux':\n    os.sched_getaffinity(0)", []),
        ("from signal import SIGKILL", ["signal.SIGKILL"]),
        ("Path('/proc/self/statm').read_text()", ["/proc/self/statm"]),
        ("try:\n    Path('/proc/self/statm').read_text()\nexcept OSError:\n    pass", []),
    ],
)
def test_the_rule_finds_what_it_is_for(source: str, expected: list[str]):
    assert unguarded(source) == expected
