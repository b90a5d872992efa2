"""Say in one paragraph what a machine lacks to build or test Gillnet, and how to install it.

``check_prerequisites.py build`` wants Python, cargo and a linker; ``check_prerequisites.py kafka`` wants Java and Maven
as well, which bring and run the real broker; ``check_prerequisites.py flink`` wants Java's compiler too, for the jobs of
its tests. It runs before anything is installed, so it needs the standard library only, and no newer Python than the one it
may have to complain about.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

PYTHON = (3, 11)
RUST = (1, 88)
JAVA = 17
SERVERS = {"kafka": "broker", "flink": "cluster"}

INSTALL = {
    "python": (
        "apt install python3.11 python3.11-venv (or pyenv install 3.11)",
        "brew install python@3.11",
    ),
    "venv": ("apt install python3.11-venv", "brew install python@3.11"),
    "cargo": (
        "rustup.rs, as root or not; the distribution's Rust is too old",
        "brew install rustup && rustup default stable",
    ),
    "cc": ("apt install build-essential", "xcode-select --install"),
    "java": ("apt install openjdk-17-jre-headless", "brew install openjdk@17"),
    "jdk": ("apt install openjdk-17-jdk-headless", "brew install openjdk@17"),
    "maven": ("apt install maven", "brew install maven"),
}


def main() -> int:
    """Check, and return the exit code."""
    want = sys.argv[1] if len(sys.argv) > 1 else "build"
    missing = _build() + (_jvm(want) if want in SERVERS else [])
    if not missing:
        return 0
    purpose = {
        "build": "To build Gillnet",
        "kafka": "To run Gillnet with a real Kafka broker",
        "flink": "To run Gillnet on a real Flink cluster",
    }[want]
    lacking = "; ".join(what for _, what in missing)
    print(f"{purpose}, this machine lacks: {lacking}.", file=sys.stderr)
    for system, place in (("Debian, Ubuntu", 0), ("macOS", 1)):
        print(f"  {system}: " + "; ".join(INSTALL[name][place] for name, _ in missing), file=sys.stderr)
    if want in SERVERS:
        print(f"Without {want.title()}: `make demo` and `make test-unit` need neither Java nor Maven.", file=sys.stderr)
    return 1


def _build() -> "list[tuple[str, str]]":
    missing = []
    if sys.version_info < PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:3])
        missing.append(
            ("python", f"Python 3.11 or newer ({sys.executable} is {found}; name another: make PYTHON=/path/to/python)")
        )
    elif importlib.util.find_spec("ensurepip") is None:
        missing.append(("venv", "Python's venv module"))
    rust = _version(["cargo", "--version"], r"cargo (\d+)\.(\d+)")
    if rust is None or rust < RUST:
        missing.append(("cargo", "cargo (Rust) {}.{} or newer{}".format(*RUST, _found(rust))))
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        missing.append(("cc", "a C compiler, which Rust links with"))
    return missing


def _jvm(want: str) -> "list[tuple[str, str]]":
    missing = []
    home = os.environ.get("JAVA_HOME")
    java = _version([os.path.join(home, "bin", "java") if home else "java", "-version"], r'version "(?:1\.)?(\d+)')
    if java is None or java < (JAVA,):
        missing.append(("java", f"Java {JAVA} or newer{_found(java)}"))
    elif want == "flink" and shutil.which(os.path.join(home, "bin", "javac") if home else "javac") is None:
        missing.append(("jdk", "a Java compiler (javac)"))
    if shutil.which("mvn") is None:
        missing.append(("maven", f"Maven (mvn), which fetches the {SERVERS[want]} once"))
    return missing


def _version(command: "list[str]", pattern: str) -> "tuple[int, ...] | None":
    """Return the numbers in what a program says of itself, or None when it is not there."""
    if shutil.which(command[0]) is None:
        return None
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    match = re.search(pattern, told.stdout)
    return tuple(int(number) for number in match.groups()) if match else None


def _found(version: "tuple[int, ...] | None") -> str:
    return " (found {})".format(".".join(str(number) for number in version)) if version else ""


if __name__ == "__main__":
    sys.exit(main())
