"""The programs of docs/clients.md, one for each client library: how each is installed, built and started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .document import blocks

FOLDER = Path(__file__).parents[2] / "build" / "clients"
INSTALL_S = 1200
_PYTHON = FOLDER / "python" / "bin"
_KOTLIN = "2.4.21"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>example</groupId><artifactId>follow</artifactId><version>1</version>
<dependencies>{dependencies}</dependencies>
{build}</project>
"""
_KOTLIN_LIBRARY = (
    "<dependency><groupId>org.jetbrains.kotlin</groupId><artifactId>kotlin-stdlib</artifactId>"
    f"<version>{_KOTLIN}</version></dependency>"
)
_KOTLIN_BUILD = f"""\
<build><sourceDirectory>.</sourceDirectory><plugins><plugin>
<groupId>org.jetbrains.kotlin</groupId><artifactId>kotlin-maven-plugin</artifactId><version>{_KOTLIN}</version>
<executions><execution><goals><goal>compile</goal></goals></execution></executions>
</plugin></plugins></build>
"""


@dataclass(frozen=True)
class Program:
    """``name`` is its heading. ``packages``: the executables that it needs, and where Debian has them. ``before`` and
    ``after`` the commands of its section are those that a reader has run for his own project.
    """

    name: str
    language: str
    file: str
    run: tuple[str, ...]
    version: tuple[str, ...]
    packages: tuple[tuple[str, str], ...]
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    build: str = ""  # of a Maven project
    libraries: str = ""
    in_ci: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return FOLDER / self.name.lower().replace(": ", "-").replace(".", "")

    def missing(self) -> str | None:
        """A package of Debian that it needs and that is not installed."""
        return next((package for name, package in self.packages if shutil.which(name) is None), None)

    def prepare(self) -> None:
        """Installs and builds it, unless that was done for the same text."""
        (text,) = blocks(self.name, self.language)
        commands, dependencies = blocks(self.name, "sh"), blocks(self.name, "xml")
        stamp, state = self.folder / "prepared", "\0".join([text, *commands, *dependencies, repr(self)])
        if stamp.exists() and stamp.read_text() == state:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if dependencies:
            pom = _POM.format(dependencies="".join(dependencies) + self.libraries, build=self.build)
            (self.folder / "pom.xml").write_text(pom)
        for command in (*self.before, *[("sh", "-ec", command) for command in commands]):
            self._call(command)
        path = self.folder / self.file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        for command in self.after:
            self._call(command)
        stamp.write_text(state)

    def _call(self, command: tuple[str, ...]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self}: {' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def shown_version(self) -> str:
        done = subprocess.run(
            self.version, cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        return (done.stdout or done.stderr).strip().partition("\n")[0].partition(" (")[0]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{_PYTHON}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(_PYTHON.parent)}


def _python(name: str) -> Program:
    return Program(
        f"Python: {name}", "python", "follow.py", ("python", "follow.py"), ("python", "--version"), (), in_ci=True,
        before=((sys.executable, "-m", "venv", str(_PYTHON.parent)),),
    )  # fmt: skip


_JAVA = (("java", "default-jdk-headless"), ("javac", "default-jdk-headless"), ("mvn", "maven"))
_SMALL = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_COPY = ("mvn", "-q", "dependency:copy-dependencies")

PROGRAMS = (
    _python("httpx"),
    _python("requests"),
    _python("aiohttp"),
    Program(
        "Node.js", "js", "follow.mjs", ("node", "follow.mjs"), ("node", "--version"),
        (("node", "nodejs"), ("npm", "npm")), before=(("npm", "init", "-y"),), in_ci=True,
    ),
    Program(
        "Go", "go", "follow.go", ("./follow",), ("go", "version"), (("go", "golang"),),
        before=(("go", "mod", "init", "follow"),), after=(("go", "build", "-o", "follow", "."),),
    ),
    Program(
        "Java", "java", "Follow.java", ("java", *_SMALL, "-cp", ".:target/dependency/*", "Follow"),
        ("java", "--version"), _JAVA, after=(_COPY, ("javac", "-cp", "target/dependency/*", "Follow.java")),
    ),
    Program(
        "Kotlin", "kotlin", "Follow.kt", ("java", *_SMALL, "-cp", "target/classes:target/dependency/*", "FollowKt"),
        ("echo", f"Kotlin {_KOTLIN}"), _JAVA, after=(("mvn", "-q", "compile"), _COPY),
        build=_KOTLIN_BUILD, libraries=_KOTLIN_LIBRARY,
    ),
    Program(
        "Rust", "rust", "src/main.rs", ("target/release/follow",), ("rustc", "--version"), (("cargo", "cargo"),),
        before=(("cargo", "init", "--name", "follow", "."),), after=(("cargo", "build", "--release"),),
    ),
    Program("PHP", "php", "follow.php", ("php", "follow.php"), ("php", "--version"), (("php", "php-cli"),), in_ci=True),
    Program(
        "Perl", "perl", "follow.pl", ("perl", "follow.pl"), ("perl", "-e", "print qq(perl $^V\\n)"),
        (("perl", "perl"),), in_ci=True,
    ),
    Program("Ruby", "ruby", "follow.rb", ("ruby", "follow.rb"), ("ruby", "--version"), (("ruby", "ruby"),), in_ci=True),
    Program(
        "curl", "bash", "follow.sh", ("bash", "follow.sh"), ("curl", "--version"),
        (("curl", "curl"), ("bash", "bash")), in_ci=True,
    ),
)  # fmt: skip
