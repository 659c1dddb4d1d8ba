"""tests/lint on small bad trees: each rule finds what it should, where it should, and nothing in a good tree."""
import shutil
import subprocess

import pytest

from gateway import ROOT

GOOD = {
    "gateway/base/good.c": '#include "gateway/base/good.h"\n\n#include <stdint.h>\n\nint good(int x)\n{\n'
                           '    return x; /* { */\n}\n',
    "include/gateway/base/good.h": "int good(int x);\n",
    "gateway/base/README.md": "# base\n",
}


@pytest.fixture
def lint(tmp_path):
    """lint(files…): the findings in the good tree with these files added."""
    def run(files, with_format=False):
        shutil.copy(ROOT / ".clang-format", tmp_path)
        for name, text in {**GOOD, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        command = [ROOT / "tests" / "lint", "--root", tmp_path] + ([] if with_format else ["--no-format"])
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        findings = result.stdout.splitlines()
        assert findings[-1] == f"lint: {len(findings) - 1} findings", result.stderr
        assert result.returncode == (1 if len(findings) > 1 else 0)
        return findings[:-1]
    return run


def test_good_tree(lint):
    assert lint({}, with_format=True) == []


INCLUDES = [
    ("gateway/base/a.c", "gateway/http/fields.h", False), ("gateway/http/a.c", "gateway/base/slice.h", True),
    ("gateway/http/a.c", "gateway/wire/h1_parser.h", False), ("gateway/wire/a.c", "gateway/http/fields.h", True),
    ("gateway/wire/a.c", "gateway/net/stream.h", False), ("gateway/net/a.c", "gateway/http/fields.h", False),
    ("gateway/mux/a.c", "gateway/net/stream.h", True), ("gateway/mux/a.c", "gateway/route/claims.h", False),
    ("gateway/route/a.c", "gateway/net/loop.h", False), ("gateway/proxy/a.c", "gateway/route/claims.h", True),
    ("gateway/proxy/a.c", "gateway/control/api.h", False), ("gateway/control/a.c", "gateway/proxy/local.h", True),
    ("gateway/control/a.c", "gateway/worker.h", False), ("gateway/worker.c", "gateway/control/api.h", True),
    ("gateway/main.c", "gateway/worker.h", True), ("gateway/ctl/a.c", "gateway/net/loop.h", False),
    ("gateway/ctl/a.c", "gateway/control/app_document.h", True), ("gateway/ctl/a.c", "gateway/control/api.h", False),
    ("include/gateway/base/a.h", "gateway/net/loop.h", False), ("gateway/net/a.c", "<ares.h>", False),
    ("gateway/net/resolver.c", "<ares.h>", True), ("gateway/net/a.c", "<openssl/ssl.h>", True),
    ("gateway/ctl/compose_app.c", "<openssl/evp.h>", True), ("gateway/ctl/a.c", "<openssl/evp.h>", False),
    ("gateway/proxy/a.c", "<openssl/ssl.h>", False), ("gateway/mux/h2_mux.c", "<nghttp2/nghttp2.h>", True),
    ("gateway/mux/h1_mux.c", "<nghttp2/nghttp2.h>", False), ("gateway/route/a.c", "<urcu/rculfhash.h>", True),
    ("gateway/proxy/a.c", "<urcu.h>", False), ("gateway/control/store.c", "<sqlite3.h>", True),
    ("gateway/control/storage.c", "<sqlite3.h>", False), ("gateway/control/a.c", "<jansson.h>", True),
    ("gateway/ctl/a.c", "<curl/curl.h>", True), ("gateway/proxy/a.c", "<jansson.h>", False),
    ("gateway/net/a.c", "<sys/socket.h>", True), ("gateway/net/a.c", "<zlib.h>", False),
    ("gateway/net/a.c", "nowhere.h", False),
]


@pytest.mark.parametrize("path, header, allowed", INCLUDES, ids=[f"{path}-{header}" for path, header, _ in INCLUDES])
def test_includes(lint, path, header, allowed):
    line = f"#include {header}\n" if header.startswith("<") else f'#include "{header}"\n'
    layer = path.split("/")[-2]
    files = {path: "\n" + line}
    if layer != "gateway":
        files[f"gateway/{layer}/README.md"] = "# layer\n"
    findings = [finding for finding in lint(files) if ": include: " in finding]
    assert len(findings) == (0 if allowed else 1)
    assert allowed or findings[0].startswith(f"{path}:2: include: ")


def test_types_header_of_openssl(lint):
    text = '#include "gateway/net/tls.h"\n#include <openssl/types.h>\n'
    assert lint({"gateway/mux/a.c": text, "gateway/mux/README.md": "# mux\n"}) == []


def function(name, lines):
    return f"int {name}(void)\n{{\n" + "    good(1);\n" * (lines - 4) + "    return 1;\n}\n"


def test_function_size(lint):
    text = "\n".join(function(name, lines) for name, lines in (("right", 60), ("long_one", 61), ("huge", 101)))
    findings = lint({"gateway/base/a.c": text})
    assert [finding.split(": ")[:3] for finding in findings] == [
        ["gateway/base/a.c:62", "size", "long_one() has 61 lines; at most 60"],
        ["gateway/base/a.c:124", "size", "huge() has 101 lines; 60 are right, over 100 never"]]


def test_exceptions_only_shrink(lint):
    text = "\n".join(function(name, lines) for name, lines in (("a", 70), ("b", 70), ("c", 70), ("d", 10)))
    listed = "# comment\n" + "".join(f"gateway/base/a.c:{name} {size}\n" for name, size in
                                     (("a", 70), ("b", 80), ("c", 65), ("d", 70), ("e", 70))) + "nonsense\n"
    findings = lint({"gateway/base/a.c": text, "tests/lint-exceptions.txt": listed})
    words = ["b has shrunk; write 70", "c has grown from 65 to 70", "d is within its limit", "e does not exist",
             "write FILE"]
    assert len(findings) == len(words)
    for line, (finding, word) in enumerate(zip(findings, words), 3):
        assert finding.startswith(f"tests/lint-exceptions.txt:{line}: exception: ") and word in finding


def test_exception_never_covers_a_huge_function(lint):
    findings = lint({"gateway/base/a.c": function("huge", 101),
                     "tests/lint-exceptions.txt": "gateway/base/a.c:huge 101\n"})
    assert len(findings) == 1 and "never" in findings[0]


def test_file_size(lint):
    findings = lint({"gateway/base/a.c": "\n" * 801, "include/gateway/base/a.h": "\n" * 251,
                     "gateway/base/b.c": "\n" * 800, "include/gateway/base/b.h": "\n" * 250})
    assert [finding.split(":")[0] for finding in findings] == ["gateway/base/a.c", "include/gateway/base/a.h"]


def test_format(lint):
    findings = lint({"gateway/base/a.c": "int a(void)\n{\n  return  1;\n}\n"}, with_format=True)
    assert findings and findings[0].startswith("gateway/base/a.c:") and "clang-format -i" in findings[0]


@pytest.mark.parametrize("text, rule", [
    ("struct context {\n    int a;\n};\n", "type-name"), ("enum handler;\n", "type-name"),
    ("struct session *a;\n", "type-name"), ("struct local_handler *a;\n", None), ("struct sessions *a;\n", None),
    ("/* TO" "DO: more */\n", "leftover"), ("/* FIX" "ME */\n", "leftover"), ("/* X" "XX */\n", "leftover"),
    ('char *a = "XXXX" "XX";\n', None), ("int\ta;\n", "tab"), ("int a; \n", "trailing-space"),
    ("int a;", "final-newline"),
    ('char *a = "/wo' 'rk/main";\n', "machine-path"), ("/* see /ro" "ot/.ssh */\n", "machine-path"),
    ('char *a = "/ho' 'me/me";\n', "machine-path"), ("/* net/work/x, ~/home/x, a/root/b */\n", None),
    ("-----BEGIN EC " "PRIVATE KEY-----\n" + "QUJD" * 16 + "\n", "private-key"),
    ('char *a = "-----BEGIN ' 'PRIVATE KEY-----";\n', None),
])
def test_text(lint, text, rule):
    findings = lint({"gateway/base/a.c": text})
    assert [finding.split(": ")[1] for finding in findings] == ([rule] if rule else [])


def test_readmes(lint):
    findings = lint({"gateway/http/a.c": "\n", "gateway/base/README.md": "line\n" * 41})
    assert [finding.split(": ")[0] for finding in findings] == ["gateway/base/README.md:41", "gateway/http/README.md:1"]


def test_built_and_ignored_files_are_not_looked_at(lint):
    assert lint({"build/dev/a.c": "\t\n", "certs/dev.key": "-----BEGIN " "PRIVATE KEY-----\n" + "QUJD" * 16}) == []
