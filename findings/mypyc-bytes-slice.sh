#!/bin/sh
# mypy 2.4.1 (mypyc), CPython 3.11: a slice of bytes that ends before it begins raises SystemError once it is compiled.
#
# Python defines such a slice as empty, and interpreted it is: b"abcdef"[3:1] == b"". The same function compiled by mypyc
# raises "SystemError: Negative size passed to PyBytes_FromStringAndSize". Slices of str are empty in both. Code that cuts
# with the result of find() or with lengths that a peer sent meets it only in production, since tests usually run
# interpreted. Until it is mended: compare the bounds first, or slice a memoryview.
#
# Needs python3 with venv and headers, and a C compiler. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mypy==2.4.1 setuptools==80.9.0

cat >cut.py <<'PY'
def of_bytes(data: bytes, start: int, end: int) -> bytes:
    return data[start:end]


def of_str(text: str, start: int, end: int) -> str:
    return text[start:end]
PY
cat >show.py <<'PY'
import cut

kind = "compiled" if cut.__file__.endswith(".so") else "interpreted"
for start, end in ((1, 3), (3, 1), (-2, 1)):
    for name, value in (("bytes", b"abcdef"), ("str", "abcdef")):
        try:
            result = repr(getattr(cut, f"of_{name}")(value, start, end))
        except SystemError as error:
            result = f"SystemError: {error}"
        print(f"{kind} {name}[{start}:{end}] -> {result}")
PY

venv/bin/python show.py >seen
venv/bin/mypyc cut.py >build.log 2>&1 || { cat build.log; exit 1; }
timeout 60 venv/bin/python show.py >>seen
cat seen
cat >expected <<'TXT'
interpreted bytes[1:3] -> b'bc'
interpreted str[1:3] -> 'bc'
interpreted bytes[3:1] -> b''
interpreted str[3:1] -> ''
interpreted bytes[-2:1] -> b''
interpreted str[-2:1] -> ''
compiled bytes[1:3] -> b'bc'
compiled str[1:3] -> 'bc'
compiled bytes[3:1] -> SystemError: Negative size passed to PyBytes_FromStringAndSize
compiled str[3:1] -> ''
compiled bytes[-2:1] -> SystemError: Negative size passed to PyBytes_FromStringAndSize
compiled str[-2:1] -> ''
TXT
diff expected seen
